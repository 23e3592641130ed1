"""Files and folders that appear whole or not at all, whatever fails and whoever is killed."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest

from composer.errors import OutputError
from composer.files.atomic import new_folder, remove_leftover_folders, replacing, saving_errors
from composer.files.jsonfile import write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def full(*args: Any, **kwargs: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A folder with a file in it."""
    folder = tmp_path / "models" / "0"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"old")
    return folder


def test_a_body_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail(temporary: Path) -> NoReturn:
        temporary.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:
        fail(temporary)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_the_file_is_unseen_until_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.parent == path.parent
        assert temporary.suffix != path.suffix
    assert path.read_text() == "new"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.ENOSPC, "a.txt: cannot be written: the disk is full; nothing was kept"),
        (errno.EDQUOT, "a.txt: cannot be written: the disk is full; nothing was kept"),
        (errno.EROFS, "a.txt: cannot be written: read-only file system"),
        (errno.EACCES, "a.txt: cannot be written: permission denied"),
    ],
)
@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_a_full_or_closed_disk_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, code: int, message: str
) -> None:
    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, where, refuse)
    with pytest.raises(OutputError, match=message):
        write_text(tmp_path / "a.txt", "text")
    assert names(tmp_path) == []


def test_places_where_no_file_can_be_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    for path in (tmp_path / "file" / "a.txt", tmp_path / "folder"):
        with pytest.raises(OutputError, match="cannot be written"):
            write_text(path, "text")
    assert names(tmp_path) == ["file", "folder"]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "a.txt", "text")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640


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
from composer.files import atomic

if sys.argv[2] == "old":
    atomic._remove = lambda path: os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "between":
    Path.rename, rename = lambda a, b: (rename(a, b), os.kill(os.getpid(), signal.SIGKILL)), Path.rename
with atomic.new_folder(Path(sys.argv[1])) as temporary:
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
        assert remove_leftover_folders(tmp_path) == 0
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
        with refused, saving_errors(tmp_path / "x"):
            raise kind(words)


def test_other_failures_keep_their_own_words(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shapes do not fit"), saving_errors(tmp_path / "x"):
        raise RuntimeError("shapes do not fit")
