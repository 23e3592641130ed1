"""Several models side by side: a row for each task, averages, and in pairs whether a difference is real.

Every model is compared with the first one, by the first measure of each task, on the same problems. The p-values of one
pair of models are adjusted for the number of its tasks (Holm), and a difference is called real where the adjusted one
is below 5 %.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ...tasks.metrics.table import metric_of
from ..uncertainty import ALPHA, Difference, difference, holm
from .runner import Job, read_samples
from .suite import Suite, SuiteTask

Results = Mapping[tuple[str, str], dict[str, Any]]
"""(model's label, task's name) -> result."""


def side_by_side(jobs: Sequence[Job], labels: Mapping[str, str], suites: Sequence[Suite]) -> dict[str, Any]:
    """All that the table and the page show, as plain data.

    Args:
        jobs: finished ones.
        labels: name of a model as the user gave it -> its label.
    """
    results = {(labels[job.subject.base.name], job.task.name): job.result() for job in jobs}
    tasks = {job.task.name: job.task for job in jobs}
    models = list(dict.fromkeys(label for label, _ in results))
    pairs = _pairs(jobs, labels, models)
    rows = [
        {
            "suite": task.suite,
            "task": name,
            "heading": task.heading,
            "examples": max(results[m, name]["examples"] for m in models if (m, name) in results),
            "cells": {m: results[m, name]["measures"] for m in models if (m, name) in results},
            "seconds": {m: results[m, name]["seconds"] for m in models if (m, name) in results},
            "details": {m: results[m, name]["details"] for m in models if (m, name) in results},
            "pairs": {m: pairs[m, name] for m in models if (m, name) in pairs},
        }
        for name, task in tasks.items()
    ]
    named = [{"label": m, **_about(m, results)} for m in models]
    return {
        "what": "evaluation",
        "models": named,
        "rows": rows,
        "averages": [a for suite in suites for a in _averages(suite, models, results)],
    }


def _about(label: str, results: Results) -> dict[str, Any]:
    first = next(result for (model, _), result in results.items() if model == label)
    return {"folder": first["model"], "sparsity": first["sparsity"], "no_targets": first.get("no_targets")}


def _pairs(
    jobs: Sequence[Job], labels: Mapping[str, str], models: Sequence[str]
) -> dict[tuple[str, str], dict[str, Any]]:
    by_key = {(labels[job.subject.base.name], job.task.name): job for job in jobs}
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for model in models[1:]:
        found_of: dict[str, Difference | str] = {
            name: compared(by_key[models[0], name], job)
            for (label, name), job in by_key.items()
            if label == model and (models[0], name) in by_key
        }
        tested = {name: d for name, d in found_of.items() if isinstance(d, Difference) and d.p is not None}
        adjusted = dict(zip(tested, holm([d.p or 0.0 for d in tested.values()]), strict=True))
        for name, d in found_of.items():
            if isinstance(d, str):
                found[model, name] = {"not_compared": d}
                continue
            p = adjusted.get(name)
            plain = {**d.plain(), "measure": by_key[model, name].result()["measures"][0]["name"], "adjusted_p": p}
            found[model, name] = {**plain, "real": p is not None and p < ALPHA}
    return found


def compared(first: Job, second: Job) -> Difference | str:
    """The second less the first, or why they do not compare."""
    if first.problems.digest != second.problems.digest:
        return "other problems"
    a, b = read_samples(first.samples), read_samples(second.samples)
    if reason := first.task.not_comparable(a, b):
        return reason
    return difference(first.task.measures_for(first.options)[0], a, b, seed=first.options.seed)


def _averages(suite: Suite, models: Sequence[str], results: Results) -> list[dict[str, Any]]:
    """The mean over the groups of a suite's tasks that a model was asked; models asked the same ones share a row."""
    if suite.averages is None:
        return []
    tasks = {task.name: task for task in suite.tasks}
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for model in models:
        groups = {group[0]: share for group in suite.averages if (share := _group(group, tasks, model, results))}
        shares = list(groups.values())
        if len(shares) < 2:
            continue
        value = sum(value for value, _ in shares) / len(shares)
        error = math.sqrt(sum(error**2 for _, error in shares)) / len(shares)
        about = {"suite": suite.name, "heading": suite.heading, "groups": len(shares), "of": len(suite.averages)}
        row = found.setdefault(tuple(groups), {**about, "cells": {}})
        row["cells"][model] = {"value": value, "error": error}
    return list(found.values())


def _group(
    names: Sequence[str], tasks: Mapping[str, SuiteTask], model: str, results: Results
) -> tuple[float, float] | None:
    """Mean of the measures of some tasks, and its standard error (of measures on the same answers errors add up)."""
    parts = []
    for name in names:
        if (model, name) in results:
            measures = results[model, name]["measures"][: tasks[name].averaged]
            errors = [measure["error"] or 0.0 for measure in measures]
            parts.append((sum(m["value"] or 0.0 for m in measures) / len(measures), sum(errors) / len(errors)))
    if not parts:
        return None
    return sum(v for v, _ in parts) / len(parts), math.sqrt(sum(e**2 for _, e in parts)) / len(parts)


def verdict_on(against: Mapping[str, Any], task: Mapping[str, Any]) -> str:
    """:func:`verdict` of a difference that stands by itself, on a task that has a ``measure`` and ``examples``."""
    return verdict({**against, "measure": task["measure"], "examples": task["examples"]})


def verdict(pair: Mapping[str, Any]) -> str:
    """A comparison in words.

    >>> verdict({"real": False, "examples": 200, "value": 0.01, "p": 0.4})
    'no difference that 200 examples could tell'
    """
    if reason := pair.get("not_compared"):
        return f"not compared: {reason}"
    if pair.get("p") is None:
        return "not compared: too few examples"
    if not pair["real"]:
        return f"no difference that {pair['examples']:,} examples could tell"
    higher = metric_of(pair["measure"]).higher_is_better
    return "better" if (pair["value"] > 0) == higher else "worse"


def differing(first: Job, second: Job, most: int) -> tuple[int, list[tuple[dict[str, Any], dict[str, Any]]]]:
    """How many problems two models answered otherwise, and ``most`` of them: first those that one alone has right."""
    a, b = read_samples(first.samples), read_samples(second.samples)
    if first.task.not_comparable(a, b):
        return 0, []
    pairs = [(x, y) for x, y in zip(a, b, strict=True) if first.task.shown(x) != first.task.shown(y)]
    pairs.sort(key=lambda pair: pair[0].get("right") == pair[1].get("right"))
    return len(pairs), pairs[:most]
