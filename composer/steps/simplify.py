"""`compose simplify`: norms become a scale and a shift, the activation a ReLU; closed forms, then distillation."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from ..errors import ModelError, OutputError, RecipeError, did_you_mean
from ..files.jsonfile import read_json
from ..files.records import is_current, record_path, recorded_result, write_record
from ..models.folder import BaseModel
from ..models.shapes import SIMPLE, simple_norms
from ..progress import SILENT, Progress
from ..workspace import Given, Workspace
from .evaluate import time_on_texts
from .outcome import Outcome
from .settings import model_settings, sweep_options, sweep_settings
from .tune_folder import StartingFolder
from .tune_model import inputs_of, tune

if TYPE_CHECKING:
    from torch import Tensor, nn

Norm = Literal["no-norm"]
Activation = Literal["relu"]

SHARE = 0.5
"""Weight of the model's own former answers in the loss, where nobody says one."""


@dataclass(frozen=True)
class SimplerStart(StartingFolder):
    """A model folder with simpler parts, each in closed form; its zeros are held.

    Attributes:
        said: what is known of it once it is made: how well each norm was met, loss and metrics as it is then.
    """

    norm: Norm | None = None
    activation: Activation | None = None
    said: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return f"simplified ({', '.join(filter(None, (self.norm, self.activation)))})"

    @property
    def command(self) -> str:
        parts = {"--norm": self.norm, "--activation": self.activation}
        return " ".join(["compose simplify MODEL", *(f"{flag} {word}" for flag, word in parts.items() if word)])

    def inputs(self, space: Workspace) -> dict[str, Any]:
        words = {"norm": self.norm, "activation": self.activation}
        return {"model": space.base.fingerprint, "simplify": {**words, **sweep_settings(space)}}

    def model(self, space: Workspace, progress: Progress = SILENT) -> tuple[nn.Module, dict[str, Tensor], float]:
        from ..evaluation.measure import measure
        from ..simplifying.simpler import simpler
        from ..tensors.masks import zeros_as_masks

        began = time.perf_counter()
        base = space.fresh_model()
        masks = zeros_as_masks(dict(base.named_parameters()), space.base.layout.targets)
        made = simpler(
            space.base,
            base,
            masks,
            space.task,
            space.examples("train"),
            no_norm=self.norm == "no-norm",
            activation=self.activation,
            **sweep_options(space),
            progress=progress,
        )
        seconds = time.perf_counter() - began
        figures = measure(made.model, None, space.task, space.examples("test"))
        self.said.update(norms={one.path: one.error for one in made.norms}, replaced=_figures(figures))
        return made.model, masks, seconds

    def finish(self, model: nn.Module, space: Workspace) -> None:
        """Fold what can be, and let the configuration say what the model is."""
        from ..simplifying.folding import fold_norms

        if self.norm is None:
            return
        features = space.examples("train").features[:8]
        folded = fold_norms(model, space.base.layout, space.task, space.task.collate(features))
        kept = {path: len(model.get_submodule(path).weight) for path in self.said["norms"] if path not in folded}  # type: ignore[arg-type]
        norms = {**simple_norms(space.base.config), **kept, **dict.fromkeys(folded, 0)}
        setattr(model.config, SIMPLE, {"norms": norms})
        self.said["folded"] = folded

    def told(self) -> Mapping[str, Any]:
        return self.said


def simplify(
    recipe: Given,
    model: str | Path,
    *,
    norm: Norm | None = None,
    activation: Activation | None = None,
    steps: int | None = None,
    output: Path | None = None,
    force: bool = False,
    progress: Progress = SILENT,
) -> Outcome:
    """Give a model simpler parts, and let it learn back from what it was.

    Closed forms come first: each norm becomes the scale and shift nearest to it, from the first to the last, and each
    sublayer's last projection is refitted behind the new activation. Then the model is fine-tuned, half of its loss
    being the answers of what it was before. Zeros of a masked model are held. What is read by linear layers alone is
    folded into them.

    Args:
        recipe: data and training, as of `compose finetune MODEL`.
        norm: ``no-norm`` makes every norm of the stream ``y = w∘x + b``; of an RMSNorm ``w∘x``.
        activation: ``relu``, in place of what the configuration names.
        steps: of training; 0 leaves the closed forms as they are; None is the recipe's.
        output: the new folder [the model's name with ``-simple`` behind it].

    Raises:
        RecipeError: nothing is to be simplified, or a word that is none.
        ModelError: the model has no such part, has it already, or is of no family whose table says its sublayers.
        OutputError: the output is the model itself, or was made from other inputs.
    """
    _check_words(norm, activation)
    given = Workspace.of(recipe).recipe
    learning = given.finetune
    if learning.distill is None and not learning.hidden:
        learning = learning.model_copy(update={"distill": SHARE})
    space = Workspace(given.model_copy(update={"model": str(model), "finetune": learning}))
    base = space.base
    folder = base.made_into(output, "-simple")
    space.check_output(folder)
    _check_model(base, activation)
    start = SimplerStart("dense", norm=norm, activation=activation)
    settings, csv = model_settings(space), space.stats_named(folder.name)
    if steps is not None:
        settings = replace(settings, steps=steps)
    inputs = inputs_of(space, start, settings)
    if not (is_current(folder, inputs, force=force) and csv.is_file()):
        tune(space, start, settings, inputs, csv, folder, progress)
    elif "speed" in (recorded_result(folder) or {}):
        return Outcome(folder, False, recorded_result(folder) or {})
    return Outcome(folder, True, _measured(space, base, folder, csv, progress))


def _measured(space: Workspace, base: BaseModel, folder: Path, csv: Path, progress: Progress) -> dict[str, Any]:
    """Measure both folders, and add it to the record of the new one."""
    from ..evaluation.measure import measure

    content = read_json(record_path(folder), OutputError)
    with progress.bar("measure", 2) as bar:
        for name, one in (("before", base), ("after", BaseModel(folder))):
            loaded = one.load().to(space.device)
            content["result"][name] = _figures(measure(loaded, one.layout, space.task, space.examples("test")))
            bar.advance(name)
    content["result"]["speed"] = time_on_texts(space, [base.folder, folder], progress=progress)
    write_record(folder, content)
    write_record(csv, content)
    return dict(content["result"])


def _figures(measured: Mapping[str, Any]) -> dict[str, Any]:
    return {name: measured[name] for name in ("split", "examples", "loss", "metrics")}


def _check_words(norm: str | None, activation: str | None) -> None:
    known = {"--norm": (norm, get_args(Norm)), "--activation": (activation, get_args(Activation))}
    wrong = [
        f"{flag}: got {word!r}; allowed: {', '.join(words)}{did_you_mean(word, words)}"
        for flag, (word, words) in known.items()
        if word is not None and word not in words
    ]
    if not wrong and norm is None and activation is None:
        wrong = ["nothing is to be simplified: give --norm no-norm, --activation relu, or both"]
    if wrong:
        raise RecipeError(wrong)


def _check_model(base: BaseModel, activation: str | None) -> None:
    """Refuse, before data are read, what cannot be simplified."""
    from ..models.storage import HuggingFace
    from ..simplifying.activation import with_activation

    if base.export or not isinstance(base.storage, HuggingFace) or not base.layout.listed:
        from ..models.families import known_types

        kind = "an export" if base.export else f"a {base.config.get('model_type')}"
        raise ModelError(
            f"{base.name}: is {kind}, and no table says what its layers consist of; allowed: {', '.join(known_types())}"
        )
    if activation:
        with_activation(base, activation)
