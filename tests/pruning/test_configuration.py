"""Pruning without a library removes what pruning into one and composing does; what targets of a sublayer share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from composer.calibration.sample import Calibration
from composer.composing.assemble import compose
from composer.composing.model_pruner import ModelPruner
from composer.library.store import Library
from composer.models.family import linear
from composer.models.folder import BaseModel
from composer.pruning.configuration import PrunedTargets
from composer.pruning.criteria import CRITERIA
from composer.pruning.criteria.l1 import L1
from composer.pruning.cut import Cut
from composer.pruning.variants import prune
from composer.scheme.building import build_scheme
from composer.scheme.configurations import Assignment, Configurations, resolve
from composer.scheme.layout import Layout
from composer.scheme.shapes import Shape
from tests.models.test_every_family import make_task

Folder = Callable[[str], Path]
Pruned = tuple[dict[str, Tensor], dict[str, Tensor]]

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "magnitude": ("l1", {"attention": 0.5, "out": 0.6, "first": 0.3, "last": 0.7}),
    "greedy": ("obs", {"attention": 0.25, "out": 0.5, "first": {"granularity": "neuron"}}),
    "inputs": ("wanda", {"attention": {"granularity": "unstructured"}, "out": {"granularity": "2:4"}, "last": 0.4}),
    "mixed": (
        "taylor",
        {
            "attention": 0.5,
            "out": {"criterion": "sparsegpt"},
            "first": {"granularity": "neuron", "criterion": "l2"},
        },
    ),
    "moving": ("sparsegpt", {"attention": {"criterion": "random"}, "out": 0.7, "first": 0.5, "last": 0.5}),
    "structured": ("random", {"out": {"granularity": "column"}, "first": {"granularity": "4x2"}, "attention": 0.5}),
}
"""The run's criterion, and what is said of each place of a layer (rate 0.5 where none is said)."""


def assigned_to(layout: Layout, said: dict[str, Any]) -> Assignment:
    """The configuration that says this of every layer."""
    wholes = [whole for path in layout.paths if (whole := layout.feed_forward(path))]
    attentions = [target.path for target in layout.targets if target.kind == "attention"]
    places = {
        "attention": attentions,
        "out": [layout.out_projection(path).path for path in attentions],
        "first": [whole.path for whole in wholes],
        "last": [whole.projections[-1].path for whole in wholes],
    }
    full = {
        path: {"rate": 0.5, **how} if isinstance(how, dict) else how
        for place, how in said.items()
        for path in places[place]
    }
    return resolve(Configurations(configurations=[full]), layout)[0]


class Place:
    """A tiny base model and its calibration sample."""

    def __init__(self, folder: Path) -> None:
        self.base = BaseModel(folder)
        self.layout, self.model, self.task = self.base.layout, self.base.load(), make_task(self.base)
        self.sample = Calibration(self.model, self.task, self.task.examples(6), self.layout)

    def with_library(self, folder: Path, assigned: Assignment, criterion: str, *, dead_columns: bool) -> Pruned:
        """Weights and masks of the model that is composed from the pruned library."""
        scheme = build_scheme([assigned], self.layout, model="tiny", fingerprint=self.base.fingerprint)
        library, composed = Library(folder), self.base.load()
        addresses = prune(
            self.model,
            self.layout,
            scheme,
            CRITERIA.get(criterion)(),
            library,
            settings={"seed": 3},
            calibration=lambda: self.sample,
            dead_columns=dead_columns,
        )
        masks = compose(composed, self.layout, scheme, 0, library, addresses)
        return {name: value.detach() for name, value in composed.named_parameters()}, masks

    def without(self, assigned: Assignment, criterion: str, *, dead_columns: bool) -> Pruned:
        parameters = dict(self.model.named_parameters())
        pruner = ModelPruner(self.layout, parameters, self.sample, seed=3, dead_columns=dead_columns)
        first = pruner.prune(assigned, criterion, repair=False)
        again = pruner.prune(assigned, criterion, repair=False)  # from the scores that were kept
        assert all(torch.equal(value, again[0][name]) for name, value in first[0].items())
        return first


@pytest.fixture(scope="module", params=["t5", "bert", "gpt2", "llama"])
def place(request: pytest.FixtureRequest, model_folder: Folder) -> Place:
    return Place(model_folder(request.param))


@pytest.mark.parametrize("dead_columns", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_both_ways_remove_the_same_and_keep_the_same(
    case: str, dead_columns: bool, place: Place, tmp_path: Path
) -> None:
    criterion, said = CASES[case]
    assigned = assigned_to(place.layout, said)
    stored, stored_masks = place.with_library(tmp_path, assigned, criterion, dead_columns=dead_columns)
    weights, masks = place.without(assigned, criterion, dead_columns=dead_columns)
    assert masks.keys() == stored_masks.keys()
    assert all(torch.equal(mask, stored_masks[name]) for name, mask in masks.items())
    assert all(torch.equal(value, stored[name]) for name, value in weights.items())
    untouched = dict(place.model.named_parameters())
    assert all(torch.equal(value, untouched[name]) for name, value in stored.items() if name not in weights)


def test_what_either_of_two_targets_removes_from_a_shared_parameter_is_gone() -> None:
    one, other = (linear(name, 2, 4, bias=False, stream="encoder") for name in ("one", "other"))
    shared = replace(other.projections[0], held=("one.weight", "one.bias"))
    layout = Layout("test", (one, replace(other, projections=(shared,))), ())
    assert shared.weight == "one.weight"
    parameters = {"one.weight": torch.arange(1.0, 9.0).reshape(2, 4)}
    targets = PrunedTargets(layout, dead_columns=True)
    for path, kind in (("one", "row"), ("other", "column")):
        targets.cut(Cut(layout, path, Shape(kind), L1(), parameters, lambda _: {}), 0.5)
    keep = torch.tensor([[False, False, False, False], [False, False, True, True]])
    assert torch.equal(targets.masks["one.weight"], keep)
    assert torch.equal(targets.weights["one.weight"], parameters["one.weight"] * keep)
