"""What the parts of an assessment share: the base model, its calibration sample, validation examples, a journal."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ... import __version__
from ...errors import ConfigError
from ...files.journal import Journal
from ...files.records import record
from ...models.folder import DEMO
from ...progress import SILENT, Progress
from ...pruning.criteria import CRITERIA
from ...recipe import Recipe
from ...scheme.globs import match_targets
from ...scheme.layout import Layout, Target
from ...scheme.shapes import default_shape
from ...workspace import Workspace
from ..command_line import command
from ..contents import Header
from ..settings import CALIBRATION, EXAMPLES, Settings

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ...calibration.sample import Calibration
    from ...composing.model_pruner import ModelPruner
    from ...tasks.task import Examples, Task
    from .changed_loss import ChangedLoss

COUNTED = {
    "classification": "example",
    "multi_label_classification": "example and label",
    "question_answering": "window",
}
"""Task -> what its loss is a mean over, where that is not tokens."""
HEADS = "l1"
"""The criterion of heads, where the one asked for has no scores for them."""


class AssessedModel:
    """Loaded when first needed: a repeated command whose rows are all in the journal loads no model."""

    def __init__(
        self, recipe: Recipe, settings: Settings, folder: Path, *, force: bool = False, progress: Progress = SILENT
    ) -> None:
        self.space = Workspace(sized(recipe))
        self.command = command(recipe, settings, folder, self.space.base.name)
        self.settings, self.folder, self.force, self.progress = settings, folder, force, progress

    @cached_property
    def layout(self) -> Layout:
        """The base model's; of one that no table serves, targets have to be named."""
        whole, targets = self.space.base.layout, self.space.recipe.targets
        if not whole.listed and not targets:
            raise ConfigError(
                f"--targets: nothing given; no table for {whole.family} models: name what is meant by globs"
            )
        return whole

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """The targets that are looked at, in execution order."""
        targets = self.space.recipe.targets
        return tuple(match_targets(targets, self.layout, where="--targets")) if targets else self.layout.paths

    @cached_property
    def model(self) -> nn.Module:
        """The base model on its device; whoever changes it puts it back."""
        return self.space.fresh_model()

    @cached_property
    def parameters(self) -> Mapping[str, Tensor]:
        """The model's, by name."""
        return dict(self.model.named_parameters())

    @cached_property
    def examples(self) -> Examples:
        """The validation examples of all losses."""
        return self.space.examples("valid")

    @cached_property
    def scored(self) -> Examples:
        """The first of them, which the metric looks at."""
        return self.examples.first(self.settings.scored)

    @cached_property
    def measure(self) -> ChangedLoss:
        """The loss on the validation examples."""
        from .changed_loss import MEMORY, ChangedLoss

        memory = self.space.recipe.memory or MEMORY
        return ChangedLoss(self.model, self.space.task, self.examples, self.layout, memory=memory)

    def loss_with(self, weights: Mapping[str, Tensor]) -> float:
        """The loss of the model with other values for these parameters."""
        from ...tensors.parameters import replaced

        measure = self.measure  # recorded from the base model: before anything is replaced
        with replaced(self.parameters, weights) as changed:
            return measure.loss(changed)

    @cached_property
    def pruner(self) -> ModelPruner:
        """Prunes on the recipe's calibration sample."""
        return self.pruner_on(self.space.examples("train"))

    @property
    def has_data(self) -> bool:
        """Whether data was named; the embedded model knows its own."""
        return bool(self.space.recipe.data) or self.space.base.name == DEMO

    def calibration_on(self, sample: Examples, task: Task | None = None) -> Calibration:
        """The calibration sample drawn from ``sample``."""
        from ...calibration.sample import Calibration

        r = self.space.recipe
        return Calibration(
            self.model,
            task or self.space.task,
            sample,
            self.layout.only(self._read),
            size=r.calibration_size,
            seed=r.seed,
            like=self.space.lengths_like if self.has_data and sample is self.space.examples("train") else None,
            memory=r.memory,
            progress=self.progress,
        )

    @property
    def _read(self) -> set[str]:
        """The targets whose inputs are looked at: where neurons may go, all of their feed-forward."""
        more = self.layout.in_feed_forwards(self.paths) if "neuron" in self.settings.granularities else ()
        return {*self.paths, *more}

    def pruner_on(self, sample: Examples | None, task: Task | None = None) -> ModelPruner:
        """Prunes on the calibration sample drawn from ``sample``, which is the recipe's task's unless one is named.

        Without a sample it serves criteria that look at no data.
        """
        from ...composing.model_pruner import ModelPruner

        r = self.space.recipe
        return ModelPruner(
            self.layout,
            self.parameters,
            self.calibration_on(sample, task) if sample is not None else None,
            damping=r.block.damping,
            seed=r.seed,
            dead_columns=r.dead_columns,
        )

    def criterion_of(self, target: Target, criterion: str) -> str:
        """``criterion``, or for heads that it cannot score :data:`HEADS`."""
        fits = default_shape(target).kind in CRITERIA.get(criterion).shapes
        return criterion if fits or target.kind != "attention" else HEADS

    def journal(self, part: str, **inputs: Any) -> Journal:
        """The rows of a part that were measured under the same circumstances."""
        return Journal(self.folder, part, {**self.inputs, **inputs}, force=self.force)

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """What shapes every row: model, data, sample, numerics; and the version, which may count otherwise."""
        r = self.space.recipe
        return {
            "version": __version__,
            "base": self.space.base.fingerprint,
            "task": {"name": self.space.task.name, **self.space.task.scoring},
            "targets": list(self.paths),
            "valid": self.examples.digest,
            "examples": len(self.examples),
            "calibration": self.space.sample_identity(),
            "damping": r.block.damping,
            "dead_columns": r.dead_columns,
            "device": self.space.device,
        }

    def header(self, what: str, **inputs: Any) -> Header:
        """How every file begins."""
        provenance = record({**self.inputs, **inputs}, **self.repeating, recipe=self.space.resolved())
        base = self.space.base
        return {"what": what, "model": base.name, "no_targets": base.no_targets, "provenance": provenance}

    @property
    def repeating(self) -> dict[str, Any]:
        """What a record says beside the inputs."""
        recipe = self.space.recipe
        return {"command": self.command, "data": recipe.data, "seed": recipe.seed, "device": self.space.device}

    @cached_property
    def unit(self) -> str:
        """Of the loss, in words."""
        return f"nats per {COUNTED.get(self.space.task.name, 'token')}"


def sized(recipe: Recipe) -> Recipe:
    """The recipe with the sizes of an assessment, where it says nothing; no more training examples than are drawn."""
    said, sizes = recipe.model_fields_set, {"calibration_size": CALIBRATION, "valid_size": EXAMPLES}
    unsaid = {name: size for name, size in sizes.items() if name not in said}
    if recipe.train_size is None:
        unsaid["train_size"] = unsaid.get("calibration_size", recipe.calibration_size)
    return recipe.model_copy(update=unsaid)
