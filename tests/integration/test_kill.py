"""``kill -9`` at any point of the work, two processes on one library: no finished block is lost, and the end is the
same bytes. A point is one of the process's dealings with the library's files, not a time: see
:mod:`tests.reference.nursery`; ``tests/library/test_store.py`` kills in the middle of writing one.

``COMPOSER_KILLS=20`` kills twenty times instead of three, and lets processes meet twenty times instead of once.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import composer
from composer.library.store import Library
from tests.reference import nursery
from tests.reference.events import HANGING, until

TUNED = "modules/finetuned"
LEAST_TOUCHES = 6
"""How often a process that makes a block opens, renames and removes files for it, at least."""
KILLS = int(os.environ.get("COMPOSER_KILLS", "3"))
MEETINGS = range(KILLS if "COMPOSER_KILLS" in os.environ else 1)
RATES = ["--attention", "0.25", "0.5", "--linear", "0.3", "0.5"]
TUNE = ["finetune", "--level", "block", "--trainer", "least_squares", "--calibration-size", "24", "--json"]


class Nursery:
    """Starts command lines; see :mod:`tests.reference.nursery`."""

    def __init__(self) -> None:
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONPATH": str(Path(composer.__file__).parents[1]),
        }
        command = [sys.executable, str(nursery.__file__)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self._read() == "ready"

    def start(self, words: list[str], folder: Path, output: Path, **fate: object) -> int:
        return self._ask(words=words, folder=str(folder), output=str(output), **fate)

    def wait(self, child: int) -> int:
        return self._ask(wait=child)

    def run(self, words: list[str], folder: Path) -> None:
        output = folder / "said"
        assert self.wait(self.start(words, folder, output)) == 0, output.with_suffix(".err").read_text()

    def close(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=HANGING)

    def _ask(self, **question: object) -> int:
        assert self.process.stdin
        print(json.dumps(question), file=self.process.stdin, flush=True)
        return int(self._read() or pytest.fail("the nursery has died"))

    def _read(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()


class Place:
    """A folder with a scheme and its pruned variants."""

    def __init__(self, folder: Path, model: Path, data: Path, nurse: Nursery) -> None:
        self.folder, self.nurse = folder, nurse
        self.tune = [*TUNE, "--model", str(model), "--data", str(data)]
        self.library = Library(folder / "modules" / "finetuned")
        folder.mkdir()
        nurse.run(["generate-config", "--model", str(model), *RATES], folder)
        nurse.run(["generate-scheme"], folder)
        nurse.run(["prune"], folder)

    def start(self, name: str = "said", **fate: object) -> int:
        return self.nurse.start(self.tune, self.folder, self.folder / name, **fate)

    def tuned(self, child: int, name: str = "said") -> dict[str, Any]:
        """Wait until a process has ended well; what it says."""
        status, said = self.nurse.wait(child), self.folder / name
        assert status == 0, said.with_suffix(".err").read_text()
        return dict(json.loads(said.with_suffix(".out").read_text()))

    def blocks(self) -> dict[str, tuple[str, int, int]]:
        """Digest, number and time of every visible block's file; each is held to its checksum."""
        found = {}
        for path in sorted(self.library.folder.glob("*.safetensors")):
            data, state = path.read_bytes(), path.stat()
            digest = hashlib.sha256(data).hexdigest()
            assert path.with_suffix(".sha256").read_text().strip() == digest
            found[path.stem] = digest, state.st_ino, state.st_mtime_ns
        return found

    def digests(self) -> dict[str, str]:
        return {address: digest for address, (digest, _, _) in self.blocks().items()}


@pytest.fixture(scope="module")
def nurse() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.close()


@pytest.fixture
def place(t5_folder: Path, translation_data: Path, tmp_path: Path, nurse: Nursery) -> Place:
    return Place(tmp_path / "run", t5_folder, translation_data, nurse)


@pytest.fixture(scope="module")
def undisturbed(
    t5_folder: Path, translation_data: Path, tmp_path_factory: pytest.TempPathFactory, nurse: Nursery
) -> dict[str, str]:
    place = Place(tmp_path_factory.mktemp("kill") / "whole", t5_folder, translation_data, nurse)
    place.tuned(place.start())
    return place.digests()


def test_killed_again_and_again_it_loses_no_block_and_ends_in_the_same_bytes(
    place: Place, undisturbed: dict[str, str]
) -> None:
    draw = random.Random(0)
    kept: dict[str, tuple[str, int, int]] = {}
    most = LEAST_TOUCHES * len(undisturbed) // KILLS  # so that all of them together do not finish the work
    for _ in range(KILLS):
        child = place.start(dies=[TUNED, draw.randint(0, most)])
        assert place.nurse.wait(child) == -signal.SIGKILL
        now = place.blocks()
        # What was finished is the very file that it was; what is new is what it should be.
        assert {address: now.get(address) for address in kept} == kept
        assert {address: digest for address, (digest, _, _) in now.items()}.items() <= undisturbed.items()
        kept = now
    assert 0 < len(kept) < len(undisturbed)
    tuned = place.tuned(place.start())["tuned"]
    done = place.blocks()
    assert {address: done[address] for address in kept} == kept
    assert place.digests() == undisturbed
    new = [a for a in done if a not in kept and place.library.header(a).lineage["stage"] == "tuned"]
    assert tuned == len(new)
    assert {path.suffix for path in place.library.folder.iterdir()} == {".safetensors", ".sha256", ".json"}


@pytest.mark.parametrize("seed", MEETINGS)
def test_two_processes_on_one_library_end_in_the_same_bytes(
    seed: int, place: Place, undisturbed: dict[str, str]
) -> None:
    """While they work, a third one begins in the middle and is killed, and whoever looks sees whole blocks only."""
    draw, gate = random.Random(seed), place.folder / "gate"
    third = place.start("third", dies=[TUNED, draw.randint(0, 40)], gate=str(gate))
    children = {name: place.start(name) for name in ("one", "other")}
    opens = draw.randint(1, len(undisturbed) // 2)

    def recorded() -> bool:
        seen = place.digests()
        assert seen.items() <= undisturbed.items()
        if len(seen) >= opens:
            gate.touch()
        return any(place.library.folder.glob("scheme-*.json"))

    until(recorded)
    gate.touch()
    assert place.nurse.wait(third) == -signal.SIGKILL
    tuned = [place.tuned(child, name)["tuned"] for name, child in children.items()]
    assert max(tuned) > 0
    assert place.digests() == undisturbed
    done = place.blocks()
    assert not place.tuned(place.start())["fresh"]
    assert place.blocks() == done
    place.library.remove_leftovers()
    assert {path.suffix for path in place.library.folder.iterdir()} == {".safetensors", ".sha256", ".json"}
