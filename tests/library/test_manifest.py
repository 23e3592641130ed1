"""Manifests: what is current is found, what is not is made again, and nothing is recorded that failed."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch

from composer.errors import OutputError
from composer.library.manifest import current_manifest, new_manifest
from composer.library.store import Library
from composer.scheme.graph import Scheme

INPUTS = {"seed": 1, "data": {"train": "a" * 64}}
OTHERS = INPUTS | {"seed": 2}


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "modules" / "pruned")


@pytest.fixture
def scheme() -> Scheme:
    return Scheme(model="m", fingerprint="f", block_levels=("module",), nodes={}, roots=())


def fill(library: Library, scheme: Scheme) -> str:
    with new_manifest(library, scheme, INPUTS) as manifest:
        address = library.put({"stage": "pruned"}, {"weight": torch.ones(2)}, {})
        manifest["addresses"] = {"node": address}
    return address


def test_a_manifest_is_current_for_its_own_inputs_and_refused_by_name_for_others(
    library: Library, scheme: Scheme
) -> None:
    assert current_manifest(library, scheme, INPUTS) is None
    address = fill(library, scheme)
    current = current_manifest(library, scheme, INPUTS)
    assert current == library.manifest(scheme.digest)
    assert current is not None
    assert (current["inputs"], current["addresses"]) == (INPUTS, {"node": address})
    assert {"versions", "machine"} <= set(current)
    assert current_manifest(library, scheme, INPUTS, force=True) == current
    with pytest.raises(OutputError, match=r"pruned: holds this scheme made from other inputs \(seed: 1 then, 2 now\)"):
        current_manifest(library, scheme, OTHERS)
    assert current_manifest(library, scheme, OTHERS, force=True) is None


def test_a_manifest_whose_blocks_are_gone_is_not_current(library: Library, scheme: Scheme) -> None:
    library.remove(fill(library, scheme))
    assert current_manifest(library, scheme, INPUTS) is None
    fill(library, scheme)
    assert current_manifest(library, scheme, INPUTS) is not None


def test_work_that_fails_keeps_its_blocks_and_the_manifest_of_before(library: Library, scheme: Scheme) -> None:
    fill(library, scheme)
    before = library.manifest(scheme.digest)

    def interrupted() -> None:
        with new_manifest(library, scheme, OTHERS) as manifest:
            manifest["addresses"] = {"node": library.put({"stage": "other"}, {"weight": torch.ones(2)}, {})}
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert library.manifest(scheme.digest) == before
    assert len(list(library.addresses())) == 2


def test_a_full_disk_is_one_line_that_names_the_library(library: Library, scheme: Scheme) -> None:
    with (
        pytest.raises(OutputError, match=r"modules/pruned: cannot be written: the disk is full"),
        new_manifest(library, scheme, INPUTS),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert library.manifest(scheme.digest) is None


def test_what_a_killed_writer_left_is_removed_before_the_work(library: Library, scheme: Scheme) -> None:
    fill(library, scheme)
    leftover = library.folder / f".{'a' * 40}.safetensors.00000000.tmp"
    leftover.write_bytes(b"half")
    with new_manifest(library, scheme, INPUTS) as manifest:
        assert not leftover.exists()
        manifest["addresses"] = {}
    assert library.manifest(scheme.digest) is not None
