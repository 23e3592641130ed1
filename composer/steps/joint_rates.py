"""The learning rate of joint tuning: each that may be taken is tried for a part of the steps, once."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files.jsonfile import digest_of
from ..files.records import is_current, record, recorded_result, write_record
from ..files.stats import write_csv
from ..parallel.ranks import is_main_process, wait_for_all
from .settings import joint_rates, tried_steps

if TYPE_CHECKING:
    from ..training.settings import ModelSettings
    from .joint_network import JointNetwork


class RateSearch:
    """The rates that a recipe names for joint tuning, on one network, whose settings get the one that is chosen."""

    def __init__(self, network: JointNetwork) -> None:
        self.network, self.space = network, network.space
        self.rates = joint_rates(network.space.recipe)

    def run(self) -> list[dict[str, Any]]:
        """Choose the learning rate, where there is a choice; what each try came to."""
        if not self.settled():
            self._choose([self._try(rate) for rate in self.rates])
        return self._recorded()

    def settled(self) -> bool:
        """Take the rate that is known already: by tries that are recorded, or as an earlier ``θ`` has it.

        So a configuration that is added later costs no try either.
        """
        tried = self._recorded()
        if len(tried) == len(self.rates):
            self._choose(tried)
            return True
        settings = self.network.settings
        for rate in self.rates:
            self.network.settings = replace(settings, learning_rate=rate)
            if self.network.lineage()[1]:
                return True
        self.network.settings = settings
        return False

    def _recorded(self) -> list[dict[str, Any]]:
        return [known for rate in self.rates if (known := self._tried(rate))]

    def _tries(self, rate: float) -> ModelSettings:
        """Settings of a try: a part of the steps, measured at its end."""
        settings = self.network.settings
        return replace(settings, learning_rate=rate, steps=tried_steps(settings.steps), evaluations=1)

    def _tried(self, rate: float) -> dict[str, Any] | None:
        """What is recorded of a try of these very configurations and blocks."""
        table, identity = self._table(rate), self.network.identity(self._tries(rate))
        return recorded_result(table) if is_current(table, identity, renew=True) else None

    def _table(self, rate: float) -> Path:
        return self.space.stats_named(f"search-joint-{rate:g}")

    def _try(self, rate: float) -> dict[str, Any]:
        """Learn a while at this rate, for the loss alone; what was tried before is not tried again."""
        if known := self._tried(rate):
            return known
        settings = self._tries(rate)
        identity = self.network.identity(settings)
        name = f"try-{digest_of(identity)[:12]}"
        tuned, _ = self.network.tuned(self.space.fresh_model(), settings, name)
        seconds, steps = tuned.train_seconds, int(tuned.rows[-1]["step"])
        result = {"learning_rate": rate, "loss": tuned.best_loss, "steps": steps, "seconds": seconds}
        if is_main_process():
            table = self._table(rate)
            write_csv(table, tuned.rows)
            write_record(table, record(identity, result=result, device=self.space.device))
            shutil.rmtree(self.network.work(name), ignore_errors=True)
        wait_for_all()
        return result

    def _choose(self, tried: list[dict[str, Any]]) -> None:
        """Go on with the rate that came to the lowest mean loss; of equals with the lower rate."""
        if tried:
            best = min(tried, key=lambda one: (one["loss"], one["learning_rate"]))
            self.network.settings = replace(self.network.settings, learning_rate=best["learning_rate"])
