"""A dataset of the hub, through the real `datasets` client against a local server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.hub_server import serve

CODE = """
import json
from composer.tasks.data.options import DataOptions
from composer.tasks.data.sources import open_source

source = open_source(DataOptions(data="acme/toy"), parallel=False)
print(json.dumps([source.names(), source.read("train").columns]))
"""


def test_a_dataset_comes_through_the_real_client(tmp_path: Path) -> None:
    folder = tmp_path / "toy"
    folder.mkdir()
    for split, n in (("train", 6), ("validation", 3)):
        rows = [{"sentence": f"{split} sentence {i}", "label": i % 2} for i in range(n)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with serve({"datasets/acme/toy": folder}) as hub:
        env = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
        done = subprocess.run([sys.executable, "-c", CODE], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [
        ["train", "validation"],
        {"sentence": [f"train sentence {i}" for i in range(6)], "label": [0, 1, 0, 1, 0, 1]},
    ]
