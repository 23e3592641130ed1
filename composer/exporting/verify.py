"""Whether an export is the model that it comes from: answers, the metric, milliseconds and bytes side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from ..errors import ModelError
from ..models.exports import RUNTIMES, Form
from ..models.folder import BaseModel
from ..tasks.loss import scored_loss
from ..tasks.task import Examples, Task
from ..timing.clock import in_turn
from ..timing.loaded import Loaded
from ..timing.statistics import Ratio, Spread

if TYPE_CHECKING:
    from torch import nn

CLOSE = 1e-3
"""Largest difference of an export in 32 bits, relative to the largest value: sums come in another order, no more."""
TEXTS, TOKENS = 8, 16
"""Random texts on which both are compared, and tokens of each."""
ROUNDS = 9


@dataclass(frozen=True)
class Verified:
    """What was compared.

    Attributes:
        difference: largest difference of the logits, relative to the largest of them; of a translator that of the loss
            of a translation, or the share of tokens that differ in those of random texts, if that is larger.
        metrics: name -> (original, export), on ``examples`` examples; empty without data.
        loss: the same of the mean loss; None without data.
        milliseconds: original and export, one text of :data:`TOKENS` tokens, one after the other.
        faster: the ratio of pairs.
        bytes: of the weights of both.
    """

    difference: float
    of: str
    examples: int
    metrics: Mapping[str, tuple[float, float]]
    loss: tuple[float, float] | None
    milliseconds: tuple[float, float]
    faster: Ratio
    bytes: tuple[int, int]

    def plain(self) -> dict[str, Any]:
        """As JSON data."""
        return asdict(self)


def verify(
    base: BaseModel, model: nn.Module, export: BaseModel, form: Form, task: Task | None, data: Examples | None
) -> Verified:
    """Compare ``model``, which was loaded from ``base``, with its ``export``.

    Args:
        task: with ``data``, what the metric is measured on.

    Raises:
        ModelError: an export in 32 bits gives other answers.
    """
    here = torch.device("cpu")
    pair = [Loaded(base, model.to(here), here), Loaded(export, export.load(), here)]
    difference, of = _translations(pair) if pair[0].generates and pair[1].generates else _logits(pair)
    if not RUNTIMES[form].int8 and not difference <= CLOSE:
        raise ModelError(
            f"{base.name}: exported to {form} it gives other answers ({of} differ by {difference:.2g}; allowed: "
            f"{CLOSE:g}); nothing was written"
        )
    both = [_measured(entry.model, task, data) for entry in pair]
    batches = [entry.batch(1, TOKENS, TOKENS) for entry in pair]
    run = [
        entry.generate(batch, TOKENS) if pair[1].generates else entry.forward(batch)
        for entry, batch in zip(pair, batches, strict=True)
    ]
    seconds = [
        [one.processor if torch.get_num_threads() == 1 else one.wall for one in own] for own in in_turn(run, ROUNDS)
    ]
    medians = [1e3 * Spread.of(own).median for own in seconds]
    (before, loss), (after, other) = both
    return Verified(
        difference=difference,
        of=of,
        examples=len(data) if data else 0,
        metrics={name: (value, after[name]) for name, value in before.items()},
        loss=None if loss is None or other is None else (loss, other),
        milliseconds=(medians[0], medians[1]),
        faster=Ratio.of(*seconds),
        bytes=(base.bytes, export.bytes),
    )


def _logits(pair: list[Loaded]) -> tuple[float, str]:
    """On texts of random tokens, the second half of each padded: masks count too."""
    batch = pair[0].batch(TEXTS, TOKENS, 0)
    batch["attention_mask"][TEXTS // 2 :, TOKENS // 2 :] = 0
    real = batch["attention_mask"].bool()
    one, other = (_first(entry, batch) for entry in pair)
    if one.dim() == 3:
        one, other = one[real], other[real]
    return float((one - other).abs().max() / one.abs().max()), "logits"


def _first(entry: Loaded, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The first output: logits; of one that answers questions its start logits, of a bare body its states."""
    out = entry.forward(batch)()
    tensor: torch.Tensor = out[0] if not hasattr(out, "logits") else out.logits
    return tensor.float()


def _translations(pair: list[Loaded]) -> tuple[float, str]:
    """The larger of the share of tokens that differ, and of the relative difference of the loss of the original's."""
    batch = pair[0].batch(TEXTS, TOKENS, TOKENS)
    one, other = (entry.generate(batch, TOKENS)()[:, 1:] for entry in pair)
    width = min(one.shape[1], other.shape[1])
    differing = float((one[:, :width] != other[:, :width]).float().mean())
    loss, own = (float(entry.forward({**batch, "labels": _ended(entry, one)})().loss) for entry in pair)
    return max(differing, abs(own - loss) / max(loss, 1e-6)), "translations"


def _ended(entry: Loaded, tokens: torch.Tensor) -> torch.Tensor:
    """Labels of a text: its tokens, the last of them the end, which a translator scores too."""
    end = entry.base.config.get("eos_token_id")
    labels = tokens.clone()
    labels[:, -1] = end if isinstance(end, int) else 1
    return labels.masked_fill((labels == labels[0, -1]) & (torch.arange(labels.shape[1]) < labels.shape[1] - 1), 3)


def _measured(model: nn.Module, task: Task | None, data: Examples | None) -> tuple[dict[str, float], float | None]:
    if task is None or data is None:
        return {}, None
    score = task.score(model, data)
    return dict(score.metrics), scored_loss(score, model, task, data)
