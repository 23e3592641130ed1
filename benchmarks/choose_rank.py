"""How well costs rank composed models: Spearman's correlation of what is predicted with what is measured."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from parts_alone import Answers, PartsAlone, losses, nearest
from scipy.stats import spearmanr

from composer.choosing.widths import widths
from composer.composing.candidates import BATCH
from composer.tasks.loss import loss_and_logits
from composer.tasks.task import input_lengths
from composer.tensors.batches import by_length
from composer.tensors.forward import answering

if TYPE_CHECKING:
    from choose_bench import Bench

Row = dict[str, Any]


class Ranks:
    """Random compositions of the model of one bench."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def answers(self, chosen: Sequence[int]) -> Answers:
        """Logits of a model with these widths, repaired, on all validation sentences."""

        def make() -> Row:
            valid, task = self.bench.space.examples("valid"), self.bench.space.task
            found = [[0.0]] * len(valid)
            with (
                self.bench.candidates.as_model(self.bench.menu.specs(self.bench.menu.choice(chosen))) as model,
                answering(model),
            ):
                for own in by_length(input_lengths(valid.features), BATCH):
                    logits = loss_and_logits(model, task, task.collate([valid.features[i] for i in own]))[2]
                    for i, row in zip(own, logits.tolist(), strict=True):  # type: ignore[union-attr]
                        found[i] = row
            return {"logits": found}

        return np.array(self.bench.row(("answers", list(chosen)), make)["logits"])

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """Of the validation sentences."""
        return np.array([feature["labels"] for feature in self.bench.space.examples("valid").features])

    @cached_property
    def alone(self) -> PartsAlone:
        """What every part does to the answers by itself."""
        return PartsAlone([widths(units) for units in self.bench.units], self.answers)

    def rank(self, spread: str) -> Row:
        """Over 30 compositions, of costs by one pass and of what parts were measured to do by themselves.

        With the validation loss, and with how far answers are from the base model's on 128 examples of the calibration
        sample: blurred answers lower the loss of a model that is too sure of itself. What was measured on validation
        sentences is also held against others: one half of the sentences predicts the loss of the other half.

        Args:
            spread: ``half``, each part draws a width of half or more; ``budgets``, 30 to 90 % of the multiplications,
                as wishes ask for, divided over the parts at random.
        """
        some = self._half_or_more() if spread == "half" else self._over_budgets()
        far = [self.bench.far(chosen) for chosen in some]
        each = [losses(self.answers(chosen), self.labels) for chosen in some]
        mean = [float(own.mean()) for own in each]
        made: Row = {"range of losses": [min(mean), max(mean)], "divergence, loss": _ranks(far, mean)}
        for name, rises in self.bench.costs.items():
            predicted = [self.bench.menu.valued(rises).choice(chosen).rise for chosen in some]
            made |= {f"{name}, loss": _ranks(predicted, mean), f"{name}, divergence": _ranks(predicted, far)}
        half = np.random.default_rng(self.bench.seed).permutation(len(self.labels)) % 2 == 0
        measured = {
            "losses of parts, added up": [self.alone.rises(chosen, self.labels) for chosen in some],
            "answers of parts, added up": [losses(self.alone.added(chosen), self.labels) for chosen in some],
            "the loss itself": each,
        }
        for name, predictions in measured.items():
            made[f"{name}, loss"] = _ranks([float(own.mean()) for own in predictions], mean)
            sides = [
                _ranks([own[side].mean() for own in predictions], [own[~side].mean() for own in each])
                for side in (half, ~half)
            ]
            made[f"{name}, of one half of the sentences, loss of the other"] = sides
        return made

    def _half_or_more(self) -> list[list[int]]:
        draw = random.Random(self.bench.seed)
        return [[draw.randrange(1 + len(widths(u)) // 2) for u in self.bench.units] for _ in range(30)]

    def _over_budgets(self) -> list[list[int]]:
        draw = random.Random(100 + self.bench.seed)
        return [self._within(draw, 0.3 + 0.6 * i / 29) for i in range(30)]

    def _within(self, draw: random.Random, part: float) -> list[int]:
        """Widths that keep about this part of the multiplications, more of some parts than of others."""
        tilts = [draw.uniform(0.3, 1.7) for _ in self.bench.units]

        def at(level: float) -> list[int]:
            wanted = [min(1.0, level * tilt) * u.count for tilt, u in zip(tilts, self.bench.units, strict=True)]
            return [nearest(widths(u), kept) for u, kept in zip(self.bench.units, wanted, strict=True)]

        low, high = 0.0, 4.0
        for _ in range(30):
            middle = (low + high) / 2
            fits = self.bench.menu.choice(at(middle)).left["macs"] <= part
            low, high = (middle, high) if fits else (low, middle)
        return at(low)


def _ranks(some: Sequence[float], others: Sequence[float]) -> float:
    return round(float(spearmanr(some, others).statistic), 3)
