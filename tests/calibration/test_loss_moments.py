"""Moments that know the loss against gradients taken example by example."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

import composer
from composer.calibration.loss_moments import gather_loss_moments
from composer.calibration.slopes import EVEN, passes, token_weights
from composer.errors import ModelError, RecipeError
from composer.progress import Progress
from composer.recipe import BlockOptions, Recipe
from composer.steps.tune_blocks import finetune_blocks
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


def test_gradients_are_differences_of_the_loss(distilbert_folder: Path, classification_data: Path) -> None:
    """Half of the outputs of one token, each moved a little up and down: the loss of the drawn label answers."""
    space = Workspace(Recipe(model=str(distilbert_folder), data=str(classification_data)))
    model, task, features = space.fresh_model().double(), space.task, space.examples("train").features[:1]
    projection = space.base.layout.target(space.base.layout.paths[1]).projections[0]
    batch, token = task.collate(features), 2
    (one,) = passes(model, task, [batch], [projection], seed=0)
    gradients = one.slopes[0].gradients
    moved = range(0, projection.out_features, 2)

    def loss(label: int, output: int, step: float) -> float:
        def move(_: Any, __: Any, result: torch.Tensor) -> torch.Tensor:
            result = result.clone()
            result[0, token, output] += step
            return result

        with torch.no_grad():
            handle = model.get_submodule(projection.path).register_forward_hook(move)
            logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
            handle.remove()
        return float(torch.nn.functional.cross_entropy(logits, torch.tensor([label])))

    found = [torch.tensor([(loss(label, k, 1e-4) - loss(label, k, -1e-4)) / 2e-4 for k in moved]) for label in (0, 1)]
    drawn = gradients[token, list(moved)]
    assert sum(torch.allclose(drawn, one, rtol=1e-4, atol=1e-7) for one in found) == 1


def test_what_they_cannot_be_gathered_for_is_named(
    distilbert_folder: Path, classification_data: Path, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"model": str(distilbert_folder), "data": str(classification_data), "folder": tmp_path}
    space = Workspace(Recipe(**given))
    model, task = space.fresh_model(), space.task
    batches = [task.collate(space.examples("train").features[:2])]
    projection = space.base.layout.target(space.base.layout.paths[1]).projections[0]
    model.add_module("idle", torch.nn.Linear(2, 2))
    wrong = {
        "idle: the model never runs this projection": replace(projection, path="idle"),
        r"gives \d+ values a token where its weight has 3 rows": replace(projection, out_features=3),
    }
    for said, other in wrong.items():
        with pytest.raises(ModelError, match=said):
            gather_loss_moments(model, task, batches, [other])
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(ModelError, match=f"that of the task '{task.name}' has no gradient"):
        gather_loss_moments(model, task, batches, [projection])
    broken = space.fresh_model()
    broken.get_submodule(projection.path).weight.data.fill_(float("inf"))
    with pytest.raises(ModelError, match="the model's answers on the calibration sample are not finite"):
        gather_loss_moments(broken, task, batches, [projection])
    composer.generate_config(Recipe(**given))
    composer.generate_scheme(Recipe(**given))
    for more, said in (
        ({"criterion": "l1"}, "--metric loss: criterion l1 looks at no moments of inputs; allowed: .*obs"),
        ({"criterion": "obs", "calibration": "sequential"}, "--metric loss: .* allowed with --calibration base"),
    ):
        with pytest.raises(RecipeError, match=said):
            composer.prune(Recipe(**given, metric="loss", **more))
    assert not (tmp_path / "modules").exists()


def test_a_trainer_that_looks_at_no_moments_says_so(
    distilbert_folder: Path, classification_data: Path, tmp_path: Path
) -> None:
    notes = list[str]()

    class Notes(Progress):
        def note(self, text: str) -> None:
            notes.append(text)

    given: dict[str, Any] = {"model": str(distilbert_folder), "data": str(classification_data), "folder": tmp_path}
    recipe = Recipe(**given, metric="loss", criterion="obs", calibration_size=8, block=BlockOptions(steps=1))
    composer.generate_config(recipe.model_copy(update={"attention": [0.25], "linear": [0.5]}))
    composer.generate_scheme(recipe)
    composer.prune(recipe)
    for trainer, count in (("least_squares", 0), ("distill", 1)):
        tuned = recipe.model_copy(update={"trainer": trainer})
        finetune_blocks(tuned, output=tmp_path / trainer, progress=Notes())
        assert len(notes) == count
    assert notes[0].startswith("--metric loss: --trainer distill looks at no moments")


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
