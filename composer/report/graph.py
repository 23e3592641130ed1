"""The scheme's graph as a picture: configurations on the left, what they are composed of to the right.

Each column is a level; boxes stand in execution order from top to bottom, as near to what they are made of
as the room allows. A box's colour says how many configurations use it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path as FilePath

from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.path import Path

from ..scheme.graph import ROOT, Node, Scheme
from ..scheme.layout import LEVELS, Layout
from .kit import canvas
from .kit.canvas import GREY, INK, PALETTE
from .kit.labels import rates_text, short_name

MOST_LABELS = 300  # nodes; beyond them boxes are too thin for text
USES = ("#c9ced6", "#fbe3a0", "#f8bd5f", "#ef8f3c", "#d9642e")  # by number of uses, lightness falling
BOX_INK = "#14171b"  # on boxes, whose colours are the same in light and dark
WIDTHS = {ROOT: 1.15, "layer": 1.55, "sublayer": 1.8, "module": 1.8}  # inches
TITLES = {ROOT: "configurations", "layer": "layers", "sublayer": "sublayers", "module": "variants"}
CHARACTER = 0.062  # width of one, about, in inches
GAP, ROW, HEAD, FOOT, MARGIN = 0.75, 0.17, 0.5, 0.5, 0.12


@dataclass(frozen=True)
class _Box:
    """A node's place, in inches from the top left."""

    node: Node
    x: float
    y: float
    width: float
    height: float


def draw(scheme: Scheme, layout: Layout | None, output: FilePath) -> None:
    """Draw the scheme's graph as PNG or SVG by suffix; ``layout`` gives the execution order if known."""
    canvas.check_suffix(output)
    canvas.save(scheme_figure(scheme, layout), output)


def scheme_figure(scheme: Scheme, layout: Layout | None = None) -> Figure:
    """The picture of a scheme; its height grows with the number of nodes, its width with the levels."""
    columns = _columns(scheme, layout)
    labelled = len(scheme.nodes) <= MOST_LABELS
    most = max(len(nodes) for nodes in columns.values())
    row = ROW if labelled else min(ROW, 14 / most)
    depth = HEAD + row * max(most, 8)
    boxes = _place(columns, row, depth, labelled)
    width = max(max(b.x + b.width for b in boxes.values()) + MARGIN, 4.2)
    height = depth + FOOT
    uses = _uses(scheme)
    with canvas.style():
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
        axes.set_axis_off()
        _draw_edges(axes, scheme, boxes)
        bins = _bins(max(uses.values()))
        fills = USES if len(bins) > 3 else (USES[0], USES[2], USES[4])
        for box in boxes.values():
            fill = fills[next(i for i, (_, last) in enumerate(bins) if uses[box.node.hash] <= last)]
            frame = (box.x, box.y - box.height / 2), box.width, box.height
            root = box.node.level == ROOT
            edge, thick = (_colour(scheme, box.node), 1.5) if root else (GREY, 0.4)
            axes.add_patch(Rectangle(*frame, facecolor=fill, edgecolor=edge, linewidth=thick, zorder=3))
            if labelled:
                place = box.x + 0.05, box.y
                text = _label(box.node, scheme, layout)
                axes.text(*place, text, fontsize=7, va="center_baseline", color=BOX_INK, zorder=4)
        for level, nodes in columns.items():
            used = sum(uses[n.hash] for n in nodes)
            title = f"{TITLES[level]}\n{len(nodes)} blocks, {used} uses"
            if level == ROOT:
                title = f"{TITLES[level]}\n{len(scheme.roots)} in all"
            axes.text(boxes[nodes[0].hash].x, 0.1, title, fontsize=8, va="top", color=INK, linespacing=1.35)
        handles = [Patch(facecolor=fills[i], edgecolor=GREY, label=_range(*b)) for i, b in enumerate(bins)]
        title = "colour: used by so many configurations"
        at = (MARGIN / width, 0.02 / height)
        figure.legend(
            handles=handles, loc="lower left", bbox_to_anchor=at, ncols=len(bins), fontsize=7,
            title=title, title_fontsize=7, alignment="left", borderpad=0.3, handlelength=1.2, columnspacing=1,
        )  # fmt: skip
    return figure


def _label(node: Node, scheme: Scheme, layout: Layout | None) -> str:
    """A box's text, cut to its width: of a root its numbers, of a block its name and rates."""
    if node.level == ROOT:
        numbers = [str(i) for i, root in enumerate(scheme.roots) if root == node.hash]
        return "configuration " + (", ".join(numbers) if len(numbers) < 3 else f"{numbers[0]} +{len(numbers) - 1}")
    targets: Iterable[str] = node.rates
    if layout is not None:
        targets = node.block(layout).targets
    most = int(WIDTHS[node.level] / CHARACTER)
    rates = rates_text(list(node.rates.values()))
    name = short_name(list(targets))
    if len(name) + len(rates) >= most:
        rates = rates_text(list(node.rates.values()), brief=True)
    room = most - len(rates) - 1
    return f"{name if len(name) <= room else name[: room - 1].rstrip() + '…'} {rates}"


def _columns(scheme: Scheme, layout: Layout | None) -> dict[str, list[Node]]:
    """Nodes of each level that has some, roots first, in execution order and by rates."""
    seen = dict.fromkeys(t for n in scheme.nodes.values() for t in n.rates)
    position = {path: i for i, path in enumerate(layout.paths if layout is not None else seen)}

    def order(node: Node) -> tuple[int, list[float]]:
        return min(position[t] for t in node.rates), list(node.rates.values())

    columns: dict[str, list[Node]] = {ROOT: [scheme.nodes[name] for name in dict.fromkeys(scheme.roots)]}
    for level in reversed(LEVELS):
        if nodes := scheme.at(level):
            columns[level] = sorted(nodes, key=order)
    return columns


def _place(columns: Mapping[str, Sequence[Node]], row: float, depth: float, labelled: bool) -> dict[str, _Box]:
    """Boxes by hash: the rightmost column evenly, each other node beside the middle of its children."""
    x = MARGIN
    left: dict[str, float] = {}
    shrink = 1.0 if labelled else 0.4
    for level in columns:
        left[level] = x
        x += WIDTHS[level] * shrink + GAP
    boxes: dict[str, _Box] = {}
    for level, nodes in reversed(list(columns.items())):
        middles = []
        for i, node in enumerate(nodes):
            below = [boxes[c].y for c in node.children]
            even = HEAD + (depth - HEAD) * (i + 0.5) / len(nodes)
            middles.append(even if level == ROOT or not below else sum(below) / len(below))
        thin = 0.8 * row
        tall = 2.2 * row if level == ROOT and len(nodes) * 3 * row < depth - HEAD else thin
        for node, y in zip(nodes, _spread(middles, row, HEAD + row / 2, depth - row / 2), strict=True):
            boxes[node.hash] = _Box(node, left[level], y, WIDTHS[level] * shrink, tall)
    return boxes


def _spread(middles: Sequence[float], gap: float, top: float, bottom: float) -> list[float]:
    """The nearest places in the same order, at least ``gap`` apart and between ``top`` and ``bottom``.

    >>> _spread([1.0, 1.0, 9.0], 2.0, 0.0, 10.0)
    [1.0, 3.0, 9.0]
    >>> _spread([9.0, 9.0], 2.0, 0.0, 10.0)
    [8.0, 10.0]
    """
    places: list[float] = []
    for middle in middles:
        places.append(max(middle, places[-1] + gap if places else top))
    # Going down may have pushed boxes over the lower edge: pushed back up from there, still in their order.
    limit = bottom
    for i in reversed(range(len(places))):
        places[i] = min(places[i], limit)
        limit = places[i] - gap
    return places


def _draw_edges(axes: object, scheme: Scheme, boxes: Mapping[str, _Box]) -> None:
    """From each box to its children; those of a configuration in its colour."""
    groups: dict[str, list[Path]] = defaultdict(list)
    for box in boxes.values():
        colour = _colour(scheme, box.node) if box.node.level == ROOT else GREY
        groups[colour] += [_curve(box, boxes[child]) for child in box.node.children]
    many = sum(len(paths) for paths in groups.values()) > 600
    for colour, paths in groups.items():
        lines = PathCollection(
            paths, facecolor="none", edgecolor=colour, linewidth=0.4 if many else 0.7, alpha=0.35 if many else 0.6
        )
        axes.add_collection(lines)  # type: ignore[attr-defined]


def _colour(scheme: Scheme, root: Node) -> str:
    return PALETTE[scheme.roots.index(root.hash) % len(PALETTE)]


def _curve(parent: _Box, child: _Box) -> Path:
    """A line that leaves and arrives level, so that many of them stay readable."""
    a, b = parent.x + parent.width, child.x
    middle = (a + b) / 2
    points = [(a, parent.y), (middle, parent.y), (middle, child.y), (b, child.y)]
    return Path(points, [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4])


def _uses(scheme: Scheme) -> dict[str, int]:
    """How many configurations each node stands in."""
    uses: dict[str, int] = defaultdict(int)
    for root in scheme.roots:
        for node in scheme.below(scheme.nodes[root]):
            uses[node.hash] += 1
    return uses


def _bins(most: int) -> list[tuple[int, int]]:
    """At most one range of uses per colour.

    >>> _bins(3), _bins(12)
    ([(1, 1), (2, 2), (3, 3)], [(1, 1), (2, 4), (5, 7), (8, 10), (11, 12)])
    """
    if most <= len(USES):
        return [(n, n) for n in range(1, most + 1)]
    ends = [1 + -(-(most - 1) * i // (len(USES) - 1)) for i in range(len(USES))]
    return [(1, 1)] + [(a + 1, b) for a, b in pairwise(ends)]


def _range(first: int, last: int) -> str:
    return f"{first}" if first == last else f"{first}–{last}"
