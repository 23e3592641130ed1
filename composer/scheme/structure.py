"""Configurations of whole units: heads and neurons, in numbers that a smaller model of the same kind can have."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import ConfigError
from .configurations import Spec
from .layout import Kind, Layout, Target
from .shapes import Shape, rate_of

FLAGS: Mapping[Kind, str] = {"linear": "--granularity", "attention": "--attention-granularity"}


class Structure:
    """Turns rates of targets into rates of heads and neurons.

    Args:
        shapes: what was asked for by name; anything but heads and neurons is refused.
        uniform: attentions keep the same number of heads everywhere, feed-forwards of neurons; where a stack shares a
            position bias, also the same heads.
        multiple: the number of kept neurons is a multiple of it; None is any number.

    Raises:
        ConfigError: another shape, a multiple that is no positive number, a model without heads and feed-forwards.
    """

    def __init__(
        self, layout: Layout, shapes: Mapping[Kind, Shape], *, uniform: bool = False, multiple: int | None = None
    ) -> None:
        self.layout, self.uniform, self.multiple = layout, uniform, multiple
        self.stacked = "attention" in shapes and shapes["attention"].kind == "stack-head"
        allowed = {"linear": "neuron", "attention": "stack-head"}
        problems = [
            f"{FLAGS[kind]}: got {str(shape)!r}, which is no shape of whole units; allowed with --structured: "
            + ("neuron" if kind == "linear" else "head, stack-head")
            for kind, shape in shapes.items()
            if shape.kind != allowed[kind]
        ]
        if multiple is not None and multiple < 1:
            problems.append(f"--multiple: got {multiple}; allowed: a whole number of at least 1")
        if problems:
            raise ConfigError(problems)

    def of(self, rates: Mapping[str, float]) -> dict[str, float | Spec]:
        """Rates of the units of these targets, exact in their numbers; what is not named stays dense."""
        units = {path: unit for path in rates if (unit := self._unit(path))}
        if not units:
            raise ConfigError(
                f"--structured: none of the {len(rates)} targets is an attention or begins a feed-forward of this "
                f"{self.layout.family} model, so no whole unit can go; name others with --targets"
            )
        made: dict[str, float | Spec] = {}
        for path, unit in units.items():
            alike = [u.heads for p, u in units.items() if u.kind == unit.kind and rates[p]] if self.uniform else []
            rate = self._rate(unit, rates[path], alike or [unit.heads])
            shape = self._shape(unit, rate)
            made[path] = Spec(rate=rate, granularity=shape) if shape else rate
        return made

    def _unit(self, path: str) -> Target | None:
        """What loses units at ``path``: an attention, or the feed-forward that begins there."""
        target = self.layout.target(path)
        return target if target.kind == "attention" else self.layout.feed_forward(path)

    def _shape(self, unit: Target, rate: float) -> str | None:
        """What has to be said beside the rate."""
        if unit.kind == "feed_forward":
            return "neuron" if rate else None
        by_index = self.stacked or (self.uniform and self.layout.shares_bias(unit.path))
        return "stack-head" if by_index and 0 < rate < 1 else None

    def _rate(self, unit: Target, rate: float, alike: list[int]) -> float:
        """The rate that leaves the wanted number of units; 0 and 1 are what they are, others keep at least one.

        Args:
            alike: how many units each of those has that are to keep the same number.
        """
        if rate in (0, 1):
            return rate
        step = self.multiple if self.multiple and unit.kind == "feed_forward" else 1
        most = min(alike) // step * step
        keep = max(alike) - round(rate * max(alike))
        keep = min(max(step * round(keep / step), step), most) or min(alike)
        removed = unit.heads - keep
        return rate if round(rate * unit.heads) == removed else rate_of(removed, unit.heads)
