"""`compose evaluate --suite`: models measured across domains, side by side, with what is sure of it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import DataError, InputError, RecipeError
from ..evaluation.suites import SUITES, chosen_tasks
from ..evaluation.suites.command_line import evaluate_words
from ..evaluation.suites.comparison import differing, side_by_side
from ..evaluation.suites.page import write_evaluation
from ..evaluation.suites.places import MissingDataError
from ..evaluation.suites.runner import Job, read_samples, run
from ..evaluation.suites.suite import Asked, Problems, Subject, SuiteOptions, SuiteTask
from ..files.jsonfile import write_json
from ..files.records import record
from ..models.folder import BaseModel
from ..progress import SILENT, Progress
from ..workspace import Given, Workspace
from .evaluate import names_apart
from .outcome import Outcome

RESULT = "evaluation.json"
SHOWN = 5
"""Examples of each task that ``show`` prints."""


def evaluate_suites(
    recipe: Given,
    models: Sequence[str | Path],
    suites: Sequence[str] = (),
    *,
    tasks: Sequence[str] = (),
    options: SuiteOptions | None = None,
    output: Path | None = None,
    show: bool = False,
    force: bool = False,
    progress: Progress = SILENT,
) -> Outcome:
    """Ask models the tasks of suites; ``evaluation/`` gets answers, figures and ``evaluation.json``.

    Args:
        suites: names of suites; of their tasks those are asked that fit a model and whose data is there.
        tasks: names of single tasks, which must fit every model.
        output: the folder, ``evaluation`` of the run's folder.
        show: add examples on which the second model differs from the first to the summary.

    Raises:
        RecipeError: a suite or task that does not exist, or fits a model in nothing.
        DataError: data that is missing or cannot be used.
        OutputError: figures that were made from other inputs.
    """
    space = Workspace.of(recipe)
    folder = output or space.folder / "evaluation"
    options = replace(options or SuiteOptions(), seed=space.recipe.seed)
    chosen = chosen_tasks(suites, tasks)
    if not chosen:
        raise RecipeError(f"--suite: nothing given; allowed: {', '.join(SUITES.names())} (or --tasks)")
    bases = [BaseModel(name) for name in dict.fromkeys(str(Path(m).expanduser()) for m in models)]
    asked = Asked(suites, tasks)
    fitting, notes = fitting_tasks(bases, chosen, asked)
    problems, lacking = load_problems([t for t in chosen if any(t in own for own in fitting.values())], asked, options)
    notes += lacking
    labels = names_apart([base.place for base in bases], [base.place.name for base in bases])
    jobs = [
        Job(subject, task, problems[task.name], options, folder / labels[base.place])
        for base in bases
        for subject in [Subject(base, space.device)]
        for task in fitting[base.name]
        if task.name in problems
    ]
    # Asked of all before any is run: a refusal must not cost what was measured before it.
    current = [job.is_current(force=force) for job in jobs]
    for note in notes:
        progress.note(note)
    _run(jobs, current, force, progress)
    named = {base.name: labels[base.place] for base in bases}
    table = side_by_side(jobs, named, list(SUITES.all()))
    inputs = {f"{named[job.subject.base.name]}/{job.task.name}": job.inputs for job in jobs}
    command = shlex.join(evaluate_words(models, suites, tasks, options, folder))
    origin = {"command": command, "seed": options.seed, "data": str(options.data or "hub")}
    content = {**table, "notes": notes, "record": record(inputs, **origin)}
    write_json(folder / RESULT, content)
    examples = _examples(jobs, named)
    write_evaluation(folder, content, examples, {suite.name: suite.heading for suite in SUITES.all()})
    pairs = [one for one in examples if len(one["models"]) > 1]
    if show and not pairs:
        raise RecipeError("--show: prints where two models differ; name two models that have a task in common")
    shown = {"shown": pairs} if show else {}
    return Outcome(folder, not all(current), {**table, "notes": notes, **shown})


def _run(jobs: Sequence[Job], current: Sequence[bool], force: bool, progress: Progress) -> None:
    done: list[str] = []
    with progress.bar("evaluate", len(jobs)) as bar:
        for i, (job, is_there) in enumerate(zip(jobs, current, strict=True)):
            try:
                if not is_there:
                    run(job, progress, force=force)
            except InputError as bad:
                raise type(bad)([*bad.problems, *(f"measured before that: {path}" for path in done)]) from None
            done += [] if is_there else [str(job.record)]
            if all(later.subject is not job.subject for later in jobs[i + 1 :]):
                job.subject.close()
            bar.advance(f"{job.subject.base.name}: {job.task.name}")


def fitting_tasks(
    bases: Sequence[BaseModel], tasks: Sequence[SuiteTask], asked: Asked
) -> tuple[dict[str, list[SuiteTask]], list[str]]:
    """The tasks that each model can be asked, and in words which were left out.

    Raises:
        RecipeError: a task that was named and does not fit, or a suite of which none does.
    """
    fitting: dict[str, list[SuiteTask]] = {}
    problems: list[str] = []
    notes: list[str] = []
    for base in bases:
        refused = {task.name: reason for task in tasks if (reason := task.refusal(base))}
        fitting[base.name] = [task for task in tasks if task.name not in refused]
        problems += [f"--tasks: {name}: {reason}" for name, reason in refused.items() if name in asked.tasks]
        for suite in asked.suites:
            own = [task.name for task in tasks if task.suite == suite]
            out = [name for name in own if name in refused and name not in asked.tasks]
            if out and len(out) == len(own):
                reasons = list(dict.fromkeys(refused[name] for name in out))
                more = f" (and {len(reasons) - 1} more reasons like this)" if len(reasons) > 1 else ""
                problems.append(f"--suite: {suite}: {reasons[0]}{more}")
            elif out:
                notes.append(f"left out for {base.name}, which is made for something else: {', '.join(out)}")
    if problems:
        raise RecipeError(problems)
    return fitting, notes


def load_problems(
    tasks: Sequence[SuiteTask], asked: Asked, options: SuiteOptions
) -> tuple[dict[str, Problems], list[str]]:
    """The problems of each task, and in words whose data is missing.

    Raises:
        DataError: of a task that was named, or of all tasks of a suite.
    """
    loaded: dict[str, Problems] = {}
    missing: dict[str, MissingDataError] = {}
    for task in tasks:
        try:
            loaded[task.name] = task.load(options)
        except MissingDataError as bad:
            missing[task.name] = bad
    wrong = [bad for name, bad in missing.items() if name in asked.tasks]
    for suite in asked.suites:
        own = [task.name for task in tasks if task.suite == suite]
        if own and all(name in missing for name in own):
            wrong += [missing[name] for name in own if missing[name] not in wrong]
    if wrong:
        raise DataError([problem for bad in wrong for problem in bad.problems])
    note = f"left out, as {options.data or 'the hub'} has no data of them: {', '.join(missing)}"
    return loaded, [note] if missing else []


def _examples(jobs: Sequence[Job], labels: Mapping[str, str]) -> list[dict[str, Any]]:
    """Per task some examples: those on which the second model that was asked it differs from the first."""
    tasks: dict[str, list[Job]] = {}
    for job in jobs:
        tasks.setdefault(job.task.name, []).append(job)
    return [_of_task(own[:2], labels) for own in tasks.values()]


def _of_task(jobs: Sequence[Job], labels: Mapping[str, str]) -> dict[str, Any]:
    task = jobs[0].task
    if len(jobs) > 1:
        count, pairs = differing(jobs[0], jobs[1], SHOWN)
        found = [list(pair) for pair in pairs]
    else:
        count, found = 0, [[sample] for sample in read_samples(jobs[0].samples)[:SHOWN]]
    examples = [
        {
            "id": some[0]["id"],
            "problem": task.problem(some[0]),
            "gold": task.gold(some[0]),
            "answers": [task.shown(one) for one in some],
            "right": [one.get("right") for one in some],
        }
        for some in found
    ]
    about = {"task": task.name, "heading": task.heading, "models": [labels[job.subject.base.name] for job in jobs]}
    return {**about, "differ": count, "of": jobs[0].result()["examples"], "examples": examples}
