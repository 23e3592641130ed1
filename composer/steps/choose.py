"""`compose choose`: from wishes to configurations, by what every part costs the loss at every width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..choosing.program import Part, best_widths
from ..choosing.resources import macs, widths
from ..choosing.wishes import Wish
from ..errors import ConfigError, OutputError
from ..files.jsonfile import read_json, write_json
from ..files.records import record
from ..progress import SILENT, Progress
from ..scheme.configurations import Configurations, Spec, write_configurations
from ..scheme.layout import Layout
from ..shrinking.units import Units, units_of
from ..workspace import Given, Workspace
from .outcome import Outcome

if TYPE_CHECKING:
    from torch import Tensor, nn

CHOICE = "choice.json"


@dataclass(frozen=True)
class Choice:
    """One configuration: how many units each part keeps, and what that was predicted to come to.

    Attributes:
        kept: path of the part -> units.
        rise: of the loss, the sum over the parts.
        parts: resource -> the part of the base model's that is left.
    """

    wish: Wish
    kept: Mapping[str, int]
    rise: float
    parts: Mapping[str, float]


class Chooser:
    """The table of rises, and the choices made from it; the model is loaded when the table is not there yet."""

    def __init__(self, space: Workspace, folder: Path, *, force: bool, progress: Progress) -> None:
        self.space, self.file, self.force, self.progress = space, folder / CHOICE, force, progress
        self.units = list(units_of(space.base.layout))
        if not self.units:
            raise ConfigError(
                f"{space.base.name}: has no attention or feed-forward that choosing could make smaller "
                f"(a {space.base.layout.family} model)"
            )

    @property
    def identity(self) -> dict[str, Any]:
        """What shapes the table."""
        space = self.space
        task = {"name": space.task.name, **space.task.scoring}
        return {
            "version": __version__,
            "base": space.base.fingerprint,
            "calibration": space.sample_identity(),
            "task": task,
            "device": space.device,
        }

    def table(self) -> dict[str, Any]:
        """``rises`` by part and width, ``lengths`` by stream, ``parameters`` of the model; from the file if it is
        there and was made from the same."""
        if not self.force and self.file.is_file():
            stored = read_json(self.file, OutputError)
            if isinstance(stored, dict) and stored.get("identity") == self.identity and "table" in stored:
                return dict(stored["table"])
        from ..calibration.rises import rises_by_width

        space = self.space
        model = space.fresh_model()
        calibration = space.calibrated(model, space.base.layout, progress=self.progress)
        rises, lengths = rises_by_width(
            model, space.task, calibration, self.units, damping=space.recipe.block.damping, progress=self.progress
        )
        return {"rises": rises, "lengths": lengths, "parameters": sum(p.numel() for p in model.parameters())}

    def choose(self, table: Mapping[str, Any], wish: Wish) -> Choice:
        """The widths that the wish allows and that cost least.

        Raises:
            ConfigError: the wish is out of reach.
        """
        parts = [self._part(units, table) for units in self.units]
        rest = self._rest(table)
        whole = {name: sum(p.costs[name][0] for p in parts) + rest[name] for name in rest}
        budgets = {name: part * whole[name] - rest[name] for name, part in wish.keep.items()}
        for name, budget in budgets.items():
            if sum(min(p.costs[name]) for p in parts) > budget:
                raise ConfigError(
                    f"no model of this family keeps {wish}: {rest[name] / whole[name]:.1%} of its {name} are in no "
                    "head and no neuron (embeddings, norms, output layer)"
                )
        chosen = best_widths(parts, budgets)
        if chosen is None:
            raise ConfigError(f"no choice of heads and neurons keeps {wish} at once")
        kept = {u.path: widths(u)[k] for u, k in zip(self.units, chosen, strict=True)}
        left = {n: (sum(p.costs[n][k] for p, k in zip(parts, chosen, strict=True)) + rest[n]) / whole[n] for n in rest}
        return Choice(wish, kept, sum(p.rises[k] for p, k in zip(parts, chosen, strict=True)), left)

    def _part(self, units: Units, table: Mapping[str, Any]) -> Part:
        counts = widths(units)
        costs = {
            "macs": [macs(units, kept, table["lengths"]) for kept in counts],
            "parameters": [float(units.parameters(kept)) for kept in counts],
        }
        return Part(units.path, table["rises"][units.path], costs)

    def _rest(self, table: Mapping[str, Any]) -> dict[str, float]:
        """What is in no unit. Multiplications are those of the layers: the embedding has none, the head is fixed."""
        inside = sum(units.parameters(units.count) for units in self.units)
        return {"macs": 0.0, "parameters": float(table["parameters"] - inside)}
