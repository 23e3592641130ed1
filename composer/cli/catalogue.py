"""What `compose library` prints: blocks, sizes and lineages as tables and trees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.tree import Tree

from .format import NONE, duration, percent, plural, size
from .tables import Sheet, Shown

if TYPE_CHECKING:
    from composer.library.catalogue import Catalogue, Item
    from composer.library.maintenance import Unused

DIGITS = 12
"""Of an address or a fingerprint, where the whole of it is not needed."""
MADE_OF = ("stage", "node", "configuration", "start", "blocks", "base")
"""Parts of a lineage that are not settings."""


WHOLE = "(whole model)"


def listed(catalogue: Catalogue, items: Sequence[Item]) -> Shown:
    """`library list`."""
    for library in catalogue.libraries:
        own = [item for item in items if item.library == library.folder]
        if own:
            yield _blocks(str(library.folder), own)
        users = {name for item in own for name in item.schemes}
        total = sum(item.bytes for item in own)
        yield f"{library.folder}: {plural(len(own), 'block')} of {plural(len(users), 'scheme')}, {size(total)}"


def whole(counts: Mapping[Path, int]) -> Shown:
    """`library verify`, when nothing is wrong."""
    for place, count in counts.items():
        yield f"{place}: {plural(count, 'block')}, all whole"


def unused(found: Unused, hours: float, *, dry_run: bool) -> Shown:
    """`library prune-unused`."""
    if found.blocks:
        yield _blocks("Unused", found.blocks)
    blocks, leftovers = plural(len(found.blocks), "block"), plural(len(found.leftovers), "leftover file")
    yield f"{blocks} and {leftovers} {'would be' if dry_run else ''} removed, {size(found.bytes)}".replace("  ", " ")
    if found.young:
        stay = "stays" if found.young == 1 else "stay"
        yield f"{plural(found.young, 'block')} in no scheme {stay}: made or used within {hours:g} h (--older-than)"


def sizes(summary: Mapping[str, Any]) -> Shown:
    """`library size`."""
    libraries = Sheet("Libraries", ["library"], ["blocks", "bytes", "unused\nblocks", "unused\nbytes", "on disk"])
    for row in summary["libraries"]:
        idle = row["unused"]
        figures = f"{row['blocks']:,}", size(row["bytes"]), f"{idle['blocks']:,}", size(idle["bytes"])
        libraries.add_row(str(row["library"]), *figures, size(row["on_disk"]))
    yield libraries
    if summary["schemes"]:
        schemes = Sheet("Schemes", ["scheme"], ["blocks", "bytes", "alone:\nblocks", "alone:\nbytes"])
        for row in summary["schemes"]:
            alone = row["alone"]
            figures = f"{row['blocks']:,}", size(row["bytes"]), f"{alone['blocks']:,}", size(alone["bytes"])
            schemes.add_row(_scheme(row["scheme"]), *figures)
        yield schemes


def block(summary: Mapping[str, Any]) -> Shown:
    """`library show`."""
    yield f"{summary['address']} in {summary['library']}"
    yield f"{summary['stage']} {_label(summary)}, {size(summary['bytes'])}, made in {duration(summary['seconds'])}"
    yield f"used by: {' '.join(map(_scheme, summary['schemes'])) or NONE}"
    for name, value in summary["lineage"].items():
        if name not in MADE_OF:
            yield f"{name}: {_flat(value)}"
    base = summary["lineage"].get("base", NONE)
    tree = Tree(f"{summary['stage']} {_label(summary)}")
    for below in summary["made_from"]:
        _grow(tree, below)
    if not summary["made_from"]:
        tree.add(f"base model {base[:DIGITS]}")
    yield tree
    masks = Sheet("Masks", ["parameter"], ["weights", "kept", "removed"])
    for row in summary["masks"]:
        masks.add_row(row["parameter"], f"{row['weights']:,}", f"{row['kept']:,}", percent(row["rate"]))
    if summary["masks"]:
        yield masks
    tensors = Sheet("Tensors", ["name"], ["kind", "shape"])
    for row in summary["tensors"]:
        tensors.add_row(row["name"], row["dtype"], " x ".join(map(str, row["shape"])))
    yield tensors


def _grow(tree: Tree, summary: Mapping[str, Any]) -> None:
    if summary["library"] is None:
        tree.add(f"{summary['address'][:DIGITS]} is not stored here")
        return
    branch = tree.add(f"{summary['stage']} {_label(summary)} ({summary['address'][:DIGITS]} in {summary['library']})")
    for below in summary["start"]:
        _grow(branch, below)
    if not summary["start"]:
        branch.add(f"base model {(summary['base'] or NONE)[:DIGITS]}")


def _blocks(title: str, items: Sequence[Item]) -> Sheet:
    shown = Sheet(title, ["address", "stage", "level", "path", "rates", "used by"], ["bytes", "seconds"])
    for item in items:
        seconds = NONE if item.seconds is None else f"{item.seconds:.2f}"
        used = " ".join(map(_scheme, item.schemes)) or NONE
        path = item.path or (WHOLE if item.level == "model" else NONE)
        names = item.address[:DIGITS], item.stage, item.level or NONE, path, _rates(item.rates) or NONE
        shown.add_row(*names, used, size(item.bytes), seconds)
    return shown


def _label(summary: Mapping[str, Any]) -> str:
    """Level, path and rates, as far as they are known."""
    words = [summary["level"] or "block", summary["path"] or ""] if summary["level"] != "model" else [WHOLE]
    return " ".join(filter(None, words)) + (f" at {_rates(summary['rates'])}" if summary["rates"] else "")


def _rates(rates: Sequence[float]) -> str:
    return " ".join(f"{rate:g}" for rate in rates)


def _scheme(name: str) -> str:
    """A record's file name without what they all have: the first digits of the scheme's digest."""
    return name.removeprefix("scheme-").removesuffix(".json")[:DIGITS]


def _flat(value: Any) -> str:
    """A setting on one line: digests cut, keys with their values."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_flat(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return " ".join(map(_flat, value))
    text = str(value)
    return text[:DIGITS] if len(text) >= 40 and text.isalnum() else text
