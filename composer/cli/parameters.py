"""Single flags that commands share, and how their words are read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter, Token

COMMON_GROUP = Group("Common options", sort_key=9)
RATES_GROUP = Group("Configurations", sort_key=3)


def whole_number(_type: Any, tokens: Sequence[Token]) -> int:
    """Read an integer; ``1.5`` is refused, not rounded."""
    try:
        return int(tokens[0].value)
    except ValueError:
        raise ValueError(f"got {tokens[0].value!r}; allowed: a whole number") from None


def numbers(_type: Any, tokens: Sequence[Token]) -> list[float]:
    """Read numbers, each a word of its own or parted by commas."""
    words = [word for token in tokens for word in token.value.split(",") if word.strip()]
    wrong = next((word for word in words if not _is_number(word)), None)
    if wrong is not None or not words:
        raise ValueError(f"got {wrong or ','!r}; allowed: numbers, parted by spaces or commas")
    return [float(word) for word in words]


def words(_type: Any, tokens: Sequence[Token]) -> list[str]:
    """Read words, parted by spaces or commas."""
    return levels([token.value for token in tokens]) or []


def levels(given: Sequence[str] | None) -> list[str] | None:
    """Split ``module,sublayer`` or ``module sublayer`` into its words.

    >>> levels(["module,sublayer", "layer"])
    ['module', 'sublayer', 'layer']
    """
    if given is None:
        return None
    return [word.strip() for part in given for word in part.split(",") if word.strip()]


def _is_number(word: str) -> bool:
    try:
        return float(word) is not None
    except ValueError:
        return False


Whole = Annotated[int, Parameter(converter=whole_number, metavar="N")]
Rates = Annotated[list[float], Parameter(converter=numbers, consume_multiple=(1, 1_000_000), metavar="RATE...")]
Words = Annotated[list[str], Parameter(converter=words, consume_multiple=(1, 1_000_000))]
Places = Annotated[list[str], Parameter(consume_multiple=(1, 1_000_000))]

Model = Annotated[str | None, Parameter(["-m", "--model"], help="Base model: a folder, a hub id, or 'demo'.")]
Output = Annotated[Path | None, Parameter(["-o", "--output"], help="Where to write.")]
Config = Annotated[Path | None, Parameter(["-c", "--config"], help="The configurations [conf.json].")]
SchemeFile = Annotated[Path | None, Parameter(["-s", "--scheme"], help="The scheme [conf_prune.json].")]
Criterion = Annotated[str | None, Parameter(help="What makes a unit unimportant [l1].")]
RunCriterion = Annotated[str | None, Parameter("--criterion", help="What makes a unit unimportant [obs].")]
DeadColumns = Annotated[
    bool | None,
    Parameter(
        "--dead-columns",
        negative="--no-dead-columns",
        help="Out-projections lose the columns of removed heads first, same count [yes].",
    ),
]
Sweep = Annotated[
    bool | None, Parameter(help="After composing, refit each sublayer on the inputs that it really gets [no].")
]
Seed = Annotated[Whole | None, Parameter(help="Same seed, same bytes [0].")]
Device = Annotated[str | None, Parameter(help="auto, cpu, cuda, cuda:1, mps [auto].")]
CalibrationLengths = Annotated[
    Literal["train", "valid"] | None,
    Parameter(help="Split whose lengths they have [valid where models are wished for, else train]."),
]
Memory = Annotated[
    str | None, Parameter(metavar="SIZE", help="Most memory for their moments, such as 2GiB [no limit].")
]
Force = Annotated[
    bool, Parameter(group=COMMON_GROUP, help="Replace an output that was made from other inputs; redo finished work.")
]
Which = Annotated[Whole | None, Parameter(["-n", "--configuration"], help="Configuration, counted from 0.")]
Every = Annotated[bool, Parameter("--all", help="Every configuration.")]
BlockLevels = Annotated[
    Words | None,
    Parameter(
        group=RATES_GROUP, metavar="LEVEL,...", help="Levels whose blocks are tuned [module,sublayer]; also: layer."
    ),
]
