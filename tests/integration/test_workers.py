"""`--jobs` for real: workers in processes of their own, one of them killed in the middle, and one that fails."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest

from composer.cli.app import call
from composer.library.store import Library

TUNE = ["finetune", "--level", "block", "--trainer", "least_squares", "--calibration-size", "24"]


def prepared(folder: Path, model: Path, *rates: str) -> Path:
    """A folder with a scheme and its pruned variants."""
    folder.mkdir()
    os.chdir(folder)
    assert call(["generate-config", "--model", str(model), *rates]) == 0
    assert call(["generate-scheme"]) == call(["prune"]) == 0
    return folder


def blocks(folder: Path) -> dict[str, str]:
    library = folder / "modules" / "finetuned"
    return {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in library.glob("*.safetensors")}


class Killer(threading.Thread):
    """Kills a worker as soon as the first tuned block has come."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.library, self.seen = folder / "modules" / "finetuned", 0

    def run(self) -> None:
        while not any(self.library.glob("*.stats.json")):
            time.sleep(0.0005)
        worker = min(multiprocessing.active_children(), key=lambda process: process.pid or 0)
        assert worker.pid
        os.kill(worker.pid, signal.SIGKILL)
        self.seen = sum(1 for _ in self.library.glob("*.stats.json"))


@pytest.fixture(autouse=True)
def _back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_two_workers_of_which_one_is_killed_end_in_the_bytes_of_one_process(
    t5_folder: Path, translation_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The first wave has one share (two variants of one module), the second has two (a sublayer each).
    targets = ["--targets", "encoder.block.0.layer.0.SelfAttention", "encoder.block.0.*.wi"]
    rates = ["--attention", "0.25", "0.5", "--linear", "0.3", "0.5", *targets]
    alone = prepared(tmp_path / "alone", t5_folder, *rates)
    assert call([*TUNE, "--data", str(translation_data)]) == 0
    spread = prepared(tmp_path / "spread", t5_folder, *rates)
    capsys.readouterr()
    killer = Killer(spread)
    killer.start()

    assert call([*TUNE, "--data", str(translation_data), "--jobs", "2"]) == 0

    killer.join()
    assert blocks(spread) == blocks(alone)
    library = Library(spread / "modules" / "finetuned")
    tuned = [a for a in library.addresses() if library.header(a).lineage["stage"] == "tuned"]
    assert 0 < killer.seen < len(tuned)
    said = capsys.readouterr()
    assert f"finetuned: 8 blocks, {len(tuned)} tuned with" in said.out
    # A log: a line when a wave begins, one when it is done, and the death between them.
    begun, died, *_ = said.err.splitlines()
    assert re.fullmatch(r"wave 1/2: 2 module blocks …", begun)
    assert died.startswith("a worker process was killed by SIGKILL")
    assert died.endswith("what it had not finished is started again (1 of 3)")
    assert re.search(r"wave 1/2: 2 module blocks … done in .*, encoder\.block\.0\.", said.err)
    assert re.search(r"wave 2/2: 4 sublayer blocks … done in", said.err)
    assert not multiprocessing.active_children()


def test_what_a_worker_cannot_use_is_one_line(
    t5_folder: Path, translation_data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = prepared(tmp_path / "damaged", t5_folder, "--linear", "0.5", "--targets", "encoder.block.0.*.wi")
    (block,) = (folder / "modules" / "pruned").glob("*.safetensors")
    block.write_bytes(block.read_bytes()[:-1])
    capfd.readouterr()

    status = call([*TUNE, "--data", str(translation_data), "--jobs", "2", "--json"])

    said = capfd.readouterr()
    assert (status, said.out) == (2, "")
    (line,) = (line for line in said.err.splitlines() if line.startswith("error: "))
    assert re.match(rf"error: modules/pruned/{block.name}: damaged: its sha256 is not the one in", line)
    assert "Traceback" not in said.err
