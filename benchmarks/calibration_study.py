"""The calibration study on two small models: which set to prune with, for which domain, and whether that is sure.

    python benchmarks/calibration_study.py [--only llama t5] [--shared ../shared] [-o .bench/calibration]

A Llama of 2 million weights, trained here on a mixture of encyclopedia, web, sums and programs
(``benchmarks/language_model.py``), measured by perplexity on held-out text of each; and the T5 of ``../shared/models``
on Multi30K, measured by BLEU. Each is one ``compose assess --parts calibration --suite …``, whose page and pictures
lie in the output folder; nothing is trained after pruning and nothing refitted. A killed run goes on.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from calibration_sets import write_measured, write_mixture, write_sets

from composer.cli.app import call
from composer.files.environment import machine, versions

LLAMA = (
    *("--suite", "language", "--limit", "200", "--window", "128", "--max-source-length", "128"),
    *("--criteria", "wanda", "sparsegpt", "--granularities", "unstructured", "2:4", "4:8", "--rates", "0.5"),
)
T5 = (
    *("--suite", "translation", "--limit", "300"),
    *("--criteria", "wanda", "--granularities", "unstructured", "2:4", "--rates", "0.6"),
)
SAME = ("--calibration-size", "128", "--no-repair")


def trained(given: argparse.Namespace, data: Path) -> Path:
    """The Llama; trained where it is not there."""
    folder, mixture = given.output / "llama", write_mixture(data, given.output / "mixture")
    script = str(Path(__file__).with_name("language_model.py"))
    words = [sys.executable, script, "--text", str(mixture), "-o", str(folder), "--steps", "900"]
    if not (folder / "model.safetensors").is_file():
        subprocess.run(words, check=True)
    return folder


def study(model: Path, sets: Sequence[Path], measured: Path, words: Sequence[str], output: Path) -> int:
    """One study; prints its command, its tables and what it took."""
    line = ["assess", str(model), "--parts", "calibration", "--calibration", *map(str, sets)]
    line += ["--suite-data", str(measured), *words, *SAME, "-o", str(output)]
    print("\n$ compose", *line, flush=True)
    wall, own = time.perf_counter(), time.process_time()
    status = call(line)
    took = f"{time.perf_counter() - wall:.0f} s by the clock, {time.process_time() - own:.0f} s of processor time"
    print(f"{took} (of what was not there yet)", flush=True)
    return status


def main() -> int:
    """Make what is missing, and print all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("-o", "--output", type=Path, default=Path(".bench/calibration"))
    parser.add_argument("--only", nargs="+", default=["llama", "t5"], choices=["llama", "t5"])
    given = parser.parse_args()
    data, output = given.shared / "data", given.output
    print("machine:", machine(), "\nversions:", versions(), flush=True)
    sets, measured = write_sets(data, output / "sets"), write_measured(data, output / "measured")
    status = 0
    if "llama" in given.only:
        model = trained(given, data)
        status |= study(model, list(sets.values()), measured, LLAMA, output / "llama-study")
    if "t5" in given.only:
        model = given.shared / "models/t5-mini-multi30k"
        others = [path for name, path in sets.items() if name != "multi30k"]  # its own training split stands for it
        own = ("--data", str(data / "multi30k"))
        status |= study(model, others, measured, (*T5, *own), output / "t5-study")
    print(f"\nrepeat with: python {' '.join(sys.argv)}")
    return status


if __name__ == "__main__":
    sys.exit(main())
