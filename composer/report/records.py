"""A comparison as typed records: what ``results/comparison.json`` holds under ``result``, key for key.

A file may come from an older version, or from a run that has not come to its end. So reading is lenient: a part
that lacks a figure which it needs is not known, as if it were not there. Making a record from Python is strict.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

Side = Literal["baseline", "composed"]
SIDES: tuple[Side, Side] = ("baseline", "composed")

T = TypeVar("T")


def _or_none(value: Any, read: ValidatorFunctionWrapHandler) -> Any:
    """What ``read`` makes of a value, None where it refuses."""
    try:
        return read(value)
    except ValidationError:
        return None


def _readable(value: Any, read: ValidatorFunctionWrapHandler) -> tuple[Any, ...]:
    """The items that can be read; ``read`` takes a whole list, so that each goes through it as a list of one."""
    found = [_or_none([item], read) for item in (value if isinstance(value, Iterable) else ())]
    return tuple(one for some in found if some for one in some)


Known = Annotated[T | None, WrapValidator(_or_none)]
"""A part that may be missing."""
Many = Annotated[tuple[T, ...], WrapValidator(_readable)]
"""Any number of parts."""
Part = Annotated[T, BeforeValidator(lambda value: {} if value is None else value)]
"""A part whose own parts may all be missing."""


class Record(BaseModel):
    """Plain data with names and types; fields that a reader does not know are left out."""

    model_config = ConfigDict(frozen=True)

    def plain(self) -> dict[str, Any]:
        """As JSON data."""
        return self.model_dump(mode="json")


class Sides(Record, Generic[T]):
    """The same figure of both sides."""

    baseline: T
    composed: T

    def of(self, side: Side) -> T:
        """That of one side."""
        return self.baseline if side == "baseline" else self.composed


class Training(Record):
    """A model that was trained: validation loss at the end, optimiser steps, and seconds of training alone."""

    loss: float
    steps: int
    seconds: float


class Trial(Training):
    """One learning rate of the search."""

    learning_rate: float


class Search(Sides[Many[Trial]]):
    """The learning-rate search: which rates were tried, and which rate each side took.

    ``configuration`` is the one that baselines' rates were tried on, ``finished`` that of the composed models (None
    where none needs training by itself); ``joint`` are the tries of joint tuning, of all configurations together.
    """

    configuration: int | None = None
    finished: int | None = None
    joint: Many[Trial] = ()
    chosen: dict[str, float | None] = {}
    baseline: Many[Trial] = ()
    composed: Many[Trial] = ()


class Drawn(Training):
    """A training of which the curve is known: seconds and validation loss, row by row; empty where it is lost."""

    curve: tuple[tuple[float, float], ...] = ()


class Budget(Drawn):
    """A composed model trained for a part of the baseline's steps (``share``); did it reach the baseline's loss?"""

    share: float
    reached: bool


class Run(Drawn):
    """A model that was fine-tuned over the whole budget, and measured on the test split.

    ``metric`` is the task's main one, ``metrics`` are all; ``compose_seconds`` is what making the model took before.
    """

    metric: float | None = None
    metrics: dict[str, Any] = {}
    compose_seconds: float = 0.0
    learning_rate: float | None = None


class PrunedRun(Run):
    """The run of a pruned model: its loss before the first step is known as well."""

    first_loss: float | None = None


class Start(Record):
    """Validation loss of a model that was not fine-tuned as a whole."""

    loss: float | None = None


class Row(Record):
    """One configuration.

    ``pruned`` and ``composed`` are where the two sides start, ``baseline`` and ``finetuned`` where they end; ``share``
    is that of the smallest budget that reached the baseline's loss, None where none did.
    """

    configuration: int
    sparsity: float | None = None
    pruned: Part[Start] = Start()
    composed: Part[Start] = Start()
    baseline: Known[PrunedRun] = None
    finetuned: Known[PrunedRun] = None
    budgets: Many[Budget] = ()
    share: float | None = None


class Measured(Start):
    """A model on the test split; its ``loss`` is the validation loss."""

    metric: float | None = None
    metrics: dict[str, Any] = {}


class Dense(Record):
    """The base model, untouched and fine-tuned for the same steps."""

    untouched: Known[Measured] = None
    finetuned: Known[Run] = None


class Shared(Record):
    """One level of the scheme's graph: blocks, how often they are used, and which part of the work that spares."""

    level: str
    blocks: int
    uses: int
    saved: float


class Entry(Record):
    """A line of the ledger.

    ``side`` may be ``both``; ``steps`` are the seconds in dense training steps, ``trained`` the optimiser steps made
    (None where none are), ``of`` how many models, blocks or trials it was.
    """

    work: str
    side: str
    seconds: float
    trained: int | None = None
    of: int | None = None
    steps: float


class Spent(Record):
    """A side's work, in seconds and in dense training steps."""

    seconds: float
    steps: float


class Growth(Sides[Spent]):
    """All work for the first so many ``configurations``; ``blocks`` are the block phase's seconds in it."""

    configurations: int
    blocks: float


class Point(Spent):
    """Mean validation loss after so much work."""

    loss: float


class Line(Sides[tuple[Point, ...]]):
    """Loss on the way, for the first so many ``configurations``."""

    configurations: int


class Masks(Record):
    """The criterion that chose the masks, and whether both sides have the same ones."""

    criterion: str | None = None
    same: bool | None = None


class Ledger(Sides[Known[Spent]]):
    """All work of both sides; without ``rows`` where not everything is trained yet.

    ``step_seconds`` is what a dense training step took, ``pays_from`` the number of configurations from which composing
    costs no more than baselines (None: never), ``here`` how many there are.
    """

    step_seconds: float | None = None
    rows: Many[Entry] = ()
    baseline: Known[Spent] = None
    composed: Known[Spent] = None
    growth: Many[Growth] = ()
    lines: Many[Line] = ()
    pays_from: int | None = None
    here: int | None = None
    masks: Known[Masks] = None


class Comparison(Record):
    """The table that answers the question. ``provenance`` is as :mod:`composer.files.records` has it.

    ``no_targets`` counts the weights that no sparsity speaks of (:mod:`composer.models.no_targets`).
    """

    metric: str | None = None
    rows: Many[Row] = ()
    dense: Part[Dense] = Dense()
    search: Part[Search] = Search()
    sharing: Many[Shared] = ()
    ledger: Part[Ledger] = Ledger()
    verdict: str | None = None
    no_targets: dict[str, Any] | None = None
    provenance: Part[dict[str, Any]] = {}

    @classmethod
    def read(cls, result: dict[str, Any]) -> Comparison:
        """From JSON data, such as a comparison's file holds under ``result``."""
        return cls.model_validate(result)
