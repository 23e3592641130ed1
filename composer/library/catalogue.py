"""What is stored in libraries, found out without torch: sizes, shapes and masks are read from the files as they are.

A block is *used* when the record of a scheme (``scheme-….json``) names its address, in its own library or in
one beside it: tuned blocks start from pruned ones. What no record names lives as long as what it belongs to: a
target's scores, which are kept for the next rate, as long as a block that was pruned by the same criterion; the
refitted weights of a composed model as long as all its blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Any

from ..errors import LibraryError, SchemeError
from ..files.jsonfile import canonical
from ..scheme.graph import Node
from ..scheme.layout import LEVELS
from ..scheme.stored import load_scheme
from .store import MASK, Header, Library

SCORES = "scores"
"""Stage of what a criterion found out about a target, kept for the rates to come."""


@dataclass(frozen=True)
class Item:
    """One stored block.

    Attributes:
        stage: pruned, tuned, scores (of a target) or swept (refitted weights of a whole model); ``damaged`` where
            the file does not even say that.
        level: None where only the masks are known, and these do not tell.
        rates: distinct rates of its targets; measured on the masks where neither scheme nor history is there.
        bytes: with checksum and statistics.
        seconds: what its making took, where that was recorded.
        schemes: records that name it, by file name.
    """

    address: str
    library: Path
    stage: str
    level: str | None
    path: str | None
    rates: tuple[float, ...]
    bytes: int
    seconds: float | None
    schemes: tuple[str, ...]


class Catalogue:
    """Libraries that are looked at together.

    Args:
        libraries: what is listed. Those beside them in the same folders are read too.
        schemes: files that can tell the nodes' levels, paths and rates; those that cannot be read are left out.
    """

    def __init__(self, libraries: Sequence[Library], schemes: Iterable[Path] = ()) -> None:
        self.libraries = list(libraries)
        self._schemes = list(dict.fromkeys(schemes))

    @classmethod
    def open(cls, folder: Path, paths: Sequence[Path] = ()) -> Catalogue:
        """The libraries at ``paths``, or those of the run in ``folder``.

        Raises:
            LibraryError: a path that is no folder, or no library at all.
        """
        missing = [f"{path}: no such folder; a library is needed here" for path in paths if not path.is_dir()]
        if missing:
            raise LibraryError(missing)
        default = [folder / "modules" / name for name in ("pruned", "finetuned", "swept")]
        chosen = list(dict.fromkeys(paths)) or [path for path in default if path.is_dir()]
        if not chosen:
            raise LibraryError(f"{folder / 'modules'}: no library here; `compose prune` makes one")
        runs = [folder, *(path.absolute().parent.parent for path in chosen)]
        return cls([Library(path) for path in chosen], [run / "conf_prune.json" for run in runs])

    def items(self) -> list[Item]:
        """Every block: library by library, by level and path."""
        return [
            item
            for library in self.libraries
            for item in sorted((self.item(library, address) for address in library.addresses()), key=_order)
        ]

    def item(self, library: Library, address: str) -> Item:
        """One block; what a damaged file hides is None."""
        head, stats = None, {}
        with suppress(LibraryError):
            head = library.header(address)
        with suppress(LibraryError):
            stats = library.stats(address)
        level, path, rates = self._place(library, address, head, stats)
        seconds = stats.get("seconds")
        return Item(
            address,
            library.folder,
            str(head.lineage.get("stage", "")) if head else "damaged",
            level,
            path,
            rates,
            bytes_of(library.files(address)),
            None if seconds is None else float(seconds),
            self._users_of(address, head.lineage if head else {}),
        )

    @cached_property
    def users(self) -> dict[str, tuple[str, ...]]:
        """Address -> records that name it, here and in the libraries beside.

        Raises:
            LibraryError: a record that cannot be read.
        """
        # Every text of a record counts: addresses stand under several keys, and a text that is none does no harm.
        naming: dict[str, dict[str, None]] = {}
        for library in self._around:
            for name, record in library.manifests().items():
                for word in _words(record):
                    naming.setdefault(word, {})[name] = None
        return {word: tuple(names) for word, names in naming.items()}

    def find(self, prefix: str) -> tuple[Library, str]:
        """The block whose address begins so, in the first library that has it.

        Raises:
            LibraryError: none, or several.
        """
        # Reversed, so that of two libraries with one address the first is kept.
        holder = {address: library for library in reversed(self.libraries) for address in library.addresses()}
        matching = sorted(address for address in holder if address.startswith(prefix.lower()))
        if len(matching) == 1:
            return holder[matching[0]], matching[0]
        if not matching:
            places = ", ".join(str(library.folder) for library in self.libraries)
            raise LibraryError(f"ADDRESS: no block in {places} has an address that begins with {prefix!r}")
        few = ", ".join(address[: len(prefix) + 6] for address in matching[:5])
        more = f" and {len(matching) - 5} more" if len(matching) > 5 else ""
        raise LibraryError(f"ADDRESS: {prefix!r} begins {len(matching)} addresses: {few}{more}; give more digits")

    def describe(self, prefix: str) -> dict[str, Any]:
        """All about one block: lineage, what it was made from, masks, tensors. Its bytes are checked.

        Raises:
            LibraryError: no such block, several, or a damaged one.
        """
        library, address = self.find(prefix)
        library.verify(address, use=False)
        head = library.header(address)
        masks = [
            {"parameter": name, "kept": kept, "weights": weights, "rate": _removed(kept, weights)}
            for name, (kept, weights) in _kept(library, address, head).items()
        ]
        tensors = [
            {"name": name, "dtype": tensor.dtype, "shape": list(tensor.shape)}
            for name, tensor in sorted(head.tensors.items())
            if not name.startswith(MASK)
        ]
        about = {"lineage": head.lineage, "made_from": self.ancestry(address)["start"]}
        return {**vars(self.item(library, address)), **about, "masks": masks, "tensors": tensors}

    def ancestry(self, address: str) -> dict[str, Any]:
        """The blocks that this one started from, down to the pruned ones; one that is not stored has no library."""
        library = next((library for library in self._around if address in library), None)
        if library is None:
            return {"address": address, "library": None, "start": []}
        item = self.item(library, address)
        about = {name: getattr(item, name) for name in ("address", "library", "stage", "level", "path", "rates")}
        lineage: dict[str, Any] = {}
        with suppress(LibraryError):
            lineage = library.header(address).lineage
        start = [self.ancestry(below) for key in ("start", "blocks") for below in _words(lineage.get(key))]
        return {**about, "base": lineage.get("base"), "start": start}

    @cached_property
    def _around(self) -> list[Library]:
        """The libraries, then those beside them."""
        own = {library.folder.absolute() for library in self.libraries}
        parents = dict.fromkeys(library.folder.absolute().parent for library in self.libraries)
        beside = [path for parent in parents for path in sorted(parent.iterdir()) if path not in own]
        return [*self.libraries, *(Library(path) for path in beside if any(path.glob("scheme-*.json")))]

    def _users_of(self, address: str, lineage: Mapping[str, Any]) -> tuple[str, ...]:
        if address in self.users:
            return self.users[address]
        if lineage.get("stage") == SCORES:
            return self._selections.get(_selection(lineage), ())
        blocks = [set(self.users.get(block, ())) for block in _words(lineage.get("blocks"))]
        return tuple(sorted(set.intersection(*blocks))) if blocks else ()

    @cached_property
    def _selections(self) -> dict[str, tuple[str, ...]]:
        """Base and criterion of scores -> records that name a block which was pruned so."""
        selections: dict[str, set[str]] = {}
        for library in self._around:
            for address in library.addresses():
                with suppress(LibraryError):
                    if address in self.users:
                        key = _selection(library.header(address).lineage)
                        selections.setdefault(key, set()).update(self.users[address])
        return {key: tuple(sorted(names)) for key, names in selections.items()}

    @cached_property
    def _nodes(self) -> dict[str, Node]:
        """Nodes of all schemes that can be read, by hash."""
        nodes: dict[str, Node] = {}
        for path in self._schemes:
            with suppress(SchemeError):
                nodes |= load_scheme(path).nodes
        return nodes

    def _place(
        self, library: Library, address: str, head: Header | None, stats: dict[str, Any]
    ) -> tuple[str | None, str | None, tuple[float, ...]]:
        """Level, path and rates, from the best source that is there.

        That is a scheme which has the node; else the rows of statistics beside a tuned block; else the masks, which
        say how much is gone but not why: a module's path is what its masked parameters have in common.
        """
        names = [head.lineage.get(key) for key in ("node", "configuration")] if head else []
        node = next((self._nodes[name] for name in names if name in self._nodes), None)
        if node:
            return node.level, node.path, tuple(sorted(set(node.rates.values())))
        if rows := stats.get("rows"):
            return rows[0]["level"], rows[0]["path"], tuple(sorted({float(r) for r in rows[0]["rates"].split()}))
        # A tuned block's masks do not tell a variant from a sublayer or a layer with one pruned target.
        if head is None or head.lineage.get("stage") == "tuned":
            return None, None, ()
        kept = _kept(library, address, head)
        path = head.lineage.get("target") or _common(kept) or None
        level = "module" if len(kept) == 1 else None
        return level, path, tuple(sorted({round(_removed(*counts), 4) for counts in kept.values()}))


def _selection(lineage: Mapping[str, Any]) -> str:
    """What scores depend on besides their target; the same for the blocks that were pruned by them."""
    return canonical([lineage.get("base"), lineage.get("criterion")])


def bytes_of(paths: Iterable[Path]) -> int:
    """Bytes of these files in all; one that has gone meanwhile has none."""
    total = 0
    for path in paths:
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def _order(item: Item) -> tuple[Any, ...]:
    level = LEVELS.index(item.level) if item.level in LEVELS else len(LEVELS)
    return level, item.path or "", item.rates, item.address


def _kept(library: Library, address: str, head: Header) -> dict[str, tuple[int, int]]:
    """Masked parameter -> (weights that stay, weights): a bool is stored as one byte, 0 or 1."""
    counts = {}
    with suppress(FileNotFoundError), library.path(address).open("rb") as file:
        for name, mask in sorted(head.tensors.items()):
            if name.startswith(MASK):
                file.seek(mask.start)
                counts[name.removeprefix(MASK)] = mask.size - file.read(mask.size).count(0), mask.size
    return counts


def _removed(kept: int, weights: int) -> float:
    """The share of the weights that is gone."""
    return 1 - kept / weights if weights else 0.0


def _common(parameters: Iterable[str]) -> str:
    """The module that owns these parameters: a linear target itself; what stands above an attention's q, k, v."""
    modules = sorted(name.rpartition(".")[0].split(".") for name in parameters)
    pairs = zip(modules[0], modules[-1], strict=False) if modules else []
    return ".".join(first for first, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _words(value: Any) -> Iterator[str]:
    """All texts in a piece of JSON, keys left out."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _words(inner)
