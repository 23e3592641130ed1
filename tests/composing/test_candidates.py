"""Configurations that are put together one after the other: each as if it were the first, each sublayer made once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from composer.composing import candidates as module
from composer.composing.candidates import Candidates
from composer.composing.model_pruner import ModelPruner
from composer.progress import SILENT
from composer.recipe import Recipe
from composer.scheme.configurations import Assignment, Spec
from composer.shrinking.in_memory import SmallModels
from composer.shrinking.units import units_of
from composer.workspace import Workspace


def test_what_was_measured_before_changes_nothing_and_is_not_made_again(
    distilbert_folder: Path, classification_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = {"model": str(distilbert_folder), "data": str(classification_data), "folder": tmp_path}
    space = Workspace(Recipe(**where, calibration_size=8, valid_size=8))
    model, valid = space.fresh_model(), space.examples("valid")
    sample = space.calibrated(model, space.base.layout, progress=SILENT)
    paths = [units.path for units in units_of(space.base.layout)]
    shapes = [None if units.kind == "attention" else "neuron" for units in units_of(space.base.layout)]

    def configuration(*rates: float) -> Assignment:
        return {p: Spec(rate=r, granularity=s) for p, r, s in zip(paths, rates, shapes, strict=True) if r}

    def measured(candidates: Candidates, one: Assignment) -> tuple[float, float]:
        return candidates.loss(one, valid)["loss"], candidates.divergence(one, 4)

    some = [configuration(0.5, 0.5, 0, 0.25), configuration(0.5, 0.25, 0.5, 0.25), configuration(0.25, 0.25, 0.5, 1)]
    alone = [measured(Candidates(model, space.task, sample, "obs", damping=0.01, seed=0), one) for one in some]
    small = Candidates(model, space.task, sample, "obs", damping=0.01, seed=0, small=SmallModels(model, space.base))
    assert [measured(small, one) for one in some] == [pytest.approx(masked, rel=1e-4) for masked in alone]
    made: list[str] = []
    sublayers = ModelPruner.sublayers

    def counted(self: ModelPruner, assigned: Assignment, *given: Any, **how: Any) -> Any:
        made.extend(assigned)
        return sublayers(self, assigned, *given, **how)

    monkeypatch.setattr(ModelPruner, "sublayers", counted)
    for held, count in ((3, 3 + 2 + 2), (1, 3 + 2 + 2 + 3)):  # with room for one model the first is made again
        monkeypatch.setattr(module, "HELD", held)
        made.clear()
        together = Candidates(model, space.task, sample, "obs", damping=0.01, seed=0)
        assert [measured(together, one) for one in [*some, some[0]]] == [*alone, alone[0]]
        assert len(made) == count
