"""What a user wishes of a family of models: fractions of the base model's work or size, one configuration per wish."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import ConfigError

RESOURCES = {"macs": "--keep-macs", "parameters": "--keep-parameters"}
"""What can be wished for -> its option."""
WORDS = {"macs": "multiplications of the layers", "parameters": "parameters of the model"}


@dataclass(frozen=True)
class Wish:
    """One configuration: what part of each resource may be left, in (0, 1]."""

    keep: Mapping[str, float]

    def __str__(self) -> str:
        return ", ".join(f"{part:g} of the {WORDS[name]}" for name, part in self.keep.items())


def read_wishes(lists: Mapping[str, Sequence[float]]) -> list[Wish]:
    """One wish per place in the lists; a list of one value is repeated.

    Args:
        lists: resource -> parts that are to be kept; those that nobody gave are absent.

    Raises:
        ConfigError: nothing is wished, a value that is no part, or lists of different lengths.
    """
    if not lists:
        raise ConfigError(f"nothing is wished; give one of {', '.join(RESOURCES.values())}")
    count = max(map(len, lists.values()))
    problems = [
        f"{RESOURCES[name]}: got {value:g}; allowed: a part that is kept, 0 < part <= 1"
        for name, values in lists.items()
        for value in values
        if not 0 < value <= 1
    ]
    problems += [
        f"{RESOURCES[name]}: got {len(values)} values; allowed: 1 or {count}, one for each configuration"
        for name, values in lists.items()
        if len(values) not in (1, count)
    ]
    if problems:
        raise ConfigError(problems)
    return [Wish({name: v[i] if len(v) > 1 else v[0] for name, v in lists.items()}) for i in range(count)]
