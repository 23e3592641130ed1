"""Shrunk models against the masked ones and against copying: the figures of docs/shrinking.md.

    python benchmarks/shrink.py [--parts t5 distilbert cost …] [--shared ../shared] [-o .bench/shrink] [--tables]

A part is a measurement of its own, and its result a file, `parts/NAME.json`: one that is there is not made again, so a
killed run goes on where it was. Parts:

* `t5`, `distilbert`: a trained model without half of its heads, half of its neurons, both, a whole attention and
  feed-forward, a whole layer; as pruned, and after a model-level fine-tuning with the masks held. Masked and shrunk are
  compared in a fresh process (logits, greedy and beam search) and on the task's test data.
* `cost`: a BERT-base-shaped model of random weights, in one file and in shards: seconds and memory of shrinking beside
  those of copying the folder, in turn, each in a process of its own.
* `speed-distilbert`, `speed-bert`, `speed-t5`: see `benchmarks/shrink_speed.py`.

* `end-to-end`: four structured configurations of DistilBERT by one command, `compose run` with `shrink: true`: pruned,
  tuned, composed, shrunk, evaluated and timed beside the base model.

Prints machine, versions, the tables and the command to repeat it.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import plan
from shrink_speed import SPEED, show

from composer.files.environment import machine, versions
from composer.files.jsonfile import read_json, write_json
from composer.models.folder import BaseModel
from composer.recipe import load_recipe
from composer.steps.build_model import build_model
from composer.steps.evaluate import evaluate
from composer.steps.prune import prune
from composer.steps.run import run, with_best
from composer.steps.shrink import shrink
from composer.steps.tune_model import finetune_model
from composer.workspace import Workspace


@dataclass(frozen=True)
class Part:
    """A measurement: what makes it, given the folder of shared inputs and a folder of its own, and what prints it."""

    make: Callable[[Path, Path], Any]
    show: Callable[[Any], None]


MODELS: dict[str, dict[str, Any]] = {
    "t5": {
        "model": "models/t5-mini-multi30k",
        "data": "data/multi30k",
        "recipe": {"max_source_length": 64, "max_target_length": 64, "valid_size": 64, "test_size": 100},
        "rate": 0.0003,
        "sublayers": ("encoder.block.0.layer.0.*", "decoder.block.2.layer.2.*"),
        "layer": ("encoder.block.1.*", "decoder.block.1.*"),
    },
    "distilbert": {
        "model": "models/distilbert-mini-sst2",
        "data": "data/sst2",
        "recipe": {"task": "classification", "max_source_length": 64, "valid_size": 64, "test_size": 200},
        "rate": 0.00003,  # at the default the model as pruned would be the best, and kept
        "sublayers": ("*.layer.0.attention", "*.layer.5.ffn.lin1"),
        "layer": ("*.layer.3.*",),
    },
}
STEPS = 20
"""Of the model-level fine-tuning."""


def cases(base: BaseModel, given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Configurations by what they take."""
    from fnmatch import fnmatch

    layout = base.layout
    heads = {t.path: 0.5 for t in layout.targets if t.kind == "attention"}
    neurons = {t.path: {"rate": 0.5, "granularity": "neuron"} for t in layout.targets if layout.feed_forward(t.path)}

    def wholes(globs: tuple[str, ...]) -> dict[str, Any]:
        paths = [path for path in (*heads, *neurons) if any(fnmatch(path, glob) for glob in globs)]
        return {path: 1 if path in heads else {"rate": 1, "granularity": "neuron"} for path in paths}

    return {
        "half of the heads": heads,
        "half of the neurons": neurons,
        "half of both": {**heads, **neurons},
        "an attention and a feed-forward": wholes(given["sublayers"]),
        "a layer": wholes(given["layer"]),
    }


def equality(name: str) -> Callable[[Path, Path], Any]:
    """The part of a trained model."""

    def make(shared: Path, folder: Path) -> list[dict[str, Any]]:
        given = MODELS[name]
        start = {"model": str(shared / given["model"]), "data": str(shared / given["data"]), "folder": str(folder)}
        tuning = {"finetune": {"steps": STEPS, "batch_size": 16, "evaluations": 1, "learning_rate": given["rate"]}}
        rows = []
        with Workspace(load_recipe(given=start | given["recipe"] | tuning, file=False)) as work:
            chosen = cases(work.base, given)
            plan(work, list(chosen.values()), force=True)
            prune(work)
            for i, case in enumerate(chosen):
                kept = folder / f"case-{i}.json"
                if not kept.exists():
                    write_json(kept, list(measured(work, i, case)))
                rows += read_json(kept)
        return rows

    return make


def measured(work: Workspace, i: int, case: str) -> Iterator[dict[str, Any]]:
    """Configuration ``i`` as pruned, and after a model-level fine-tuning."""
    masked = build_model(work, i, modules=work.pruned, force=True).output
    tuned = finetune_model(work, "baseline", i, force=True).output
    for stage, source in (("pruned", masked), ("tuned", tuned)):
        yield {"case": case, "stage": stage, **compared(work, source)}
        print(f"{work.base.folder.name}: {case}, {stage}", file=sys.stderr)
    shutil.rmtree(tuned)


def compared(work: Workspace, source: Path) -> dict[str, Any]:
    """A masked folder shrunk, and both of them on the test data."""
    began = time.process_time()
    made = shrink(source, force=True)
    seconds = time.process_time() - began
    results = evaluate(work, [source, made.output], force=True).summary["results"]
    before, after = ({"loss": one["loss"], **one["metrics"]} for one in results)
    rows = ("form", "why", "parameters", "bytes", "macs", "dropped", "verification")
    kept = {key: made.summary[key] for key in rows}
    disk = sum(file.stat().st_size for file in made.output.rglob("*") if file.is_file())
    return {**kept, "cpu_seconds": seconds, "disk": disk, "masked": before, "shrunk": after}


def show_equality(rows: list[dict[str, Any]]) -> None:
    """As a table."""
    print("\n| what goes | stage | form | parameters | MB | MACs | logits differ by | tokens | masked | shrunk |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        metric = next(name for name in row["masked"] if name != "loss")
        share = row["parameters"]["after"] / row["parameters"]["before"]
        cells = [
            row["case"],
            row["stage"],
            row["form"],
            f"{share:.0%}",
            f"{row['bytes']['before'] / 1e6:.1f} to {row['bytes']['after'] / 1e6:.1f}",
            f"{row['macs']['after'] / row['macs']['before']:.0%}",
            f"{row['verification']['difference']:.1e}",
            f"{row['verification']['generated'] or '–'}",
            f"{metric} {row['masked'][metric]:.4g}",
            f"{metric} {row['shrunk'][metric]:.4g}",
        ]
        print(f"| {' | '.join(cells)} |")


BASE = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
TRIES = 5

CHILD = """
import json, sys, time
from pathlib import Path
import torch, transformers, safetensors.torch
from composer.models.folder import BaseModel
from composer.shrinking.shrink import shrink_into
import composer.models.storage, transformers.activations
from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES
CONFIG_MAPPING["bert"]
source, output = map(Path, sys.argv[1:])
output.mkdir()
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
before = peak()
wall, cpu = time.perf_counter(), time.process_time()
shrink_into(output, BaseModel(source), "auto")
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
after = peak()
print(json.dumps({"wall": wall, "cpu": cpu, "bytes": (after - before) * 1024, "start": before * 1024}))
"""


def cost(_: Path, folder: Path) -> dict[str, Any]:
    """Shrinking beside copying, in turn."""
    found = {}
    for kind, shard in (("one file", "10GB"), ("shards of 100 MB", "100MB")):
        source = folder / kind.replace(" ", "-")
        if not source.exists():
            half_a_bert(source, shard)
        size = sum(file.stat().st_size for file in source.iterdir())
        tries = []
        for i in range(TRIES):
            began, worked = time.perf_counter(), time.process_time()
            shutil.copytree(source, folder / "copy")
            copied = {"wall": time.perf_counter() - began, "cpu": time.process_time() - worked}
            command = [sys.executable, "-c", CHILD, str(source), str(folder / "small")]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            tries.append({"copy": copied, "shrink": json.loads(done.stdout.splitlines()[-1])})
            print(f"cost: {kind}, try {i + 1} of {TRIES}", file=sys.stderr)
            for name in ("copy", "small"):
                shutil.rmtree(folder / name)
        found[kind] = {"bytes": size, "tries": tries}
    return found


def half_a_bert(folder: Path, shard: str) -> None:
    """A BERT of the base size without half of its heads and neurons, by zeros."""
    import torch
    import transformers

    torch.manual_seed(0)
    model = transformers.BertForMaskedLM(transformers.BertConfig(**BASE))
    for name, parameter in model.named_parameters():
        rows = len(parameter) // 2
        if ".attention.self." in name or ".intermediate." in name:
            parameter.data[:rows] = 0
    model.save_pretrained(folder, max_shard_size=shard)


def show_cost(found: dict[str, Any]) -> None:
    """As a table; of several tries the median."""
    from statistics import median

    print("\n| half a BERT-base | MB | copy, s (CPU) | shrink, s (CPU) | times copying (CPU) | MB added | share |")
    print("|---|---|---|---|---|---|---|")
    for kind, row in found.items():
        copy, copied = (median(one["copy"][key] for one in row["tries"]) for key in ("wall", "cpu"))
        wall, cpu, above = (median(one["shrink"][key] for one in row["tries"]) for key in ("wall", "cpu", "bytes"))
        times, work = (median(one["shrink"][key] / one["copy"][key] for one in row["tries"]) for key in ("wall", "cpu"))
        size = row["bytes"]
        seconds = f"{copy:.2f} ({copied:.2f})", f"{wall:.2f} ({cpu:.2f})"
        cells = (kind, f"{size / 1e6:.0f}", *seconds, f"{times:.1f} ({work:.1f})")
        print(f"| {' | '.join(cells)} | {above / 1e6:.0f} | {above / size:.2f} |")


FOUR = {
    "structured": True,
    "attention": [0.25, 0.5, 0.25, 0.5],
    "linear": [0.5, 0.5, 0.75, 0.75],
    "shrink": True,
    "calibration_size": 256,
    "train_size": 4000,
    "valid_size": 200,
    "test_size": 1000,
    "budgets": [1.0],
    "finetune": {"steps": 40, "batch_size": 16, "evaluations": 2, "learning_rate": 1e-4},
}
"""What the run of `end-to-end` is told beside model and data."""


def end_to_end(shared: Path, folder: Path) -> dict[str, Any]:
    """One run, resumed where it was killed."""
    given = MODELS["distilbert"]
    start = {"model": str(shared / given["model"]), "data": str(shared / given["data"]), "folder": str(folder)}
    began = time.process_time()
    made = run(with_best(load_recipe(given=start | FOUR, file=False)))
    return {"rows": made.summary["shrunk"], "cpu_seconds": time.process_time() - began}


def show_end_to_end(found: dict[str, Any]) -> None:
    """As a table."""
    rows = found["rows"]
    metrics, cells = list(rows[0]["metrics"]), rows[0]["faster"]
    heads = [
        "model",
        "million weights",
        "MB",
        *metrics,
        "loss",
        *(f"{c['part']}, batch {c['batch_size']}" for c in cells),
        "MACs",
    ]
    print(f"\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for row in rows:
        figures = [f"{row['metrics'][name]:.3f}" for name in metrics]
        faster = [f"{c['value']:.2f}x{' (too noisy to say)' * c['noisy']}" for c in row["faster"]]
        macs = row["faster"][-1]["macs"]
        size = [f"{row['parameters'] / 1e6:.1f}", f"{row['bytes'] / 1e6:.1f}"]
        line = [Path(row["model"]).name, *size, *figures, f"{row['loss']:.3f}", *faster]
        print(f"| {' | '.join(line)} | {f'1/{macs:.2f}' if macs else 'all'} |")
    print(f"\n{found['cpu_seconds']:.0f} s of processor time in all")


PARTS: dict[str, Part] = {
    **{name: Part(equality(name), show_equality) for name in MODELS},
    "cost": Part(cost, show_cost),
    "end-to-end": Part(end_to_end, show_end_to_end),
    **{name: Part(make, show) for name, make in SPEED.items()},
}
"""Everything that is measured, in this order."""


def main() -> int:
    """Make the parts that are not there, and print all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="folder with models/ and data/")
    parser.add_argument("-o", "--output", type=Path, default=Path(".bench/shrink"))
    parser.add_argument("--tables", action="store_true", help="measure nothing, print what is there")
    given = parser.parse_args()
    for name in given.parts:
        path = given.output / "parts" / f"{name}.json"
        if not path.exists() and not given.tables:
            found = PARTS[name].make(given.shared, given.output / name)
            write_json(path, {"found": found, "machine": machine(), "versions": versions()})
        if path.exists():
            kept = read_json(path)
            print(f"\n## {name}\n\nmachine: {', '.join(f'{k} {v}' for k, v in kept['machine'].items())}")
            print(f"versions: {', '.join(f'{k} {v}' for k, v in kept['versions'].items())}")
            PARTS[name].show(kept["found"])
    print(f"\nrepeat with: {shlex.join(['python', 'benchmarks/shrink.py', *sys.argv[1:]])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
