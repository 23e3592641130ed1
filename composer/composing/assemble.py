"""Compose: assemble one configuration from a library, and say what is masked in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..errors import LibraryError
from ..library.store import Library
from ..scheme.graph import SHARED, Node, Scheme
from ..scheme.layout import Layout

if TYPE_CHECKING:
    from torch import Tensor, nn


def compose(
    model: nn.Module, layout: Layout, scheme: Scheme, i: int, library: Library, addresses: Mapping[str, str]
) -> dict[str, Tensor]:
    """Turn ``model`` (a fresh base model) into configuration ``i``, in place; returns its masks.

    Every weight comes from its highest stored ancestor: a stored inner node holds all below it.

    Args:
        addresses: node hash -> address in ``library``, for the nodes that it serves; ``SHARED`` of
            :mod:`composer.scheme.graph` -> that of the weights of everything else, where they are not the base model's;
            the root's own hash -> that of what the configuration differs in beside its blocks. A configuration that
            takes no part in what others share has blocks of its own (:func:`serving`).

    Raises:
        LibraryError: a block that is missing or damaged, or counts that are not the scheme's.
    """
    from ..tensors import masks
    from ..tensors.parameters import parameters_of, set_values
    from ..training.own_parts import OwnPart, add_own

    addresses = serving(addresses, scheme.root(i))
    parameters = parameters_of(model)
    keep: dict[str, Tensor] = {}
    if SHARED in addresses:
        set_values(parameters, library.get(addresses[SHARED]).weights)
    for node in cover(scheme, i, addresses):
        artefact = library.get(addresses[node.hash])
        set_values(parameters, artefact.weights)
        keep |= artefact.masks
    masks.apply(parameters, keep)
    if (own := scheme.root(i).hash) in addresses:
        add_own(parameters, OwnPart.of(library.get(addresses[own]).weights), keep)
    _check_counts(layout, scheme.root(i), keep, library)
    return keep


def apart(root: str, node: str) -> str:
    """The name under which addresses have a block that serves this configuration alone."""
    return f"{root}/{node}"


def serves_all(name: str) -> bool:
    """Whether what stands under this name serves every configuration that has it, not one alone (:func:`apart`)."""
    return "/" not in name


def serving(addresses: Mapping[str, str], root: Node) -> Mapping[str, str]:
    """The addresses that a configuration is composed from: its own where it has some (:func:`apart`), else all."""
    start = apart(root.hash, "")
    own = {name.removeprefix(start): address for name, address in addresses.items() if name.startswith(start)}
    return own or addresses


def cover(scheme: Scheme, i: int, addresses: Mapping[str, str]) -> list[Node]:
    """The topmost stored nodes of configuration ``i``; together they hold every pruned target."""
    found: list[Node] = []
    stack = list(scheme.root(i).children)[::-1]
    while stack:
        node = scheme.nodes[stack.pop()]
        if node.hash in addresses:
            found.append(node)
        elif node.children:
            stack.extend(reversed(node.children))
        else:
            raise LibraryError(f"configuration {i}: the library has no block for {node.label}")
    return found


def _check_counts(layout: Layout, root: Node, keep: Mapping[str, Tensor], library: Library) -> None:
    problems = []
    for path, wanted in root.removed_weights(layout).items():
        projections = [p for part in root.shape(layout.target(path)).parts(layout, path) for p in part.projections]
        removed = sum(int((~p.of(keep[p.weight])).sum()) for p in projections if p.weight in keep)
        if removed != wanted:
            problems.append(
                f"{library.folder}: {path} at {root.rates[path]:g}: {removed} weights are masked; "
                f"the scheme says {wanted}"
            )
    if problems:
        raise LibraryError(problems)
