"""Evaluations of tiny models, in an empty folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import composer
from composer.evaluation.suites.suite import SuiteOptions
from composer.steps.evaluate_suites import evaluate_suites
from composer.steps.outcome import Outcome

Evaluate = Callable[..., Outcome]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """An empty folder for the suites' files."""
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture
def evaluate(tmp_path: Path, data: Path) -> Evaluate:
    """Ask models tasks, on what ``data`` holds; results go to ``tmp_path/evaluation``."""

    def run(models: Any, tasks: str = "", suite: str = "", **more: Any) -> Outcome:
        flow = {name: more.pop(name) for name in ("force", "show", "output", "progress") if name in more}
        recipe = composer.load_recipe(given={"folder": str(tmp_path), "device": "cpu"}, file=False)
        paths = models if isinstance(models, list) else [models]
        options = SuiteOptions(data=data, **more)
        return evaluate_suites(recipe, paths, suite.split(), tasks=tasks.split(), options=options, **flow)

    return run
