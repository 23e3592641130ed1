"""Moments that know the loss against gradients taken example by example."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from composer.calibration.loss_moments import EVEN, gather_loss_moments
from composer.calibration.slopes import token_weights
from composer.recipe import Recipe
from composer.workspace import Workspace


def test_they_are_sums_over_tokens_for_labels_that_the_model_could_have_drawn(
    distilbert_folder: Path, classification_data: Path
) -> None:
    space = Workspace(Recipe(model=str(distilbert_folder), data=str(classification_data)))
    model, task, features = space.fresh_model(), space.task, space.examples("train").features[:3]
    projection = space.base.layout.target(space.base.layout.paths[1]).projections[0]
    told = gather_loss_moments(model, task, [task.collate(features)], [projection])[projection.path]
    root = told.root
    torch.testing.assert_close(root.T @ root, told.metric.double(), atol=1e-9, rtol=1e-6)

    one = [_by_label(model, projection.path, task.collate([feature])) for feature in features]
    labellings = [
        _sums([by_label[label] for by_label, label in zip(one, labels, strict=True)])
        for labels in product((0, 1), repeat=3)
    ]
    close = [
        torch.allclose(told.gram.matrix, gram, rtol=1e-4, atol=1e-9)
        and torch.allclose(told.metric.double(), metric, rtol=1e-4, atol=1e-7)
        for gram, metric in labellings
    ]
    assert sum(close) == 1
    squares = torch.cat(token_weights(model, task, [task.collate(features)], [projection], seed=0)[projection.path])
    assert float(squares.mean()) == pytest.approx(1, rel=1e-5)
    torch.testing.assert_close(squares.sum().double(), told.weighed.matrix[-1, -1], rtol=1e-4, atol=0)  # column of ones
    assert (told.answers, told.gram.tokens) == (3, sum(len(x) for by_label in one for x, _ in [by_label[0]]))


def _by_label(model: Any, path: str, batch: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """What the projection reads of one example, (tokens, in + 1), and by label the loss's gradient at its output."""
    found = []
    for label in (0, 1):
        seen: list[Any] = []
        handle = model.get_submodule(path).register_forward_hook(lambda _, args, out: seen.extend((args[0], out)))  # noqa: B023
        model.eval()
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        handle.remove()
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor([label]))
        gradient = torch.autograd.grad(loss, seen[1])[0][0].double()
        read = seen[0][0].detach().double()
        found.append((torch.cat([read, torch.ones(len(read), 1)], 1), gradient))
    return found


def _sums(examples: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    read, gradient = torch.cat([x for x, _ in examples]), torch.cat([g for _, g in examples])
    weight = gradient.square().sum(1)
    even = read.T @ read * weight.mean()
    return (1 - EVEN) * (read.T * weight) @ read + EVEN * even, gradient.T @ gradient / weight.sum()
