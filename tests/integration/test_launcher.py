"""Model-level fine-tuning under torchrun: two processes, one result."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
from safetensors.torch import load_file

import composer
from composer.library import Library
from composer.models.base import BaseModel
from composer.scheme import load_scheme
from composer.stages.compose import compose


def test_two_processes_tune_one_model_and_one_of_them_writes(tmp_path: Path) -> None:
    given = {"model": "demo", "folder": str(tmp_path), "attention": [0.5], "linear": [0.5]}
    recipe = composer.load_recipe(given=given, file=False)
    composer.generate_config(recipe)
    composer.generate_scheme(recipe)
    composer.prune(recipe)
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "composer")
    words = ["finetune", "--level", "model", "-n", "0", "--baseline", "--steps", "3"]
    small = ["--batch-size", "4", "--train-size", "60", "--valid-size", "16"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*torchrun, *words, *small], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("models/0-baseline") == 1
    rows = pd.read_csv(tmp_path / "stats" / "baseline-0.csv")
    assert rows["step"].tolist() == [0, 1, 2, 3]
    assert rows["valid_loss"].iloc[-1] < rows["valid_loss"].iloc[0]
    # The removed weights of the library's masks are exactly 0 in what came out.
    weights = load_file(tmp_path / "models" / "0-baseline" / "model.safetensors")
    base, library, scheme = (
        BaseModel("demo"),
        Library(tmp_path / "modules" / "pruned"),
        load_scheme(tmp_path / "conf_prune.json"),
    )
    addresses = (library.manifest(scheme.digest) or {})["addresses"]
    for name, keep in compose(base.load(), base.layout, scheme, 0, library, addresses).items():
        assert (weights[name][~keep] == 0).all(), name
    BaseModel(tmp_path / "models" / "0-baseline").load()
