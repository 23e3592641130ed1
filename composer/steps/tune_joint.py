"""`compose finetune --level block --trainer joint`: all configurations learn as one network, into the library.

``θ``, what all configurations share, is one artefact; each block of the library is ``(θ + Δ) ∘ M`` (see
:mod:`composer.training.joint`), addressed by ``θ`` and by the block that gave its offset ``Δ`` and mask ``M``: the one
that the block phase has tuned, or the pruned one. A configuration that is added later takes the ``θ`` that is there:
its new blocks cost their closed forms and no step. What a configuration owns (:mod:`composer.training.own_parts`) is an
artefact of its own, a difference, under the hash of its root; one that is added later owns nothing. A configuration
that is better as it began keeps its blocks, under names that are its own (:func:`composer.composing.assemble.apart`).
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..composing.assemble import apart
from ..library.store import address_of
from ..parallel.ranks import is_main_process, wait_for_all
from ..progress import SILENT, Progress
from ..scheme.graph import SHARED
from ..tasks.loss import mean_loss
from ..tensors.parameters import set_values
from ..training.joint import Variant, composed
from ..training.settings import broke_text
from .joint_network import JointNetwork
from .joint_rates import RateSearch

if TYPE_CHECKING:
    from torch import Tensor

    from .block_phase import BlockPhase


def nothing_learnt_text(steps: int, loss: float, *, taught: bool) -> str:
    """What a user should know of a joint phase that kept what it began with.

    Args:
        taught: a teacher's answers were learnt.
    """
    answers = "" if taught else " or --distill 1, the base model's answers instead of labels,"
    return (
        f"joint tuning: none of {steps:,} steps lowered the validation loss of any configuration (mean {loss:.4g}), so "
        f"all blocks stay as they were; where a lower --learning-rate{answers} changes nothing, --trainer "
        "least_squares ends there without a step"
    )


class Joint:
    """The joint phase of a scheme: what it makes, and what the library holds of it.

    Args:
        phase: the block phase that comes before, with its libraries and data.
        blocks: node hash -> address of what it has tuned.
    """

    def __init__(self, phase: BlockPhase, blocks: Mapping[str, str], progress: Progress = SILENT) -> None:
        self.network = JointNetwork(phase, blocks, progress)
        self.search = RateSearch(self.network)
        self.space, self.library, self.progress = phase.space, phase.tuned, progress

    def run(self) -> tuple[dict[str, str], dict[str, Any]]:
        """Tune what is missing; returns addresses in the library (``θ`` under its own name), and what was done.

        That is ``steps`` that ``θ`` has learnt, over how many ``configurations``, how many of the steps were ``made``
        now, and the address ``from`` which the library holds an earlier ``θ`` that was taken; ``tried`` are the
        learning rates that were tried before, where there were any; ``stays``: how many configurations are better as
        they began, where there are any.
        """
        tried = self.search.run()
        lineage, earlier = self.network.lineage()
        shared, learnt = address_of(lineage), 0
        own = self._own(lineage, shared)
        if not all(address in self.library for address in (shared, *own.values())):
            learnt = self._learn(lineage)
            wait_for_all()  # one process has stored what all of them read
        stats = self.library.stats(shared)
        steps = int(stats.get("steps", learnt))
        done: dict[str, Any] = {
            "steps": steps,
            "made": learnt,
            "configurations": len(lineage["configurations"]),
            "from": earlier,
        }
        done |= {"tried": tried} if tried else {}
        weights = self.library.get(shared).weights
        done |= {"own": self._own_bytes(own, weights)} if own else {}
        stays = self._stays(stats, weights)
        done |= {"stays": len(stays)} if stays else {}
        addresses = {SHARED: shared, **{root: address for root, address in own.items() if root not in stays}}
        addresses |= self._blocks(shared, weights, stays)
        wait_for_all()
        return addresses, done

    def _blocks(self, shared: str, theta: Mapping[str, Tensor], stays: Collection[str]) -> dict[str, str]:
        """Store every block with what was learnt, and as it began where it stays so; addresses by name."""
        base = dict(self.space.base.load().named_parameters())
        addresses = {name: self._derive(name, shared, theta, base) for name in self.network.blocks}
        for root, names in zip(self.network.roots, self.network.names, strict=True):
            if root in stays:
                addresses |= {apart(root, name): self._as_begun(name) for name in names}
        return addresses

    def stored(self) -> frozenset[str]:
        """What of it the library holds: names of blocks, and that of ``θ``; nothing while a rate is to be chosen."""
        if not self.search.settled():
            return frozenset()
        lineage = self.network.lineage()[0]
        shared = address_of(lineage)
        addresses = self._own(lineage, shared) | {
            name: address_of(self._lineage_of_block(name, shared)) for name in self.network.blocks
        }
        return frozenset(name for name, address in {SHARED: shared, **addresses}.items() if address in self.library)

    def _own(self, lineage: Mapping[str, Any], shared: str) -> dict[str, str]:
        """Root -> address of what each configuration that has learnt owns; empty where they own nothing."""
        learnt = lineage["configurations"] if self.network.settings.own != "none" else []
        return {root: address_of(self._own_lineage(root, shared)) for root in learnt if root in self.network.roots}

    def _own_lineage(self, root: str, shared: str) -> dict[str, Any]:
        return {"stage": "own", "node": root, "shared": shared}

    def _own_bytes(self, own: Mapping[str, str], shared: Mapping[str, Tensor]) -> dict[str, Any]:
        sizes = [self.library.path(address).stat().st_size for address in own.values()]
        all_share = sum(weight.nbytes for weight in shared.values())
        return {"what": self.network.settings.own, "bytes": sum(sizes), "models": len(sizes), "model_bytes": all_share}

    def _learn(self, lineage: dict[str, Any]) -> int:
        """Let ``θ`` learn, and store it; returns the steps that it took."""
        model = self.space.fresh_model()
        tuned, each = self.network.tuned(model, self.network.settings, address_of(lineage)[:12])
        steps = int(tuned.rows[-1]["step"])
        if tuned.broke is not None:
            self.progress.note(broke_text("joint tuning", tuned.broke))
        elif not tuned.best_step:
            self.progress.note(nothing_learnt_text(steps, tuned.best_loss, taught=self.network.settings.has_teacher))
        if is_main_process():
            stats = {"seconds": tuned.train_seconds, "steps": steps, "joint": each, "mean": tuned.rows, "rows": []}
            stats["configurations"] = self.network.roots
            stats["stays"] = [self.network.roots[number] for number in tuned.stays]
            shared = self.library.put(lineage, dict(model.named_parameters()), {}, stats=stats)
            for root, part in zip(self.network.roots, tuned.own, strict=bool(tuned.own)):
                self.library.put(self._own_lineage(root, shared), part.tensors(), {})
            shutil.rmtree(self.network.work(address_of(lineage)[:12]), ignore_errors=True)
        return steps

    def _stays(self, stats: Mapping[str, Any], theta: Mapping[str, Tensor]) -> set[str]:
        """Roots of the configurations that are better as they began.

        Which of those that have learnt are was measured then. One that was added later is measured here, twice.
        """
        learnt = stats.get("configurations", [])
        new = [number for number, root in enumerate(self.network.roots) if root not in learnt]
        stays = set(stats.get("stays", [])) & set(self.network.roots)
        return stays | {self.network.roots[number] for number in self._worse_with(theta, new)}

    def _worse_with(self, theta: Mapping[str, Tensor], numbers: Sequence[int]) -> list[int]:
        """Which of some configurations have a higher validation loss with ``θ`` than they began with."""
        if not numbers:
            return []
        model = self.space.fresh_model()
        parameters = dict(model.named_parameters())
        variants = self.network.variants(parameters)
        losses: list[list[float]] = []
        for shared in ({}, theta):
            set_values(parameters, shared)
            losses.append([])
            for number in numbers:
                with composed(parameters, [variants[name] for name in self.network.names[number]]):
                    losses[-1].append(mean_loss(model, self.space.task, self.network.valid))
        return [number for number, before, after in zip(numbers, *losses, strict=True) if before < after]

    def _lineage_of_block(self, name: str, shared: str) -> dict[str, Any]:
        return {"stage": "joint", "node": name, "shared": shared, "start": [self.network.addresses[name]]}

    def _derive(self, name: str, shared: str, theta: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> str:
        """Store a block as ``(θ + Δ) ∘ M``; returns its address."""
        lineage = self._lineage_of_block(name, shared)
        address = address_of(lineage)
        if address in self.library:
            self.library.verify(address)
        elif is_main_process():
            artefact = self.network.source.get(self.network.addresses[name])
            variant = Variant.of(artefact.weights, artefact.masks, base)
            on_device = {key: value.to(base[key].device) for key, value in theta.items()}
            weights = variant.weights(on_device, list(artefact.weights))
            self.library.put(
                lineage, weights, artefact.masks, stats=self.network.source.stats(self.network.addresses[name])
            )
        return address

    def _as_begun(self, name: str) -> str:
        """The address of a block as it was before any step, in the library of tuned ones."""
        address = self.network.addresses[name]
        if address in self.library:
            return address
        begun = self.network.source.get(address)  # pruned, and in another library
        return self.library.put({"stage": "begun", "node": name, "start": [address]}, begun.weights, begun.masks)
