"""One model at one task: batch by batch, kept as it goes, scored when all is answered.

What is answered stands in ``.journal`` until the task is done, so a killed run repeats at most one batch. Then
``<task>.jsonl`` has a line for each problem, in order, and ``<task>.json`` the figures and how they came about.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import OutputError
from ...files.atomic import locked
from ...files.journal import Journal
from ...files.jsonfile import read_text, write_json, write_text
from ...files.records import is_current, record, recorded_result
from ...progress import Progress
from ..uncertainty import estimate
from .suite import Problems, Sample, Session, Subject, SuiteOptions, SuiteTask


@dataclass(frozen=True)
class Job:
    """A task that a model is asked, and the folder of the model's results."""

    subject: Subject
    task: SuiteTask
    problems: Problems
    options: SuiteOptions
    folder: Path

    @property
    def record(self) -> Path:
        """The figures."""
        return self.folder / f"{self.task.name}.json"

    @property
    def samples(self) -> Path:
        """The answers, one JSON object a line."""
        return self.folder / f"{self.task.name}.jsonl"

    @property
    def inputs(self) -> dict[str, Any]:
        """What decides whether figures are current."""
        return {
            "model": self.subject.fingerprint,
            "task": self.task.name,
            "task_version": self.task.version,
            "data": self.problems.digest,
            "prompts": self.problems.prompts_digest,
            "examples": len(self.problems),
            **self.task.shaping(self.options),
        }

    def is_current(self, *, force: bool = False, renew: bool = False) -> bool:
        """Whether the figures are there, from the same inputs.

        Args:
            renew: figures of other inputs are measured anew, and nobody need be asked.

        Raises:
            OutputError: they were made from other inputs.
        """
        return is_current(self.record, self.inputs, force=force, renew=renew) and self.samples.is_file()

    def result(self) -> dict[str, Any]:
        """The figures that are there."""
        return recorded_result(self.record) or {}


def run(job: Job, progress: Progress, *, force: bool = False) -> dict[str, Any]:
    """Ask what has not been answered yet, and write the answers and the figures; returns the figures."""
    with locked(job.folder):
        journal = Journal(job.folder, job.task.name, {**job.inputs, "batch_size": job.options.batch_size}, force=force)
        start = time.perf_counter()
        session = job.task.open(job.subject, job.problems, job.options, progress)
        samples = _answers(job, session, journal, progress)
        result = _scored(job, session, samples, time.perf_counter() - start)
        write_text(job.samples, "".join(map(_line, samples)))
        job.task.write_also(job.folder, samples, result, job.options)
        write_json(job.record, record(job.inputs, result=result, seed=job.options.seed, device=job.subject.device))
        journal.remove()
    return result


def _answers(job: Job, session: Session, journal: Journal, progress: Progress) -> list[Sample]:
    found: dict[int, Sample] = {}
    with progress.bar(f"{job.task.heading} ({job.folder.name})", len(session.batches)) as bar:
        for number, batch in enumerate(session.batches):

            def answered(batch: Sequence[int] = batch) -> Mapping[str, Any]:
                return {"samples": job.task.answer(session, batch)}

            row = journal.row((number, *batch), answered)
            found |= zip(batch, row["samples"], strict=True)
            bar.advance()
    return [found[i] for i in sorted(found)]


def _scored(job: Job, session: Session, samples: Sequence[Sample], seconds: float) -> dict[str, Any]:
    chances = job.task.chance(job.problems, job.subject.base)
    return {
        "model": job.subject.base.name,
        "suite": job.task.suite,
        "task": job.task.name,
        "heading": job.task.heading,
        "source": job.problems.source,
        "examples": len(samples),
        "measures": [
            {
                "name": measure.name,
                **estimate(measure, samples, seed=job.options.seed).plain(),
                "chance": chances.get(measure.name),
            }
            for measure in job.task.measures_for(job.options)
        ],
        "sparsity": job.subject.sparsity,
        "no_targets": job.subject.base.no_targets,
        "details": session.details,
        "seconds": seconds,
    }


def _line(sample: Sample) -> str:
    """A sample as a line whose keys have one order, whether it was answered now or read from the journal."""
    first = {key: sample[key] for key in ("id", "prompt", "gold", "answer")}
    return json.dumps({**first, **dict(sorted(sample.items()))}, ensure_ascii=False) + "\n"


def read_samples(path: Path) -> list[Sample]:
    """The answers of a finished task.

    Raises:
        OutputError: a line that is no JSON.
    """
    samples = []
    for number, line in enumerate(read_text(path, OutputError).split("\n")[:-1], 1):
        try:
            samples.append(json.loads(line))
        except ValueError as bad:
            raise OutputError(f"{path}:{number}: does not parse as JSON ({bad}); evaluate again with --force") from bad
    return samples
