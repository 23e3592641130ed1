"""Datasets of the hub, through the real `datasets` client against a local server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.hub_server import serve

CODE = """
import json
from composer.errors import DataError
from composer.evaluation.suites.glue import TASKS
from composer.evaluation.suites.suite import SuiteOptions
from composer.tasks.data.options import DataOptions
from composer.tasks.data.sources import open_source

source = open_source(DataOptions(data="acme/toy"), parallel=False)
problems = TASKS[1].load(SuiteOptions(limit=2))
try:
    TASKS[0].load(SuiteOptions())
except DataError as bad:
    print(json.dumps([source.names(), source.read("train").columns, problems.rows, problems.source, str(bad)]))
"""


def write(folder: Path) -> Path:
    """Sentences with labels, in two splits."""
    folder.mkdir()
    for split, n in (("train", 6), ("validation", 3)):
        rows = [{"sentence": f"{split} sentence {i}", "label": i % 2} for i in range(n)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def test_a_dataset_and_a_suite_s_task_come_through_the_real_client(tmp_path: Path) -> None:
    """The task takes its configuration and its split; one whose configuration is not there says what was asked for."""
    toy, glue = write(tmp_path / "toy"), write(tmp_path / "glue")
    config = "configs:\n- config_name: sst2\n  data_files:\n"
    config += "".join(f"  - split: {split}\n    path: {split}.jsonl\n" for split in ("train", "validation"))
    (glue / "README.md").write_text(f"---\n{config}---\n", encoding="utf-8")
    with serve({"datasets/acme/toy": toy, "datasets/nyu-mll/glue": glue}) as hub:
        env = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
        done = subprocess.run([sys.executable, "-c", CODE], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    names, columns, rows, source, bad = json.loads(done.stdout.splitlines()[-1])
    assert (names, columns) == (
        ["train", "validation"],
        {"sentence": [f"train sentence {i}" for i in range(6)], "label": [0, 1, 0, 1, 0, 1]},
    )
    assert [(row["prompt"], row["gold"]) for row in rows] == [(f"validation sentence {i}", i) for i in range(2)]
    assert source == "nyu-mll/glue:sst2[validation]; first 2 of 3"
    assert "cola: its data (nyu-mll/glue:cola) could not be had from the hub" in bad
