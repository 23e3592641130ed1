"""Sensitivity: the loss when a single target is pruned and all else is dense; then each head by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from ...files.journal import Journal
from ...files.jsonfile import write_json
from ...files.stats import write_csv
from ...pruning.criteria import CRITERIA
from ...scheme.layout import Target
from ...scheme.shapes import default_shape
from ..contents import HeadLoss, SensitivityFile, TargetLoss
from .assessed_model import AssessedModel
from .stored_weights import layers

if TYPE_CHECKING:
    from torch import Tensor

    from ...composing.repair import Memory
    from ...pruning.cut import Cut
    from ...pruning.cutter import Grams, Selection

COLUMNS = ("target", "kind", "layer", "rate", "loss", "loss_repaired", "removed", "total")
HEAD_COLUMNS = ("target", "layer", "head", "loss")
METHOD = (
    "Measured: each target is pruned by itself, the rest of the model stays dense, and the loss is taken on the same "
    "validation examples. Repaired: what is left of the pruned matrix (of heads: the projection that reads them) is "
    "refitted by masked least squares on one calibration pass of the base model. Single heads are not repaired."
)


def assess_sensitivity(subject: AssessedModel) -> SensitivityFile:
    """Write ``sensitivity.json`` with its CSV files; returns what the first one holds.

    Rates that remove equally many units of a target are one measurement.
    """
    criterion, repair = subject.settings.criteria[0], subject.settings.repair
    journal = subject.journal("sensitivity", criterion=criterion, repair=repair)
    rows, heads = _Sensitivity(subject, journal, criterion).measured()
    content: SensitivityFile = {
        **subject.header("sensitivity", criterion=criterion, repair=repair, rates=list(subject.settings.rates)),
        "dense": {"loss": journal["dense",]["loss"]},
        "rates": list(subject.settings.rates),
        "criterion": criterion,
        "granularity": {"attention": "head", "linear": "unstructured"},
        "examples": len(subject.examples),
        "unit": subject.unit,
        "repair": repair,
        "rows": rows,
        "heads": heads,
        "method": METHOD,
    }
    write_json(subject.folder / "sensitivity.json", content)
    write_csv(subject.folder / "sensitivity.csv", rows, COLUMNS)
    if heads:
        write_csv(subject.folder / "heads.csv", heads, HEAD_COLUMNS)
    return content


class _Sensitivity:
    """All measurements of one criterion."""

    def __init__(self, subject: AssessedModel, journal: Journal, criterion: str) -> None:
        self.subject, self.journal, self.criterion = subject, journal, criterion
        self.layers = layers(subject.layout)

    def measured(self) -> tuple[list[TargetLoss], list[HeadLoss]]:
        """Rows of targets and of heads, in execution order; what the journal lacks is measured."""
        self.journal.row(("dense",), lambda: {"loss": self.subject.measure.dense})
        missing = [path for path in self.subject.paths if self._lacks(path)]
        if missing:
            self._measure(missing)
        targets = [self.subject.layout.target(path) for path in self.subject.paths]
        rows = [self._row(target, rate) for target in targets for rate in self.subject.settings.rates]
        heads = [self._head_row(t, i) for t in targets if self._by_heads(t) for i in range(t.heads)]
        return rows, heads

    def _keys(self, path: str) -> list[tuple[Any, ...]]:
        """Of everything that is measured for a target."""
        target = self.subject.layout.target(path)
        removals = dict.fromkeys(target.removed_units(rate) for rate in self.subject.settings.rates)
        keys: list[tuple[Any, ...]] = [("rate", path, removed) for removed in removals if removed]
        return keys + ([("head", path, i) for i in range(target.heads)] if self._by_heads(target) else [])

    def _lacks(self, path: str) -> bool:
        return not all(self.journal.holds(*key) for key in self._keys(path))

    def _by_heads(self, target: Target) -> bool:
        return self.subject.settings.heads and target.kind == "attention"

    def _measure(self, missing: list[str]) -> None:
        from ...composing.repair import Memory
        from ...pruning.cutter import Selection

        selections = []
        for path in missing:
            target = self.subject.layout.target(path)
            criterion = CRITERIA.get(self.subject.criterion_of(target, self.criterion))()
            selections.append(Selection(path, criterion, default_shape(target)))
        todo = [key for path in missing for key in self._keys(path) if not self.journal.holds(*key)]
        pruner, repair = self.subject.pruner, self.subject.settings.repair
        with self.subject.progress.bar("sensitivity", len(todo)) as bar:
            for selection, cut, grams in pruner.cuts(selections, repair=repair):
                shared = Memory()
                for key in self._keys(selection.path):
                    if not self.journal.holds(*key):
                        self.journal.row(key, partial(self._losses, key, selection, cut, grams, shared))
                        bar.advance(selection.path)

    def _losses(
        self, key: tuple[Any, ...], selection: Selection, cut: Cut, grams: Grams, shared: Memory
    ) -> dict[str, Any]:
        """The loss of one measurement, without and, at a rate, with repair."""
        from ...composing.repair import removed_weights

        (what, path, number), target, repaired = key, cut.target, None
        if what == "rate":
            weights, removed = cut.at(number / target.units)
        else:
            weights, removed = without_head(target, number, self.subject.parameters)
        loss = self.subject.loss_with(weights)
        if self.subject.settings.repair and what == "rate":
            refitted = self.subject.pruner.repair.refitted([selection], weights, removed, grams, shared)
            repaired = self.subject.loss_with(refitted)
        count = removed_weights(self.subject.layout, [path], removed)[path]
        return {"loss": loss, "loss_repaired": repaired, "removed": count}

    def _row(self, target: Target, rate: float) -> TargetLoss:
        removed = target.removed_units(rate)
        dense = self.journal["dense",]["loss"]
        untouched = {"loss": dense, "loss_repaired": dense if self.subject.settings.repair else None, "removed": 0}
        losses = self.journal["rate", target.path, removed] if removed else untouched
        return {
            "target": target.path,
            "kind": target.kind,
            "layer": self.layers[target.path][0],
            "rate": rate,
            "loss": losses["loss"],
            "loss_repaired": losses["loss_repaired"],
            "removed": losses["removed"],
            "total": target.parameters,
        }

    def _head_row(self, target: Target, i: int) -> HeadLoss:
        losses = self.journal["head", target.path, i]
        return {"target": target.path, "layer": self.layers[target.path][0], "head": i, "loss": losses["loss"]}


def without_head(
    target: Target, head: int, parameters: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights and masks of an attention target that has lost one head (or key-value group)."""
    import torch

    from ...tensors import masks

    keep = torch.ones(target.heads, dtype=torch.bool)
    keep[head] = False
    removed = masks.expand(target, keep)
    weights = {name: parameters[name].detach().clone() for name in removed}
    masks.apply(weights, removed)
    return weights, removed


def rises(content: SensitivityFile) -> Iterator[tuple[str, int, float]]:
    """Target, weights removed and rise of the loss, of each row of a ``sensitivity.json``; repaired where it says."""
    dense = content["dense"]["loss"]
    for row in content["rows"]:
        loss = row["loss_repaired"] if row["loss_repaired"] is not None else row["loss"]
        yield row["target"], row["removed"], loss - dense
