"""What to prune, learnt, and learning back for little: rows of docs/learning-results.md, in one run.

    python benchmarks/learn.py [t5|distilbert] [--parts movement rates recovery merge] [-o .bench/learn-t5]

Parts are files: `movement` and `rates` (`learn_masks.py`), `recovery` (`learn_recovery.py`), `merge`
(`learn_merge.py`), `start` (`learn_start.py`), `bleu` (`learn_bleu.py`, T5), `hybrid` and `back` (`learn_hybrid.py`,
`learn_back.py`, DistilBERT). In the first four, and in `start` of the T5, only linear targets are pruned, by single
weights; losses are on the first `--valid` validation examples. Every row is kept as it comes; a killed run goes on.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from learn_bench import MODELS, Bench
from learn_recovery import LEARNT

from composer.files.environment import machine, versions

PARTS: Mapping[str, str] = {
    "movement": "learn_masks:movement",
    "rates": "learn_masks:rates",
    "recovery": "learn_recovery:part",
    "merge": "learn_merge:part",
    "bleu": "learn_bleu:part",
    "hybrid": "learn_hybrid:part",
    "start": "learn_start:part",
    "back": "learn_back:part",
}
"""Part -> module and function, which takes a :class:`learn_bench.Bench`."""
OF_TASK = {"distilbert": ("hybrid", "back"), "t5": ("bleu",)}
"""Parts for one model alone."""


def main() -> int:
    """Make the rows that are not there, and print all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", nargs="?", choices=list(MODELS), default="t5")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), help="[all of the model]")
    parser.add_argument("--criteria", nargs="+", default=["l1", "obs", "movement"])
    parser.add_argument("--steps", type=int, default=300, help="of a movement run")
    parser.add_argument("--rate", type=float, default=0.7, help="masked at its end, and by `start` of the T5")
    parser.add_argument("--learning-rate", type=float, default=1e-4, help="of its weights")
    parser.add_argument("--rates", nargs="+", type=float, default=[0.5, 0.7, 0.9], help="that are pruned at")
    parser.add_argument("--tune", type=int, default=100, help="steps after the run")
    parser.add_argument("--tune-rate", type=float, default=3e-4)
    parser.add_argument("--trained", nargs="*", type=float, default=[0.7], help="rates that are trained further")
    parser.add_argument("--recover", type=int, default=100, help="steps of learning back")
    parser.add_argument("--recovered", nargs="+", type=float, default=[0.5, 0.7], help="rates of learning back")
    parser.add_argument("--learns", nargs="+", choices=list(LEARNT), default=list(LEARNT), help="`all` first")
    parser.add_argument("--all-rates", nargs="+", type=float, default=LEARNT["all"], help="tried where all learns back")
    parser.add_argument("--hybrid", nargs="+", choices=["blocks", "heads"], default=["blocks"], help="in attentions")
    parser.add_argument("--scores", nargs="+", default=["movement"], help="of hybrid masks")
    parser.add_argument("--hybrid-steps", type=int, default=1000)
    parser.add_argument("--hybrid-rate", type=float, default=1e-4)
    parser.add_argument("--teacher-share", type=float, default=0.9, help="of the dense model's answers in the loss")
    parser.add_argument("--teacher", type=Path, help="hybrid: a folder, as of larger_teacher.py [the dense model]")
    parser.add_argument("--hybrid-hidden", type=float, default=0.0, help="weight of the teacher's hidden states")
    parser.add_argument("--densify-steps", type=int, default=200, help="after shrinking")
    parser.add_argument("--densify-rate", type=float, default=1e-4)
    parser.add_argument("--starts", nargs="+", choices=["single", "heads", "chosen"], help="[all of the model]")
    parser.add_argument("--start-rates", nargs="+", type=float, default=[1e-4], help="of both sides")
    parser.add_argument("--start-steps", nargs="+", type=int, default=[80], help="from repaired blocks")
    parser.add_argument("--dense-steps", nargs="+", type=int, default=[240], help="from the dense model")
    parser.add_argument("--back", nargs="+", choices=["blocks", "heads", "chosen"], default=["chosen"])
    parser.add_argument("--back-masks", nargs="*", choices=["held", "moved"], default=["held", "moved"])
    parser.add_argument("--swept", action="store_true", help="refit closed forms on a model's own inputs too")
    parser.add_argument("--timed", action="store_true", help="time the shrunk model beside the dense one too")
    parser.add_argument("--back-steps", type=int, default=300, help="after closed forms")
    parser.add_argument("--back-rates", nargs="+", type=float, default=[3e-5])
    parser.add_argument("--hidden-weights", nargs="+", type=float, default=[0.0], help="of the teacher's hidden states")
    parser.add_argument("--temperature", type=float, default=1.0, help="of a teacher's answers")
    parser.add_argument("--train-lengths", choices=["train", "valid"], default="train", help="of texts learnt from")
    parser.add_argument("--no-dropout", dest="dropout", action="store_false", help="hybrid, and learning back")
    parser.add_argument("--grouped", action="store_true", help="batches of texts of like length (hybrid, back)")
    parser.add_argument(
        "--bleu", nargs="+", choices=["single", "hybrid", "units", "chosen"], default=["single", "hybrid"]
    )
    parser.add_argument("--bleu-steps", type=int, default=300)
    parser.add_argument("--bleu-rates", nargs="+", type=float, default=[3e-4], help="peak rates")
    parser.add_argument("--small", action="store_true", help="shrink before these steps, where that can be done")
    parser.add_argument("--bleu-test", type=int, default=500, help="test sentences")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--valid", type=int, default=512)
    parser.add_argument("--calibration-size", type=int, default=256)
    parser.add_argument("--calibration-lengths", choices=["train", "valid"], default="train")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="folder with models/ and data/")
    parser.add_argument("-o", "--output", type=Path, help="folder [.bench/learn-TASK]")
    given = parser.parse_args()
    others = [name for task, names in OF_TASK.items() if task != given.task for name in names]
    given.parts = given.parts or [name for name in PARTS if name not in others]
    given.output = given.output or Path(f".bench/learn-{given.task}")
    import torch  # noqa: F401  (machine() tells its number of threads)

    print("machine:", ", ".join(f"{k} {v}" for k, v in machine().items()))
    print("versions:", ", ".join(f"{k} {v}" for k, v in versions().items()))
    for seed in given.seeds:
        bench = Bench(given, seed)
        print(f"\n{given.task}, seed {seed}, batches of {given.batch_size}, {given.valid} validation examples")
        for part in given.parts:
            module, function = PARTS[part].split(":")
            getattr(import_module(module), function)(bench)
    print(f"\nrepeat with: {shlex.join(['python', 'benchmarks/learn.py', *sys.argv[1:]])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
