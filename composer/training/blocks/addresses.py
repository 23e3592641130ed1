"""Where tuned blocks lie in a library: the lineage of each, from which its address follows, and what it starts from.

Functions of the scheme, the pruned variants' addresses and the settings: no library is asked, no model is loaded and
nothing is written, so that a forecast can say what is stored already.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from ...files.jsonfile import digest_of
from ...library.store import address_of
from ...scheme.graph import Node, Scheme
from ...scheme.layout import Layout


class Start(NamedTuple):
    """An artefact that a block starts from: in the library of pruned variants or in that of tuned blocks."""

    library: Literal["pruned", "tuned"]
    address: str


class BlockAddresses:
    """The addresses of all blocks of a scheme that are tuned, finest level first.

    Attributes:
        addresses: node hash -> address in the library of tuned blocks.
        lineages: node hash -> what its address is made of; a node that is stored as it was pruned
            (:meth:`~composer.scheme.graph.Node.is_whole_leaf`) has none, and the address of its pruned variant.
    """

    def __init__(
        self,
        scheme: Scheme,
        layout: Layout,
        pruned: Mapping[str, str],
        *,
        settings: Mapping[str, Any],
        data: Mapping[str, str],
    ) -> None:
        """All addresses are computed at once, children before their parents.

        Args:
            pruned: node hash -> address in the library of pruned variants.
            settings: those that take part in an address.
            data: digests of the splits that blocks are tuned on.
        """
        self.scheme, self.layout, self.pruned = scheme, layout, pruned
        self.addresses: dict[str, str] = {}
        self.lineages: dict[str, dict[str, Any]] = {}
        # A lineage names the addresses of the block's children, which therefore come first: waves are in that order.
        for node in (node for wave in scheme.waves() for node in wave):
            if node.is_whole_leaf(layout):
                self.addresses[node.hash] = pruned[node.hash]
                continue
            self.lineages[node.hash] = {
                "stage": "tuned",
                "node": node.hash,
                "base": scheme.fingerprint,
                "start": [start.address for start in self.starts(node)],
                "settings": dict(settings),
                "data": dict(data),
            }
            self.addresses[node.hash] = address_of(self.lineages[node.hash])

    def starts(self, node: Node) -> list[Start]:
        """Where the block starts: its tuned children, else what is pruned below them; then its own pruned masks."""
        starts: list[Start] = []
        for child in node.children:
            if child in self.addresses:
                starts.append(Start("tuned", self.addresses[child]))
            else:
                starts += self.starts(self.scheme.nodes[child])
        if node.hash in self.pruned:
            starts.append(Start("pruned", self.pruned[node.hash]))
        return starts

    def upstream(self, node: Node) -> str:
        """What decides the inputs of the block's last projection: all below it but the target that it is."""
        last = node.block(self.layout).targets[-1]
        before = [child for child in node.children if last not in self.scheme.nodes[child].rates]
        return digest_of(
            [
                [self.addresses[child]]
                if child in self.addresses
                else [start.address for start in self.starts(self.scheme.nodes[child])]
                for child in before
            ]
        )
