"""What a user wishes of a family of models: parts of the base model's work, size or time, wish by wish."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from ..errors import ConfigError

Part = Annotated[float, Field(gt=0, le=1)]
Finite = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _number(value: float | str) -> float | str:
    """A loss as it was written, if it is a number."""
    try:
        if isfinite(float(value)):
            return value
    except ValueError:
        pass
    raise PydanticCustomError("loss", "allowed: a loss, or a rise above the base model's such as '+0.05'")


RESOURCES = {
    "keep_macs": "macs",
    "keep_parameters": "parameters",
    "keep_bytes": "bytes",
    "speedup": "seconds",
    "latency_ms": "seconds",
}
"""What can be wished for -> what it limits."""
WORDS = {
    "macs": "multiplications of the layers",
    "parameters": "parameters of the model",
    "bytes": "bytes of the weights on disk",
    "seconds": "time of a pass",
}


class WishOptions(BaseModel):
    """Lists with an entry for each configuration; of several lists the entries at one place count together."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    speedup: list[Annotated[float, Field(ge=1, allow_inf_nan=False)]] = []
    """``choose``, ``run``: times as fast as the base model, as measured on this machine."""
    latency_ms: list[Finite] = []
    """Milliseconds that a pass may take on this machine."""
    keep_macs: list[Part] = []
    """Parts of the layers' multiplications that may stay."""
    keep_parameters: list[Part] = []
    """Parts of the model's parameters that may stay."""
    keep_bytes: list[Part] = []
    """Parts of the bytes of the model's weights on disk that may stay."""
    loss_at_most: list[Annotated[float | str, AfterValidator(_number)]] = []
    """Validation losses that may not be exceeded before any training; ``"+0.05"`` is a rise above the base model's."""

    @field_validator(*RESOURCES, "loss_at_most", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        """``speedup: 2`` in a file is a list of one."""
        return value if isinstance(value, list | tuple) else [value]

    @property
    def wishes_anything(self) -> bool:
        """Whether any wish was said."""
        return any(getattr(self, name) for name in WishOptions.model_fields)


@dataclass(frozen=True)
class Wish:
    """One configuration.

    Attributes:
        asked: option -> its value, in the words of :data:`RESOURCES`.
        loss: the largest loss, as a number or as a rise with a plus before it; None: the least that there is.
    """

    asked: Mapping[str, float]
    loss: str | None = None

    def __str__(self) -> str:
        words = [f"{option(name)} {value:g}" for name, value in self.asked.items()]
        return " ".join([*words, *([f"{option('loss_at_most')} {self.loss}"] if self.loss else [])])

    @property
    def timed(self) -> bool:
        """Whether it is about time."""
        return any(RESOURCES[name] == "seconds" for name in self.asked)

    @property
    def untimed(self) -> Wish:
        """What of it is not about time."""
        return Wish({name: value for name, value in self.asked.items() if RESOURCES[name] != "seconds"}, self.loss)

    def parts(self, seconds: float | None = None) -> dict[str, float]:
        """Resource -> which part of the base model's may be left; ``seconds`` are those that the base model takes."""
        found: dict[str, float] = {}
        for name, value in self.asked.items():
            part = 1 / value if name == "speedup" else value
            if name == "latency_ms":
                assert seconds is not None
                part = value / 1e3 / seconds
            found[RESOURCES[name]] = min(part, found.get(RESOURCES[name], 1.0))
        return found

    def loss_limit(self, dense: float) -> float | None:
        """The largest loss, for a base model with this one.

        Raises:
            ConfigError: it lies below the base model's own.
        """
        if self.loss is None:
            return None
        value = float(self.loss)
        limit = dense + value if self.loss.strip().startswith("+") else value
        if limit < dense:
            raise ConfigError(
                f"--loss-at-most: got {self.loss}; allowed: a loss of at least {dense:.4g}, the base model's own, or a "
                "rise above it such as +0.05 (in quotes in a file)"
            )
        return limit


def option(name: str) -> str:
    """How a wish is written on the command line."""
    return f"--{name.replace('_', '-')}"


def read_wishes(options: WishOptions) -> list[Wish]:
    """One wish per place in the lists; a list of one value is repeated.

    Raises:
        ConfigError: nothing is wished, or lists of different lengths.
    """
    lists: dict[str, Sequence[float]] = {n: v for n in RESOURCES if (v := getattr(options, n))}
    losses = [str(loss) for loss in options.loss_at_most]
    lengths = {name: len(values) for name, values in lists.items()} | ({"loss_at_most": len(losses)} if losses else {})
    if not lengths:
        names = [*RESOURCES, "loss_at_most"]
        raise ConfigError(f"nothing is wished; give one of {', '.join(map(option, names))}")
    count = max(lengths.values())
    problems = [
        f"{option(name)}: got {n} values; allowed: 1 or {count}, one for each configuration"
        for name, n in lengths.items()
        if n not in (1, count)
    ]
    if problems:
        raise ConfigError(problems)
    at = [i if len(losses) > 1 else 0 for i in range(count)]
    return [
        Wish({n: v[i] if len(v) > 1 else v[0] for n, v in lists.items()}, losses[at[i]] if losses else None)
        for i in range(count)
    ]


def check_weights(wishes: Sequence[Wish]) -> None:
    """Refuse to choose single weights for wishes to which they bring nothing.

    Raises:
        ConfigError: none of the wishes is about parameters, or about the loss alone.
    """
    if not any("keep_parameters" in wish.asked or not wish.asked for wish in wishes):
        raise ConfigError(
            "--unstructured: single weights that are gone are zeros, which take the time, multiplications and bytes "
            f"that they took, so they bring nothing to {wishes[0]}; allowed with --keep-parameters, or "
            "--loss-at-most alone"
        )
