"""Markdown tables and a picture of what ``benchmarks/criteria.py`` has measured.

python benchmarks/criteria_tables.py .bench/criteria/results.json docs/criteria-results.png
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from composer.files.jsonfile import read_json
from composer.report.kit import canvas

TITLES = {"llama": "Llama on WikiText-2", "t5": "T5 on Multi30K", "distilbert": "DistilBERT on SST-2"}
MAIN = {"llama": "perplexity", "t5": "loss", "distilbert": "loss"}
SAMPLES = {"own": "the task's own", "c4": "C4", "wikitext": "WikiText-2", "multi30k": "Multi30K, English"}
COLUMNS = ("30 %", "40 %", "50 %", "60 %", "70 %", "80 %", "2:4", "4:8", "heads 25 %", "heads 50 %")
DRAWN = {"l1": 0, "wanda": 1, "sparsegpt": 2, "obs": 3, "global_l1": 4, "taylor": 5}
"""Criterion -> colour; the others are only in the tables."""


def markdown(content: Mapping[str, Any]) -> str:
    """All tables."""
    parts = []
    for name, held in content.get("subjects", {}).items():
        dense = ", ".join(f"{metric} {shown(value)}" for metric, value in held["dense"].items())
        parts.append(f"### {TITLES[name]}\n\nDense: {dense}.")
        metrics = [MAIN[name], *(metric for metric in held["dense"] if metric not in (MAIN[name], "loss"))]
        for metric in metrics:
            parts += [f"{metric}:", _main(held.get("own", {}), metric)]
        if samples := _samples(held, MAIN[name]):
            parts += [f"{MAIN[name]}, by calibration sample:", samples]
    return "\n\n".join(part for part in parts if part)


def _main(held: Mapping[str, Any], metric: str) -> str:
    """Criteria by shapes, pruned and repaired."""
    rows = []
    for criterion, shapes in held.items():
        for kind, label in (("pruned", criterion), ("repaired", f"{criterion}, repaired")):
            rows.append([label, *(shown(_figure(shapes, column, kind, metric)) for column in COLUMNS)])
    return table(["", *COLUMNS], rows)


def _samples(held: Mapping[str, Any], metric: str) -> str:
    """Criteria by calibration sample."""
    columns = [(shape, kind) for shape in ("50 %", "70 %") for kind in ("pruned", "repaired")]
    criteria = list(dict.fromkeys(c for name in held if name in SAMPLES and name != "own" for c in held[name]))
    rows = [
        [criterion, SAMPLES[sample], *(shown(_figure(held[sample][criterion], *c, metric)) for c in columns)]
        for criterion in criteria
        for sample in SAMPLES
        if criterion in held.get(sample, {})
    ]
    return table(["", "calibration sample", *(f"{shape} {kind}" for shape, kind in columns)], rows)


def _figure(shapes: Mapping[str, Any], column: str, kind: str, metric: str) -> float | None:
    found = shapes.get(column, {}).get(kind, {}).get(metric)
    return None if found is None else float(found)


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    """A Markdown table without the rows and columns that say nothing."""
    kept = [row for row in rows if any(row[1:])]
    used = [i for i in range(len(head)) if not i or any(row[i] for row in kept)]
    lines = [head, ["---"] * len(head), *kept]
    return "\n".join("| " + " | ".join(line[i] for i in used) + " |" for line in lines) if kept else ""


def shown(value: float | None) -> str:
    """Three places of what is small, none of what is large."""
    if value is None:
        return ""
    return f"{value:.3f}" if value < 10 else f"{value:.1f}" if value < 1000 else f"{value:,.0f}"


def picture(content: Mapping[str, Any], output: Path) -> None:
    """The main metric against the rate: a row for each model, pruned at the left, repaired at the right."""
    subjects = content.get("subjects", {})
    with canvas.style():
        figure = Figure(figsize=(9.5, 2.9 * len(subjects)), layout="constrained")
        axes = figure.subplots(len(subjects), 2, squeeze=False)
        handles: dict[str, Any] = {}
        for row, (name, held) in zip(axes, subjects.items(), strict=True):
            dense = float(held["dense"][MAIN[name]])
            values = [dense]
            for axis, kind in zip(row, ("pruned", "repaired"), strict=True):
                lines = _lines(held.get("own", {}), kind, MAIN[name])
                for criterion, points in lines.items():
                    colour = DRAWN[criterion]
                    style = {"color": canvas.PALETTE[colour], "marker": canvas.MARKERS[colour], "markersize": 4}
                    handles[criterion] = axis.plot(*zip(*points, strict=True), label=criterion, linewidth=1.4, **style)[
                        0
                    ]
                    values += [value for _, value in points]
                handles["dense"] = axis.axhline(dense, color=canvas.GREY, linewidth=1, linestyle=":", label="dense")
                axis.set_title(f"{TITLES[name]}: {kind}")
                axis.set_xlabel("linear weights removed, %")
                axis.set_xlim(28, 82)
            for axis in row:
                canvas.loss_axis(axis, values, MAIN[name])
        canvas.legend(figure, [handles[name] for name in (*DRAWN, "dense") if name in handles], columns=7)
        canvas.save(figure, output)


def _lines(held: Mapping[str, Any], kind: str, metric: str) -> dict[str, list[tuple[int, float]]]:
    """Criterion -> rates in per cent and figures, of what is drawn and there."""
    found = {
        criterion: [
            (int(column.split()[0]), value)
            for column in COLUMNS[:6]
            if (value := _figure(held.get(criterion, {}), column, kind, metric)) is not None
        ]
        for criterion in DRAWN
    }
    return {criterion: points for criterion, points in found.items() if points}


if __name__ == "__main__":
    found = read_json(Path(sys.argv[1]))
    print(markdown(found))
    picture(found, Path(sys.argv[2]))
