"""First-order scores against direct evaluation: whole-batch gradients of weights, and gradients of gates."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from composer.calibration.gradients import Gradients, collect_gradients
from composer.models.folder import BaseModel
from composer.pruning.criteria.taylor import Taylor
from composer.pruning.cut import weight_of
from composer.scheme.layout import Layout, Target
from composer.scheme.shapes import parse_shape
from composer.tasks import DataOptions, Examples, Task, open_task
from tests.conftest import WORDS
from tests.reference.inputs import seen_by_rows

Folder = Callable[[str], Path]


class Place:
    """A tiny model with its data, and the gradients on some of it."""

    def __init__(self, folder: Path, data: Path, **options: Any) -> None:
        base = BaseModel(folder)
        self.model: nn.Module = base.load()
        self.layout: Layout = base.layout
        self.task: Task = open_task(DataOptions(data=str(data), **options), base.folder, base.config)
        self.data: Examples = self.task.load("train")
        self.indices = [0, 3, 5, 6, 11, 17, 20]
        self.gradients = self.collect(3)

    def collect(self, batch_size: int) -> Gradients:
        return collect_gradients(
            self.model, self.task, self.data, self.layout, indices=self.indices, batch_size=batch_size
        )

    def loss(self, indices: list[int]) -> tuple[Tensor, int]:
        """The mean loss on these examples, as one batch, and its tokens."""
        return self.task.loss(self.model, self.task.collate([self.data.features[i] for i in indices]))

    def weights(self, target: Target) -> list[Tensor]:
        return [weight_of(p, dict(self.model.named_parameters())) for p in target.projections]

    def parameters(self) -> dict[str, Tensor]:
        """Weights that hold a projection, by name, each once and as they are stored."""
        names = dict.fromkeys(p.weight for t in self.layout.targets for p in t.projections)
        return {name: self.model.get_parameter(name) for name in names}

    def by_rows(self, target: Target, held: Mapping[str, Tensor]) -> list[Tensor]:
        """Of tensors that are shaped as those parameters the target's: (out, in) for each matrix."""
        found: list[Tensor] = []
        for path in dict.fromkeys(p.path for p in target.projections):
            tensor = seen_by_rows(self.model.get_submodule(path), held[f"{path}.weight"])
            found += tensor.chunk(3) if path.endswith("c_attn") else [tensor]
        return found

    def gates(self, path: str, count: int) -> Tensor:
        """Mean over examples of absolute gradients of real gates, put on ``count`` equal parts of a module's input."""
        gates = torch.ones(count, requires_grad=True)

        def gate(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            return (args[0] * gates.repeat_interleave(args[0].shape[-1] // count), *args[1:])

        handle = self.model.get_submodule(path).register_forward_pre_hook(gate)
        total = torch.zeros(count)
        try:
            for i in self.indices:
                loss, tokens = self.loss([i])
                total += torch.autograd.grad(loss * tokens, gates)[0].abs()
        finally:
            handle.remove()
        return total / len(self.indices)


@pytest.fixture(scope="module", params=["gated", "distilbert", "llama", "gpt2"])
def place(
    request: pytest.FixtureRequest,
    model_folder: Folder,
    translation_data: Path,
    classification_data: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Place:
    # Llama's query heads share keys and values: a gate stands for a whole group. GPT-2's weights are stored turned.
    if request.param in ("llama", "gpt2"):
        text = tmp_path_factory.mktemp("text") / "train.txt"
        text.write_text("\n".join(" ".join(random.Random(i).sample(WORDS, 9)) for i in range(30)))
        return Place(model_folder(request.param), text.parent, max_source_length=8)
    data = classification_data if request.param == "distilbert" else translation_data
    return Place(model_folder(request.param), data)


def test_gradients_are_absolute_values_averaged_over_mini_batches(place: Place) -> None:
    parameters = place.parameters()
    total, tokens = {name: torch.zeros_like(w) for name, w in parameters.items()}, 0
    for batch in (place.indices[:3], place.indices[3:6], place.indices[6:]):
        loss, size = place.loss(batch)
        for one, gradient in zip(total.values(), torch.autograd.grad(loss, [*parameters.values()]), strict=True):
            one += size * gradient.abs()
        tokens += size
    assert list(place.gradients.weights) == [p for t in place.layout.targets for p in t.projections]
    for target in place.layout.targets:
        for p, wanted in zip(target.projections, place.by_rows(target, total), strict=True):
            torch.testing.assert_close(place.gradients.weights[p], wanted / tokens, rtol=1e-4, atol=1e-6)


def test_in_one_batch_a_weight_is_scored_by_weight_times_gradient(place: Place) -> None:
    parameters, collected = place.parameters(), place.collect(8)
    gradients = torch.autograd.grad(place.loss(place.indices)[0], [*parameters.values()])
    products = {name: (w * gradient).abs() for (name, w), gradient in zip(parameters.items(), gradients, strict=True)}
    for target in place.layout.targets:
        parts = parse_shape("unstructured").parts(place.layout, target.path)
        for part, wanted in zip(parts, place.by_rows(target, products), strict=True):
            weights, stats = place.weights(part), {"gradient": [collected.weights[part.projections[0]]]}
            torch.testing.assert_close(Taylor().score(part, weights, stats), wanted, rtol=1e-4, atol=1e-7)
            rows = Taylor().score(part, weights, stats, parse_shape("row"))
            torch.testing.assert_close(rows, wanted.sum(1), rtol=1e-4, atol=1e-7)


def test_the_model_is_left_as_it_was(place: Place) -> None:
    assert all(p.grad is None and p.requires_grad for p in place.model.parameters())
    frozen = place.model.get_parameter(place.layout.targets[0].projections[0].weight).requires_grad_(False)
    place.model.train()
    collect_gradients(place.model, place.task, place.data, place.layout, indices=[1])
    assert not frozen.requires_grad
    assert place.model.training
    frozen.requires_grad_(True)
    place.model.eval()


def test_heads_are_scored_by_the_gradients_of_their_gates(place: Place) -> None:
    attentions = [t for t in place.layout.targets if t.kind == "attention"]
    assert attentions
    for target in attentions:
        scores = Taylor().score(target, place.weights(target), {"gates": place.gradients.gates[target.path]})
        gates = place.gates(place.layout.out_projection(target.path).path, target.heads)
        torch.testing.assert_close(scores, gates, rtol=1e-3, atol=1e-6)


def test_neurons_are_scored_by_the_gradients_of_their_gates(place: Place) -> None:
    found = [whole for t in place.layout.targets if (whole := place.layout.feed_forward(t.path))]
    assert found
    for whole in found:
        scores = Taylor().score(whole, place.weights(whole), {"gates": place.gradients.gates[whole.path]})
        gates = place.gates(whole.projections[-1].path, whole.heads)
        torch.testing.assert_close(scores, gates, rtol=1e-3, atol=1e-6)


def test_what_it_needs_is_named(place: Place) -> None:
    attention = next(t for t in place.layout.targets if t.kind == "attention")
    with pytest.raises(ValueError, match=r"criterion 'taylor' needs the statistic 'gates'; got \[\]"):
        Taylor().score(attention, place.weights(attention), {})
