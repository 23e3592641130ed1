"""The section about the weights: histograms, the curve of cutoffs, outliers, column norms."""

from __future__ import annotations

from ...report.kit.components import Cell, Column, Figure, Section, Table, dig, number, percent
from ...report.kit.labels import short_name
from ..contents import ColumnNorms, WeightsFile
from . import plots
from .parts import Drawing, Part, figure, table

MOST = 8
"""Targets shown with their outliers; the folded table has all."""


def part(content: WeightsFile) -> Part:
    """The section of a ``weights.json``."""
    rows = content["targets"]
    count, zeros = (sum(row[name] for row in rows) for name in ("count", "zeros"))
    pooled, layered, cut = (
        make(content) for make in (plots.histogram_figure, plots.layers_figure, plots.cutoff_figure)
    )
    lead = f"Sizes of the {count:,} weights of {len(rows)} targets, read from the files without loading the model."
    if zeros:
        lead += f" {zeros:,} of them are exactly 0 ({percent(zeros / count)})."
    overview = [
        Drawing("weights-histogram", pooled, "Histogram of the absolute values of all weights", spread(content)),
        Drawing("weights-cutoffs", cut, "Share of weights below any cutoff", below(content)),
    ]
    layers = [Drawing("weights-layers", layered, "The same histogram for every layer", "Numbers in the table below.")]
    parts: list[Table | Figure] = [
        figure(
            "weights-overview",
            "First: how large the weights are; the leftmost bin holds all that is smaller, zeros too. Second: the "
            "share of weights that is below a cutoff, in absolute value.",
            overview,
        ),
        cutoff_table(content),
        figure("weights-by-layer", "Layer by layer, all with the same axes: per cent of the layer's weights.", layers),
        outlier_table(content),
        target_table(content),
        *column_tables(content),
    ]
    files = {drawing.name: drawing.picture for drawing in (*overview, *layers)}
    return Part(Section("weights", "Weights", lead, parts), files)


def spread(content: WeightsFile) -> str:
    """The histogram in words."""
    lines = []
    for part in (0.1, 0.5, 0.9):
        at = next((p["cutoff"] for p in content["cutoffs"] if p["share_below"]["all"] >= part), None)
        if at is not None:
            lines.append(f"{percent(part, 0)} of the weights are below {at:.2g}")
    return "; ".join(lines) + "." if lines else ""


def below(content: WeightsFile) -> str:
    """The curve in words: every decade."""
    points = content["cutoffs"][::-10][::-1]
    return "; ".join(f"below {p['cutoff']:.2g}: {percent(p['share_below']['all'])}" for p in points) + "."


def cutoff_table(content: WeightsFile) -> Table:
    """The points of the curve."""
    kinds = list(content["cutoffs"][0]["share_below"])
    columns = [Column("cutoff"), *(Column("all targets" if k == "all" else f"{k} targets", "below") for k in kinds)]
    rows = [[f"{p['cutoff']:.3g}", *(percent(p["share_below"][kind], 2) for kind in kinds)] for p in content["cutoffs"]]
    return table("cutoffs", "The curve as a table: share of weights below each cutoff", columns, rows, folded=True)


def outlier_table(content: WeightsFile) -> Table:
    """The targets whose largest weights stick out most."""
    rows = sorted(content["targets"], key=lambda r: -(r["max_abs"] / r["std"] if r["std"] else 0.0))[:MOST]
    columns = [
        Column("target", numeric=False),
        Column("largest weight", "absolute"),
        Column("of it", "standard deviations"),
        Column("outliers", "weights over 6 standard deviations"),
        Column("per million", "weights"),
    ]
    cells: list[list[str | Cell]] = [
        [
            short_name([row["target"]]),
            number(row["max_abs"], 3),
            number(row["max_abs"] / row["std"] if row["std"] else None, 1),
            number(row["outliers"]),
            number(1e6 * row["outliers"] / row["count"]),
        ]
        for row in rows
    ]
    caption = f"The {len(rows)} targets whose largest weight is farthest out."
    return table("outliers", caption, columns, cells)


def target_table(content: WeightsFile) -> Table:
    """Figures of every target."""
    columns = [
        Column("target", numeric=False),
        Column("kind", numeric=False),
        Column("shape", "out × in"),
        Column("weights"),
        Column("zeros", "of its weights"),
        Column("mean"),
        Column("standard deviation"),
        Column("1 %", "quantile of |w|"),
        Column("median", "of |w|"),
        Column("99 %", "quantile of |w|"),
        Column("outliers", "weights"),
    ]
    rows = [
        [
            row["target"],
            row["kind"],
            " × ".join(f"{size:,}" for size in row["shape"]),
            number(row["count"]),
            percent(row["zeros"] / row["count"]),
            number(row["mean"], 5),
            number(row["std"], 4),
            *(number(dig(row, "quantiles", q), 4) for q in ("0.01", "0.5", "0.99")),
            number(row["outliers"]),
        ]
        for row in content["targets"]
    ]
    return table("weight-targets", f"All {len(rows)} targets as a table", columns, rows, folded=True)


def column_tables(content: WeightsFile) -> list[Table]:
    """Norms of the inputs' columns: where they differ most, and all; none where no data was named."""
    norms, sample = content.get("columns"), content.get("sample")
    if not norms:
        return []
    columns = [
        Column("target", numeric=False),
        Column("smallest", "norm"),
        Column("median", "norm"),
        Column("largest", "norm"),
        Column("largest / median", "times"),
        Column("top 1 % of columns", "of the squared norm"),
    ]
    rows = sorted(norms, key=lambda row: -row["norms"]["top_share"])[:MOST]
    drawn = f" ({number(sample['examples'])} examples of {sample['data']})" if sample else ""
    caption = (
        f"Columns of the targets' inputs on the calibration sample{drawn}: the length of each over all tokens. Where "
        "few columns hold most of the norm, criteria that look at the inputs (wanda, obs) differ from l1. The "
        f"{len(rows)} targets where that is most so."
    )
    every = f"All {len(norms)} targets' columns as a table"
    return [
        table("columns", caption, columns, [_norms(row, short_name([row["target"]])) for row in rows]),
        table("all-columns", every, columns, [_norms(row, row["target"]) for row in norms], folded=True),
    ]


def _norms(row: ColumnNorms, name: str) -> list[str | Cell]:
    norms, top = row["norms"], row["norms"]["top_share"]
    ratio = norms["max"] / norms["median"] if norms["median"] else None
    figures = [*(number(norms[key], 1) for key in ("min", "median", "max")), number(ratio, 1)]
    return [name, *figures, Cell(percent(top), bar=top)]
