"""Rate 1 in every family: sublayers and layers with nothing left, pruned, repaired, composed and swept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from composer.calibration.sample import Calibration
from composer.calibration.teacher import Teacher
from composer.composing.assemble import compose
from composer.composing.refit import sweep
from composer.library.store import Library
from composer.models.folder import BaseModel
from composer.pruning.criteria import CRITERIA
from composer.pruning.variants import prune
from composer.scheme.building import build_scheme
from composer.scheme.configurations import Configurations, resolve
from composer.scheme.graph import Scheme
from composer.training.blocks import TRAINERS
from composer.training.blocks.trainer import BlockSettings
from composer.training.blocks.tuner import BlockTuner
from composer.training.blocks.waves import Waves

from .test_every_family import answers, make_task

Folder = Callable[[str], Path]

KINDS = ("t5", "gated", "distilbert", "bert", "deberta", "bart", "pegasus", "gpt2", "llama", "opt", "opt-post")
"""One of each kind of layer; the others are built of the same parts, and go the whole way in test_every_family.py."""


def scheme_of(base: BaseModel, entries: dict[str, Any], *levels: Any) -> Scheme:
    resolved = resolve(Configurations(configurations=[entries]), base.layout)
    return build_scheme(resolved, base.layout, model="tiny", fingerprint=base.fingerprint, block_levels=levels)


def pruned(base: BaseModel, scheme: Scheme, folder: Path, criterion: str = "obs") -> tuple[Library, dict[str, str]]:
    model, task, library = base.load(), make_task(base), Library(folder)

    def calibration() -> Calibration:
        return Calibration(model, task, task.examples(6), base.layout.only(scheme.touched(base.layout)))

    addresses = prune(
        model, base.layout, scheme, CRITERIA.get(criterion)(), library, calibration=calibration, dead_columns=True
    )
    return library, addresses


@pytest.mark.parametrize(("trainer", "name"), [*(("least_squares", name) for name in KINDS), ("distill", "bert")])
def test_a_layer_that_goes_whole(model_folder: Folder, tmp_path: Path, name: str, trainer: str) -> None:
    base = BaseModel(model_folder(name))
    layout, task = base.layout, make_task(base)
    layers = list(layout.at("layer"))
    rest = {p: 0.5 for p in layers[-1].targets if layout.target(p).kind == "linear"}
    outs = {layout.out_projection(t.path).path: 0.5 for t in layout.targets if t.kind == "attention"}
    scheme = scheme_of(base, {**outs, **rest, layers[0].path: 1, layers[-1].targets[0]: 1}, "sublayer", "layer")
    library, leaves = pruned(base, scheme, tmp_path / "pruned")

    settings = BlockSettings(trainer, 2, 4, 1e-3, 9, 0, calibration_size=8)
    tuned, train = Library(tmp_path / "tuned"), task.examples(8)
    how = settings.lineage(TRAINERS.get(trainer).fields)
    waves = Waves(scheme, layout, (library, tuned), leaves, settings=how, data={"train": "t", "valid": "v"})
    model = base.load()
    teacher = Teacher(model, layout, task, train, train, Calibration(model, task, train, layout, size=8, seed=0))
    done = BlockTuner(teacher, waves, TRAINERS.get(trainer), settings).run()
    composed = base.load()
    masks = compose(composed, layout, scheme, 0, tuned, done.addresses)
    sweep(composed, base.load(), layout, masks, task, train, size=8)

    parameters = dict(composed.named_parameters())
    assert all(value.isfinite().all() for value in parameters.values())
    gone = {p for p in layers[0].targets if layout.feed_forward(p) or layout.target(p).kind == "attention"}
    for target in filter(None, (layout.feed_forward(p) or layout.target(p) for p in gone)):
        for projection in target.projections:
            assert not projection.of(parameters[projection.weight]).any()
    batch = task.collate(task.examples(4).features)
    whole = answers(composed, batch)
    assert whole.isfinite().all()
    torch.testing.assert_close(whole, silenced(base, composed, gone, batch), rtol=1e-5, atol=1e-5)


def silenced(base: BaseModel, model: nn.Module, gone: set[str], batch: Any) -> torch.Tensor:
    """The answers where the last projections of these sublayers are handed zeros: all that they give is their bias."""
    layout = base.layout
    units = [layout.feed_forward(path) or layout.target(path) for path in gone]
    ends = [u.projections[-1] if u.kind == "feed_forward" else layout.out_projection(u.path) for u in units]
    hooks = [
        model.get_submodule(end.path).register_forward_pre_hook(lambda _, args: (torch.zeros_like(args[0]),))
        for end in ends
    ]
    try:
        return answers(model, batch)
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize("criterion", ["l1", "obs", "taylor"])
def test_heads_by_index_are_the_same_in_a_stack(model_folder: Folder, tmp_path: Path, criterion: str) -> None:
    base = BaseModel(model_folder("t5"))
    stack = base.layout.stack("decoder.block.0.layer.0.SelfAttention")
    assert len(stack) == 2
    one = {"rate": 0.5, "granularity": "stack-head"}
    alone, both = (scheme_of(base, dict.fromkeys(some, one)) for some in (stack[:1], stack))
    assert alone.at("module")[0] == both.at("module")[0]  # what else stands in the configuration has no say

    kept = {}
    for scheme in (alone, both):
        library, addresses = pruned(base, scheme, tmp_path / str(len(kept)), criterion)
        for node in scheme.at("module"):
            target = base.layout.target(node.path)
            (mask,) = {tuple(p.of(m).any(1).tolist()) for p, m in masks_of(library.get(addresses[node.hash]), target)}
            kept[scheme.digest, node.path] = mask
    assert len(kept) == 3
    (mask,) = set(kept.values())
    assert sum(mask) == len(mask) / 2
    if criterion == "l1":
        weights = dict(base.load().named_parameters())
        scores = sum(
            p.of(weights[p.weight].detach()).abs().reshape(target.heads, -1).sum(1)
            for target in map(base.layout.target, stack)
            for p in target.projections
        )
        best = torch.as_tensor(scores).topk(target.heads // 2).indices.tolist()
        size = len(mask) // target.heads
        assert [i for i in range(target.heads) if mask[i * size]] == sorted(best)


def masks_of(artefact: Any, target: Any) -> list[tuple[Any, torch.Tensor]]:
    """The masks of an attention's projections."""
    return [(p, artefact.masks[p.weight]) for p in target.projections]
