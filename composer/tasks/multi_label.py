"""Classification where a text has any number of labels: a sigmoid for each label, F1 over all of them."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .classification import ClassificationTask
from .data.formats import Table
from .data.labels import NO_LABEL
from .task import Batch, Examples, Feature, Score, Split

THRESHOLD = 0.5
"""A label is an answer from this probability on."""


class MultiLabelTask(ClassificationTask):
    """Texts, or pairs of texts, with any number of labels each.

    Features hold ``labels``, 0 or 1 for each of the model's labels; ``references`` are names, parted by commas.
    """

    name = "multi_label_classification"
    main_metric = "f1_micro"
    problem_types = (None, "multi_label_classification")

    def load(self, split: Split) -> Examples:
        """See :meth:`composer.tasks.classification.ClassificationTask.load`."""
        data = super().load(split)
        for feature, names in zip(data.features, data.references, strict=True):
            own = names.split(", ")
            feature["labels"] = [int(name in own) for name in self.labels.names]
        return data

    def collate(self, features: Sequence[Feature]) -> Batch:
        """Inputs with ``attention_mask``, each (batch, length); ``labels`` (batch, labels), float."""
        batch = super().collate(features)
        return {name: tensor.float() if name == "labels" else tensor for name, tensor in batch.items()}

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
        """Mean binary cross entropy over examples and labels in nats; and how many examples there are."""
        labels = batch["labels"]
        return self._entropy(self._logits(model, batch), labels), len(labels)

    def score(self, model: nn.Module, data: Examples, *, batch_size: int = 64) -> Score:
        """F1 over all decisions (micro), its mean over the labels (macro), and the share of texts that are all right.

        ``details`` have the F1 of each label, and how many texts have it. All 0 to 1.
        """
        from sklearn.metrics import accuracy_score, f1_score

        start = time.perf_counter()
        logits = self._all_logits(model, data.features, batch_size)
        answers = (self._shares(logits) >= THRESHOLD).int().numpy()
        seconds = time.perf_counter() - start
        wanted = torch.tensor([feature["labels"] for feature in data.features])
        loss, truth = self._entropy(logits, wanted.float()).item(), wanted.numpy()
        options: dict[str, Any] = {"zero_division": 0}
        metrics = {
            "f1_micro": float(f1_score(truth, answers, average="micro", **options)),
            "f1_macro": float(f1_score(truth, answers, average="macro", **options)),
            "accuracy": float(accuracy_score(truth, answers)),
        }
        each = f1_score(truth, answers, average=None, **options)
        details = {
            "examples": len(data),
            "seconds": seconds,
            "seconds_per_example": seconds / max(1, len(data)),
            "threshold": THRESHOLD,
            "f1_per_label": dict(zip(self.labels.names, map(float, each), strict=True)),
            "texts_per_label": dict(zip(self.labels.names, map(int, truth.sum(0)), strict=True)),
        }
        return Score(metrics, details, loss)

    def predict(self, model: nn.Module, texts: Sequence[str], *, batch_size: int = 64) -> list[str]:
        """The labels of each text with their probabilities, the likeliest first: ``joy (0.98), love (0.61)``."""
        found = self._probabilities(model, self._features_of(texts), batch_size)
        answers = []
        for row in found.tolist():
            named = sorted(zip(row, self.labels.names, strict=True), key=lambda pair: -pair[0])
            told = [f"{name} ({chance:.2f})" for chance, name in named if chance >= THRESHOLD]
            answers.append(", ".join(told) or NO_LABEL)
        return answers

    def choices(self, logits: Tensor) -> Tensor:
        """Logits (batch, labels) as a choice between no and yes for each label, (batch, labels, 2)."""
        return torch.stack([torch.zeros_like(logits), logits], -1)

    def chance(self) -> float | None:
        """Loss of a uniform guess for each label."""
        return math.log(2)

    def _shares(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()

    def _entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, labels)

    def _resolve(self, table: Table, column: str) -> tuple[list[str], list[str]]:
        return self.labels.resolve_several(table, column)
