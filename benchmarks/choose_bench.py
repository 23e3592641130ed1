"""One seed of the parts of `benchmarks/choose.py` that look at one configuration after the other.

The model of DistilBERT on SST-2, the pass over the calibration sample, the costs of widths by every kind, and rows that
are kept as they come.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from common import timed_row
from corrected_costs import corrected, measured_at

from composer.choosing.choice import CRITERION
from composer.choosing.measured import Measured
from composer.choosing.menu import Menu
from composer.composing.candidates import Candidates
from composer.files.journal import Journal
from composer.recipe import load_recipe
from composer.shrinking.in_memory import SmallModels
from composer.shrinking.units import units_of
from composer.workspace import Workspace

Row = dict[str, Any]
FAR = 128
"""Examples on which answers are compared with the base model's."""


class Bench:
    """One seed: the model, what was gathered of it, and the rows that are there."""

    def __init__(self, given: argparse.Namespace, seed: int) -> None:
        shared = given.shared
        fields = {"model": str(shared / "models/distilbert-mini-sst2"), "data": str(shared / "data/sst2")}
        sample = {"calibration_size": given.calibration_size, "calibration_lengths": "valid", "seed": seed}
        self.space = Workspace(load_recipe(given={**fields, **sample, "folder": str(given.output)}, file=False))
        self.units = list(units_of(self.space.base.layout))
        self.seed, self.given = seed, given
        self.journal = Journal(given.output, f"seed-{seed}", {"base": self.space.base.fingerprint, **sample})

    def row(self, key: tuple[Any, ...], make: Callable[[], Row]) -> Row:
        """A row, with its processor seconds; made where it is not there."""
        return timed_row(self.journal, key, make)

    @cached_property
    def model(self) -> Any:
        """The base model."""
        return self.space.fresh_model()

    @cached_property
    def calibration(self) -> Any:
        """It on the calibration sample."""
        from composer.progress import SILENT

        return self.space.calibrated(self.model, self.space.base.layout, progress=SILENT)

    @cached_property
    def candidates(self) -> Candidates:
        """Configurations of it, pruned and repaired."""
        how: dict[str, Any] = {"damping": 0.01, "seed": self.seed, "small": SmallModels(self.model, self.space.base)}
        return Candidates(self.model, self.space.task, self.calibration, CRITERION, **how)

    @cached_property
    def menu(self) -> Menu:
        """The table of rises."""
        from composer.calibration.rises import rises_by_width

        def make() -> Row:
            rises, lengths = rises_by_width(self.model, self.space.task, self.calibration, self.units, damping=0.01)
            return {"rises": rises, "lengths": lengths}

        found = {name: value for name, value in self.row(("table",), make).items() if name != "cpu"}
        return Menu(self.units, Measured(**found, parameters=self.space.base.parameters, stored=1, written=1))

    @cached_property
    def fisher(self) -> dict[str, list[float]]:
        """Rises by the Fisher information of masks."""
        from composer.calibration.mask_fisher import fisher_by_width

        def make() -> Row:
            return {"rises": fisher_by_width(self.model, self.space.task, self.calibration, self.units)}

        return dict(self.row(("fisher",), make)["rises"])

    @cached_property
    def costs(self) -> dict[str, Mapping[str, Sequence[float]]]:
        """Rises of the loss by width, of all kinds."""
        rises = self.menu.rises
        right = {u.path: self._corrected(m, rises[u.path]) for m, u in enumerate(self.units)}
        return {"brain-surgeon costs": rises, "Fisher costs": self.fisher, "corrected costs": right}

    def _corrected(self, m: int, rises: Sequence[float]) -> list[float]:
        """The rises of one part, by what some of its widths were measured to cost by themselves."""
        found = {}
        for k in measured_at(len(rises)):
            chosen = [0] * len(self.units)
            chosen[m] = k
            found[k] = self.far(chosen)
        return corrected(rises, found)

    def far(self, chosen: Sequence[int]) -> float:
        """How far answers are from the base model's."""

        def make() -> Row:
            specs = self.menu.specs(self.menu.choice(chosen))
            return {"divergence": self.candidates.divergence(specs, FAR)}

        return float(self.row(("far", list(chosen)), make)["divergence"])
