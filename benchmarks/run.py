"""Run a benchmark: the whole way from rates to compared models on real data, both sides in one run.

    python benchmarks/run.py multi30k_t5        [--shared ../shared] [-o FOLDER] [--short]
    python benchmarks/run.py sst2_distilbert    …

Prints machine, versions, the tables of `compose compare` and the command to repeat it. A killed run goes on
where it was. `--short` is the few-step version that continuous integration runs.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

HERE = Path(__file__).parent
INPUTS = {
    "multi30k_t5": ("models/t5-mini-multi30k", "data/multi30k"),
    "sst2_distilbert": ("models/distilbert-mini-sst2", "data/sst2"),
}


def main() -> int:
    """Read the arguments, check the inputs, hand over to `compose run`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(INPUTS))
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="folder with models/ and data/")
    parser.add_argument("-o", "--output", type=Path, help="default: .bench/NAME")
    parser.add_argument("--short", action="store_true", help="few steps, two configurations")
    parser.add_argument("--trainer", help="another block trainer than the recipe's")
    given = parser.parse_args()
    model, data = (given.shared / part for part in INPUTS[given.name])
    missing = [str(path) for path in (model, data) if not path.is_dir()]
    if missing:
        print(f"error: {', '.join(missing)}: no such folder; name the one that holds it with --shared", file=sys.stderr)
        return 2
    output = given.output or Path(".bench") / (given.name + ("_short" if given.short else ""))
    recipe = HERE / f"{given.name}{'_short' if given.short else ''}.yaml"
    arguments = ["run", str(recipe), "-o", str(output), "--model", str(model), "--data", str(data)]
    if given.trainer:
        arguments += ["--trainer", given.trainer]
    _print_machine()
    from composer.cli.app import call as compose

    status = compose(arguments)
    print(f"\nrepeat with: {shlex.join(['python', 'benchmarks/run.py', *sys.argv[1:]])}")
    return int(status or 0)


def _print_machine() -> None:
    import torch  # noqa: F401  (machine() tells its number of threads)

    from composer.files.environment import machine, versions

    print("machine: " + ", ".join(f"{key} {value}" for key, value in machine().items()))
    print("versions: " + ", ".join(f"{key} {value}" for key, value in versions().items()) + "\n")


if __name__ == "__main__":
    sys.exit(main())
