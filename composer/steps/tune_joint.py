"""`compose finetune --level block --trainer joint`: all configurations learn as one network, into the library.

``θ``, what all configurations share, is one artefact; each block of the library is ``(θ + Δ) ∘ M`` (see
:mod:`composer.training.joint`), addressed by ``θ`` and by the block that gave its offset ``Δ`` and mask ``M``: the one
that the block phase has tuned, or the pruned one. A configuration that is added later takes the ``θ`` that is there:
its new blocks cost their closed forms and no step. What a configuration owns (:mod:`composer.training.own_parts`) is an
artefact of its own, a difference, under the hash of its root; one that is added later owns nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..composing.assemble import cover
from ..files.jsonfile import digest_of
from ..files.records import is_current, record, recorded_result, write_record
from ..files.stats import write_csv
from ..library.store import address_of
from ..parallel.ranks import is_main_process, wait_for_all
from ..progress import SILENT, Progress
from ..scheme.graph import SHARED
from ..training.joint import Variant, tune_joint
from ..training.length import most_turns, turns
from ..training.settings import broke_text, identity_of
from .settings import joint_rates, joint_settings, tried_steps

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..training.settings import ModelSettings, ModelTuning
    from .block_phase import BlockPhase


def nothing_learnt_text(steps: int, loss: float) -> str:
    """What a user should know of a joint phase that kept what it began with."""
    return (
        f"joint tuning: none of {steps:,} steps lowered the mean validation loss ({loss:.4g}), so all blocks stay as "
        "they were; where a lower --learning-rate changes nothing, --trainer least_squares ends there without a step"
    )


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

    def run(self) -> tuple[dict[str, str], dict[str, Any]]:
        """Tune what is missing; returns addresses in the library (``θ`` under its own name), and what was done.

        That is ``steps`` that ``θ`` has learnt, over how many ``configurations``, how many of the steps were ``made``
        now, and the address ``from`` which the library holds an earlier ``θ`` that was taken; ``tried`` are the
        learning rates that were tried before, where there were any.
        """
        tried = self._search()
        lineage, earlier = self.lineage()
        shared, learnt = address_of(lineage), 0
        own = self._own(lineage, shared)
        if not all(address in self.library for address in (shared, *own.values())):
            learnt = self._learn(lineage)
            wait_for_all()  # one process has stored what all of them read
        steps = int(self.library.stats(shared).get("steps", learnt))
        done: dict[str, Any] = {
            "steps": steps,
            "made": learnt,
            "configurations": len(lineage["configurations"]),
            "from": earlier,
        }
        done |= {"tried": tried} if tried else {}
        weights = self.library.get(shared).weights
        done |= {"own": self._own_bytes(own, weights)} if own else {}
        base = dict(self.space.base.load().named_parameters())
        addresses = {SHARED: shared, **own}
        for name in self.blocks:
            addresses[name] = self._derive(name, shared, weights, base)
        wait_for_all()
        return addresses, done

    def stored(self) -> frozenset[str]:
        """What of it the library holds: names of blocks, and that of ``θ``; nothing while a rate is to be chosen."""
        if not self._settled():
            return frozenset()
        lineage = self.lineage()[0]
        shared = address_of(lineage)
        addresses = self._own(lineage, shared) | {
            name: address_of(self._lineage_of_block(name, shared)) for name in self.blocks
        }
        return frozenset(name for name, address in {SHARED: shared, **addresses}.items() if address in self.library)

    def _own(self, lineage: Mapping[str, Any], shared: str) -> dict[str, str]:
        """Root -> address of what each configuration that has learnt owns; empty where they own nothing."""
        learnt = lineage["configurations"] if self.settings.own != "none" else []
        return {root: address_of(self._own_lineage(root, shared)) for root in learnt if root in self.roots}

    def _own_lineage(self, root: str, shared: str) -> dict[str, Any]:
        return {"stage": "own", "node": root, "shared": shared}

    def _own_bytes(self, own: Mapping[str, str], shared: Mapping[str, Tensor]) -> dict[str, Any]:
        sizes = [self.library.path(address).stat().st_size for address in own.values()]
        all_share = sum(weight.nbytes for weight in shared.values())
        return {"what": self.settings.own, "bytes": sum(sizes), "models": len(sizes), "model_bytes": all_share}

    def lineage(self) -> tuple[dict[str, Any], str | None]:
        """What ``θ`` is made of, and the address of an earlier ``θ`` if one is taken.

        The lineage of a new ``θ`` names all configurations. If it did so always, one configuration more would make
        another ``θ``, and with it every block of every configuration anew. So where the library has a ``θ`` that some
        of these configurations have learnt, from these very blocks and with these settings, that one is taken with
        its own, shorter lineage; of several the one with the most configurations.
        """
        starts = [sorted(self.addresses[name] for name in names) for names in self.names]
        whole = self._lineage(sorted(set(self.roots)), sorted(starts))
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

    def _lineage(self, configurations: list[str], start: list[list[str]]) -> dict[str, Any]:
        data = {"train": self.train.digest, "valid": self.valid.digest}
        return {
            "stage": "shared",
            "base": self.scheme.fingerprint,
            "configurations": configurations,
            "start": start,
            "settings": {**identity_of(self.settings), "patience": self.space.recipe.block.patience},
            "data": data,
            # Left out where all take turns alike, so that addresses stay those of before there were others.
            **({"most_turns": self.most_turns} if self.most_turns > 1 else {}),
        }

    def _search(self) -> list[dict[str, Any]]:
        """Choose the learning rate, where there is a choice; what each try came to."""
        if not self._settled():
            self._choose([self._try(rate) for rate in joint_rates(self.space.recipe)])
        return self._recorded()

    def _settled(self) -> bool:
        """Take the rate that is known already: by tries that are recorded, or as an earlier ``θ`` has it.

        So a configuration that is added later costs no try either.
        """
        rates, tried = joint_rates(self.space.recipe), self._recorded()
        if len(tried) == len(rates):
            self._choose(tried)
            return True
        settings = self.settings
        for rate in rates:
            self.settings = replace(settings, learning_rate=rate)
            if self.lineage()[1]:
                return True
        self.settings = settings
        return False

    def _recorded(self) -> list[dict[str, Any]]:
        rates = joint_rates(self.space.recipe)
        return [known for rate in rates if (known := self._tried(rate, self._tries(rate)))]

    def _tries(self, rate: float) -> ModelSettings:
        """Settings of a try: a part of the steps, measured at its end."""
        return replace(self.settings, learning_rate=rate, steps=tried_steps(self.settings.steps), evaluations=1)

    def _tried(self, rate: float, settings: ModelSettings) -> dict[str, Any] | None:
        """What is recorded of a try of these very configurations and blocks."""
        table = self._table(rate)
        return recorded_result(table) if is_current(table, self._identity(settings), renew=True) else None

    def _table(self, rate: float) -> Path:
        return self.space.stats_named(f"search-joint-{rate:g}")

    def _identity(self, settings: ModelSettings) -> dict[str, Any]:
        starts = [sorted(self.addresses[name] for name in names) for names in self.names]
        return {**self._lineage(sorted(set(self.roots)), sorted(starts)), "settings": identity_of(settings)}

    def _try(self, rate: float) -> dict[str, Any]:
        """Learn a while at this rate, for the loss alone; what was tried before is not tried again."""
        settings = self._tries(rate)
        if known := self._tried(rate, settings):
            return known
        identity = self._identity(settings)
        name = f"try-{digest_of(identity)[:12]}"
        tuned, _ = self._tuned(self.space.fresh_model(), settings, name)
        seconds, steps = tuned.train_seconds, int(tuned.rows[-1]["step"])
        result = {"learning_rate": rate, "loss": tuned.best_loss, "steps": steps, "seconds": seconds}
        if is_main_process():
            table = self._table(rate)
            write_csv(table, tuned.rows)
            write_record(table, record(identity, result=result, device=self.space.device))
            shutil.rmtree(self._work(name), ignore_errors=True)
        wait_for_all()
        return result

    def _choose(self, tried: list[dict[str, Any]]) -> None:
        """Go on with the rate that came to the lowest mean loss; of equals with the lower rate."""
        if tried:
            best = min(tried, key=lambda one: (one["loss"], one["learning_rate"]))
            self.settings = replace(self.settings, learning_rate=best["learning_rate"])

    def _learn(self, lineage: dict[str, Any]) -> int:
        """Let ``θ`` learn, and store it; returns the steps that it took."""
        model = self.space.fresh_model()
        tuned, each = self._tuned(model, self.settings, address_of(lineage)[:12])
        steps = int(tuned.rows[-1]["step"])
        if tuned.broke is not None:
            self.progress.note(broke_text("joint tuning", tuned.broke))
        elif not tuned.best_step:
            self.progress.note(nothing_learnt_text(steps, tuned.best_loss))
        if is_main_process():
            stats = {"seconds": tuned.train_seconds, "steps": steps, "joint": each, "mean": tuned.rows, "rows": []}
            stats["configurations"] = self.roots
            shared = self.library.put(lineage, dict(model.named_parameters()), {}, stats=stats)
            for root, part in zip(self.roots, tuned.own, strict=bool(tuned.own)):
                self.library.put(self._own_lineage(root, shared), part.tensors(), {})
            shutil.rmtree(self._work(address_of(lineage)[:12]), ignore_errors=True)
        return steps

    def _work(self, name: str) -> Path:
        """Where checkpoints of a training lie while it runs."""
        return self.space.folder / ".work" / f"joint-{name}"

    def _tuned(
        self, model: nn.Module, settings: ModelSettings, called: str
    ) -> tuple[ModelTuning, list[dict[str, Any]]]:
        """Train ``model`` as ``θ`` of all configurations, in place."""
        space = self.space
        base = dict(model.named_parameters())
        variants: dict[str, Variant] = {}
        for name in self.blocks:
            artefact = self.source.get(self.addresses[name])
            variants[name] = Variant.of(artefact.weights, artefact.masks, base)
        work = self._work(called)
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

    def _lineage_of_block(self, name: str, shared: str) -> dict[str, Any]:
        return {"stage": "joint", "node": name, "shared": shared, "start": [self.addresses[name]]}

    def _derive(self, name: str, shared: str, theta: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> str:
        """Store a block as ``(θ + Δ) ∘ M``; returns its address."""
        lineage = self._lineage_of_block(name, shared)
        address = address_of(lineage)
        if address in self.library:
            self.library.verify(address)
        elif is_main_process():
            artefact = self.source.get(self.addresses[name])
            variant = Variant.of(artefact.weights, artefact.masks, base)
            on_device = {key: value.to(base[key].device) for key, value in theta.items()}
            weights = variant.weights(on_device, list(artefact.weights))
            self.library.put(lineage, weights, artefact.masks, stats=self.source.stats(self.addresses[name]))
        return address
