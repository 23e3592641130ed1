"""Shapes and criteria with a tiny model of every family: exact counts, and neurons that are really gone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from composer.calibration.sample import Calibration
from composer.composing.assemble import compose
from composer.library.store import Library
from composer.models.folder import BaseModel
from composer.pruning.criteria.wanda import Wanda
from composer.pruning.variants import prune
from composer.scheme.building import build_scheme
from composer.scheme.configurations import Configurations, resolve

from .test_every_family import TABLES, answers, make_task

Folder = Callable[[str], Path]


def pruned_by(base: BaseModel, folder: Path, entries: dict[str, Any]) -> tuple[nn.Module, dict[str, Tensor]]:
    """The model with these entries, composed from the pruned library, and its masks."""
    resolved = resolve(Configurations(configurations=[entries]), base.layout)
    scheme = build_scheme(resolved, base.layout, model="tiny", fingerprint=base.fingerprint)
    model, task, library = base.load(), make_task(base), Library(folder)

    def calibration() -> Calibration:
        return Calibration(model, task, task.examples(6), base.layout.only(scheme.touched(base.layout)))

    addresses = prune(model, base.layout, scheme, Wanda(), library, calibration=calibration)
    composed = base.load()
    masks = compose(composed, base.layout, scheme, 0, library, addresses)  # holds every count to the scheme
    assert sum(int((~mask).sum()) for name, mask in masks.items() if name.endswith("weight")) == round(
        scheme.sparsity(0, base.layout) * base.layout.parameters(base.layout.paths)
    )
    return composed, masks


@pytest.mark.parametrize("name", TABLES)
def test_heads_neurons_and_groups_of_four(model_folder: Folder, tmp_path: Path, name: str) -> None:
    base = BaseModel(model_folder(name))
    wholes = [whole for path in base.layout.paths if (whole := base.layout.feed_forward(path))]
    attentions = [target for target in base.layout.targets if target.kind == "attention"]
    assert wholes
    outs = [base.layout.out_projection(target.path) for target in attentions]
    entries: dict[str, Any] = {w.path: {"rate": 0.25, "granularity": "neuron", "criterion": "obs"} for w in wholes}
    entries |= {w.path: {"rate": 0.5, "granularity": "neuron", "criterion": "taylor"} for w in wholes[1:]}
    entries |= {p.path: {"rate": 0.5, "granularity": "2:4"} for p in outs}
    entries[attentions[0].path] = {"rate": 0.5, "criterion": "taylor"}
    entries[attentions[-1].path] = {"rate": 0.5, "granularity": "2:4", "criterion": "sparsegpt"}

    model, masks = pruned_by(base, tmp_path, entries)

    for p in (*outs, *attentions[-1].projections):
        assert (p.of(masks[p.weight]).reshape(p.out_features, -1, 4).sum(2) == 2).all()
    silenced, dead = base.load(), {}
    for whole in wholes:
        *firsts, second = whole.projections
        dead[second.path] = ~second.of(masks[second.weight]).any(0)
        assert dead[second.path].sum() == round(entries[whole.path]["rate"] * whole.heads)
        for p in firsts:
            assert torch.equal(~p.of(masks[p.weight]).any(1), dead[second.path])
    with torch.no_grad():
        parameters, rest = dict(silenced.named_parameters()), dict(model.named_parameters())
        mine = {n for w in wholes for p in w.projections for n in (p.weight, f"{p.path}.bias")}
        for name_, value in rest.items():
            if name_ not in mine:  # heads and groups are as pruned; neurons are silenced instead
                parameters[name_].copy_(value)

    def hook(path: str) -> Any:
        return lambda _, args: (args[0] * ~dead[path],)

    for path in dead:
        silenced.get_submodule(path).register_forward_pre_hook(hook(path))
    task = make_task(base)
    batch = task.collate(task.examples(4).features)
    torch.testing.assert_close(answers(model, batch), answers(silenced, batch), rtol=1e-4, atol=1e-5)
