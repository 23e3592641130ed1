"""Manifests: which address of a library serves which node of one scheme, and from which inputs it was made.

A step that fills a library asks :func:`current_manifest` whether anything is left to do, and does it within
:func:`new_manifest`. Blocks are stored one by one as they are made, the manifest last: a run that is killed leaves
whole blocks without one, and the next run takes them up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..errors import OutputError
from ..files.atomic import disk_errors
from ..files.records import changes, record
from ..scheme.graph import Scheme
from .store import Library


def current_manifest(
    library: Library, scheme: Scheme, inputs: Mapping[str, Any], *, force: bool = False
) -> dict[str, Any] | None:
    """The library's manifest for ``scheme``, if it was made from these inputs and every block that it names is there.

    Raises:
        OutputError: it was made from other inputs, and ``force`` is off.
    """
    manifest = library.manifest(scheme.digest)
    if manifest is None:
        return None
    if manifest["inputs"] != inputs:
        if force:
            return None
        raise OutputError(
            f"{library.folder}: holds this scheme made from other inputs ({changes(manifest['inputs'], inputs)}); "
            "--force makes it again (stored blocks are kept)"
        )
    # Blocks may have been removed since, by hand or to make room: then only those are made again.
    return manifest if all(address in library for address in manifest["addresses"].values()) else None


@contextmanager
def new_manifest(library: Library, scheme: Scheme, inputs: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield an empty manifest for the body to fill: ``addresses`` by node hash, and what else is worth keeping.

    It is written when the body succeeds. What killed writers left in the library is removed first; failures of its
    file system become one plain line.
    """
    content: dict[str, Any] = {}
    with disk_errors(library.folder):
        library.remove_leftovers()
        yield content
        library.write_manifest(scheme.digest, record(inputs, **content))
