"""Movement scores against a loop written out by hand, and what one run serves."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import composer
from composer.calibration.movement import CLIP, MovementSettings, learn_movement
from composer.library.store import Library
from composer.models.folder import BaseModel
from composer.scheme.layout import Target
from composer.scheme.rules import Ruled
from composer.scheme.shapes import Shape
from composer.tasks import DataOptions, open_task
from composer.tensors.batches import batch_indices
from composer.tensors.learnt.adam import PACE
from composer.tensors.learnt.scores import REFRESHED
from composer.training.distillation import Answers

SETTINGS = MovementSettings(steps=6, batch_size=4, learning_rate=0.01, rate=0.5, units="default", seed=3)


def by_hand(base: BaseModel, data: Path, share: float, masked: frozenset[str]) -> dict[str, Tensor]:
    """Scores by weight: masks of whole heads and of single weights, put on by multiplying; plain autograd.

    ``share`` is the weight of the base model's answers in the loss; ``masked`` are kinds of targets.
    """
    teacher: Any = base.load()
    model = base.load().train()
    task = open_task(DataOptions(data=str(data)), base.folder, base.config)
    train = task.load("train")
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    layout, masks = base.layout, dict[str, Tensor]()
    names = [p.weight for t in layout.targets for p in t.projections]
    scores = {name: weights[name].abs().flatten().argsort(stable=True).argsort() for name in names}
    scores = {name: (rank / (rank.numel() - 1)).view_as(weights[name]) for name, rank in scores.items()}
    adam = torch.optim.Adam([torch.nn.Parameter(score) for score in scores.values()], lr=PACE, eps=1e-12)
    scores = dict(zip(scores, adam.param_groups[0]["params"], strict=True))
    stepper = torch.optim.AdamW([torch.nn.Parameter(w) for w in weights.values()], weight_decay=0.0)
    learnt = dict(zip(weights, stepper.param_groups[0]["params"], strict=True))
    torch.manual_seed(SETTINGS.seed)
    for step in range(SETTINGS.steps):
        rate = SETTINGS.rate * (1 - (1 - min(1, max(0, (step - 0.6) / (4.2 - 0.6)))) ** 3)
        for target in (t for t in layout.targets if rate and t.kind in masked):
            rows = [scores[p.weight].detach() for p in target.projections]
            bias = [p.bias_name for p in target.projections]
            if target.kind == "attention":
                worth = sum(one.reshape(target.heads, -1).sum(1) for one in rows)
                gone = worth.argsort(stable=True)[: round(rate * target.heads)]
                keep = torch.ones(target.heads).index_fill(0, gone, 0).repeat_interleave(len(rows[0]) // target.heads)
                masks |= {p.weight: keep[:, None].expand_as(rows[0]) for p in target.projections}
                masks |= dict.fromkeys(bias, keep)
            else:
                gone = rows[0].flatten().argsort(stable=True)[: round(rate * rows[0].numel())]
                masks[target.projections[0].weight] = (
                    torch.ones(rows[0].numel()).index_fill(0, gone, 0).view_as(rows[0])
                )
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.copy_(learnt[name] * masks.get(name, torch.ones(())))
        model.zero_grad()
        chosen = batch_indices(len(train), SETTINGS.batch_size, seed=SETTINGS.seed, step=step)
        batch = task.collate([train.features[i] for i in chosen])
        output: Any = model(**batch)
        with torch.no_grad():
            wanted = teacher(**batch).logits.softmax(-1)
        apart = (wanted * (wanted.log() - output.logits.log_softmax(-1))).sum(-1).mean()
        ((1 - share) * output.loss + share * apart).backward()
        for name, p in model.named_parameters():
            assert p.grad is not None
            if name in scores:
                scores[name].grad = p.grad * learnt[name].detach()
            learnt[name].grad = p.grad * masks.get(name, torch.ones(()))
        adam.step()
        torch.nn.utils.clip_grad_norm_(learnt.values(), CLIP)
        stepper.param_groups[0]["lr"] = 0.01 * min(1.0, step + 1.0, (6 - step) / 5)
        stepper.step()
    return scores


@pytest.mark.parametrize(("share", "masked"), [(0.0, {"attention", "linear"}), (0.5, {"linear"})])
def test_scores_are_those_of_the_loop_written_out(
    distilbert_folder: Path, classification_data: Path, share: float, masked: set[str]
) -> None:
    assert SETTINGS.steps < REFRESHED  # masks follow the scores in every step
    base = BaseModel(distilbert_folder)
    task = open_task(DataOptions(data=str(classification_data)), base.folder, base.config)
    model = base.load()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    answers = Answers(base.load(), task, share) if share else None
    targets = [t.path for t in base.layout.targets if t.kind in masked]
    settings = replace(SETTINGS, targets=None if len(masked) == 2 else targets)
    found = learn_movement(model, task, task.load("train"), base.layout, settings, answers=answers)
    wanted = by_hand(base, classification_data, share, frozenset(masked))
    for target in base.layout.targets:
        for p in target.projections:
            assert torch.allclose(found[p], wanted[p.weight], rtol=1e-4, atol=1e-6), p.path
            assert found[p].any()
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


HYBRID: dict[str, Any] = {
    "*.attention": {"penalty": 9.0, "granularity": "4x4", "warm-up": 0.0},
    "*.ffn.lin1": {"penalty": 90.0, "granularity": "neuron", "cool-down": 0.5},
}


@pytest.mark.parametrize("settings", [SETTINGS, replace(SETTINGS, mode="l0", rules=HYBRID)], ids=["alike", "hybrid"])
def test_a_killed_run_goes_on_and_a_finished_one_is_not_learnt_again(
    settings: MovementSettings,
    distilbert_folder: Path,
    classification_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base, file = BaseModel(distilbert_folder), tmp_path / "run.pt"
    task = open_task(DataOptions(data=str(classification_data)), base.folder, base.config)
    model, train, calls = base.load(), task.load("train"), list[int]()

    def counted(features: Any, *, last: int, collate: Any = task.collate) -> Any:
        calls.append(len(features))
        if len(calls) > last:
            raise KeyboardInterrupt
        return collate(features)

    def learnt(last: int, keep: Path | None) -> dict[Any, Tensor]:
        calls.clear()
        monkeypatch.setattr(task, "collate", partial(counted, last=last))
        return learn_movement(model, task, train, base.layout, settings, keep=keep)

    monkeypatch.setattr("composer.calibration.movement.SAVED", 0.0)
    whole = learnt(SETTINGS.steps, None)
    with pytest.raises(KeyboardInterrupt):
        learnt(4, file)
    for steps in (2, 0):  # the step in which it was killed, and the last one; then none
        again = learnt(steps, file)
        assert len(calls) == steps
        assert all(torch.equal(again[p], scores) for p, scores in whole.items())
    assert set(whole) == {p for target in base.layout.targets for p in target.projections}
    assert all(scores.unique().numel() > 100 for scores in whole.values())  # also of what no rule names


def test_the_schedule_is_cubic_between_warm_up_and_cool_down() -> None:
    rule = Ruled(Target("0", "linear", ()), Shape("unstructured"), 0.5)
    assert [rule.at(step / 100) for step in (0, 10, 70, 99)] == [0.0, 0.0, 0.5, 0.5]
    assert rule.at(0.4) == pytest.approx(0.5 * (1 - 0.5**3))


def test_one_run_serves_all_rates_and_shapes_and_masks_are_nested(
    distilbert_folder: Path, classification_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pruned(**options: Any) -> list[dict[str, Tensor]]:
        given = {"model": str(distilbert_folder), "data": str(classification_data), "folder": tmp_path}
        movement = {"steps": 4, "batch_size": 4, "units": "structured"}
        recipe = composer.load_recipe(
            given={**given, "criterion": "movement", "movement": movement, **options}, file=False
        )
        composer.generate_config(recipe, force=True)
        composer.generate_scheme(recipe, force=True)
        composer.prune(recipe, force=True)
        library = Library(tmp_path / "modules" / "pruned")
        masks = [library.get(address) for address in library.addresses()]
        return [one.masks for one in masks if one.masks]

    first = pruned(attention=[0.25, 0.5], linear=[0.3, 0.6])
    by_name: dict[str, list[Tensor]] = {}
    for masks in first:
        for name, mask in masks.items():
            by_name.setdefault(name, []).append(mask)
    ffn = by_name["distilbert.transformer.layer.0.ffn.lin1.weight"]
    more, fewer = sorted(ffn, key=lambda mask: int(mask.sum()))
    assert not (more & ~fewer).any()
    assert int((~fewer).sum()) == round(0.3 * fewer.numel())

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("the scores are stored")

    monkeypatch.setattr("composer.calibration.movement.learn_movement", fail)
    assert len(pruned(attention=[0.75], linear=[0.8])) > len(first)
    with pytest.raises(AssertionError, match="stored"):  # heads stay whole: a run that does not mask them
        pruned(attention=[0], linear=[0.8])
