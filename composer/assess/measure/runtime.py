"""Runtime against rate: whole heads and neurons removed everywhere, as masks and with what is removed gone.

Which units go has no say in what a model takes to run, so they go by magnitude, and nothing is trained or refitted. On
a GPU the matrices with a 2:4 pattern are timed, too, in its sparse kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from ...composing.repair import removed_weights
from ...errors import InputError, ModelError
from ...files.jsonfile import write_json
from ...files.stats import write_csv
from ...models.folder import BaseModel
from ...scheme.configurations import Assignment, Configurations, resolve
from ...scheme.structure import Structure
from ...tasks.task import input_lengths
from ...timing.by_rate import RatePoint, runtime_note, time_at
from ...timing.measure import Clock, Shapes, clock_of, threads
from ..contents import RuntimeFile, TwoOfFour
from .assessed_model import AssessedModel
from .curves import assigned_singly

BATCH_SIZE = 8
NEW_TOKENS = 8
ROUNDS = 9
CRITERION = "l1"
PATTERN = "2:4"
NO_GPU = (
    "A 2:4 pattern was not timed: its kernel is a GPU's, and there is none here (--device). A processor multiplies its "
    "zeros like any other number."
)
COLUMNS = (
    *("rate", "removed_share", "form", "part", "batch_size", "length"),
    *("milliseconds", "milliseconds_dense", "faster", "low", "high", "noisy", "macs", "parameters", "bytes"),
)


def assess_runtime(subject: AssessedModel) -> RuntimeFile:
    """Write ``runtime.json`` and its CSV; returns what the first one holds.

    A model of which no table knows heads and neurons, or that is none of transformers, has no rows, and a note says so.
    """
    rows: list[RatePoint] = []
    try:
        wished = {rate: _assigned(subject, rate) for rate in subject.settings.rates}
        note = ""
    except InputError as bad:
        wished, note = {}, f"Nothing to time: {bad.problems[0]}"
    shapes, clock = _shapes(subject), clock_of(subject.space.device, 1)
    journal = subject.journal("runtime", length=shapes.lengths[0], batch_size=BATCH_SIZE)
    with subject.progress.bar("runtime", len(wished)) as bar:
        for rate, assigned in wished.items():
            made = journal.row(("rate", rate), partial(_timed, subject, rate, assigned, shapes, clock))
            rows += made["rows"]
            bar.advance(f"{rate:g}")
    pattern = _two_of_four(subject, BATCH_SIZE * shapes.lengths[0], clock)
    content: RuntimeFile = {
        **subject.header("runtime", batch_size=BATCH_SIZE, length=shapes.lengths[0], rounds=ROUNDS),
        "rows": rows,
        "clock": clock,
        "threads": 1,
        "new_tokens": NEW_TOKENS,
        "note": note or runtime_note(rows),
        "two_of_four": pattern,
    }
    write_json(subject.folder / "runtime.json", content)
    write_csv(subject.folder / "runtime.csv", [{**row, **_flat(row)} for row in rows], COLUMNS)
    return content


def _flat(row: RatePoint) -> dict[str, Any]:
    ratio = row["faster"]
    return {"faster": ratio["value"], "low": ratio["low"], "high": ratio["high"], "noisy": ratio["noisy"]}


def _shapes(subject: AssessedModel) -> Shapes:
    """Texts as long as half of the validation texts are at most."""
    length = max(1, round(median(input_lengths(subject.examples.features))))
    return Shapes((BATCH_SIZE,), (length,), NEW_TOKENS, ROUNDS)


def _assigned(subject: AssessedModel, rate: float) -> Assignment:
    """The same share of heads and of neurons everywhere, in numbers that plain shapes can have where there are some.

    Raises:
        InputError: no heads or neurons, or a model that is none of transformers.
    """
    library = subject.space.base.storage.library
    if library != "transformers":
        raise ModelError(f"{subject.space.base.name} is a model of {library}; models of transformers can be shrunk")
    rates = Structure(subject.layout, {}, uniform=True).of(dict.fromkeys(subject.paths, rate))
    return resolve(Configurations(configurations=[rates]), subject.layout, where="--rates")[0]


def _timed(subject: AssessedModel, rate: float, assigned: Assignment, shapes: Shapes, clock: Clock) -> dict[str, Any]:
    import torch

    from ...shrinking.shrink import shrink_into
    from ...shrinking.verify import answers, compared

    weights, removed = subject.pruner.prune(assigned, CRITERION, repair=False)
    gone = sum(removed_weights(subject.layout, subject.paths, removed).values())
    with _folders() as (masked, small), threads(1):
        _save_with(subject, weights, masked)
        models = subject.space.base, BaseModel(masked), BaseModel(small)
        shrink_into(small, models[1], "auto")
        compared(answers(models[1].load()), answers(models[2].load()))
        share = gone / subject.layout.parameters(subject.paths)
        return {"rows": time_at(rate, share, models, shapes, clock, torch.device(subject.space.device))}


def _two_of_four(subject: AssessedModel, tokens: int, clock: Clock) -> TwoOfFour:
    """Each kind of matrix, dense and with a 2:4 pattern, on so many tokens at once; nothing where there is no GPU."""
    import torch

    device = torch.device(subject.space.device)
    if device.type != "cuda":
        return {"rows": [], "note": NO_GPU}
    from ...tensors.parameters import replaced
    from ...timing.layers import time_layers

    assigned = assigned_singly(subject, CRITERION, PATTERN, 0.5)
    weights, _ = subject.pruner.prune(assigned, CRITERION, repair=False)
    with replaced(subject.parameters, weights):
        rows, note = time_layers([subject.model], tokens, ROUNDS, device, clock)
    return {"rows": [asdict(row) for row in rows if row.kind == PATTERN], "note": note}


def _save_with(subject: AssessedModel, weights: Any, folder: Path) -> None:
    """The base model with these weights, as a folder."""
    from ...tensors.parameters import replaced

    with replaced(subject.parameters, weights):
        subject.space.base.save(subject.model, folder)


@contextmanager
def _folders() -> Iterator[tuple[Path, Path]]:
    """Two empty folders for as long as the body runs."""
    with TemporaryDirectory() as place:
        masked, small = Path(place) / "masked", Path(place) / "small"
        masked.mkdir()
        small.mkdir()
        yield masked, small
