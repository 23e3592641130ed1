"""The flags that ask for the same suites again, for records and pages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from .suite import SuiteOptions

FLAGS = {
    "data": "suite-data",
    "limit": "limit",
    "batch_size": "suite-batch",
    "window": "window",
    "samples": "samples",
    "k": "k",
    "temperature": "temperature",
    "run_generated_code": "run-generated-code",
    "weak_sandbox": "weak-sandbox",
    "wordnet": "wordnet",
}
"""Fields of :class:`SuiteOptions` by the names of their flags."""
SHARED = {"source_lang": "source-lang", "target_lang": "target-lang", "seed": "seed"}
"""Those that a command has with or without suites."""


def suite_words(
    suites: Sequence[str], tasks: Sequence[str], options: SuiteOptions, *, shared: bool = True
) -> Iterator[str]:
    """Words of a command line, without what is said by default.

    >>> list(suite_words(["math"], [], SuiteOptions(limit=5, k=(1, 2), run_generated_code=True)))
    ['--suite', 'math', '--limit', '5', '--k', '1', '2', '--run-generated-code']

    Args:
        shared: with languages and seed; off where they stand in the line already.
    """
    yield from ("--suite", *suites) if suites else ()
    yield from ("--tasks", *tasks) if tasks else ()
    usual = SuiteOptions()
    for field, flag in {**FLAGS, **(SHARED if shared else {})}.items():
        value = getattr(options, field)
        if value == getattr(usual, field):
            continue
        if value is True:
            yield f"--{flag}"
        else:
            yield from (f"--{flag}", *map(str, value if isinstance(value, tuple) else [value]))


def evaluate_words(
    models: Sequence[str | Path],
    suites: Sequence[str],
    tasks: Sequence[str],
    options: SuiteOptions,
    output: Path,
) -> list[str]:
    """``compose evaluate`` with the same models, suites and options, into the same folder."""
    return ["compose", "evaluate", *map(str, models), *suite_words(suites, tasks, options), "-o", str(output)]
