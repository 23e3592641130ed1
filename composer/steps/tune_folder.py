"""`compose finetune MODEL`: any model folder learns on, dense, masked or shrunk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RecipeError
from ..files.records import is_current, recorded_result
from ..progress import SILENT, Progress
from ..workspace import Given, Workspace
from .outcome import Outcome
from .settings import model_settings
from .starting_model import StartingModel
from .tune_model import inputs_of, tune, warn_if_no_better_than_chance

if TYPE_CHECKING:
    from torch import Tensor, nn

NOISE = 0.1
"""What fills holes, as a share of the standard deviation of the matrix's weights that are not 0."""


@dataclass(frozen=True)
class StartingFolder(StartingModel):
    """A model folder as it is, its zeros held; or its holes filled with noise, and nothing held."""

    densify: bool = False

    @property
    def label(self) -> str:
        return "densified" if self.densify else "as it is"

    @property
    def command(self) -> str:
        return f"compose finetune MODEL{' --densify' * self.densify}"

    def inputs(self, space: Workspace) -> dict[str, Any]:
        return {"model": space.base.fingerprint, **({"densify": True} if self.densify else {})}

    def sparsity(self, space: Workspace) -> float:
        from ..tensors.masks import zeros_per_target

        counts = zeros_per_target(space.base.load(), space.base.layout).values()
        return 0.0 if self.densify else sum(zeros for zeros, _ in counts) / sum(weights for _, weights in counts)

    def model(self, space: Workspace, progress: Progress = SILENT) -> tuple[nn.Module, dict[str, Tensor], float]:
        from ..tensors.masks import zeros_as_masks

        model = space.fresh_model()
        if self.densify:
            progress.note(f"densify: {fill_holes(model, space):,} zeros of units that are left are filled")
            return model, {}, 0.0
        return model, zeros_as_masks(dict(model.named_parameters()), space.base.layout.targets), 0.0


def finetune_folder(
    recipe: Given,
    model: str | Path,
    *,
    output: Path | None = None,
    densify: bool = False,
    force: bool = False,
    progress: Progress = SILENT,
) -> Outcome:
    """Fine-tune a model folder: a dense one as it is, a masked one with its zeros held, a shrunk one in its shapes.

    Args:
        recipe: data and training; its ``model``, where it names one and no teacher, is the teacher of ``distill``.
        output: the new folder [the model's name with ``-finetuned`` behind it]; ``stats/<name>.csv`` beside.
        densify: single zeros inside heads and neurons that are left get small noise and learn on; so a shrunk model
            uses all that it computes anyway.

    Raises:
        OutputError: the output is the model itself.
        RecipeError: there is nothing to densify.
    """
    given = Workspace.of(recipe).recipe
    learning = given.finetune
    if (learning.share or learning.hidden) and not learning.teacher:
        learning = learning.model_copy(update={"teacher": given.model, "distill": learning.share})
    space = Workspace(given.model_copy(update={"model": str(model), "finetune": learning}))
    base = space.base
    folder = base.made_into(output, "-finetuned")
    space.check_output(folder)
    start = StartingFolder("dense", densify=densify)
    settings, csv = model_settings(space), space.stats_named(folder.name)
    inputs = inputs_of(space, start, settings)
    if is_current(folder, inputs, force=force) and csv.is_file():
        return Outcome(folder, False, recorded_result(folder) or {})
    warn_if_no_better_than_chance(space, progress)
    return tune(space, start, settings, inputs, csv, folder, progress)


def fill_holes(model: nn.Module, space: Workspace) -> int:
    """Noise for zeros in rows and columns that have other weights; returns how many there were.

    Raises:
        RecipeError: there is none.
    """
    import torch

    parameters, filled = dict(model.named_parameters()), 0
    draw = torch.Generator().manual_seed(space.recipe.seed)
    with torch.no_grad():
        for p in (p for target in space.base.layout.targets for p in target.projections):
            weight = p.of(parameters[p.weight])
            alive = weight != 0
            holes = ~alive & alive.any(1)[:, None] & alive.any(0)
            if not holes.any():  # nor need its weights have a deviation
                continue
            noise = torch.randn(weight.shape, generator=draw).to(weight.device)
            weight.copy_(torch.where(holes, NOISE * weight[alive].std() * noise, weight))
            filled += int(holes.sum())
    if not filled:
        raise RecipeError(f"--densify: {space.base.name} has no zeros in heads and neurons that are left")
    return filled
