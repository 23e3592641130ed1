"""What is measured of a base model and of choices of `compose choose`, each kept in a journal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..choosing.choice import CRITERION, Choice, specs_of
from ..choosing.measured import Measured
from ..choosing.widths import at_levels, looked_at
from ..choosing.wishes import Wish
from ..errors import ConfigError
from ..files.journal import Journal
from ..files.jsonfile import canonical, digest_of
from ..progress import Progress
from ..run_folder import RunFolder
from ..scheme.configurations import Assignment
from ..shrinking.units import Units, units_of
from ..workspace import Workspace
from .part_times import setting_of, timer

if TYPE_CHECKING:
    from torch import nn

    from ..calibration.sample import Calibration


FAR = 64
"""Calibration examples on which models are compared that differ from the base model in one part."""


class Measures:
    """Measurements of one base model. A call that was killed, or with other wishes, finds those that were made.

    Args:
        folder: where the journal lies.
    """

    def __init__(self, space: Workspace, folder: Path, *, force: bool, progress: Progress) -> None:
        self.space, self.progress = space, progress
        self.units = _units(space)
        self.setting = setting_of(space)
        self.pruned = RunFolder(folder).pruned
        self.journal = Journal(folder, "choose", self.inputs, force=force)
        self._models: Any = None

    def sizes(self) -> dict[str, int]:
        """Parameters and bytes of the base model, as :class:`Measured` has them; no pass is needed."""
        return dict(self.journal.row(("sizes",), self._sizes))

    def parts(self) -> Measured:
        """What every attention and feed-forward costs the loss at every width; if asked, with single weights."""
        levels = self.levels() if self.space.recipe.unstructured else {}
        return Measured(**self.journal.row(("measured",), self._rises), levels=levels)

    def levels(self) -> dict[str, list[float]]:
        """What each of their levels costs: how far the answers of a model are from the base model's in which a part has
        that level and all else is whole, on the first :data:`FAR` calibration examples.
        """
        every = {one.path: looked_at(one) for one in self.units}
        found, whole = {}, self.fitness({}, FAR)
        with self.progress.bar("costs of levels", sum(map(len, every.values()))) as bar:
            for one in self.units:
                known = {}
                for level in every[one.path]:
                    known[level] = max(0.0, self.fitness(specs_of(one, level), FAR) - whole)
                    bar.advance(one.path)
                found[one.path] = at_levels(one, known)
        return found

    def fisher(self) -> dict[str, list[float]]:
        """The same costs by the Fisher information of masks."""
        return dict(self.journal.row(("fisher",), lambda: {"rises": self._fisher()})["rises"])

    def layers(self, rule: str) -> dict[str, float]:
        """By layer, the figure that a published way to spread a budget wants to know."""
        return dict(self.journal.row(("layers", rule), lambda: {"figures": self._layers(rule)})["figures"])

    def fitness(self, assigned: Assignment, count: int) -> float:
        """How far a candidate's answers are from the base model's on the first ``count`` calibration examples."""
        key = ("fitness", count, _said(assigned))
        return float(self.journal.row(key, lambda: {"value": self.models.divergence(assigned, count)})["value"])

    def faster(self, choices: Sequence[Choice]) -> list[dict[str, Any]]:
        """How many times as fast as the base model each is; all are timed in turn."""
        kept = [dict(choice.kept) for choice in choices]
        key = ("faster", asdict(self.setting), kept)
        return list(self.journal.row(key, lambda: {"faster": self._timed(kept)})["faster"])

    def _timed(self, kept: Sequence[Mapping[str, int]]) -> list[dict[str, Any]]:
        from ..timing.statistics import Ratio

        whole = {units.path: units.count for units in self.units}
        spent = timer(self.space, self.units, self.setting).measure([whole, *kept], self.progress)
        return [asdict(Ratio.of(spent[0], own)) for own in spent[1:]]

    def loss(self, assigned: Assignment) -> dict[str, float]:
        """Loss and metric on the validation split, pruned and repaired in closed form."""
        key = ("loss", _said(assigned))
        return self.journal.row(key, lambda: self.models.loss(assigned, self.space.examples("valid")))

    def limit(self, wish: Wish) -> float | None:
        """The largest validation loss that a wish allows; None where it says nothing of the loss.

        Raises:
            ConfigError: a loss that nobody can have.
        """
        return wish.loss_limit(self.loss({})["loss"]) if wish.loss else None

    def learnt(self, configurations: Sequence[Assignment]) -> list[dict[str, float]]:
        """Loss and metric of each on the validation split, after all of them have learnt as one network."""
        from ..training.settings import identity_of
        from .candidates_together import learnt_together, rerank_settings

        said = [canonical(_said(one)) for one in configurations]
        # In an order of their own: which wish a configuration serves does not change what it learns.
        order = sorted(range(len(said)), key=said.__getitem__)
        settings, ordered = rerank_settings(self.space), [configurations[i] for i in order]
        how = [identity_of(each) for each in settings]
        key = ("learnt", [said[i] for i in order], how, self.space.recipe.block.valid_size)
        work = self.journal.path.with_name(f"learning-{digest_of(list(key))[:16]}")

        def learn() -> dict[str, Any]:
            return learnt_together(self.space, self.models, ordered, settings, work, self.progress)

        scores = dict(zip(order, self.journal.row(key, learn)["scores"], strict=True))
        return [scores[i] for i in range(len(said))]

    @property
    def models(self) -> Any:
        """Configurations of the base model; the moments are gathered once, when they are first needed.

        Scores of heads, neurons and weights lie where pruning keeps and finds them, so that they outlive a kill.
        """
        if self._models is None:
            from ..composing.candidates import Candidates
            from ..library.store import Library
            from ..pruning.variants import StoredScores
            from ..shrinking.in_memory import SmallModels

            space, (model, calibration) = self.space, self._sample
            r = space.recipe
            how: dict[str, Any] = {"damping": r.block.damping, "seed": r.seed, "dead_columns": r.dead_columns}
            sample = {"calibration": space.sample_identity()}
            how["small"] = SmallModels(model, space.base)
            how["scores"] = StoredScores(Library(self.pruned), space.base.layout, space.base.fingerprint, sample)
            self._models = Candidates(model, space.task, calibration, CRITERION, **how)
        return self._models

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

    def _fisher(self) -> dict[str, list[float]]:
        from ..calibration.mask_fisher import fisher_by_width

        model, calibration = self._sample
        return fisher_by_width(model, self.space.task, calibration, self.units, progress=self.progress)

    def _layers(self, rule: str) -> dict[str, float]:
        from ..calibration.layers import FIGURES

        model, calibration = self._sample
        return FIGURES[rule](model, self.space.task, calibration, self.units, progress=self.progress)

    @cached_property
    def _sample(self) -> tuple[nn.Module, Calibration]:
        """The base model, and it on the calibration sample."""
        model = self._model
        return model, self.space.calibrated(model, self.space.base.layout, progress=self.progress)

    @cached_property
    def _model(self) -> nn.Module:
        return self.space.fresh_model()

    def _sizes(self) -> dict[str, int]:
        base = self.space.base
        parameters = sum(p.numel() for p in self._model.parameters())
        return {"parameters": parameters, "stored": base.bytes, "written": round(base.bytes / base.parameters)}

    def _rises(self) -> dict[str, Any]:
        from ..calibration.rises import rises_by_width

        space, (model, calibration) = self.space, self._sample
        rises, lengths = rises_by_width(
            model, space.task, calibration, self.units, damping=space.recipe.block.damping, progress=self.progress
        )
        return {"rises": rises, "lengths": lengths, **self.sizes()}


def _said(assigned: Assignment) -> dict[str, str]:
    return {path: str(said) for path, said in sorted(assigned.items())}


def _units(space: Workspace) -> list[Units]:
    units = list(units_of(space.base.layout))
    if not units:
        raise ConfigError(
            f"{space.base.name}: no attention and no feed-forward is known in a {space.base.layout.family} model, "
            "so there is nothing to choose; give rates with generate-config --targets"
        )
    return units
