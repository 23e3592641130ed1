"""Which blocks of a scheme a library lacks, wave by wave; no model is needed.

The blocks of a wave depend on earlier waves only, never on each other, and a block's bytes depend on its address
alone: who tunes which of them, in which process and in which order, changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import WorkerError
from ...library.store import Library
from ...scheme.graph import Node, NodeLevel, Scheme
from ...scheme.layout import Layout
from .addresses import BlockAddresses


@dataclass(frozen=True)
class Missing:
    """A block that is not stored yet."""

    node: Node
    lineage: Mapping[str, Any]
    address: str


@dataclass
class BlockTuning:
    """What block-level fine-tuning did: addresses of all nodes of the tuned levels, and the work spent now."""

    addresses: dict[str, str]
    teacher_passes: int = 0
    seconds: float = 0.0
    tuned: int = 0


class Waves:
    """The waves of one scheme against one library; ``addresses`` are those of all its blocks, stored or not."""

    def __init__(
        self,
        scheme: Scheme,
        layout: Layout,
        libraries: tuple[Library, Library],
        pruned: Mapping[str, str],
        *,
        settings: Mapping[str, Any],
        data: Mapping[str, str],
    ) -> None:
        """Addresses are computed now; the libraries are looked at when the waves are run.

        Args:
            libraries: that of pruned variants, and that of tuned blocks.
            pruned, settings, data: as for :class:`.addresses.BlockAddresses`.
        """
        self.scheme, self.layout = scheme, layout
        self.pruned, self.tuned = libraries
        self._places = BlockAddresses(scheme, layout, pruned, settings=settings, data=data)
        self.addresses = self._places.addresses

    def run(self, tune: Callable[[Sequence[Missing], str], None], only: Mapping[str, str] | None = None) -> None:
        """Call ``tune`` with what each wave lacks, and a label; it returns when all of that is stored.

        Args:
            only: node hash -> address, the blocks to tune, where others tune the rest; nothing else is touched.
        """
        waves = self.scheme.waves()
        for number, wave in enumerate(waves, 1):
            missing = list(self._missing(wave, only))
            if missing:
                tune(missing, f"wave {number}/{len(waves)}: {len(missing)} {wave[0].level} blocks")

    def _missing(self, wave: Sequence[Node], only: Mapping[str, str] | None) -> Iterator[Missing]:
        """Blocks that are not stored yet; heads and neurons alone are stored as they are."""
        for node in wave:
            address, lineage = self.addresses[node.hash], self._places.lineages.get(node.hash)
            if lineage is None:  # nothing to tune
                if only is None:
                    self._copy(address)
                continue
            if only is not None:
                if node.hash not in only:
                    continue
                _agree(node, only[node.hash], address)
            if address in self.tuned:
                self.tuned.verify(address)
            else:
                yield Missing(node, lineage, address)

    def below(self, node: Node) -> list[tuple[Library, str]]:
        """The artefacts that the block starts from, in the order in which they are laid over each other."""
        libraries = {"pruned": self.pruned, "tuned": self.tuned}
        return [(libraries[start.library], start.address) for start in self._places.starts(node)]

    def upstream(self, node: Node) -> str:
        """What decides the inputs of the block's last projection (:meth:`.addresses.BlockAddresses.upstream`)."""
        return self._places.upstream(node)

    def _copy(self, address: str) -> None:
        """Store a variant beside the tuned blocks as it was pruned."""
        if address in self.tuned:
            self.tuned.verify(address)
        else:
            artefact = self.pruned.get(address)
            self.tuned.put(artefact.lineage, artefact.weights, artefact.masks)


Make = Callable[[Sequence[Missing], str], int]
"""Tunes blocks of one wave (with a label to show) and returns when all are stored: how often the base model was run."""


def run_waves(waves: Waves, make: Make, only: Mapping[str, str] | None = None) -> BlockTuning:
    """Let ``make`` tune what each wave lacks (:meth:`Waves.run`), and add up what was done."""
    done, began = BlockTuning(waves.addresses), time.perf_counter()

    def tune(missing: Sequence[Missing], label: str) -> None:
        done.teacher_passes += make(missing, label)
        done.tuned += len(missing)

    waves.run(tune, only)
    done.seconds = time.perf_counter() - began
    return done


def split(missing: Sequence[Missing], layout: Layout, count: int) -> list[list[Missing]]:
    """At most ``count`` shares of about the same work, in the order of ``missing``.

    Variants of one block stay together: they share its inputs. Longest processing time first (Graham 1969), a
    block's work taken as its weights.
    """
    groups: dict[tuple[NodeLevel, str], list[int]] = {}
    for i, one in enumerate(missing):
        groups.setdefault((one.node.level, one.node.path), []).append(i)

    def work(place: tuple[NodeLevel, str]) -> int:
        members = groups[place]
        return layout.parameters(missing[members[0]].node.block(layout).targets) * len(members)

    shares: list[list[int]] = [[] for _ in range(min(count, len(groups)))]
    loads = [0] * len(shares)
    for place in sorted(groups, key=work, reverse=True):
        lightest = loads.index(min(loads))
        shares[lightest] += groups[place]
        loads[lightest] += work(place)
    return [[missing[i] for i in sorted(share)] for share in shares]


def _agree(node: Node, asked_for: str, address: str) -> None:
    """A worker must come to the address that it was asked for: else it would make another block."""
    if address != asked_for:
        raise WorkerError(
            f"{node.label}: a worker finds the address {address[:12]}, {asked_for[:12]} was asked for: it sees other "
            "files, other data or another version of Composer"
        )
