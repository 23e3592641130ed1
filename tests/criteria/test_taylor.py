"""First-order scores against direct evaluation: whole-batch gradients of weights, and gradients of gates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from composer.criteria.taylor import Taylor
from composer.cutting import weight_of
from composer.gradients import collect_gradients
from composer.layout import Layout, Target
from composer.models.base import BaseModel
from composer.shapes import parse_shape
from composer.tasks import DataOptions, Examples, Task, open_task

Folder = Callable[[str], Path]


class Place:
    """A tiny model with its data, and the gradients on some of it."""

    def __init__(self, folder: Path, data: Path) -> None:
        base = BaseModel(folder)
        self.model: nn.Module = base.load()
        self.layout: Layout = base.layout
        self.task: Task = open_task(DataOptions(data=str(data)), base.folder, base.config)
        self.data: Examples = self.task.load("train")
        self.indices = [0, 3, 5, 6, 11, 17, 20]
        self.gradients = collect_gradients(
            self.model, self.task, self.data, self.layout, indices=self.indices, batch_size=3
        )

    def loss(self) -> Tensor:
        """The mean loss on the same examples, as one batch."""
        return self.task.loss(self.model, self.task.collate([self.data.features[i] for i in self.indices]))[0]

    def weights(self, target: Target) -> list[Tensor]:
        return [weight_of(p, dict(self.model.named_parameters())) for p in target.projections]

    def gates(self, path: str, count: int) -> Tensor:
        """Gradients of gates that multiply the ``count`` equal parts of what the module at ``path`` reads."""
        gates = torch.ones(count, requires_grad=True)

        def gate(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            return (args[0] * gates.repeat_interleave(args[0].shape[-1] // count), *args[1:])

        handle = self.model.get_submodule(path).register_forward_pre_hook(gate)
        try:
            (gradient,) = torch.autograd.grad(self.loss(), gates)
        finally:
            handle.remove()
        return gradient


@pytest.fixture(scope="module", params=["gated", "distilbert"])
def place(
    request: pytest.FixtureRequest, model_folder: Folder, translation_data: Path, classification_data: Path
) -> Place:
    data = classification_data if request.param == "distilbert" else translation_data
    return Place(model_folder(request.param), data)


def test_gradients_are_those_of_the_mean_loss_whatever_the_batches(place: Place) -> None:
    projections = [p for t in place.layout.targets for p in t.projections]
    assert list(place.gradients) == [p.path for p in projections]
    weights = [place.model.get_parameter(p.weight) for p in projections]
    for p, wanted in zip(projections, torch.autograd.grad(place.loss(), weights), strict=True):
        torch.testing.assert_close(place.gradients[p.path], wanted, rtol=1e-4, atol=1e-6)


def test_the_model_is_left_as_it_was(place: Place) -> None:
    assert all(p.grad is None and p.requires_grad for p in place.model.parameters())
    frozen = place.model.get_parameter(place.layout.targets[0].projections[0].weight).requires_grad_(False)
    place.model.train()
    collect_gradients(place.model, place.task, place.data, place.layout, indices=[1])
    assert not frozen.requires_grad
    assert place.model.training
    frozen.requires_grad_(True)
    place.model.eval()


def test_weights_are_scored_by_weight_times_gradient(place: Place) -> None:
    target = next(t for t in place.layout.targets if t.kind == "linear")
    (weight,), gradient = place.weights(target), place.gradients[target.path]
    stats = {"gradient": [gradient]}
    assert torch.equal(Taylor().score(target, [weight], stats), (weight * gradient).abs())
    rows = Taylor().score(target, [weight], stats, parse_shape("row"))
    torch.testing.assert_close(rows, (weight * gradient).sum(1).abs())


def test_heads_are_scored_by_the_gradients_of_their_gates(place: Place) -> None:
    for target in place.layout.targets:
        if target.kind != "attention":
            continue
        out = place.layout.out_projection(target.path)
        weight = weight_of(out, dict(place.model.named_parameters())).detach()
        stats = {"gradient": [], "slope": (weight, place.gradients[out.path])}
        scores = Taylor().score(target, place.weights(target), stats)
        torch.testing.assert_close(scores, place.gates(out.path, target.heads).abs(), rtol=1e-3, atol=1e-6)


def test_neurons_are_scored_by_the_gradients_of_their_gates(place: Place) -> None:
    found = [whole for t in place.layout.targets if (whole := place.layout.feed_forward(t.path))]
    assert found
    for whole in found:
        stats = {"gradient": [place.gradients[p.path] for p in whole.projections]}
        scores = Taylor().score(whole, place.weights(whole), stats)
        gates = place.gates(whole.projections[-1].path, whole.heads)
        torch.testing.assert_close(scores, gates.abs(), rtol=1e-3, atol=1e-6)


def test_what_it_needs_is_named(place: Place) -> None:
    attention = next(t for t in place.layout.targets if t.kind == "attention")
    with pytest.raises(ValueError, match=r"criterion 'taylor' needs the statistic 'slope'; got \[\]"):
        Taylor().score(attention, place.weights(attention), {})
