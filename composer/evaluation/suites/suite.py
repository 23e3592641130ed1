"""What a suite is: tasks with problems, prompts, answers and measures; and the options that shape answers."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import RecipeError
from ...files.jsonfile import canonical
from ...models.folder import BaseModel
from ...progress import Progress
from ...tasks import load_tokenizer
from ...tasks.architectures import tasks_of
from ..uncertainty import Measure

if TYPE_CHECKING:
    from torch import nn

Row = dict[str, Any]
"""A problem as plain data: its ``id``, its ``prompt`` (what the model reads, as text), the right answer (``gold``)."""
Sample = dict[str, Any]
"""A problem answered: ``id``, ``prompt``, ``gold``, ``answer``, and the figures of this one that measures add up."""


@dataclass(frozen=True)
class Asked:
    """What is to be evaluated: names of suites, and of single tasks."""

    suites: Sequence[str] = ()
    tasks: Sequence[str] = ()

    def __bool__(self) -> bool:
        return bool(self.suites or self.tasks)


@dataclass(frozen=True)
class SuiteOptions:
    """What the user may say about the suites.

    Attributes:
        data: folder with the suites' files; None takes them from the hub.
        limit: use only the first so many problems of each task.
        seed: of sampled answers, of shots that are drawn, and of the bootstrap.
        batch_size: problems that are answered at once.
        samples: texts written for each problem, of programs and translations.
        k: of pass@k.
        temperature: of sampled texts; None takes the likeliest token, 0.8 with several samples.
        top_p: of sampled texts.
        run_generated_code: programs that models wrote may be run, in the sandbox.
        weak_sandbox: also where the kernel lacks a part of it.
        source_lang: language translated from.
        target_lang: language translated to.
        wordnet: folder of WordNet's files, for METEOR's synonyms; None takes words and stems only.
        window: tokens of a window of running text; None takes the model's limit, at most 1,024.
    """

    data: Path | None = None
    limit: int | None = None
    seed: int = 0
    batch_size: int = 32
    window: int | None = None
    samples: int = 1
    k: tuple[int, ...] = (1,)
    temperature: float | None = None
    top_p: float = 0.95
    run_generated_code: bool = False
    weak_sandbox: bool = False
    source_lang: str = "en"
    target_lang: str = "de"
    wordnet: Path | None = None

    def check(self) -> None:
        """Refuse what cannot be, all of it at once.

        Raises:
            RecipeError: numbers below 1, a folder that is not there.
        """
        problems = [
            f"--{flag}: got {value}; allowed: 1 or more"
            for flag, value in (
                ("limit", self.limit),
                ("suite-batch", self.batch_size),
                ("window", self.window),
                ("samples", self.samples),
            )
            if value is not None and value < 1
        ]
        if self.temperature is not None and not 0 <= self.temperature < 100:
            problems.append(f"--temperature: got {self.temperature:g}; allowed: 0 or more, below 100")
        if self.temperature == 0 and self.samples > 1:
            problems.append("--temperature: got 0 with several --samples, which would all be alike; allowed: above 0")
        if self.wordnet is not None and not self.wordnet.is_dir():
            problems.append(f"--wordnet: {self.wordnet}: no such folder")
        if self.data is not None and not self.data.is_dir():
            problems.append(f"--suite-data: {self.data}: no such folder")
        if problems:
            raise RecipeError(problems)


@dataclass(frozen=True)
class Problems:
    """What a task asks: rows in the order of the files, and in words where they come from."""

    rows: Sequence[Row]
    source: str

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def digest(self) -> str:
        """sha256 over all that the rows hold."""
        return _digest([canonical(row) for row in self.rows])

    @cached_property
    def prompts_digest(self) -> str:
        """sha256 over the prompts."""
        return _digest([str(row["prompt"]) for row in self.rows])

    def first(self, count: int | None) -> Problems:
        """The first ``count`` problems; all where None or where there are no more."""
        if count is None or count >= len(self):
            return self
        return Problems(self.rows[:count], f"{self.source}; first {count:,} of {len(self):,}")


class Subject:
    """A model that is asked: loaded when the first problem is, then kept until :meth:`close`."""

    def __init__(self, base: BaseModel, device: str) -> None:
        self.base, self.device = base, device

    @property
    def fingerprint(self) -> str:
        """What tells its weights from others."""
        return self.base.fingerprint

    @cached_property
    def model(self) -> nn.Module:
        """The model, on the device, in evaluation mode."""
        return self.base.load().to(self.device)

    @cached_property
    def tokenizer(self) -> Any:
        """Its tokenizer."""
        return load_tokenizer(self.base.folder)

    @cached_property
    def sparsity(self) -> float:
        """Share of exact zeros in target weights."""
        from ...tensors.masks import zeros_per_target

        zeros = zeros_per_target(self.model, self.base.layout)
        return sum(z for z, _ in zeros.values()) / max(1, sum(n for _, n in zeros.values()))

    def close(self) -> None:
        """Let go of the model."""
        self.__dict__.pop("model", None)


@dataclass
class Session:
    """One model at one task: batches of problems, in the order in which they are run.

    Batches are a function of the problems alone, so a resumed run makes the same ones, and a sampled answer depends on
    the seed and the number of its batch only.
    """

    batches: Sequence[Sequence[int]]
    details: dict[str, Any] = field(default_factory=dict)


class SuiteTask(ABC):
    """A benchmark: where its problems are, which models can be asked, what their answers are measured by.

    Attributes:
        name: as ``--tasks`` takes it.
        suite: name of its suite.
        heading: its name for readers.
        heads: kinds of heads (names of :data:`composer.tasks.architectures.HEADS`) that can answer.
        measures: the first is the one that tables show and that models are compared by.
        averaged: how many of the measures, from the first, make up its share of the suite's average.
        version: counts up when the same answers would be scored otherwise, or the same model be asked otherwise.
    """

    name: str
    suite: str
    heading: str
    heads: tuple[str, ...]
    measures: tuple[Measure, ...]
    averaged = 1
    version = 1

    @abstractmethod
    def load(self, options: SuiteOptions) -> Problems:
        """Read the problems, with their prompts.

        Raises:
            DataError: files or columns that are missing, right answers that cannot be parsed.
        """

    @abstractmethod
    def open(self, subject: Subject, problems: Problems, options: SuiteOptions, progress: Progress) -> Session:
        """Prepare the batches."""

    @abstractmethod
    def answer(self, session: Session, batch: Sequence[int]) -> list[Sample]:
        """Answers to the problems of a batch, in its order."""

    def shaping(self, options: SuiteOptions) -> dict[str, Any]:
        """The options that shape answers of this task, for the record."""
        return {}

    def chance(self, problems: Problems, base: BaseModel) -> dict[str, float]:
        """What knowing nothing would bring, by measure, where that is known."""
        return {}

    def measures_for(self, options: SuiteOptions) -> tuple[Measure, ...]:
        """What answers are measured by; the first is the one that models are compared by."""
        return self.measures

    def not_comparable(self, first: Sequence[Sample], second: Sequence[Sample]) -> str | None:
        """Why the answers of two models cannot be compared one by one; None where they can."""
        return None if [s["id"] for s in first] == [s["id"] for s in second] else "other problems"

    def write_also(
        self, folder: Path, samples: Sequence[Sample], result: Mapping[str, Any], options: SuiteOptions
    ) -> None:
        """Further files of a finished task, in the shape of another harness; none unless the task says so."""
        return  # not abstract: most have none

    def shown(self, sample: Sample) -> str:
        """An answer in a line, for people; two that read alike count as the same answer."""
        return str(sample["answer"])

    def problem(self, sample: Sample) -> str:
        """The problem itself, for people: the prompt without what stands before each of them."""
        return str(sample["prompt"])

    def gold(self, sample: Sample) -> str:
        """The right answer in a line, for people; empty where there is none."""
        return "" if sample["gold"] is None else str(sample["gold"])

    def refusal(self, base: BaseModel) -> str | None:
        """Why this model cannot be asked, in words; None where it can."""
        architecture = str((base.config.get("architectures") or ["a model without a named head"])[0])
        if base.task is not None or not set(tasks_of(architecture)) & set(self.heads):
            return f"{base.name} is a {architecture}; needed: {HEAD_WORDS[self.heads[0]]}"
        return None


HEAD_WORDS = {
    "classification": "a head for sequence classification",
    "language_model": "a causal language model (a head that generates)",
    "masked_language_model": "a masked language model",
    "translation": "an encoder-decoder that generates",
    "question_answering": "a head for question answering",
}
"""What is needed, for messages."""


@dataclass(frozen=True)
class Suite:
    """Tasks of one domain.

    ``averages`` names groups of tasks that count as one in the suite's average; None where an average means nothing.
    """

    name: str
    heading: str
    tasks: tuple[SuiteTask, ...]
    averages: tuple[tuple[str, ...], ...] | None = None


def _digest(lines: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()
