"""`compose choose`: from wishes to configurations, by what every attention and feed-forward costs at every width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .. import __version__
from ..choosing.choice import CRITERION, Choice, Measured, Menu
from ..choosing.wishes import Wish, read_wishes
from ..errors import ConfigError, OutputError
from ..files.jsonfile import read_json, write_json
from ..files.records import record
from ..progress import SILENT, Progress
from ..scheme.configurations import Assignment, Configurations, write_configurations
from ..shrinking.units import Units, units_of
from ..workspace import Given, Workspace
from .configure import same_json
from .outcome import Outcome


def choose(
    recipe: Given,
    wishes: Mapping[str, Sequence[float]],
    *,
    output: Path | None = None,
    measure: bool = True,
    force: bool = False,
    progress: Progress = SILENT,
) -> Outcome:
    """Write ``conf.json`` with one configuration per wish, and ``choice.json`` with what it was chosen from.

    One pass over the calibration sample gives what every attention and feed-forward costs the loss at every width
    (:mod:`composer.calibration.rises`); an integer program chooses the widths (:mod:`composer.choosing.program`).
    A repeated call takes the table, and what was measured, from ``choice.json``.

    Args:
        wishes: resource -> parts that are to be kept, as :func:`composer.choosing.wishes.read_wishes` takes them.
        measure: also measure every choice, and the uniform one of equal size: pruned and repaired in closed form, on
            the validation split.

    Raises:
        ConfigError: wishes that contradict each other or nobody can meet.
        OutputError: ``conf.json`` has other content.
    """
    space = Workspace.of(recipe)
    asked = read_wishes(wishes)
    path = output or space.conf
    chooser = _Chooser(space, path.with_name("choice.json"), force=force, progress=progress)
    menu = chooser.menu()
    choices = [menu.choose(wish) for wish in asked]
    content = Configurations(
        model=space.stored_name(path.parent), configurations=[{**menu.specs(choice)} for choice in choices]
    )
    fresh = not same_json(path, content.model_dump(exclude_none=True), force)
    rows = [chooser.row(menu, wish, choice, measure=measure) for wish, choice in zip(asked, choices, strict=True)]
    told = {"model": space.base.name, "choices": rows, "dense": chooser.dense() if measure else None}
    chooser.save(told)
    if fresh:
        write_configurations(path, content)
    return Outcome(path, fresh, {**told, "choice": str(chooser.file)})


class _Chooser:
    """What was measured of a base model, and what is measured of choices; both are kept in ``choice.json``."""

    def __init__(self, space: Workspace, file: Path, *, force: bool, progress: Progress) -> None:
        self.space, self.file, self.progress = space, file, progress
        self.units = _units(space)
        self.stored = {} if force else self._read()
        self.losses: dict[str, Any] = dict(self.stored.get("losses", {}))
        self.measured: Measured | None = None
        self._models: Any = None

    def menu(self) -> Menu:
        """All widths with their rises; the model is run when they were not measured before."""
        if table := self.stored.get("measured"):
            self.measured = Measured(**table)
        else:
            self.measured = self._measure()
        return Menu(self.units, self.measured)

    def row(self, menu: Menu, wish: Wish, choice: Choice, *, measure: bool) -> dict[str, Any]:
        """What is told of a choice, with the uniform one beside it."""
        even = menu.uniform(wish)
        return {
            "keep": dict(wish.keep),
            **asdict(choice),
            "uniform": asdict(even),
            "measured": self.loss(menu.specs(choice)) if measure else None,
            "uniform_measured": self.loss(menu.specs(even)) if measure else None,
        }

    def dense(self) -> dict[str, float]:
        """Loss and metric of the base model."""
        return self.loss({})

    def loss(self, assigned: Assignment) -> dict[str, float]:
        """Loss and metric on the validation split, pruned and repaired in closed form."""
        key = str({path: str(said) for path, said in sorted(assigned.items())})
        if key not in self.losses:
            self._models = self._models or _Models(self.space, self.progress)
            self.losses[key] = self._models.loss(assigned)
        return dict(self.losses[key])

    def save(self, told: Mapping[str, Any]) -> None:
        """Write ``choice.json``."""
        assert self.measured is not None
        provenance = record(self.inputs, recipe=self.space.resolved())
        content = {**told, "measured": asdict(self.measured), "losses": self.losses, "provenance": provenance}
        write_json(self.file, content)

    @property
    def inputs(self) -> dict[str, Any]:
        """What shapes the table and the losses."""
        space = self.space
        return {
            "version": __version__,
            "base": space.base.fingerprint,
            "task": {"name": space.task.name, **space.task.scoring},
            "calibration": space.sample_identity(),
            "valid": space.examples("valid").digest,
            "damping": space.recipe.block.damping,
            "device": space.device,
        }

    def _read(self) -> dict[str, Any]:
        if not self.file.is_file():
            return {}
        content = read_json(self.file, OutputError)
        inputs = content.get("provenance", {}).get("inputs") if isinstance(content, dict) else None
        return dict(content) if inputs == self.inputs else {}

    def _measure(self) -> Measured:
        from ..calibration.rises import rises_by_width

        space = self.space
        model = space.fresh_model()
        calibration = space.calibrated(model, space.base.layout, progress=self.progress)
        rises, lengths = rises_by_width(
            model, space.task, calibration, self.units, damping=space.recipe.block.damping, progress=self.progress
        )
        return Measured(rises, lengths, sum(p.numel() for p in model.parameters()))


class _Models:
    """Configurations of a base model, pruned and repaired in closed form; the moments are gathered once."""

    def __init__(self, space: Workspace, progress: Progress) -> None:
        from ..composing.model_pruner import ModelPruner

        r = space.recipe
        self.space, self.model = space, space.fresh_model()
        self.parameters = dict(self.model.named_parameters())
        self.pruner = ModelPruner(
            space.base.layout,
            self.parameters,
            space.calibrated(self.model, space.base.layout, progress=progress),
            damping=r.block.damping,
            seed=r.seed,
            dead_columns=r.dead_columns,
        )

    def loss(self, assigned: Assignment) -> dict[str, float]:
        """Loss and metric on the validation split."""
        from ..tasks.loss import mean_loss
        from ..tensors.parameters import replaced

        weights = self.pruner.prune(assigned, CRITERION, repair=True)[0] if assigned else {}
        valid, task = self.space.examples("valid"), self.space.task
        with replaced(self.parameters, weights):
            score = task.score(self.model, valid)
            loss = score.loss if score.loss is not None else mean_loss(self.model, task, valid)
        return {"loss": loss, task.main_metric: score.metrics[task.main_metric]}


def _units(space: Workspace) -> list[Units]:
    units = list(units_of(space.base.layout))
    if not units:
        raise ConfigError(
            f"{space.base.name}: no attention and no feed-forward is known in a {space.base.layout.family} model, "
            "so there is nothing to choose; give rates with generate-config --targets"
        )
    return units
