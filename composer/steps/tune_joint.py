"""Joint tuning of a workspace's scheme: closed forms first, then all configurations as one network, into the library.

``θ``, what all configurations share, is one artefact; each block of the library is ``(θ + Δ) ∘ M`` (see
:mod:`composer.training.joint`), addressed by ``θ`` and by the block that gave its offset ``Δ`` and mask ``M``. A
configuration that is added later takes the ``θ`` that is there: its new blocks cost their closed forms and no step.
Configurations learn in the order of their hashes: the same ones make the same ``θ``, however a scheme orders them.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..composing.assemble import cover
from ..library.store import address_of
from ..parallel.ranks import is_main_process, wait_for_all
from ..progress import SILENT, Progress
from ..scheme.graph import SHARED
from ..training.joint import Variant, tune_joint
from ..training.settings import told_of
from .settings import joint_settings

if TYPE_CHECKING:
    from torch import Tensor

    from .block_phase import BlockPhase


class Joint:
    """All configurations of a scheme as one network.

    Args:
        phase: the block phase that comes before, with its libraries and data.
        blocks: node hash -> address of what it has tuned.
    """

    def __init__(self, phase: BlockPhase, blocks: Mapping[str, str], progress: Progress = SILENT) -> None:
        self.space, self.scheme, self.library, self.progress = phase.space, phase.scheme, phase.tuned, progress
        self.source, self.addresses = phase.start_in_context(blocks)
        self.train, self.valid = phase.examples["train"], phase.examples["valid"]
        self.settings = joint_settings(phase.space)
        # By hash, not as the scheme numbers them: the order of learning shapes the bytes of what is shared, and the
        # same configurations must come to the same address and bytes in whichever order a scheme names them.
        roots = self.scheme.roots
        order = sorted(range(len(roots)), key=roots.__getitem__)
        self.roots = [roots[i] for i in order]
        self.names = [[node.hash for node in cover(self.scheme, i, self.addresses)] for i in order]
        self.blocks = list(dict.fromkeys(name for names in self.names for name in names))

    def run(self) -> tuple[dict[str, str], dict[str, Any]]:
        """Tune what is missing; returns addresses in the library (``θ`` under its own name), and what was done.

        That is ``steps`` that ``θ`` has learnt, over how many ``configurations``, how many of the steps were ``made``
        now, and the address of the earlier ``θ`` that was taken.
        """
        lineage, found = self.lineage()
        shared = address_of(lineage)
        made = 0
        if shared not in self.library:
            made = self._learn(lineage)
            wait_for_all()  # one process has stored what all of them read
        steps = int(self.library.stats(shared).get("steps", made))
        done = {"steps": steps, "made": made, "configurations": len(lineage["configurations"]), "from": found}
        weights = self.library.get(shared).weights
        base = dict(self.space.base.load().named_parameters())
        addresses = {SHARED: shared}
        for name in self.blocks:
            addresses[name] = self._derive(name, shared, weights, base)
        wait_for_all()
        return addresses, done

    def stored(self) -> frozenset[str]:
        """What of it the library holds: names of blocks, and that of ``θ``."""
        shared = address_of(self.lineage()[0])
        made = {SHARED: shared} | {name: address_of(self._told_of(name, shared)) for name in self.blocks}
        return frozenset(name for name, address in made.items() if address in self.library)

    def lineage(self) -> tuple[dict[str, Any], str | None]:
        """What ``θ`` is made of: all configurations, or those of an earlier ``θ``, all among them; then its address."""
        roots = set(self.scheme.roots)
        fresh = self._told(sorted(roots), [sorted(self.addresses[name] for name in names) for names in self.names])
        earlier = []
        for manifest in self.library.manifests().values():
            address = manifest.get("addresses", {}).get(SHARED)
            if not address or address not in self.library:
                continue
            held = self.library.header(address).lineage
            comparable = {**fresh, "configurations": held["configurations"], "start": held["start"]} == held
            begun = all(start in fresh["start"] for start in held["start"])  # with these blocks, not with other ones
            if comparable and begun and set(held["configurations"]) <= roots:
                earlier.append((len(held["configurations"]), address, held))
        if not earlier or address_of(fresh) in self.library:
            return fresh, None
        _, address, held = max(earlier, key=lambda item: item[:2])
        return held, address

    def _told(self, configurations: list[str], start: list[list[str]]) -> dict[str, Any]:
        data = {"train": self.train.digest, "valid": self.valid.digest}
        return {
            "stage": "shared",
            "base": self.scheme.fingerprint,
            "configurations": configurations,
            "start": sorted(start),
            "settings": {**told_of(self.settings), "patience": self.space.recipe.block.patience},
            "data": data,
        }

    def _learn(self, lineage: dict[str, Any]) -> int:
        """The joint steps; returns how many were made."""
        space = self.space
        model = space.fresh_model()
        base = dict(model.named_parameters())
        variants: dict[str, Variant] = {}
        for name in self.blocks:
            artefact = self.source.get(self.addresses[name])
            variants[name] = Variant.of(artefact.weights, artefact.masks, base)
        work = space.folder / ".work" / f"joint-{address_of(lineage)[:12]}"
        work.mkdir(parents=True, exist_ok=True)
        tuned, each = tune_joint(
            model,
            [[variants[name] for name in names] for names in self.names],
            space.task,
            self.train,
            self.valid,
            self.settings,
            patience=space.recipe.block.patience,
            work=work,
            answers=space.answers(self.settings.distill),
            progress=self.progress,
        )
        steps = int(tuned.rows[-1]["step"])
        if is_main_process():
            stats = {"seconds": tuned.train_seconds, "steps": steps, "joint": each, "mean": tuned.rows, "rows": []}
            stats["configurations"] = self.roots
            self.library.put(lineage, base, {}, stats=stats)
            shutil.rmtree(work, ignore_errors=True)
        return steps

    def _told_of(self, name: str, shared: str) -> dict[str, Any]:
        """What a block is made of."""
        return {"stage": "joint", "node": name, "shared": shared, "start": [self.addresses[name]]}

    def _derive(self, name: str, shared: str, weights: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> str:
        """A block of the library from ``θ``, its offset and its mask."""
        lineage = self._told_of(name, shared)
        address = address_of(lineage)
        if address in self.library:
            self.library.verify(address)
        elif is_main_process():
            artefact = self.source.get(self.addresses[name])
            variant = Variant.of(artefact.weights, artefact.masks, base)
            on = {key: value.to(base[key].device) for key, value in weights.items()}
            made = variant.weights(on, list(artefact.weights))
            self.library.put(lineage, made, artefact.masks, stats=self.source.stats(self.addresses[name]))
        return address
