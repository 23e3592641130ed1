"""A teacher's answers, kept: each example is answered once, for all passes over the data and all models of a recipe.

What is kept of an example is what the teacher said when the training first drew it, in that batch: the same order of
examples (seed, batch size) gives the same bytes whether answers are kept or not, and in every run. Kept are logits
where the loss looks, for classes (a few bytes for each example); a vocabulary's would take gigabytes, so of those the
teacher is asked in every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..files.atomic import replacing

if TYPE_CHECKING:
    from ..tasks.task import Examples, Task

LIMIT = 2**28
"""Most bytes of all answers that are kept."""
LOOKED_AT = 64
"""Examples that their size is told from."""


class KeptAnswers:
    """Example -> the teacher's logits for it, (rows that the loss looks at, classes), in memory and in a file.

    Args:
        file: whose name says which teacher, data and order of examples these are. It is written by :meth:`save`.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._rows = _read(file) if file.is_file() else {}
        self._saved = len(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def of(self, examples: Sequence[int]) -> Tensor | None:
        """Their logits, (rows, classes); None where one of them has none yet."""
        if any(example not in self._rows for example in examples):
            return None
        return torch.cat([self._rows[example] for example in examples])

    def put(self, examples: Sequence[int], logits: Tensor, asked: Tensor | None) -> None:
        """Keep what is new: of ``logits`` (batch, …, classes) the rows that are ``asked`` (batch, …), or all."""
        for place, example in enumerate(examples):
            if example not in self._rows:
                rows = logits[place] if asked is None else logits[place][asked[place]]
                self._rows[example] = rows.detach().reshape(-1, logits.shape[-1]).to("cpu", copy=True)

    def save(self) -> None:
        """Write the file, where something is new."""
        if len(self._rows) == self._saved:
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        counts = [len(rows) for rows in self._rows.values()]
        tensors = {"examples": torch.tensor(list(self._rows)), "counts": torch.tensor(counts)}
        with replacing(self.file) as temporary:
            save_file({**tensors, "rows": torch.cat(list(self._rows.values()))}, temporary)
        self._saved = len(self._rows)


def _read(file: Path) -> dict[int, Tensor]:
    held = load_file(file)
    rows = held["rows"].split(held["counts"].tolist())
    return dict(zip(held["examples"].tolist(), rows, strict=True))


def can_be_kept(task: Task, config: dict[str, Any], data: Examples) -> bool:
    """Whether a teacher's answers for ``data`` are small enough to be kept."""
    few = data.features[:LOOKED_AT]
    asked = task.asked(task.collate(few))
    if asked is None:  # an answer for each example (or label), of a few classes; windows of a text have long ones
        labels = getattr(task, "labels", None)
        return labels is not None and 8 * len(labels) * len(data) <= LIMIT
    return 4 * int(asked.sum()) * int(config.get("vocab_size") or LIMIT) * len(data) <= LIMIT * len(few)
