"""What of a model is left, as data and as a picture, for every family."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from composer.models.folder import BaseModel
from composer.report.kept import Part, Row, Stack, draw, kept_figure, said, totals
from composer.shrinking.kept import kept_units
from tests.models.test_every_family import OTHERS, TABLES

Folder = Callable[[str], Path]


@pytest.mark.parametrize("name", TABLES)
def test_removed_heads_and_neurons_are_counted(model_folder: Folder, name: str) -> None:
    base = BaseModel(model_folder(name))
    parameters = {name: value.detach().clone() for name, value in base.load().named_parameters()}
    attention = next(t for t in base.layout.targets if t.kind == "attention")
    whole = next(w for path in base.layout.paths if (w := base.layout.feed_forward(path)))
    for p in attention.projections:
        p.of(parameters[p.weight])[: p.out_features // attention.heads] = 0
        if p.bias_name:
            p.bias_of(parameters[p.bias_name])[: p.out_features // attention.heads] = 0
    whole.projections[-1].of(parameters[whole.projections[-1].weight])[:, :3] = 0
    parts = {p.path: p for stack in kept_units(base, parameters) for row in stack.rows for p in row.parts}
    assert [cell > 0 for cell in parts[attention.path].units] == [False] + [True] * (attention.heads - 1)
    assert parts[whole.path].after == whole.heads - 3
    rest = [p for path, p in parts.items() if path not in (attention.path, whole.path)]
    assert all((part.after, part.density) == (part.before, 1.0) for part in rest)


def test_single_weights_make_paler_heads(t5_folder: Path) -> None:
    base = BaseModel(t5_folder)
    parameters = {name: value.detach().clone() for name, value in base.load().named_parameters()}
    for target in base.layout.targets:
        for p in target.projections:
            weight = p.of(parameters[p.weight])
            weight[:, ::2] = 0 if target.kind == "attention" else weight[:, ::2]
    stacks = kept_units(base, parameters)
    assert [stack.name for stack in stacks] == ["encoder", "decoder"]
    assert stacks[1].columns == ("self-attention heads", "cross-attention heads", "feed-forward neurons")
    heads = [part for stack in stacks for row in stack.rows for part in row.parts if part.kind == "attention"]
    assert all(part.after == part.before and part.density == pytest.approx(0.625) for part in heads)


@pytest.mark.parametrize("name", list(OTHERS)[:1])
def test_without_a_table_targets_are_shown(model_folder: Folder, tmp_path: Path, name: str) -> None:
    base = BaseModel(model_folder(name))
    (stack,) = kept_units(base, dict(base.load().named_parameters()))
    assert [row.name for row in stack.rows] == list(base.layout.paths)
    draw([stack], tmp_path / "kept.svg", "name")
    assert (tmp_path / "kept.svg").stat().st_size > 999


def test_the_picture_has_a_cell_for_each_head_and_says_what_is_gone() -> None:
    some = Part("attention", "a", 4, 2, 1.0, (1.0, 0.0, 0.5, 0.0))
    none = Part("feed_forward", "f", 8, 0, 0.0)
    stacks = [Stack("", ("heads", "neurons"), (Row("0", (some, none)),))]
    (axes,) = kept_figure(stacks, "title").axes
    assert len(axes.patches) == 4 + 1
    assert {"2/4", "gone", "title", said(stacks)} <= {text.get_text() for text in axes.texts}
    assert totals(stacks) == {"attention": (2, 4), "feed_forward": (0, 8)}
    assert [patch.get_alpha() for patch in axes.patches] == [1.0, None, pytest.approx(0.625), None, None]
    assert [bool(patch.get_facecolor()[3]) for patch in axes.patches] == [True, False, True, False, False]
