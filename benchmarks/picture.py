"""The README's picture, from the stats of a benchmark run.

python benchmarks/picture.py .bench/multi30k_t5 docs/comparison.png
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from composer.report.curves import Curve, read_stats
from composer.report.kit import canvas
from composer.report.plots import Panel, comparison_figure


def _curve(folder: Path, name: str) -> Curve:
    return read_stats(folder / "stats" / f"{name}.csv").curves[0]


def main(folder: Path, output: Path) -> None:
    """Draw one panel per configuration."""
    table = json.loads((folder / "results" / "comparison.json").read_text(encoding="utf-8"))["result"]
    panels = [
        Panel(i, _curve(folder, f"model-{i}"), _curve(folder, f"baseline-{i}")) for i in range(len(table["rows"]))
    ]
    canvas.save(comparison_figure(panels, dense=table["dense"]["untouched"]["loss"]), output)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
