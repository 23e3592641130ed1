"""The library: whole files under addresses, checked whenever they are read."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread, current_thread
from typing import Any, NoReturn

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

import composer
from composer.errors import LibraryError, OutputError
from composer.files.atomic import locked, replacing
from composer.library.store import Library, address_of
from tests.reference import writers
from tests.reference.events import HANGING, until

LINEAGE = {"stage": "pruned", "node": "ab", "rates": [0.5, 0.1]}


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "modules" / "pruned")


def fill(library: Library, lineage: dict[str, Any] = LINEAGE) -> str:
    weights = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.tensor([1.5, -0.0])}
    masks = {"a.weight": torch.tensor([[True, False, True], [False, True, True]])}
    return library.put(lineage, weights, masks)


def files(library: Library) -> list[str]:
    return sorted(path.name for path in library.folder.iterdir()) if library.folder.is_dir() else []


def test_what_is_put_is_got(library: Library) -> None:
    address = fill(library)
    got = library.get(address)

    assert address in library
    assert list(library.addresses()) == [address]
    assert torch.equal(got.weights["a.weight"], torch.arange(6.0).reshape(2, 3))
    assert torch.equal(got.weights["a.bias"], torch.tensor([1.5, 0.0]))
    assert str(got.weights["a.bias"][1].item()) == "-0.0"
    assert got.masks["a.weight"].dtype == torch.bool
    assert got.masks["a.weight"].tolist() == [[True, False, True], [False, True, True]]
    assert (set(got.weights), set(got.masks), got.lineage) == ({"a.weight", "a.bias"}, {"a.weight"}, LINEAGE)
    library.verify(address)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_views_and_parameters_are_stored_bit_for_bit(library: Library, dtype: torch.dtype) -> None:
    whole = torch.nn.Parameter(torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).to(dtype))
    got = library.get(library.put({"of": str(dtype)}, {"turned": whole.T, "part": whole[1:3]}, {}))
    assert got.weights["turned"].dtype == dtype
    assert torch.equal(got.weights["turned"], whole.T)
    assert torch.equal(got.weights["part"], whole[1:3])


@given(st.dictionaries(st.text(max_size=4), st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3)))
def test_an_address_is_a_sha256_of_the_lineage_whatever_its_order(lineage: dict[str, Any]) -> None:
    text = json.dumps(lineage, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert address_of(lineage) == hashlib.sha256(text.encode()).hexdigest()[:40]
    assert address_of(dict(reversed(lineage.items()))) == address_of(lineage)


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    one, other = Library(tmp_path / "one"), Library(tmp_path / "other")
    weights = {name: torch.full((3,), float(i)) for i, name in enumerate("abcdef")}
    masks = {name: value > 2 for name, value in weights.items()}
    address = one.put(LINEAGE, weights, masks)
    turned = (dict(reversed(part.items())) for part in (LINEAGE, weights, masks))
    assert other.put(*turned) == address
    assert one.path(address).read_bytes() == other.path(address).read_bytes()


def test_the_lineage_is_the_only_metadata_and_canonical(library: Library) -> None:
    address = fill(library, {"b": [0.5], "a": "ä"})
    with safe_open(library.path(address), "pt") as file:
        assert file.metadata() == {"lineage": '{"a":"ä","b":[0.5]}'}


def test_statistics_lie_beside_the_block_and_not_in_it(library: Library, tmp_path: Path) -> None:
    plain = Library(tmp_path / "plain")
    address = library.put(LINEAGE, {"a": torch.ones(2)}, {}, stats={"seconds": 1.5, "rows": []})
    plain.put(LINEAGE, {"a": torch.ones(2)}, {})

    assert library.stats(address) == {"seconds": 1.5, "rows": []}
    assert plain.stats(address) == {}
    assert library.path(address).read_bytes() == plain.path(address).read_bytes()


@pytest.mark.parametrize("every", [1, 37])
def test_a_flipped_byte_is_found_and_named(library: Library, every: int) -> None:
    address = fill(library)
    path, whole = library.path(address), library.path(address).read_bytes()
    for position in range(0, len(whole), 37) if every == 37 else (0, 8, len(whole) - 1):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        for read in (library.get, library.verify):
            with pytest.raises(LibraryError, match=rf"{address}.safetensors: damaged: its sha256 is not"):
                read(address)


def test_a_truncated_block_is_found_and_named(library: Library) -> None:
    address = fill(library)
    path, whole = library.path(address), library.path(address).read_bytes()
    for length in (0, 1, 8, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(LibraryError, match=rf"{address}.safetensors: damaged"):
            library.get(address)


@pytest.mark.parametrize(
    "damage",
    [
        Path.unlink,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\xff\xfe"),
        lambda path: path.write_text("0" * 64),
    ],
)
def test_a_block_without_its_checksum_is_refused(library: Library, damage: Callable[[Path], Any]) -> None:
    address = fill(library)
    damage(library.folder / f"{address}.sha256")
    with pytest.raises(LibraryError, match=rf"{address}.safetensors: damaged"):
        library.get(address)


def test_a_block_that_is_not_there_is_refused_by_name(library: Library) -> None:
    for read in (library.get, library.verify):
        with pytest.raises(LibraryError, match=r"abc.safetensors: no such block in this library"):
            read("abc")
    assert "abc" not in library
    assert list(library.addresses()) == []
    assert library.remove_leftovers() == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
@pytest.mark.parametrize("function", ["replace", "fsync"])
@pytest.mark.parametrize("call", [1, 2])
def test_an_interrupted_write_shows_nothing(
    library: Library, monkeypatch: pytest.MonkeyPatch, function: str, call: int, error: Any
) -> None:
    real, calls = getattr(os, function), []

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        if len(calls) == call:
            raise error
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, function, interrupted)
        with pytest.raises((KeyboardInterrupt, OutputError)):
            fill(library)

    assert address_of(LINEAGE) not in library
    assert list(library.addresses()) == []
    assert not [name for name in files(library) if name.endswith(".tmp")]
    library.verify(fill(library))


def test_a_block_that_is_there_stays_the_file_it_is(library: Library) -> None:
    address = library.put(LINEAGE, {"a": torch.ones(3)}, {}, stats={"seconds": 1.0})
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in library.folder.iterdir()}
    # Somebody whose machine rounds differently makes it too, and is later.
    assert library.put(LINEAGE, {"a": torch.ones(3) + 1e-7}, {}, stats={"seconds": 2.0}) == address

    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in library.folder.iterdir()} == before
    assert torch.equal(library.get(address).weights["a"], torch.ones(3))
    assert library.stats(address) == {"seconds": 1.0}


def test_writers_that_round_differently_never_mix(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worst moment: another writer of the same address comes between a block's checksum and the block."""
    from composer.library import store as module

    others: list[Thread] = []
    come = Event()

    def arriving(folder: Path) -> Any:
        if current_thread() in others:
            come.set()
        return locked(folder)

    def interrupted(path: Path) -> Any:
        if not others:
            others.append(Thread(target=library.put, args=(LINEAGE, {"a": torch.zeros(3)}, {})))
            others[0].start()
            assert come.wait(HANGING)  # at the lock's door
        return replacing(path)

    monkeypatch.setattr(module, "locked", arriving)
    monkeypatch.setattr(module, "replacing", interrupted)
    address = library.put(LINEAGE, {"a": torch.ones(3)}, {})
    others[0].join()
    assert torch.equal(library.get(address).weights["a"], torch.ones(3))


def test_a_damaged_block_is_replaced(library: Library) -> None:
    address = fill(library)
    whole = library.path(address).read_bytes()
    library.path(address).write_bytes(whole[:-1])
    assert fill(library) == address
    assert library.path(address).read_bytes() == whole


def test_an_interrupted_replacement_leaves_what_can_be_told_apart(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = fill(library)
    library.path(address).write_bytes(b"damaged")

    def interrupted(*_: Any, **__: Any) -> NoReturn:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fill(library)
    with pytest.raises(LibraryError, match="damaged"):
        library.verify(address)
    library.verify(fill(library))


def test_the_checksum_s_name_is_on_the_disk_before_the_block_s(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut too, what is visible is whole: each rename is made durable before the next."""
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def synced(handle: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    def replaced(source: Path, target: Path) -> None:
        done.append(target.suffix)
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    fill(library)
    assert done == ["file", ".sha256", "folder", "file", ".safetensors", "folder"]


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_that_cannot_sync_folders_will_do(
    library: Library, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse_folders(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse_folders)
    library.verify(fill(library))


def clock_of(folder: Path) -> float:
    """The time of the file system, which goes on in ticks of some milliseconds, or of a second."""
    (folder / "clock").touch()
    return (folder / "clock").stat().st_ctime


def test_use_is_remembered_and_looking_is_not(library: Library) -> None:
    address = fill(library)
    assert library.last_used(address) <= time.time() + 1
    for act, remembered in {
        lambda: library.verify(address, use=False): False,
        lambda: library.header(address): False,
        lambda: library.stats(address): False,
        lambda: library.get(address): True,
        lambda: library.verify(address): True,
        lambda: fill(library): True,
    }.items():
        before, written = library.last_used(address), library.path(address).stat().st_mtime_ns
        until(lambda moment=before: clock_of(library.folder.parent) > moment)  # type: ignore[misc]
        act()
        assert (library.last_used(address) > before) is remembered
        assert library.path(address).stat().st_mtime_ns == written
    assert library.last_used("abc") == 0.0


def test_the_head_tells_lineage_and_tensors(library: Library) -> None:
    address = fill(library)
    head = library.header(address)
    assert head.lineage == LINEAGE
    assert {name: (t.dtype, list(t.shape)) for name, t in head.tensors.items()} == {
        "a.weight": ("F32", [2, 3]),
        "a.bias": ("F32", [2]),
        "mask:a.weight": ("BOOL", [2, 3]),
    }
    mask = head.tensors["mask:a.weight"]
    assert library.path(address).read_bytes()[mask.start : mask.stop] == bytes([1, 0, 1, 0, 1, 1])


@pytest.mark.parametrize("content", [b"", b"\0" * 8, b"\xff" * 40, b"\x02\0\0\0\0\0\0\0[]", b"\x02\0\0\0\0\0\0\0{}"])
def test_a_head_that_is_none_is_named(library: Library, content: bytes) -> None:
    address = fill(library)
    library.path(address).write_bytes(content)
    with pytest.raises(LibraryError, match=rf"{address}.safetensors: damaged: its head cannot be read"):
        library.header(address)
    with pytest.raises(LibraryError, match="no such block"):
        library.header("abc")


def test_a_removed_block_leaves_nothing(library: Library) -> None:
    address = library.put(LINEAGE, {"a": torch.ones(3)}, {}, stats={})
    other = fill(library, {"b": 1})
    assert [path.suffix for path in library.files(address)] == [".safetensors", ".sha256", ".json"]
    library.remove(address)
    library.remove(address)
    assert list(library.addresses()) == [other]
    assert all(name.startswith(other) for name in files(library))


def test_temporary_names_are_no_blocks_and_leftovers_are_swept(library: Library) -> None:
    address = fill(library)
    before = files(library)
    for name in (f".{address}.safetensors.x1.tmp", ".scheme-0.json.y2.tmp"):
        (library.folder / name).write_bytes(b"half")

    assert list(library.addresses()) == [address]
    assert library.remove_leftovers() == 2
    assert files(library) == before
    assert library.remove_leftovers() == 0


def test_what_another_writer_is_writing_is_not_swept(library: Library) -> None:
    with replacing(library.path("abc")) as temporary:
        temporary.write_bytes(b"so far")
        assert library.remove_leftovers() == 0
        assert temporary.exists()
    assert "abc" in library


def test_a_manifest_belongs_to_one_scheme(library: Library) -> None:
    library.write_manifest("a" * 64, {"addresses": {"x": "y"}})
    assert library.manifest("a" * 64) == {"addresses": {"x": "y"}}
    assert library.manifest("b" * 64) is None
    assert list(library.addresses()) == []

    assert library.manifests() == {f"scheme-{'a' * 16}.json": {"addresses": {"x": "y"}}}

    (manifest,) = library.folder.glob("*.json")
    for content, message in {"{": "not valid JSON", "[]": "not a record of a scheme"}.items():
        manifest.write_text(content)
        with pytest.raises(LibraryError, match=message):
            library.manifests()
    manifest.write_text("{")
    with pytest.raises(LibraryError, match="not valid JSON"):
        library.manifest("a" * 64)


def run_writers(library: Library, how: str) -> None:
    script = Path(writers.__file__)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(composer.__file__).parents[1]),
    }
    command = [sys.executable, str(script), str(library.folder), how]
    subprocess.run(command, check=True, timeout=HANGING, env=environment)


def check_written(library: Library) -> list[int]:
    """Verify every block that is visible, to the last bit; returns which there are."""
    found = []
    for address in library.addresses():
        got = library.get(address)
        lineage, weights, masks = writers.content(got.lineage["block"])
        assert address_of(lineage) == address
        assert torch.equal(got.weights["a.weight"], weights["a.weight"])
        assert torch.equal(got.masks["a.weight"], masks["a.weight"])
        found.append(got.lineage["block"])
    return sorted(found)


def test_processes_that_write_the_same_addresses_at_once_leave_valid_blocks(library: Library) -> None:
    run_writers(library, "together")
    assert check_written(library) == list(range(writers.BLOCKS))
    assert not list(library.folder.glob(".*"))


def test_a_killed_writer_never_leaves_a_block_that_does_not_verify(library: Library) -> None:
    run_writers(library, "kill")
    assert len(check_written(library)) >= 20
    library.remove_leftovers()
    assert {path.suffix for path in library.folder.iterdir()} <= {".safetensors", ".sha256"}
