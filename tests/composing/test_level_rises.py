"""What levels cost the loss, against the quadratic form written out for weights that were pruned here."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from composer.calibration.loss_moments import gather_loss_moments
from composer.choosing.widths import RATES, Level, levels
from composer.composing.candidates import Candidates
from composer.composing.level_rises import LevelRises
from composer.progress import SILENT
from composer.recipe import Recipe
from composer.scheme.configurations import Spec
from composer.shrinking.units import units_of
from composer.workspace import Workspace


def test_a_level_costs_what_pruning_and_repair_change_seen_by_the_loss(model_folder: Any, running_text: Path) -> None:
    """Of GPT-2, whose query, key and value are one matrix of one module."""
    given = {"model": str(model_folder("gpt2")), "data": str(running_text), "calibration_size": 4}
    space = Workspace(Recipe(**given, max_source_length=16))
    model, task = space.fresh_model(), space.task
    sample = space.calibrated(model, space.base.layout, progress=SILENT)
    candidates = Candidates(model, task, sample, "obs", damping=0.01, seed=0)
    attention, feed_forward = list(units_of(space.base.layout))[:2]
    rises = LevelRises(candidates, [attention, feed_forward])
    found = {part.path: rises.of(part) for part in rises.parts}
    for part in (attention, feed_forward):
        every = levels(part, weights=True)
        assert (found[part.path][0], every[0], every[-1]) == (0.0, Level(part.count), Level(0))
        for kind in (False, True):
            own = [rise for level, rise in zip(every, found[part.path], strict=True) if bool(level.rate) == kind]
            assert all(low <= high for low, high in pairwise(own))

    packed, out = attention.first[0], attention.last
    told = gather_loss_moments(model, task, list(sample.batches()), [packed, out])
    base, rate = dict(model.named_parameters()), RATES[-1]
    single = Spec(rate=rate, granularity="unstructured", criterion="obs")
    weights, masks = candidates.pruner.prune({attention.path: single, out.path: single}, "l1", repair=True)
    assert float(1 - masks[packed.weight].float().mean()) == pytest.approx(rate, abs=0.01)
    total = 0.0
    for path, parts in ((packed.path, 3), (out.path, 1)):
        both = [weights[f"{path}.{name}"] - base[f"{path}.{name}"].detach() for name in ("weight", "bias")]
        change = torch.cat([both[0], both[1][None]]).double()  # (in + 1, out)
        for own in torch.arange(change.shape[1]).chunk(parts):
            metric = told[path].metric[own][:, own].double()
            form = torch.einsum("oi,ij,op,jp->", change[:, own].T, told[path].gram.matrix, metric, change[:, own])
            total += float(form) / 2 / told[path].answers
    wanted = found[attention.path][levels(attention, weights=True).index(Level(attention.count, rate))]
    assert total == pytest.approx(wanted, rel=1e-6)
