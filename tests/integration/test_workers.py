"""`--jobs` for real: workers in processes of their own, one of them killed in the middle, and one that fails."""

from __future__ import annotations

import hashlib
import math
import multiprocessing
import os
import re
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from composer.cli import console
from composer.cli.app import call
from composer.library.store import Library
from tests.reference.events import HANGING, Trap, until

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
    """Kills a worker in the middle of its second block, in whose place a trap is laid."""

    def __init__(self, folder: Path, second: str) -> None:
        super().__init__(daemon=True)
        self.library, self.seen = Library(folder / "modules" / "finetuned"), 0
        self.trap = Trap(self.library.path(second))
        self.start()

    def run(self) -> None:
        until(self.trap.caught)
        (worker,) = multiprocessing.active_children()  # the first wave has one share
        assert worker.pid
        self.seen = sum(1 for _ in self.library.folder.glob("*.stats.json"))
        os.kill(worker.pid, signal.SIGKILL)
        self.trap.remove()


@pytest.fixture(autouse=True)
def _back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_two_workers_of_which_one_is_killed_end_in_the_bytes_of_one_process(
    t5_folder: Path,
    translation_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(console, "LOG_SECONDS", math.inf)  # no line about where it stands, however long it takes
    # The first wave has one share (two variants of one module), the second has two (a sublayer each).
    targets = ["--targets", "encoder.block.0.layer.0.SelfAttention", "encoder.block.0.*.wi"]
    rates = ["--attention", "0.25", "0.5", "--linear", "0.3", "0.5", *targets]
    alone = prepared(tmp_path / "alone", t5_folder, *rates)
    order: list[str] = []
    put = Library.put

    def noted(library: Library, lineage: Mapping[str, Any], *content: Any, **stats: Any) -> str:
        address = put(library, lineage, *content, **stats)
        if lineage["stage"] == "tuned":
            order.append(address)
        return address

    with monkeypatch.context() as patch:
        patch.setattr(Library, "put", noted)
        assert call([*TUNE, "--data", str(translation_data)]) == 0
    spread = prepared(tmp_path / "spread", t5_folder, *rates)
    capsys.readouterr()
    killer = Killer(spread, order[1])

    assert call([*TUNE, "--data", str(translation_data), "--jobs", "2"]) == 0

    killer.join(HANGING)
    assert blocks(spread) == blocks(alone)
    library = Library(spread / "modules" / "finetuned")
    tuned = [a for a in library.addresses() if library.header(a).lineage["stage"] == "tuned"]
    assert killer.seen == 1 < len(tuned) == len(order)
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
