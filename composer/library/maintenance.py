"""Keeping libraries in order: what is damaged, what takes the space, what nobody uses.

A run writes its record (``scheme-….json``) last, so a block in no record may belong to one that is still at
work. It can go only when nobody has written it or relied on it for a while.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files.atomic import abandoned
from ..progress import SILENT, Progress
from .catalogue import Catalogue, Item, bytes_of
from .store import Library, address_of

HOURS = 24.0
"""How long a block in no record is left alone: longer than a run takes from its first block to its record."""


@dataclass
class Unused:
    """What can go.

    Attributes:
        blocks: those that no record names and nobody has used for a while.
        leftovers: files that killed writers left.
        young: how many blocks are in no record either, but were used lately and stay.
        bytes: of blocks and leftovers together.
        seen: when this was found out (seconds since the epoch); what has been used since does not go.
    """

    blocks: list[Item] = field(default_factory=list)
    leftovers: list[Path] = field(default_factory=list)
    young: int = 0
    bytes: int = 0
    seen: float = field(default_factory=time.time)


def problems(catalogue: Catalogue, progress: Progress = SILENT) -> list[str]:
    """One line for each block that is damaged or misnamed, or that a record names and nobody finds."""
    lines: list[str] = []
    everything = [(library, address) for library in catalogue.libraries for address in library.addresses()]
    with progress.bar("verify", len(everything)) as bar:
        for library, address in everything:
            lines += _wrong(library, address)
            bar.advance(address[:12])
    for library in catalogue.libraries:
        lines += _missing(library)
    return lines


def sizes(catalogue: Catalogue) -> dict[str, Any]:
    """Blocks and bytes of each library and each scheme; ``alone``: what no other scheme uses."""
    items = catalogue.items()
    libraries = []
    for library in catalogue.libraries:
        own = [item for item in items if item.library == library.folder]
        unused = _total([item for item in own if not item.schemes])
        disk = bytes_of(path for path in library.folder.iterdir() if path.is_file())
        libraries.append({"library": library.folder, **_total(own), "unused": unused, "on_disk": disk})
    schemes = []
    for name in sorted({name for item in items for name in item.schemes}):
        alone = _total([item for item in items if item.schemes == (name,)])
        schemes.append({"scheme": name, **_total([item for item in items if name in item.schemes]), "alone": alone})
    return {"libraries": libraries, "schemes": schemes}


def unused(catalogue: Catalogue, hours: float = HOURS, *, now: float | None = None) -> Unused:
    """What no record names and nobody has written or relied on for ``hours`` before ``now``.

    Raises:
        LibraryError: a record that cannot be read; what it names is not known, so nothing can go.
    """
    going = Unused()
    before = (time.time() if now is None else now) - hours * 3600
    # Blocks are listed first, records read second: a run that ends in between is in the records, so its blocks stay.
    stored = [(library, address) for library in catalogue.libraries for address in library.addresses()]
    for library, address in stored:
        if address in catalogue.users or (item := catalogue.item(library, address)).schemes:
            continue
        if library.last_used(address) > before:
            going.young += 1
        else:
            going.blocks.append(item)
    for library in catalogue.libraries:
        going.leftovers += _orphans(library, before)
        going.leftovers += abandoned(library.folder)
    going.bytes = sum(item.bytes for item in going.blocks) + bytes_of(going.leftovers)
    return going


def discard(unused: Unused) -> None:
    """Remove these blocks and files, but no block that somebody has relied on since it was looked at."""
    for path in unused.leftovers:
        path.unlink(missing_ok=True)
    for item in unused.blocks:
        library = Library(item.library)
        if library.last_used(item.address) <= unused.seen:
            library.remove(item.address)


def _wrong(library: Library, address: str) -> Iterator[str]:
    try:
        library.verify(address, use=False)
        right = address_of(library.header(address).lineage)
        if right != address:
            yield f"{library.path(address)}: misnamed: the address of its lineage is {right}; delete the block"
    except InputError as bad:
        yield from bad.problems


def _missing(library: Library) -> Iterator[str]:
    try:
        for name, record in library.manifests().items():
            for address in dict.fromkeys(record.get("addresses", {}).values()):
                if address not in library:
                    yield f"{library.path(address)}: missing, but {name} names it; run the command that made it again"
    except InputError as bad:
        yield from bad.problems


def _orphans(library: Library, before: float) -> Iterator[Path]:
    """Checksums and statistics without a block: their writer was killed just before it showed the block."""
    for path in sorted([*library.folder.glob("*.sha256"), *library.folder.glob("*.stats.json")]):
        address = path.name.partition(".")[0]
        if address not in library and library.last_used(address) <= before:
            yield path


def _total(items: Sequence[Item]) -> dict[str, int]:
    return {"blocks": len(items), "bytes": sum(item.bytes for item in items)}
