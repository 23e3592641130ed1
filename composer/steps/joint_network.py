"""All configurations of a scheme as one network: what they begin from, what identifies ``θ``, and how it learns.

``θ`` is what all configurations share (:mod:`composer.training.joint`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..composing.assemble import cover
from ..library.store import address_of
from ..progress import SILENT, Progress
from ..scheme.graph import SHARED
from ..training.joint import Variant, tune_joint
from ..training.length import most_turns, turns
from ..training.settings import identity_of
from .settings import joint_settings

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..training.settings import ModelSettings, ModelTuning
    from .block_phase import BlockPhase


class JointNetwork:
    """The configurations of a scheme, in an order that their own content decides.

    Args:
        phase: the block phase that comes before, with its libraries and data.
        blocks: node hash -> address of what it has tuned.

    Attributes:
        settings: how ``θ`` learns; another learning rate may be chosen (:mod:`.joint_rates`).
        roots: hashes of the configurations.
        names: of each configuration, the nodes that it is composed from; ``blocks``: all of them, once.
        source, addresses: where blocks begin, and their addresses there by node hash.
    """

    def __init__(self, phase: BlockPhase, blocks: Mapping[str, str], progress: Progress = SILENT) -> None:
        self.space, self.scheme, self.library, self.progress = phase.space, phase.scheme, phase.tuned, progress
        self.source, self.addresses = phase.start_in_context(blocks)
        self.train, self.valid = phase.examples["train"], phase.examples["valid"]
        self.settings = joint_settings(phase.space)
        # By hash, not as the scheme numbers them: steps draw configurations by their place in this order, so it shapes
        # the bytes of ``θ``, which are to depend on the configurations alone, not on where a scheme lists them.
        roots = self.scheme.roots
        order = sorted(range(len(roots)), key=roots.__getitem__)
        self.roots = [roots[i] for i in order]
        self.names = [[node.hash for node in cover(self.scheme, i, self.addresses)] for i in order]
        sparsities = [self.scheme.sparsity(i, phase.space.base.layout) for i in order]
        self.most_turns = most_turns(self.settings.steps)
        self.times = turns(self.most_turns, sparsities)
        self.blocks = list(dict.fromkeys(name for names in self.names for name in names))

    def lineage(self) -> tuple[dict[str, Any], str | None]:
        """What ``θ`` is made of, and the address of an earlier ``θ`` if one is taken.

        The lineage of a new ``θ`` names all configurations. If it did so always, one configuration more would make
        another ``θ``, and with it every block of every configuration anew. So where the library has a ``θ`` that some
        of these configurations have learnt, from these very blocks and with these settings, that one is taken with
        its own, shorter lineage; of several the one with the most configurations.
        """
        whole = self.identity(self.settings)
        earlier = [] if address_of(whole) in self.library else list(self._earlier(whole))
        if not earlier:
            return whole, None
        address, lineage = max(earlier, key=lambda one: (len(one[1]["configurations"]), one[0]))
        return lineage, address

    def _earlier(self, whole: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Every stored ``θ`` that differs from ``whole`` in nothing but that some configurations had no part in it."""
        for manifest in self.library.manifests().values():
            address = manifest.get("addresses", {}).get(SHARED)
            if not address or address not in self.library:
                continue
            lineage = self.library.header(address).lineage
            configurations, start = (lineage.get(name, []) for name in ("configurations", "start"))
            of_these = set(configurations) <= set(whole["configurations"])
            from_these = all(blocks in whole["start"] for blocks in start)
            if of_these and from_these and {**whole, "configurations": configurations, "start": start} == lineage:
                yield address, lineage

    def identity(self, settings: ModelSettings) -> dict[str, Any]:
        """The lineage of a ``θ`` that all of these configurations learn, from these blocks."""
        starts = [sorted(self.addresses[name] for name in names) for names in self.names]
        data = {"train": self.train.digest, "valid": self.valid.digest}
        return {
            "stage": "shared",
            "base": self.scheme.fingerprint,
            "configurations": sorted(set(self.roots)),
            "start": sorted(starts),
            "settings": {**identity_of(settings), "patience": self.space.recipe.block.patience},
            "data": data,
            # Which θ is kept: the one of which each configuration, or its start, is best; it was the best for all once.
            "best": "each",
            # Left out where all take turns alike, so that addresses stay those of before there were others.
            **({"most_turns": self.most_turns} if self.most_turns > 1 else {}),
        }

    def variants(self, base: Mapping[str, Tensor]) -> dict[str, Variant]:
        """Every block as what it differs by from the base model's parameters, by name."""
        artefacts = {name: self.source.get(self.addresses[name]) for name in self.blocks}
        return {name: Variant.of(one.weights, one.masks, base) for name, one in artefacts.items()}

    def tuned(self, model: nn.Module, settings: ModelSettings, called: str) -> tuple[ModelTuning, list[dict[str, Any]]]:
        """Train ``model`` as ``θ`` of all configurations, in place."""
        space = self.space
        variants = self.variants(dict(model.named_parameters()))
        work = self.work(called)
        work.mkdir(parents=True, exist_ok=True)
        return tune_joint(
            model,
            [[variants[name] for name in names] for names in self.names],
            space.task,
            self.train,
            self.valid,
            settings,
            patience=space.recipe.block.patience,
            work=work,
            times=self.times,
            weights=[p.weight for target in space.base.layout.targets for p in target.projections],
            answers=space.answers(settings, self.progress),
            progress=self.progress,
        )

    def work(self, name: str) -> Path:
        """Where checkpoints of a training lie while it runs."""
        return self.space.folder / ".work" / f"joint-{name}"
