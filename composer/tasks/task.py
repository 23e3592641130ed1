"""What a task must be able to do for the stages: load splits, collate, give a loss, score a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

if TYPE_CHECKING:
    from torch import Tensor, nn

Split = Literal["train", "valid", "test"]
Batch = dict[str, "Tensor"]
Feature = dict[str, list[int] | int]


@dataclass(frozen=True)
class Examples:
    """One split, tokenised.

    ``features`` feed :meth:`Task.collate`; ``references`` are what a metric compares with (target
    sentences, label names); ``digest`` is the sha256 of the raw examples used, in order; ``source`` says in
    words which files they come from, and what was left out or used instead.
    """

    split: Split
    features: Sequence[Feature]
    references: Sequence[str]
    digest: str
    truncated: int = 0
    source: str = ""

    def __len__(self) -> int:
        return len(self.features)

    def first(self, count: int) -> Examples:
        """The first ``count`` examples, with a digest of their own; all of them where there are no more."""
        if count >= len(self):
            return self
        digest = f"{self.digest}[:{count}]"
        return replace(self, features=self.features[:count], references=self.references[:count], digest=digest)


def input_lengths(features: Sequence[Feature]) -> list[int]:
    """How many tokens each example has as its input, without padding: batches are made by it."""
    return [len(cast("list[int]", feature["input_ids"])) for feature in features]


@dataclass(frozen=True)
class Score:
    """Result of a metric run: the figures, and what is needed to repeat them (signatures, counts).

    ``loss`` is the mean loss, where the metric is made from it and nobody need compute it again. ``samples`` has what
    the metrics are made of, for each example (window, question), for intervals; empty where a task says nothing.
    """

    metrics: dict[str, float]
    details: dict[str, Any] = field(default_factory=dict)
    loss: float | None = None
    samples: Sequence[dict[str, Any]] = ()


class Task(Protocol):
    """A task: data, loss and metric. ``main_metric`` names the entry of ``Score.metrics`` that tables show;
    ``scoring`` holds the settings that shape a score and not the data."""

    name: str
    main_metric: str
    scoring: dict[str, Any]

    def load(self, split: Split) -> Examples:
        """Read, cut to size and tokenise a split; ``DataError`` says what is wrong with the files."""
        ...

    def collate(self, features: Sequence[Feature]) -> Batch:
        """Pad features into one batch of tensors; labels are padded with -100."""
        ...

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
        """Mean loss over the batch's real tokens (or examples), and how many there are."""
        ...

    def real_tokens(self, batch: Batch) -> dict[str, Tensor]:
        """Per stream ("encoder", "decoder") a bool mask (batch, length): True where a token counts."""
        ...

    def asked(self, batch: Batch) -> Tensor | None:
        """The ``logits`` that the loss looks at: bool, of their shape less the classes; None for all of them."""
        ...

    def score(self, model: nn.Module, data: Examples, *, batch_size: int = 64) -> Score:
        """Metrics of ``model`` on ``data``; ``Score.details['seconds']`` is the time it took."""
        ...

    def predict(self, model: nn.Module, texts: Sequence[str], *, batch_size: int = 64) -> list[str]:
        """The model's answer to each text: a translation, or a label name with its probability."""
        ...

    def chance(self) -> float | None:
        """Loss of knowing nothing (for the warning that a base model is no better), if it is known."""
        ...
