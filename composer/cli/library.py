"""Look after the stored blocks.

modules/pruned and modules/finetuned are build caches: every block lies under
the address of what it was made from, and a command makes only what is not
there. Several runs may share a library.

Example

    compose library list
    compose library show 3fa2
    compose library verify -p modules/finetuned
    compose library prune-unused --dry-run
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from . import catalogue as shown
from .options import COMMON, Common
from .session import session

if TYPE_CHECKING:
    from composer.library.catalogue import Catalogue

    from .console import Console

Paths = Annotated[
    list[Path] | None,
    Parameter(
        ["-p", "--modules"], consume_multiple=(1, 1000), metavar="PATH...", help="Libraries [all of the folder]."
    ),
]
Folder = Annotated[Path | None, Parameter(metavar="PATH", help="Folder of a run, with modules/ in it [.].")]


def list_blocks(*, modules: Paths = None, folder: Folder = None, common: Common = COMMON) -> None:
    """List the blocks: level, path, rates, bytes, seconds, users.

    One line per block. Its address can be given to `compose library show`.
    Users are the schemes whose record (scheme-....json, beside the blocks)
    names it.

    Example

        compose library list
        compose library list -p modules/finetuned --json
    """
    with _opened(common, folder, modules) as (catalogue, console):
        items = catalogue.items()
        console.show({"blocks": [vars(item) for item in items]}, shown.listed(catalogue, items))


def verify(*, modules: Paths = None, folder: Folder = None, common: Common = COMMON) -> None:
    """Check every block against its checksum and its address.

    Names each block that is damaged, misnamed or missing though a scheme needs
    it; the exit status is then 2.

    Example

        compose library verify
        compose library verify --folder t5-run
    """
    from composer.errors import LibraryError
    from composer.library import maintenance

    with _opened(common, folder, modules) as (catalogue, console):
        wrong = maintenance.problems(catalogue, console.progress)
        counts = {library.folder: sum(1 for _ in library.addresses()) for library in catalogue.libraries}
        libraries = [{"library": place, "blocks": count} for place, count in counts.items()]
        console.show({"libraries": libraries, "problems": wrong}, () if wrong else shown.whole(counts))
        if wrong:
            raise LibraryError(wrong)


def prune_unused(
    *,
    dry_run: Annotated[bool, Parameter(help="Show what would go and remove nothing.")] = False,
    older_than: Annotated[
        float | None,
        Parameter(metavar="HOURS", help="Leave what was made or used since; 0 only while nothing runs [24]."),
    ] = None,
    modules: Paths = None,
    folder: Folder = None,
    common: Common = COMMON,
) -> None:
    """Remove blocks that no scheme uses, and what killed runs left.

    A block stays while a scheme's record (scheme-....json) names it, in its
    library or in one beside it. To give up a scheme, delete its record first.
    A running command writes its record last, so blocks made or used within a
    day stay as well.

    Example

        compose library prune-unused --dry-run
        compose library prune-unused --older-than 1
    """
    from composer.errors import RecipeError
    from composer.library import maintenance

    hours = maintenance.HOURS if older_than is None else older_than
    if not 0 <= hours < float("inf"):
        raise RecipeError(f"--older-than: got {hours:g}; allowed: hours, 0 or more")
    with _opened(common, folder, modules) as (catalogue, console):
        going = maintenance.unused(catalogue, hours)
        if not dry_run:
            maintenance.discard(going)
        value = {
            "dry_run": dry_run,
            "blocks": [vars(item) for item in going.blocks],
            "leftovers": going.leftovers,
            "bytes": going.bytes,
            "young": going.young,
        }
        console.show(value, shown.unused(going, hours, dry_run=dry_run))


def size(*, modules: Paths = None, folder: Folder = None, common: Common = COMMON) -> None:
    """Tell what takes the space, by library and by scheme.

    Alone: what would go with that scheme, because no other one uses it.

    Example

        compose library size
    """
    from composer.library import maintenance

    with _opened(common, folder, modules) as (catalogue, console):
        summary = maintenance.sizes(catalogue)
        console.show(summary, shown.sizes(summary))


def show(
    address: Annotated[str, Parameter("ADDRESS", help="The block's address, or as many digits as tell it apart.")],
    /,
    *,
    modules: Paths = None,
    folder: Folder = None,
    common: Common = COMMON,
) -> None:
    """Show one block: what it was made from, its masks, its tensors.

    Lineage: everything that determines its bytes; the blocks it started from,
    down to the pruned variants and the base model's fingerprint.

    Example

        compose library show 3fa2
        compose library show 3fa2 -p modules/finetuned --json
    """
    with _opened(common, folder, modules) as (catalogue, console):
        summary = catalogue.describe(address)
        console.show(summary, shown.block(summary))


@contextmanager
def _opened(common: Common, folder: Path | None, modules: list[Path] | None) -> Iterator[tuple[Catalogue, Console]]:
    from composer.library.catalogue import Catalogue

    with session(common, folder=folder) as (recipe, console):
        yield Catalogue.open(recipe.folder, modules or ()), console
