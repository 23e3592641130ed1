"""The library: one safetensors file per node, under its address, with a sha256 beside it.

An *address* is the sha256 of everything that determines the bytes (the *lineage*). A file is written under
a temporary name, synced and renamed, so a reader never sees half of one and a killed run loses no finished
block. Of two processes that make one block at once, the first to finish stores it; the other keeps that one.
Looking at libraries and after them is the subject of :mod:`composer.library.catalogue` and
:mod:`composer.library.maintenance`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ..errors import LibraryError
from ..files.atomic import locked, remove_leftovers, replacing
from ..files.jsonfile import canonical, digest_of, read_json, write_json, write_text
from ..files.safetensors import TensorHead, read_head

if TYPE_CHECKING:
    from torch import Tensor

MASK = "mask:"
"""Prefix of the keys that hold keep-masks (bool) of the parameter named after it."""

MEND = "delete the block and run the command that made it again"


def address_of(lineage: Mapping[str, Any]) -> str:
    """The address of an artefact with this lineage: 40 hex digits of a sha256."""
    return digest_of(lineage)[:40]


@dataclass(frozen=True)
class Artefact:
    """What a node's file holds: weights and keep-masks by parameter name, and the lineage."""

    weights: dict[str, Tensor]
    masks: dict[str, Tensor]
    lineage: dict[str, Any]


@dataclass(frozen=True)
class Header:
    """What the head of a node's file says: the lineage, and dtype, shape and place of every tensor."""

    lineage: dict[str, Any]
    tensors: dict[str, TensorHead]


class Library:
    """A folder of artefacts (``modules/pruned``, ``modules/finetuned``)."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def path(self, address: str) -> Path:
        """The file of an address."""
        return self.folder / f"{address}.safetensors"

    def __contains__(self, address: object) -> bool:
        return isinstance(address, str) and self.path(address).is_file()

    def addresses(self) -> Iterator[str]:
        """All stored addresses, sorted."""
        return (path.stem for path in sorted(self.folder.glob("*.safetensors")))

    def put(
        self,
        lineage: Mapping[str, Any],
        weights: Mapping[str, Tensor],
        masks: Mapping[str, Tensor],
        *,
        stats: Mapping[str, Any] | None = None,
    ) -> str:
        """Store an artefact under its address, whole or not at all, and return the address.

        One that is there already and whole stays as it is: another process was quicker. ``stats`` (seconds,
        losses) differ from run to run and are kept beside it, outside its bytes.
        """
        from safetensors.torch import save

        address = address_of(lineage)
        tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in weights.items()}
        tensors |= {MASK + name: mask.detach().contiguous().cpu() for name, mask in masks.items()}
        # One metadata key: with several, safetensors writes them in random order.
        data = save(tensors, metadata={"lineage": canonical(dict(lineage))})
        # One at a time: where two machines round differently, a block must not meet the other's checksum.
        with locked(self.folder):
            if self._is_whole(address):
                self._mark_used(address)
                return address
            if stats is not None:
                write_json(self._stats(address), dict(stats))
            # The checksum goes first: a block is only ever visible together with it.
            write_text(self._checksum(address), hashlib.sha256(data).hexdigest() + "\n")
            with replacing(self.path(address)) as temporary:
                temporary.write_bytes(data)
        return address

    def get(self, address: str) -> Artefact:
        """Read an artefact after checking its sha256.

        Raises:
            LibraryError: no such block, or a damaged one, by name.
        """
        from safetensors.torch import load

        data = self._verified(address)
        self._mark_used(address)
        tensors = load(data)
        return Artefact(
            {name: tensor for name, tensor in tensors.items() if not name.startswith(MASK)},
            {name.removeprefix(MASK): tensor for name, tensor in tensors.items() if name.startswith(MASK)},
            _header(BytesIO(data)).lineage,
        )

    def header(self, address: str) -> Header:
        """Read the head of an artefact's file; its tensors are neither read nor checked.

        Raises:
            LibraryError: no such block, or a head that cannot be read.
        """
        path = self.path(address)
        try:
            with path.open("rb") as file:
                return _header(file)
        except FileNotFoundError:
            raise LibraryError(f"{path}: no such block in this library") from None
        except (ValueError, KeyError, TypeError):
            raise LibraryError(f"{path}: damaged: its head cannot be read; {MEND}") from None

    def stats(self, address: str) -> dict[str, Any]:
        """What was recorded while the artefact was made; empty when nothing was."""
        path = self._stats(address)
        return read_json(path, LibraryError) if path.is_file() else {}

    def verify(self, address: str, *, use: bool = True) -> None:
        """Check an artefact's bytes; ``LibraryError`` names a damaged or missing one.

        Args:
            use: the caller relies on the block from now on (:meth:`last_used`); False only looks.
        """
        self._verified(address)
        if use:
            self._mark_used(address)

    def files(self, address: str) -> list[Path]:
        """The files of an address that are there: block, checksum, statistics."""
        paths = (self.path(address), self._checksum(address), self._stats(address))
        return [path for path in paths if path.is_file()]

    def last_used(self, address: str) -> float:
        """When the block was last written, read or relied on (seconds since the epoch); 0.0 when it is gone."""
        times = [0.0]
        for path in self.files(address):
            with suppress(FileNotFoundError):
                times.append(path.stat().st_ctime)
        return max(times)

    def remove(self, address: str) -> None:
        """Remove a block with what lies beside it; the block goes first, so no reader meets one without checksum."""
        with locked(self.folder):
            for path in self.files(address):
                path.unlink(missing_ok=True)

    def remove_leftovers(self) -> int:
        """Remove what killed writers left behind; returns how many files."""
        return remove_leftovers(self.folder)

    def write_manifest(self, scheme_digest: str, content: dict[str, Any]) -> None:
        """Record which address serves which node of a scheme, with the settings that led to it."""
        write_json(self._manifest(scheme_digest), content)

    def manifest(self, scheme_digest: str) -> dict[str, Any] | None:
        """The record for a scheme, or None when this library was not made for it."""
        path = self._manifest(scheme_digest)
        return read_json(path, LibraryError) if path.is_file() else None

    def manifests(self) -> dict[str, dict[str, Any]]:
        """All records of schemes, by file name."""
        records = {path.name: read_json(path, LibraryError) for path in sorted(self.folder.glob("scheme-*.json"))}
        for name, content in records.items():
            if not isinstance(content, dict):
                raise LibraryError(f"{self.folder / name}: not a record of a scheme")
        return records

    def _manifest(self, scheme_digest: str) -> Path:
        return self.folder / f"scheme-{scheme_digest[:16]}.json"

    def _stats(self, address: str) -> Path:
        return self.folder / f"{address}.stats.json"

    def _checksum(self, address: str) -> Path:
        return self.folder / f"{address}.sha256"

    def _mark_used(self, address: str) -> None:
        """Leave the time where the system keeps that of a file's last change of any kind; its own times stay.

        In a library of somebody else nothing is left.
        """
        path = self._checksum(address)
        with suppress(OSError):
            times = path.stat()
            # Setting times to what they are changes only the ctime, which a copy of the file does not take with it.
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    def _is_whole(self, address: str) -> bool:
        try:
            self._verified(address)
        except LibraryError:
            return False
        return True

    def _verified(self, address: str) -> bytes:
        path, checksum = self.path(address), self._checksum(address)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise LibraryError(f"{path}: no such block in this library") from None
        stated = checksum.read_text("utf-8", "replace").strip() if checksum.is_file() else "(no checksum file)"
        if hashlib.sha256(data).hexdigest() != stated:
            raise LibraryError(f"{path}: damaged: its sha256 is not the one in {checksum.name}; {MEND}")
        return data


def _header(file: BinaryIO) -> Header:
    head = read_head(file)
    return Header(dict(json.loads(head.metadata["lineage"])), head.tensors)
