"""The README's picture: what eight composed models reach, and all work of both sides.

    python benchmarks/picture.py benchmarks/results/t5 docs/headline.png

Drawn from the results of benchmarks/joint.py alone: question A. Both sides have the same masks and pay for them;
searches count too.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from composer.files.jsonfile import read_json
from composer.report.headline import Headline, draw

CONFIGURATIONS, JOINT_STEPS = 8, 120
DENSE = 1.681
"""Validation loss of the base model on the same 512 pairs (docs/results.md)."""


def headline(results: dict[str, Any]) -> Headline:
    """The figures of eight configurations."""
    told = results["seeds"]["1"]
    alone = told["alone"]["A"]
    made = next(m for m in told["A"] if (m["configurations"], m["joint_steps"]) == (CONFIGURATIONS, JOINT_STEPS))
    rows = alone["rows"][:CONFIGURATIONS]
    lost = sum(row["seconds"] for row in alone["search"] if row["learning_rate"] != alone["learning_rate"])
    tried = sum(row["joint_seconds"] for row in made["search"])
    masks = ("choose what goes", made["prune_seconds"])
    return Headline(
        losses=[(row["loss"], ours) for row, ours in zip(rows, made["loss"], strict=True)],
        dense=DENSE,
        work={
            "baseline": [
                masks,
                ("search the rate", lost),
                ("train each separately", sum(row["seconds"] for row in rows)),
            ],
            "composed": [
                masks,
                ("blocks, once for all", made["block_seconds"]),
                ("search the rate", tried),
                ("train all together", made["joint_seconds"]),
            ],
        },
    )


if __name__ == "__main__":
    draw(headline(read_json(Path(sys.argv[1]) / "results.json")), Path(sys.argv[2]))
