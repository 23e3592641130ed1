"""`compose finetune MODEL`: any model folder learns on, dense, masked or shrunk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RecipeError
from ..files.records import is_current, recorded_result
from ..models.folder import BaseModel
from ..progress import SILENT, Progress
from ..workspace import Given, Workspace
from .outcome import Outcome
from .refit import refit, refit_settings
from .settings import model_settings
from .starting_model import StartingModel
from .tune_model import inputs_of, tune, warn_if_no_better_than_chance

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class StartingFolder(StartingModel):
    """A model folder as it is, its zeros held; or its holes filled (towards ``base``, if any), and nothing held."""

    densify: bool = False
    base: BaseModel | None = None

    @property
    def label(self) -> str:
        return "densified" if self.densify else "as it is"

    @property
    def command(self) -> str:
        return f"compose finetune MODEL{' --densify' * self.densify}"

    def inputs(self, space: Workspace) -> dict[str, Any]:
        told: dict[str, Any] = {"model": space.base.fingerprint}
        if self.densify:
            told["densify"] = {"base": self.base.fingerprint, **refit_settings(space)} if self.base else True
        return told

    def sparsity(self, space: Workspace) -> float:
        from ..tensors.masks import zeros_per_target

        counts = zeros_per_target(space.base.load(), space.base.layout).values()
        return 0.0 if self.densify else sum(zeros for zeros, _ in counts) / sum(weights for _, weights in counts)

    def model(self, space: Workspace, progress: Progress = SILENT) -> tuple[nn.Module, dict[str, Tensor], float]:
        from ..tensors.masks import zeros_as_masks

        model = space.fresh_model()
        if self.densify:
            filled = fill_holes(model, space, self.base, progress)
            progress.note(f"densify: {filled:,} zeros of units that are left are filled")
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
        recipe: data and training; its ``model``, where it names one and no teacher, is the teacher of ``distill``, and
            what is filled by ``densify`` is refitted towards it, where it has the same sublayers.
        output: the new folder [the model's name with ``-finetuned`` behind it]; ``stats/<name>.csv`` beside.
        densify: single zeros inside heads and neurons that are left are filled and learn on; so a shrunk model uses
            all that it computes anyway.

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
    start = StartingFolder("dense", densify=densify, base=_towards(given.model, base, progress) if densify else None)
    settings, csv = model_settings(space), space.stats_named(folder.name)
    inputs = inputs_of(space, start, settings)
    if is_current(folder, inputs, force=force) and csv.is_file():
        return Outcome(folder, False, recorded_result(folder) or {})
    warn_if_no_better_than_chance(space, progress)
    return tune(space, start, settings, inputs, csv, folder, progress)


def _towards(model: str | None, folder: BaseModel, progress: Progress) -> BaseModel | None:
    """The base model, where the recipe names another one than the folder that learns, and the two fit."""
    from ..composing.holes import can_be_refitted

    if model is None or (base := BaseModel(model)).fingerprint == folder.fingerprint:
        return None
    if can_be_refitted(folder.layout, base.layout):
        return base
    progress.note(f"densify: {model} has other sublayers than {folder.name}, so holes are filled with noise alone")
    return None


def fill_holes(model: nn.Module, space: Workspace, base: BaseModel | None, progress: Progress = SILENT) -> int:
    """Fill zeros in rows and columns that have other weights; returns how many there were.

    Args:
        base: a dense model with the same sublayers, towards which last projections are then refitted, their holes free,
            on the calibration sample; kept where the validation loss falls. None: noise alone.

    Raises:
        RecipeError: there is none.
    """
    from ..composing.holes import fill_with_noise, masks_of_units
    from ..tensors.parameters import parameters_of

    parameters, layout = parameters_of(model), space.base.layout
    filled = fill_with_noise(parameters, layout.targets, space.recipe.seed)
    if not filled:
        raise RecipeError(f"--densify: {space.base.name} has no zeros in heads and neurons that are left")
    if base:
        masks = masks_of_units(parameters, layout.targets)
        done = refit(model, base.load().to(space.device), masks, space, progress)
        what = "last projections are refitted towards it" if done.taken else "it is not followed"
        progress.note(f"densify: {base.name}: {what}, which brings {done}")
    return filled
