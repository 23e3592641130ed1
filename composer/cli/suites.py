"""The part of `evaluate` that asks suites of benchmarks: its flags, and its tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from composer.steps.outcome import Outcome
from composer.tasks.metrics.table import metric_of

from .format import NONE, number, percent, plural
from .parameters import Whole, Words, levels
from .tables import Sheet, Shown

if TYPE_CHECKING:
    from composer.evaluation.suites.suite import SuiteOptions

ERRORS = "± standard error; where that is 0, the 95 % interval in brackets"
_SUITES = Group("Suites of benchmarks", sort_key=4)


@Parameter("*", group=_SUITES)
@dataclass(frozen=True, kw_only=True)
class SuiteFlags:
    """Which benchmarks, and how they are asked."""

    suite: Annotated[
        Words | None, Parameter(help="Suites: language, glue, squad, translation, math, common-sense, code.")
    ] = None
    tasks: Annotated[Words | None, Parameter(metavar="TASK,...", help="Single tasks of the suites, as sst2,cola.")] = (
        None
    )
    suite_data: Annotated[Path | None, Parameter(help="Folder with their files [the hub].")] = None
    limit: Annotated[Whole | None, Parameter(help="Only the first so many examples of each task [all].")] = None
    suite_batch: Annotated[Whole | None, Parameter(help="Examples that are answered at once [32].")] = None
    window: Annotated[
        Whole | None, Parameter(help="Tokens of a window of running text [the model's, at most 1024].")
    ] = None
    samples: Annotated[Whole | None, Parameter(help="Texts for each problem: programs, translations [1].")] = None
    k: Annotated[list[int] | None, Parameter(consume_multiple=True, help="Of pass@k, at most --samples [1].")] = None
    temperature: Annotated[float | None, Parameter(help="Of texts [the likeliest; 0.8 with several].")] = None
    run_generated_code: Annotated[
        bool, Parameter(help="Run programs that models wrote, in a sandbox; without it none is run.")
    ] = False
    weak_sandbox: Annotated[bool, Parameter(help="Run them also where the kernel lacks a part of it.")] = False
    wordnet: Annotated[Path | None, Parameter(help="WordNet's files, for METEOR's synonyms [words and stems].")] = None

    @property
    def asked(self) -> bool:
        """Whether suites are to be evaluated, and not the task's test data."""
        return any(value not in (None, False) for value in vars(self).values())

    @property
    def names(self) -> dict[str, list[str]]:
        """Suites and tasks."""
        return {"suites": levels(self.suite) or [], "tasks": levels(self.tasks) or []}

    def options(self, source_lang: str, target_lang: str, seed: int = 0) -> SuiteOptions:
        """How they are asked.

        Raises:
            RecipeError: numbers below 1, a folder that is not there.
        """
        from composer.evaluation.suites.suite import SuiteOptions

        values: dict[str, Any] = {"limit": self.limit, "batch_size": self.suite_batch, "window": self.window}
        values |= {"samples": self.samples, "k": tuple(self.k) if self.k else None, "temperature": self.temperature}
        values |= {"run_generated_code": self.run_generated_code, "weak_sandbox": self.weak_sandbox}
        values |= {"source_lang": source_lang, "target_lang": target_lang}
        given = {name: value for name, value in values.items() if value is not None}
        folders = {"data": self.suite_data, "wordnet": self.wordnet}
        given |= {name: path.expanduser() for name, path in folders.items() if path is not None}
        options = SuiteOptions(**given, seed=seed)
        options.check()
        return options


@Parameter("*", group=_SUITES)
@dataclass(frozen=True, kw_only=True)
class Suites(SuiteFlags):
    """The same for ``evaluate``, which can show examples."""

    show: Annotated[bool, Parameter(help="Print examples on which the second model differs from the first.")] = False

    def arguments(self, source_lang: str, target_lang: str) -> dict[str, Any]:
        """Arguments of :func:`composer.steps.evaluate_suites.evaluate_suites`.

        Raises:
            RecipeError: numbers below 1, a folder that is not there.
        """
        return {**self.names, "options": self.options(source_lang, target_lang), "show": self.show}


SUITES, FLAGS = Suites(), SuiteFlags()


def evaluated_suites(outcome: Outcome) -> Shown:
    """What `evaluate --suite` measured: a column for each model; then what differs from the first."""
    told = outcome.summary
    models = [model["label"] for model in told["models"]]
    sheet = Sheet("Suites", ["task", "metric"], [*models, "chance", "examples"], ERRORS)
    suite = None
    for row in told["rows"]:
        if suite not in (None, row["suite"]):
            sheet.add_section()
        suite = row["suite"]
        for i, measure in enumerate(_first(row["cells"])):
            cells = [_cell(row["cells"].get(model), i) for model in models]
            name = measure["name"]
            chance = _figure(name, measure["chance"])
            sheet.add_row(
                row["heading"] if not i else "", metric_of(name).label, *cells, chance, f"{row['examples']:,}"
            )
    for average in told["averages"]:
        cells = [_average(own) if (own := average["cells"].get(model)) else NONE for model in models]
        sheet.add_row(average["heading"], f"average of {average['groups']} of {average['of']}", *cells, NONE, NONE)
    yield sheet
    yield from _pairs(told["rows"], models)
    yield from _shown(told.get("shown", ()))
    state = "" if outcome.fresh else " (nothing had to be measured again)"
    yield f"answers and figures: {outcome.output}{state}"


def _first(cells: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return next(iter(cells.values()))


def _figure(name: str, value: float | None) -> str:
    return number(value, metric_of(name).decimals)


def _cell(measures: list[dict[str, Any]] | None, i: int) -> str:
    if measures is None or i >= len(measures):
        return NONE
    name, value, error, low, high = (measures[i][key] for key in ("name", "value", "error", "low", "high"))
    if error is None:
        return _figure(name, value)
    if not error and low != high:  # all right, or all wrong: the standard error knows nothing of what was not asked
        return f"{_figure(name, value)} ({_figure(name, low)} to {_figure(name, high)})"
    return f"{_figure(name, value)} ± {_figure(name, error)}"


def _average(average: Mapping[str, Any]) -> str:
    return f"{number(average['value'])} ± {number(average['error'])}"


def _pairs(rows: Sequence[Mapping[str, Any]], models: Sequence[str]) -> Iterator[Sheet]:
    """Each model against the first."""
    from composer.evaluation.suites.comparison import verdict

    for model in models[1:]:
        sheet = Sheet(
            f"{model} against {models[0]}", ["task", "verdict"], ["difference", "95 % interval", "p, adjusted"]
        )
        compared = [(row, row["pairs"][model]) for row in rows if model in row["pairs"]]
        for row, pair in compared:
            if pair.get("low") is None:
                sheet.add_row(row["heading"], verdict(pair), NONE, NONE, NONE)
                continue
            decimals = metric_of(pair["measure"]).decimals
            low, high = (number(pair[end], decimals) for end in ("low", "high"))
            p = number(pair["adjusted_p"], 3)
            sheet.add_row(row["heading"], verdict(pair), f"{pair['value']:+.{decimals}f}", f"{low} to {high}", p)
        if compared:
            yield sheet


def _shown(tasks: Sequence[Mapping[str, Any]]) -> Iterator[str | Sheet]:
    """Examples on which two models differ."""
    for task in tasks:
        share = percent(task["differ"] / task["of"] if task["of"] else 0.0)
        title = f"{task['heading']}: {plural(task['differ'], 'example')} answered otherwise ({share})"
        if not task["examples"]:
            yield title
            continue
        sheet = Sheet(title, ["example", "right", *task["models"]], [])
        for row in task["examples"]:
            answers = [_mark(answer, right) for answer, right in zip(row["answers"], row["right"], strict=True)]
            sheet.add_row(f"{row['id']}: {_short(row['problem'])}", _short(row["gold"]), *answers)
        yield sheet


def _mark(answer: str, right: bool | None) -> str:
    return _short(answer) + ("" if right is None else " (right)" if right else " (wrong)")


def _short(text: str, most: int = 160) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[:most]}…"
