"""Records of how outputs were made, when an output is current, and folders that appear whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import platform
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import composer
from composer.errors import OutputError
from composer.files.records import (
    full_disk_reported,
    is_current,
    machine,
    new_folder,
    record,
    record_path,
    sweep_folders,
    versions,
    write_record,
)

INPUTS: dict[str, Any] = {
    "base": "a" * 64,
    "settings": {"steps": 4, "seed": 0},
    "data": {"train": "b" * 64, "valid": "c" * 64},
    "blocks": {f"{i:032d}": f"{i:040d}" for i in range(6)},
}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def full(*args: Any, **kwargs: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A folder with a record of :data:`INPUTS`."""
    folder = tmp_path / "models" / "0"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"old")
    write_record(folder, record(INPUTS))
    return folder


def test_versions_are_those_that_run() -> None:
    found = versions()
    assert found["python"] == platform.python_version()
    assert found["torch"] == torch.__version__
    assert found["composer"] == composer.__version__
    assert {"transformers", "safetensors", "numpy"} <= found.keys()


def test_the_package_knows_its_version_under_whatever_name_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a clone it is not installed at all, and another distribution is called composer."""
    asked: list[str] = []
    monkeypatch.setattr("composer.files.records.version", lambda name: asked.append(name) or "0")
    assert versions()["composer"] == composer.__version__
    assert asked
    assert not [name for name in asked if "composer" in name]


def test_the_machine_has_no_name_and_no_paths() -> None:
    found = machine()
    assert found["cores"] == os.cpu_count()
    assert found["threads"] == torch.get_num_threads()
    assert found["memory_gib"] > 0
    text = json.dumps(found)
    assert socket.gethostname() not in text
    assert str(Path.home()) not in text


def test_a_record_holds_inputs_versions_machine_and_what_is_added() -> None:
    content = record(INPUTS, recipe={"seed": 3}, result={"loss": 1.5})
    assert content["inputs"] == INPUTS
    assert content["versions"]["torch"] == torch.__version__
    assert content["machine"]["cores"] == os.cpu_count()
    assert (content["recipe"], content["result"]) == ({"seed": 3}, {"loss": 1.5})


def test_a_record_lies_in_a_folder_and_beside_a_file(made: Path) -> None:
    assert record_path(made) == made / "composer.json"
    assert record_path(made.parent / "model-2.csv") == made.parent / "model-2.json"
    assert record_path(made.parent / "model-2-of-0.25.csv") == made.parent / "model-2-of-0.25.json"


def test_an_output_is_current_while_its_inputs_are_the_same(made: Path, tmp_path: Path) -> None:
    assert is_current(made, json.loads(json.dumps(INPUTS)))
    assert not is_current(made, INPUTS, force=True)
    assert not is_current(tmp_path / "nothing here", INPUTS)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"settings": {"steps": 5, "seed": 0}}, r"\(settings: steps: 4 then, 5 now\)"),
        ({"settings": {"steps": 5, "seed": 1}}, r"\(settings: seed: 0 then, 1 now, steps: 4 then, 5 now\)"),
        ({"data": {"train": "d" * 64, "valid": "c" * 64}}, r"\(data: another train\)"),
        ({"base": "d" * 64}, r"\(another base\)"),
        ({"kind": "dense"}, r"\(kind: None then, 'dense' now\)"),
        ({"blocks": {f"{i:032d}": "e" * 40 for i in range(6)}}, r"\(blocks: 6 differ\)"),
    ],
)
def test_an_output_of_other_inputs_is_refused_with_what_changed(
    made: Path, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(OutputError, match=message) as caught:
        is_current(made, INPUTS | changed)
    (line,) = caught.value.problems
    assert line.startswith(f"{made}: exists and was made from other inputs")
    assert line.endswith("--force replaces it")
    assert "\n" not in line


@pytest.mark.parametrize("content", ["[]", "{}", '{"inputs": null}', '{"inputs": [1]}'])
def test_a_record_without_inputs_is_no_record(made: Path, content: str) -> None:
    (made / "composer.json").write_text(content)
    with pytest.raises(OutputError, match="exists and has no record of how it was made; --force replaces it"):
        is_current(made, INPUTS)


def test_what_somebody_else_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    for name in ("file", "folder"):
        with pytest.raises(OutputError, match=f"{name}: exists and has no record of how it was made; --force"):
            is_current(tmp_path / name, INPUTS)


def test_a_damaged_record_is_reported_in_one_line(made: Path) -> None:
    (made / "composer.json").write_text('{"inputs": {')
    with pytest.raises(OutputError, match=r"composer\.json: line 1, column \d+: not valid JSON"):
        is_current(made, INPUTS)


def test_a_new_folder_appears_when_the_body_is_done(tmp_path: Path) -> None:
    output = tmp_path / "models" / "0"
    with new_folder(output) as temporary:
        (temporary / "file").write_text("new")
        assert not output.exists()
        assert temporary.parent == output.parent
    assert (output / "file").read_text() == "new"
    assert names(tmp_path / "models") == ["0"]


def test_a_new_folder_takes_the_place_of_the_old_one_whole(made: Path) -> None:
    with new_folder(made) as temporary:
        (temporary / "file").write_text("new")
        assert (made / "model.safetensors").read_bytes() == b"old"
    assert names(made) == ["file"]
    assert names(made.parent) == ["0"]


KILLED = """
import os, signal, sys
from pathlib import Path
from composer.files import records

if sys.argv[2] == "old":
    records._remove = lambda path: os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "between":
    Path.rename, rename = lambda a, b: (rename(a, b), os.kill(os.getpid(), signal.SIGKILL)), Path.rename
with records.new_folder(Path(sys.argv[1])) as temporary:
    (temporary / "weights").write_text("new")
    if sys.argv[2] == "alive":
        print("ready", flush=True)
        sys.stdin.readline()
    if sys.argv[2] == "tmp":
        os.kill(os.getpid(), signal.SIGKILL)
"""


def hidden(folder: Path) -> list[str]:
    return sorted(path.suffix for path in folder.iterdir() if path.name.startswith("."))


@pytest.mark.parametrize(
    ("moment", "left", "holds"),
    [("tmp", [".tmp"], "old"), ("between", [".old", ".tmp"], "old"), ("old", [".old"], "new")],
)
def test_what_a_killed_process_left_is_removed_by_the_next_one_that_writes_there(
    moment: str, left: list[str], holds: str, tmp_path: Path
) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "weights").write_text("old")
    (tmp_path / ".mine.tmp").mkdir()  # of somebody else
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "0"), moment], check=False)
    assert done.returncode == -signal.SIGKILL
    assert hidden(tmp_path) == sorted([*left, ".tmp"])
    with new_folder(tmp_path / "1"):
        assert hidden(tmp_path) == [".tmp", ".tmp"]
    assert hidden(tmp_path) == [".tmp"]
    assert (tmp_path / ".mine.tmp").is_dir()
    assert (tmp_path / "0" / "weights").read_text() == holds


def test_what_a_living_process_writes_stays(tmp_path: Path) -> None:
    words = [sys.executable, "-c", KILLED, str(tmp_path / "0"), "alive"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout
        assert writer.stdout.readline() == "ready\n"
        assert sweep_folders(tmp_path) == 0
        with new_folder(tmp_path / "1"):
            assert hidden(tmp_path) == [".tmp", ".tmp"]
        assert hidden(tmp_path) == [".tmp"]
        writer.communicate("\n")
    assert writer.returncode == 0
    assert (tmp_path / "0" / "weights").read_text() == "new"
    assert hidden(tmp_path) == []


def test_a_new_folder_takes_the_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "0").write_text("a file")
    with new_folder(tmp_path / "0") as temporary:
        (temporary / "file").write_text("new")
    assert names(tmp_path) == ["0"]
    assert names(tmp_path / "0") == ["file"]


@pytest.mark.parametrize("failure", [ValueError("no"), KeyboardInterrupt(), OutputError("no")])
def test_a_body_that_fails_leaves_nothing_behind(made: Path, failure: BaseException) -> None:
    for output in (made, made.parent / "1"):
        with pytest.raises(type(failure)), new_folder(output) as temporary:  # noqa: PT012
            (temporary / "half").write_text("half")
            raise failure
    assert names(made.parent) == ["0"]
    assert (made / "model.safetensors").read_bytes() == b"old"


def test_a_full_disk_in_the_body_is_one_line(made: Path) -> None:
    with pytest.raises(OutputError, match="0: cannot be written: the disk is full; nothing"), new_folder(made):
        full()
    assert names(made.parent) == ["0"]
    assert (made / "model.safetensors").read_bytes() == b"old"


def test_the_old_folder_comes_back_when_the_new_one_cannot_take_its_place(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def refuse(source: Any, target: Any, **more: Any) -> None:
        if str(source).endswith(".tmp"):
            full()
        rename(source, target, **more)

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(OutputError, match="the disk is full"), new_folder(made) as temporary:
        (temporary / "file").write_text("new")
    assert names(made.parent) == ["0"]
    assert (made / "model.safetensors").read_bytes() == b"old"


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file where a folder should be")
    with pytest.raises(OutputError, match="0: cannot be written: "), new_folder(tmp_path / "models" / "0"):
        pass


@pytest.mark.parametrize(
    "words",
    [
        "Error while serializing: I/O error: No space left on device (os error 28)",
        "[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534",
        "basic_ios::clear: iostream error",
        "[enforce fail at inline_container.cc:858] . PytorchStreamWriter failed writing file data/1: file write failed",
    ],
)
def test_a_full_disk_is_known_in_the_words_of_torch_and_safetensors(tmp_path: Path, words: str) -> None:
    from safetensors import SafetensorError

    for kind in (RuntimeError, SafetensorError):
        refused = pytest.raises(OutputError, match="x: cannot be written: the disk is full")
        with refused, full_disk_reported(tmp_path / "x"):
            raise kind(words)


def test_other_failures_keep_their_own_words(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shapes do not fit"), full_disk_reported(tmp_path / "x"):
        raise RuntimeError("shapes do not fit")
