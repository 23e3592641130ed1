"""``compose masks``: the comparison as files, pictures and one self-contained page, ``masks.html``."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure as Picture

from ...progress import SILENT, Progress
from ...report.kit import canvas, components
from ...report.kit.canvas import GREY, PALETTE
from ...report.kit.components import Cell, Column, Figure, Section, Table, Tile, number, percent, provenance_facts
from ...report.kit.labels import short_name
from ...steps.outcome import Outcome
from ..pages import grids
from ..pages.page import read_parts
from ..pages.parts import Drawing, Part, figure, table
from .contents import CellPicture, MasksFile, Overlap, PairOverlap, TargetOverlap, in_all
from .overlap import compare_masks, densities, differing

PAGE = "masks.html"
NAME = "masks"
COLOURS = {"both": GREY, "only_a": PALETTE[1], "only_b": PALETTE[0]}
SIDE = 1.5
"""Inches of a picture along its longer side."""


def assess_masks(names: Sequence[str], folder: Path, *, progress: Progress = SILENT) -> Outcome:
    """Compare what models or libraries removed, and write all of it into ``folder``.

    Raises:
        ModelError, LibraryError: see :func:`composer.assess.masks.overlap.compare_masks`.
    """
    content = compare_masks(names, folder, progress=progress)
    page = write_page(folder)
    pairs = [{**pair, "rows": [_without_picture(row) for row in pair["rows"]]} for pair in content["pairs"]]
    most = [_without_picture(row) for row in differing(content["pairs"][0]["rows"])]
    summary = {"models": content["models"], "pairs": pairs, "differing": most, "page": str(page)}
    return Outcome(folder, True, summary)


def _without_picture(row: TargetOverlap) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "picture"}


def write_page(folder: Path) -> Path:
    """Write ``masks.html`` from ``masks.json`` alone, and the pictures as files; returns the page."""
    content = cast("MasksFile", read_parts(folder, (NAME,))[NAME])
    parts = [part(pair, i, len(content["pairs"])) for i, pair in enumerate(content["pairs"])]
    for one in parts:
        one.save(folder, folder / f"{NAME}.json")
    sections = [one.section for one in parts]
    if len(content["pairs"]) > 1:
        sections.insert(0, Section("pairs", "All pairs", "", [pair_table(content)]))
    components.write_page(
        folder / PAGE,
        "report.html",
        title="What was removed: the overlap",
        verdict=verdict(content["pairs"][0]),
        tiles=_tiles(content["pairs"][0]) if len(content["pairs"]) == 1 else [],
        facts=[(f"Model {i}", name) for i, name in enumerate(content["models"])],
        sections=sections,
        links=[(s.name, s.heading) for s in sections] + [("again", "Repeat it")],
        command=shlex.join(["compose", "masks", *content["models"], "-o", str(folder)]),
        provenance=[fact for fact in provenance_facts(content.get("provenance")) if fact[1] != components.DASH],
        recipe="",
    )
    return folder / PAGE


def verdict(pair: PairOverlap) -> str:
    """The answer for a pair, in a sentence."""
    text = f"Of all that {pair['a']} or {pair['b']} removed, {percent(pair['jaccard_all'], 0)} is removed by both"
    return f"{text}; random masks as large would share {percent(pair['chance_all'], 0)}."


def part(pair: PairOverlap, i: int, of: int) -> Part:
    """The section of one pair."""
    name = "overlap" if of == 1 else f"overlap-{i}"
    values = {row["target"]: row["jaccard"] for row in pair["rows"]}
    heat = grids.grid_figure([grids.by_layer("", values)], grids.percents("overlap (Jaccard, %)", PALETTE[2]))
    drawing = Drawing(name, heat, "Overlap of every target, by layer and role", "Numbers in the table below.")
    caption = "Share of what either side removed that both removed. Blank: nothing removed, or no such target."
    parts: list[Table | Figure] = [layer_table(pair, name), figure(f"{name}-figure", caption, [drawing])]
    files = {name: heat}
    shown = [row for row in differing(pair["rows"]) if row.get("picture")]
    if shown:
        parts.append(mask_figure(shown, name, pair))
        files[f"{name}-masks"] = masks_picture(shown, pair)
    parts.append(target_table(pair, name))
    heading = "Overlap" if of == 1 else f"{pair['a']} and {pair['b']}"
    return Part(Section(name, heading, verdict(pair) if of > 1 else "", parts), files)


def mask_figure(rows: Sequence[TargetOverlap], name: str, pair: PairOverlap) -> Figure:
    """Every mask in a tile of its own, the most different first."""
    drawings = [
        Drawing(f"{name}-mask-{i}", masks_picture([row], None), f"Masks of {row['target']}", _say(row))
        for i, row in enumerate(rows)
    ]
    more = len([row for row in pair["rows"] if row["jaccard"] is not None]) - len(rows)
    caption = (
        "The masks, made small (outputs from top to bottom, inputs from left to right), the most different first. "
        f"Grey: removed by both. Orange: only by {pair['a']}. Blue: only by {pair['b']}. Percentage: the overlap."
    )
    return figure(
        f"{name}-pictures", caption + (f" {more} more are in the table." if more > 0 else ""), drawings, "tiny"
    )


def masks_picture(rows: Sequence[TargetOverlap], pair: PairOverlap | None, *, across: int = 4) -> Picture:
    """Masks side by side, with a legend that names the models of ``pair``."""
    across = min(across, len(rows))
    down = -(-len(rows) // across)
    tile, head, foot = SIDE + 0.12, 0.4, 0.3 if pair else 0.0
    width, height = across * tile, down * (tile + head) + foot
    with canvas.style():
        picture = Picture(figsize=(width, height))
        for i, row in enumerate(rows):
            line, column = divmod(i, across)
            x, y = column * tile + 0.06, height - (line + 1) * (tile + head) + 0.06
            axes = picture.add_axes((x / width, y / height, SIDE / width, SIDE / height))
            if row["picture"]:
                axes.imshow(pixels(row["picture"]), interpolation="none", aspect="auto")
            axes.set(xticks=[], yticks=[])
            axes.grid(False)
            for spine in axes.spines.values():
                spine.set(visible=True, linewidth=0.6)
            top = y + SIDE
            picture.text(x / width, (top + 0.27) / height, short_name([row["target"]]), fontsize=8, va="center")
            overlap = f"{percent(row['jaccard'], 0)} overlap"
            picture.text(x / width, (top + 0.1) / height, overlap, fontsize=8, va="center", color=canvas.FAINT)
        if pair:
            _names(picture, pair)
    return picture


def _names(picture: Picture, pair: PairOverlap) -> None:
    from matplotlib.patches import Patch

    texts = {"both": "both", "only_a": f"only {pair['a']}", "only_b": f"only {pair['b']}"}
    handles = [Patch(color=COLOURS[name], label=text) for name, text in texts.items()]
    picture.legend(handles=handles, loc="lower left", ncols=1 if picture.get_figwidth() < 4 else 3, fontsize=8)


def pixels(picture: CellPicture) -> Any:
    """Colours of the cells, (rows, columns, RGBA): the mean of what is removed, opaque where all is."""
    parts = {
        "both": densities(picture["both"]),
        "only_a": densities(picture["only_a"]),
        "only_b": densities(picture["only_b"]),
    }
    opacity = np.sum(list(parts.values()), axis=0)
    colours: Any = sum(density[..., None] * np.array(to_rgb(COLOURS[name])) for name, density in parts.items())
    mixed = colours / np.maximum(opacity, 1e-9)[..., None]
    return np.clip(np.concatenate([mixed, opacity[..., None]], axis=2), 0, 1)


def pair_table(content: MasksFile) -> Table:
    """All pairs with their overlap."""
    columns = [Column("a", numeric=False), Column("b", numeric=False), *_columns()]
    rows = [[Cell(pair["a"]), Cell(pair["b"]), *_cells(in_all(pair))] for pair in content["pairs"]]
    return table("pair-table", "Every pair of models.", columns, rows)


def layer_table(pair: PairOverlap, name: str) -> Table:
    """The layers of a pair, and the whole."""
    rows = [[Cell(row["layer"]), *_cells(row)] for row in pair["layers"]]
    rows.append([Cell("in all"), *_cells(in_all(pair))])
    columns = [Column("layer", numeric=False), *_columns()]
    return Table(f"{name}-layers", f"a: {pair['a']}; b: {pair['b']}.", columns, rows, total=1)


def target_table(pair: PairOverlap, name: str) -> Table:
    """All targets of a pair."""
    columns = [Column("target", numeric=False), Column("weights"), *_columns()]
    rows = [[Cell(row["target"]), Cell(number(row["total"])), *_cells(row)] for row in pair["rows"]]
    return table(f"{name}-targets", f"All {len(rows)} targets as a table", columns, rows, folded=True)


def _columns() -> list[Column]:
    unit = "of the weights"
    return [
        Column("removed a", unit),
        Column("removed b", unit),
        Column("removed by both", unit),
        Column("overlap", "Jaccard"),
        Column("by chance", "Jaccard of random masks"),
    ]


def _cells(row: Overlap) -> list[Cell]:
    removed = [Cell(percent(count / row["total"])) for count in (row["removed_a"], row["removed_b"], row["both"])]
    return [*removed, Cell(percent(row["jaccard"]), bar=row["jaccard"]), Cell(percent(row["chance"]))]


def _tiles(pair: PairOverlap) -> list[Tile]:
    found = [Tile(percent(pair["jaccard_all"]), "of what either removed is removed by both (Jaccard)")]
    found.append(Tile(percent(pair["chance_all"]), "would be, by random masks as large"))
    rows = differing(pair["rows"])
    return [*found, Tile(percent(rows[0]["jaccard"]), f"is the least of a target: {short_name([rows[0]['target']])}")]


def _say(row: TargetOverlap) -> str:
    both, a, b = row["both"], row["removed_a"] - row["both"], row["removed_b"] - row["both"]
    return f"Removed by both {both:,} of {row['total']:,} weights, only by a {a:,}, only by b {b:,}."
