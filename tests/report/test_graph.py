"""The picture of the scheme: every node, no overlaps, names short enough."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from matplotlib.patches import Rectangle

from composer.errors import InputError
from composer.models.layouts import layout_of
from composer.report import graph
from composer.scheme.building import build_scheme
from composer.scheme.configurations import Configurations, resolve
from composer.scheme.generate import generate
from composer.scheme.graph import Scheme
from composer.scheme.layout import LEVELS, Level

T5 = {
    "model_type": "t5",
    "architectures": ["T5ForConditionalGeneration"],
    "d_model": 64,
    "d_kv": 8,
    "d_ff": 128,
    "num_heads": 8,
    "num_layers": 3,
}
LAYOUT = layout_of(T5)


def scheme(*levels: Level, draws: int | None = None) -> Scheme:
    rates = resolve(Configurations(configurations=generate(LAYOUT, draws=draws)), LAYOUT)
    return build_scheme(rates, LAYOUT, model="base", fingerprint="f", block_levels=levels)


@pytest.mark.parametrize("levels", [("module",), ("module", "sublayer"), LEVELS])
@pytest.mark.parametrize("draws", [None, 8])
def test_every_node_is_a_box_and_no_text_leaves_its_box(levels: tuple[Level, ...], draws: int | None) -> None:
    made = scheme(*levels, draws=draws)
    figure = graph.scheme_figure(made, LAYOUT)
    axes = figure.axes[0]
    boxes = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert len(boxes) == len(made.nodes)
    figure.draw_without_rendering()
    frames = [box.get_window_extent() for box in boxes]
    for text in axes.texts:
        extent = text.get_window_extent()
        inside = [f for f in frames if f.x0 <= extent.x0 and extent.x1 <= f.x1 and f.y0 <= extent.y1 <= f.y1 + 1]
        assert inside or "\n" in text.get_text(), text.get_text()
    for column in {frame.x0 for frame in frames}:
        tops = sorted((f.y0, f.y1) for f in frames if f.x0 == column)
        assert all(below[1] <= above[0] for below, above in pairwise(tops))


def test_uses_are_counted_in_the_headings() -> None:
    made = scheme("module", "sublayer")
    texts = [text.get_text() for text in graph.scheme_figure(made, LAYOUT).axes[0].texts]
    expected = {row.level: f"{row.blocks} blocks, {row.uses} uses" for row in made.sharing(LAYOUT)}
    assert f"variants\n{expected['module']}" in texts
    assert f"sublayers\n{expected['sublayer']}" in texts
    assert "enc 0 self-attn 25/30%" in texts


def test_equal_configurations_share_a_box() -> None:
    rates = resolve(Configurations(configurations=generate(LAYOUT, attention=[0.5], linear=[0.3, 0.5, 0.3])), LAYOUT)
    made = build_scheme(rates, LAYOUT, model="base", fingerprint="f")
    texts = [text.get_text() for text in graph.scheme_figure(made, None).axes[0].texts]
    assert "configuration 0, 2" in texts


def test_large_schemes_have_no_labels() -> None:
    layout = layout_of(T5 | {"num_layers": 14})
    rates = resolve(Configurations(configurations=generate(layout)), layout)
    made = build_scheme(rates, layout, model="base", fingerprint="f")
    assert len(made.nodes) > graph.MOST_LABELS
    figure = graph.scheme_figure(made, layout)
    assert len(figure.axes[0].texts) == 3
    assert figure.get_size_inches()[1] < 20


def test_all_dense() -> None:
    made = build_scheme([{}], LAYOUT, model="base", fingerprint="f")
    assert len(graph.scheme_figure(made, LAYOUT).axes[0].texts) == 2


def test_files(tmp_path: Path) -> None:
    made = scheme("module", "sublayer")
    for name in ("a.svg", "b.svg", "c.png"):
        graph.draw(made, LAYOUT, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert ElementTree.fromstring((tmp_path / "a.svg").read_bytes()).tag.endswith("svg")
    assert (tmp_path / "c.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(InputError, match=r"allowed: \.png or \.svg"):
        graph.draw(made, LAYOUT, tmp_path / "a.gif")
