"""Under torchrun: a joint phase where every process draws its own configuration, then a model that both of them tune.

One launch for both, because what a launch takes is mostly its imports.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import composer
from composer.composing.assemble import compose
from composer.library.store import Library
from composer.models.folder import BaseModel
from composer.scheme.graph import SHARED, Scheme
from composer.scheme.stored import load_scheme
from composer.training.joint import drawn

WORKER = '''
"""torchrun's own launcher, which forks its processes from this one: what they import is imported once.

Each process notes what it has drawn and what it has learnt, and the one that writes is slow.
"""
import hashlib, json, os, time
from pathlib import Path

from torch.distributed.launcher.api import LaunchConfig, elastic_launch

import composer.steps.joint_network
from composer.cli.app import call
from composer.library.store import Library
from composer.training import joint as stage
from tests.reference.nursery import import_all

draws, made = [], []
learn, draw, put = composer.steps.joint_network.tune_joint, stage.drawn, Library.put


def noted(model, *given, **options):
    done, each = learn(model, *given, **options)
    state = sorted(model.named_parameters())
    digest = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for _, p in state)).hexdigest()
    note = {"weights": digest, "each": each, "draws": draws, "made": made}
    Path(f"rank-{os.environ['RANK']}.json").write_text(json.dumps(note))
    return done, each


def chosen(*given):
    draws.append(draw(*given))
    return draws[-1]


def slow(library, lineage, *given, **options):
    if lineage["stage"] == "tuned":
        made.append(lineage["node"])
    if lineage["stage"] in ("shared", "joint"):
        time.sleep(2.0 if lineage["stage"] == "shared" else 0.05)
    return put(library, lineage, *given, **options)


composer.steps.joint_network.tune_joint, stage.drawn, Library.put = noted, chosen, slow


def work():
    for words in json.loads(Path("commands.json").read_text()):
        if status := call(words):
            raise SystemExit(status)


import_all()
config = LaunchConfig(1, 1, 2, run_id="launched", rdzv_backend="c10d", rdzv_endpoint="localhost:0", start_method="fork")
elastic_launch(config, work)()
'''


def digest_of(weights: dict[str, Tensor]) -> str:
    return hashlib.sha256(b"".join(value.numpy().tobytes() for _, value in sorted(weights.items()))).hexdigest()


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder, and what was said on the standard output."""
    folder = tmp_path_factory.mktemp("launched")
    rates = {"attention": [0.5, 0.75, 0.5], "linear": [0.8, 0.8, 0.9], "targets": ["encoder.block.0.*"]}
    recipe = composer.load_recipe(given={"model": "demo", "folder": str(folder), **rates}, file=False)
    composer.generate_config(recipe)
    composer.generate_scheme(recipe)
    composer.prune(recipe)
    (folder / "worker.py").write_text(WORKER)
    small = ["--batch-size", "4", "--train-size", "60", "--valid-size", "16", "--steps", "3"]
    joint = ["finetune", "--level", "block", "--trainer", "joint", "--json", "--calibration-size", "16"]
    whole = ["finetune", "--level", "model", "-n", "0", "--baseline"]
    (folder / "commands.json").write_text(json.dumps([[*joint, *small], [*whole, *small]]))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(composer.__file__).parents[1])}
    command = (sys.executable, "worker.py")
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def parts(folder: Path, library: str) -> tuple[BaseModel, Library, Scheme, dict[str, Any]]:
    """What a test looks at: base model, library, scheme, and the library's record of it."""
    held, scheme = Library(folder / "modules" / library), load_scheme(folder / "conf_prune.json")
    return BaseModel("demo"), held, scheme, held.manifest(scheme.digest) or {}


def test_two_processes_make_one_joint_library(launched: tuple[Path, str]) -> None:
    folder, out = launched
    said, _ = json.JSONDecoder().raw_decode(out)  # one process speaks
    base, library, scheme, manifest = parts(folder, "finetuned")

    # Both processes have learnt the same, and it is what was stored.
    addresses, notes = manifest["addresses"], [json.loads((folder / f"rank-{i}.json").read_text()) for i in range(2)]
    assert notes[0]["weights"] == notes[1]["weights"] == digest_of(library.get(addresses[SHARED]).weights)
    assert notes[0]["each"] == notes[1]["each"] == library.stats(addresses[SHARED])["joint"]

    # Each block in closed form was made by one of them.
    made = [note["made"] for note in notes]
    assert all(made)
    assert sorted(made[0] + made[1]) == sorted(
        name for name, address in manifest["start"].items() if library.header(address).lineage["stage"] == "tuned"
    )

    # Six draws of two processes are two rounds of three configurations.
    draws = [note["draws"] for note in notes]
    assert draws == [[drawn(3, 0, step, rank, 2) for step in range(3)] for rank in range(2)]
    assert sorted(draws[0] + draws[1]) == [0, 0, 1, 1, 2, 2]
    mean = library.stats(addresses[SHARED])["mean"]
    assert [row["step"] for row in mean] == [0, 1, 2, 3]
    assert mean[-1]["valid_loss"] < mean[0]["valid_loss"]

    # One library: whole, its record complete, and every configuration composes from it with exact counts.
    assert said["joint"] == manifest["summary"]["joint"] == {"steps": 3, "made": 3, "configurations": 3, "from": None}
    assert manifest["work"][SHARED] == library.stats(addresses[SHARED])["seconds"] > 0
    assert manifest["summary"]["seconds"] == sum(manifest["work"].values())
    for address in addresses.values():
        library.verify(address)
    assert not list((folder / ".work").iterdir())
    for i in range(3):
        model = base.load()
        keep = compose(model, base.layout, scheme, i, library, addresses)
        parameters = dict(model.named_parameters())
        assert all(torch.equal(parameters[name] == 0, ~mask) for name, mask in keep.items())


def test_two_processes_tune_one_model_and_one_of_them_writes(launched: tuple[Path, str]) -> None:
    folder, out = launched
    assert out.count("models/0-baseline") == 1
    rows = pd.read_csv(folder / "stats" / "baseline-0.csv")
    assert rows["step"].tolist() == [0, 1, 2, 3]
    assert rows["valid_loss"].iloc[-1] < rows["valid_loss"].iloc[0]
    # The removed weights of the library's masks are exactly 0 in what came out.
    weights = load_file(folder / "models" / "0-baseline" / "model.safetensors")
    base, library, scheme, manifest = parts(folder, "pruned")
    for name, keep in compose(base.load(), base.layout, scheme, 0, library, manifest["addresses"]).items():
        assert (weights[name][~keep] == 0).all(), name
    BaseModel(folder / "models" / "0-baseline").load()
