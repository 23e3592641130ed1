"""The library: one safetensors file per node, under its address, with a sha256 beside it.

An *address* is the sha256 of everything that determines the bytes (the *lineage*). A file is written under
a temporary name, synced and renamed, so a reader never sees half of one, a killed run loses no finished
block, and two processes that write one address write the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import LibraryError
from .jsonfile import canonical, digest_of, read_json, replacing, sweep, write_json, write_text

if TYPE_CHECKING:
    from torch import Tensor

MASK = "mask:"
"""Prefix of the keys that hold keep-masks (bool) of the parameter named after it."""


def address_of(lineage: Mapping[str, Any]) -> str:
    """The address of an artefact with this lineage: 40 hex digits of a sha256."""
    return digest_of(lineage)[:40]


@dataclass(frozen=True)
class Artefact:
    """What a node's file holds: weights and keep-masks by parameter name, and the lineage."""

    weights: dict[str, Tensor]
    masks: dict[str, Tensor]
    lineage: dict[str, Any]


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

        ``stats`` (seconds, losses) differ from run to run and are kept beside it, outside its bytes.
        """
        from safetensors.torch import save

        address = address_of(lineage)
        tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in weights.items()}
        tensors |= {MASK + name: mask.detach().contiguous().cpu() for name, mask in masks.items()}
        # One metadata key: with several, safetensors writes them in random order.
        data = save(tensors, metadata={"lineage": canonical(dict(lineage))})
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
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + length])["__metadata__"]
        tensors = load(data)
        return Artefact(
            {name: tensor for name, tensor in tensors.items() if not name.startswith(MASK)},
            {name.removeprefix(MASK): tensor for name, tensor in tensors.items() if name.startswith(MASK)},
            json.loads(metadata["lineage"]),
        )

    def stats(self, address: str) -> dict[str, Any]:
        """What was recorded while the artefact was made; empty when nothing was."""
        path = self._stats(address)
        return read_json(path, LibraryError) if path.is_file() else {}

    def verify(self, address: str) -> None:
        """Check an artefact's bytes; ``LibraryError`` names a damaged or missing one."""
        self._verified(address)

    def sweep(self) -> int:
        """Remove what killed writers left behind; returns how many files."""
        return sweep(self.folder)

    def write_manifest(self, scheme_digest: str, content: dict[str, Any]) -> None:
        """Record which address serves which node of a scheme, with the settings that led to it."""
        write_json(self._manifest(scheme_digest), content)

    def manifest(self, scheme_digest: str) -> dict[str, Any] | None:
        """The record for a scheme, or None when this library was not made for it."""
        path = self._manifest(scheme_digest)
        return read_json(path, LibraryError) if path.is_file() else None

    def _manifest(self, scheme_digest: str) -> Path:
        return self.folder / f"scheme-{scheme_digest[:16]}.json"

    def _stats(self, address: str) -> Path:
        return self.folder / f"{address}.stats.json"

    def _checksum(self, address: str) -> Path:
        return self.folder / f"{address}.sha256"

    def _verified(self, address: str) -> bytes:
        path, checksum = self.path(address), self._checksum(address)
        if not path.is_file():
            raise LibraryError(f"{path}: no such block in this library")
        data = path.read_bytes()
        wanted = checksum.read_text("utf-8", "replace").strip() if checksum.is_file() else "(no checksum file)"
        if hashlib.sha256(data).hexdigest() != wanted:
            raise LibraryError(
                f"{path}: damaged: its sha256 is not the one in {checksum.name}; "
                "delete the block and run the command that made it again"
            )
        return data
