"""Choices of `compose choose` against the same part of every layer and against Kwon et al. 2022, in one run.

    python benchmarks/choose.py [--parts masks rank …] [--keep 0.7 0.6 0.5 0.4 0.3] [--search 0] [-o .bench/choose]

The models of `../shared/models`. DistilBERT on SST-2, no training step: `masks` (`choose_masks.py`), `time`
(`choose_time.py`), `rank` (`choose_rank.py`), `speed` (`choose_speed.py`). The whole way: `family` and, with T5,
`translate` (`choose_family.py`). Every row is kept as it comes; a killed run goes on where it was. All sides look at
the same calibration sample.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from choose_bench import Bench
from choose_family import Family, Translation, show_family, show_translation
from choose_masks import show_masks
from choose_rank import Ranks
from choose_speed import SpeedBench, show_speed
from choose_time import predicted_times

from composer.files.environment import machine, versions

PARTS = ["masks", "time", "rank", "speed", "family", "translate"]


def main() -> int:
    """Make the rows that are not there, and print all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--keep", nargs="+", type=float, default=[0.7, 0.6, 0.5, 0.4, 0.3])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--kwon", choices=["steps", "whole", "none"], default="steps", help="theirs: each step, all")
    parser.add_argument("--search", type=int, default=0)
    parser.add_argument("--steps", type=int, help="of joint tuning [speed: none; family: 120; translate: 900]")
    parser.add_argument("--distill", type=float, default=0.0, help="speed, family: weight of the base model's answers")
    parser.add_argument("--speeds", nargs="+", type=float, help="[speed: 1.5 2 3; family: five; translate: 1.5 2]")
    parser.add_argument("--alone", nargs="+", type=int, help="family: wishes that are made by themselves too [all]")
    parser.add_argument("--calibration-size", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--sizes", nargs="+", type=int, default=[1, 16], help="translate: sentences at once")
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--repeat", type=int, default=15, help="time, translate: times that each is timed")
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="folder with models/ and data/")
    parser.add_argument("-o", "--output", type=Path, default=Path(".bench/choose"))
    given = parser.parse_args()
    print("machine:", ", ".join(f"{k} {v}" for k, v in machine().items()))
    print("versions:", ", ".join(f"{k} {v}" for k, v in versions().items()))
    for seed in given.seeds:
        tables(given, seed)
        ways(given, seed)
    print(f"\nrepeat with: {shlex.join(['python', 'benchmarks/choose.py', *sys.argv[1:]])}")
    return 0


def tables(given: argparse.Namespace, seed: int) -> None:
    """Parts that look at one configuration after the other."""
    bench = Bench(given, seed)
    if "masks" in given.parts:
        show_masks(bench, given.keep)
    if "time" in given.parts:
        print(f"\nseed {seed}, seconds of 20 compositions: {predicted_times(bench)}")
    ranks = Ranks(bench)
    for spread in ("half", "budgets") if "rank" in given.parts else ():
        print(f"\nseed {seed}, predicted and measured, 30 compositions ({spread}): {ranks.rank(spread)}")


def ways(given: argparse.Namespace, seed: int) -> None:
    """Parts that go the whole way."""
    shared, own = given.shared, given.output / f"seed-{seed}"
    if "speed" in given.parts:
        bench = SpeedBench(shared, own / "speed", seed, given.search, given.speeds or [1.5, 2.0, 3.0], given.distill)
        show_speed(bench, given.steps or 0)
    if "family" in given.parts:
        speeds = given.speeds or [1.5, 1.75, 2.0, 2.5, 3.0]
        family = Family(shared, own / "family", seed, speeds, given.steps or 120, given.distill)
        show_family(family, range(len(speeds)) if given.alone is None else given.alone)
    if "translate" in given.parts:
        folder, speeds = own / "translate", given.speeds or [1.5, 2.0]
        how = given.steps or 900, given.sizes, given.repeat
        show_translation(Translation(shared, folder, seed, speeds, *how))


if __name__ == "__main__":
    sys.exit(main())
