"""How much faster shrunk models are, measured: parts of `benchmarks/shrink.py`.

* `speed-distilbert`: half of the heads and of the neurons gone, a few steps of fine-tuning. Batch 16, length 128, in
  PyTorch and in ONNX Runtime, each against the dense model in the same runtime; the shrunk model in 8 bits against
  dense PyTorch at batch 1, with the accuracy of both on all test data.
* `speed-bert`: a model of BERT-base's shapes with random weights, 50 % and 74 % of the linear weights gone in units.
* `speed-t5`: half of the neurons of a T5 gone, translating by CTranslate2 against the dense one there.

One thread, everything in turn; ratios are of processor time, in pairs.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from common import plan

import composer
from composer.files.jsonfile import read_json, write_json
from composer.recipe import load_recipe
from composer.steps.prune import prune
from composer.steps.speed import speed
from composer.steps.tune_model import finetune_model
from composer.workspace import Workspace

STEPS = 20
QUICK: dict[str, Any] = {"threads": 1, "device": "cpu", "memory": False}
BERT = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
KEPT = {"50 %": (6, 1536), "74 %": (3, 816)}
"""Share of linear weights that is gone -> heads and neurons that are left in each layer."""


def kept(path: Path, make: Callable[[], Any]) -> Any:
    """What ``make`` gives, kept in a file: a killed part goes on behind it."""
    if not path.exists():
        write_json(path, make())
    return read_json(path)


def timed(models: list[Path], runtime: str, batch_size: int, length: int, rounds: int = 11) -> dict[str, Any]:
    """The record of one shape of input."""
    how = {**QUICK, "rounds": rounds, "batch_sizes": (batch_size,), "lengths": (length,), "runtimes": (runtime,)}
    return speed(models, **how).plain()


def halved(shared: Path, folder: Path, name: str, which: str, steps: int) -> tuple[Path, Path, Workspace]:
    """A trained model, the same without half of its units (shrunk after some steps), and the workspace of both."""
    from shrink import MODELS, cases

    given = MODELS[name]
    start = {"model": str(shared / given["model"]), "data": str(shared / given["data"]), "folder": str(folder)}
    tuning = {"finetune": {"steps": steps, "batch_size": 16, "evaluations": 1, "learning_rate": 2e-4}}
    work = Workspace(load_recipe(given=start | given["recipe"] | tuning | {"test_size": None}, file=False))
    small = folder / "small"
    if not small.exists():
        plan(work, [cases(work.base, given)[which]], force=True)
        prune(work)
        masked = finetune_model(work, "baseline", 0, force=True).output
        composer.shrink(masked, small, force=True)
    return shared / given["model"], small, work


def distilbert(shared: Path, folder: Path) -> dict[str, Any]:
    """See the top."""
    dense, small, work = halved(shared, folder, "distilbert", "half of both", STEPS)
    int8 = folder / "int8"
    if not int8.exists():
        composer.export(work, small, "onnx-int8", output=int8, examples=10_000)
    verified = read_json(int8 / "composer.json")["result"]
    return {
        "accuracy": verified["metrics"]["accuracy"],
        "examples": verified["examples"],
        "torch": kept(folder / "torch.json", lambda: timed([dense, small], "torch", 16, 128)),
        "int8": kept(folder / "int8.json", lambda: timed([dense, int8], "torch", 1, 32, 41)),
        "int8, length 128": kept(folder / "int8-128.json", lambda: timed([dense, int8], "torch", 1, 128, 41)),
        "onnx": kept(folder / "onnx.json", lambda: timed([dense, small], "onnx", 16, 128)),
    }


def bert(_: Path, folder: Path) -> dict[str, Any]:
    """See the top."""
    import torch
    import transformers

    def make(name: str, heads: int, neurons: int) -> Path:
        path = folder / name
        if not path.exists():
            torch.manual_seed(0)
            model = transformers.BertForSequenceClassification(transformers.BertConfig(**BERT))
            for key, parameter in model.named_parameters():
                if ".attention.self." in key:
                    parameter.data[64 * heads :] = 0
                if ".intermediate." in key:
                    parameter.data[neurons:] = 0
            model.save_pretrained(path)
        return path

    models = [make("dense", 12, 3072)]
    for share, (heads, neurons) in KEPT.items():
        small = folder / f"small-{share[:2]}"
        if not small.exists():
            masked = make(f"masked-{share[:2]}", heads, neurons)
            composer.shrink(masked, small, force=True)
            shutil.rmtree(masked)
        models.append(small)
    return {"torch": kept(folder / "torch.json", lambda: timed(models, "torch", 4, 128))}


def t5(shared: Path, folder: Path) -> dict[str, Any]:
    """See the top."""
    dense, small, _ = halved(shared, folder, "t5", "half of the neurons", 1)
    return {"ct2": kept(folder / "ct2.json", lambda: timed([dense, small], "ct2", 8, 32))}


def show(found: Mapping[str, Any]) -> None:
    """As a table."""
    print(
        "\n| model | runtime | part | batch x length | CPU ms | times as fast [95 %] | by MACs | measured / MACs | MB |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for record in found.values():
        for row in record["rows"] if isinstance(record, dict) else ():
            entry, faster, macs = record["entries"][row["entry"]], row["faster"], row["macs_ratio"]
            ratio = f"{faster['value']:.2f} [{faster['low']:.2f}, {faster['high']:.2f}]" if faster else "–"
            if faster and faster["noisy"]:
                ratio = f"too noisy to say ({ratio})"
            cells = [
                *(entry["name"], entry["runtime"], row["part"], f"{row['batch_size']} x {row['length']}"),
                f"{1e3 * row['processor']['median']:.1f}",
                *(ratio, f"{macs:.2f}" if macs else "–"),
                f"{faster['value'] / macs:.0%}" if faster and macs else "–",
                f"{entry['bytes'] / 1e6:.1f}",
            ]
            print(f"| {' | '.join(cells)} |")
    if "accuracy" in found:
        small, int8 = found["accuracy"]
        print(f"\nAccuracy on {found['examples']} examples: shrunk {small:.4f}, shrunk in 8 bits {int8:.4f}.")


SPEED = {"speed-distilbert": distilbert, "speed-bert": bert, "speed-t5": t5}
"""Name of a part -> what makes it, given the folder of shared inputs and a folder of its own."""
