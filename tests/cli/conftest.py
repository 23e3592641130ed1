"""Command lines are run in this process, in an empty folder; steps can be replaced by a recorder."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from composer.cli.app import call
from composer.steps.outcome import Outcome


@dataclass(frozen=True)
class Result:
    """What a command line left behind."""

    status: int
    out: str
    err: str


Compose = Callable[..., Result]


@pytest.fixture
def compose(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compose:
    """Run ``compose`` with these words, in ``tmp_path``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("FORCE_COLOR", raising=False)

    def run(*words: str) -> Result:
        status = call(words)
        said = capsys.readouterr()
        return Result(status, said.out, said.err)

    return run


@dataclass
class Recorder:
    """Stands for the steps: keeps each call, and returns ``outcomes[name]``."""

    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)
    outcomes: dict[str, Any] = field(default_factory=dict)

    def __call__(self, name: str) -> Callable[..., Any]:
        def step(*args: Any, **options: Any) -> Any:
            self.calls.append((name, args, options))
            outcome = self.outcomes[name]
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

        return step

    @property
    def only(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        """The one call that there was."""
        (call,) = self.calls
        return call


LEVELS = [{"level": "module", "blocks": 40, "uses": 60, "saved": 1 / 3}]
PLANNED = {"digest": "ab" * 32, "block_levels": ["module"], "levels": LEVELS, "sparsity": [0.284, 0.364]}
NODE = {"level": "module", "path": "encoder.block.0.layer.0.SelfAttention", "rates": [0.25], "uses": 2}
RESULT = {
    "model": "models/2-finetuned",
    "split": "test_tiny",
    "examples": 8,
    "loss": 2.345,
    "metrics": {"bleu": 31.02, "chrf": 55.1},
    "details": {"bleu_signature": "nrefs:1|case:mixed"},
    "sparsity": 0.42,
    "seconds_per_example": 0.0021,
    "memory_bytes": 512_000_000,
}
RUN = {"loss": 2.01, "metric": 23.14, "steps": 1600, "seconds": 123.4}
ROW = {
    "configuration": 0,
    "sparsity": 0.284,
    "pruned": {"loss": 5.1234},
    "composed": {"loss": 3.2},
    "baseline": RUN,
    "finetuned": {**RUN, "loss": 1.99},
    "budgets": [
        {"share": 0.25, "steps": 400, "loss": 2.2, "reached": False, "seconds": 30.0},
        {"share": 0.5, "steps": 800, "loss": 2.0, "reached": True, "seconds": 60.0},
    ],
    "share": 0.5,
}
UNTRAINED = {**ROW, "configuration": 1, "baseline": None, "finetuned": None, "budgets": [], "share": None}
UNTRAINED |= {"pruned": {"loss": None}, "composed": {"loss": None}}
COMPARED = {
    "metric": "bleu",
    "rows": [ROW, UNTRAINED],
    "dense": {"untouched": {"loss": 1.9, "metric": 30.1}, "finetuned": None},
    "search": {
        "baseline": [{"learning_rate": 0.001, "loss": 2.1, "steps": 1600, "seconds": 120.0}],
        "composed": [],
        "chosen": {"baseline": 0.001, "composed": 0.001},
    },
    "ledger": {
        "step_seconds": 0.0734,
        "rows": [{"work": "prune every variant", "side": "both", "seconds": 1.5, "steps": 20.4}],
        "baseline": {"seconds": 3700.0, "steps": 50000.0},
        "composed": None,
        "pays_from": 3,
        "here": 2,
    },
    "verdict": "Composed models start below the baseline.",
}
HOMES = {
    **dict.fromkeys(("generate_config", "generate_scheme"), "steps.configure"),
    **dict.fromkeys(("show_scheme", "show_model", "scheme_size"), "steps.show"),
    **dict.fromkeys(("evaluate", "predict"), "steps.evaluate"),
    **dict.fromkeys(("run", "plan"), "steps.run"),
    "prune": "steps.prune",
    "finetune_blocks": "steps.tune_blocks",
    "build_model": "steps.build_model",
    "finetune_model": "steps.tune_model",
    "compare": "steps.compare",
    "plot": "report.plots",
}
"""The file of each step."""
TUNED = {"kind": "composed", "configuration": 2, "steps": 300, "first_loss": 3.0, "final_loss": 2.0, "seconds": 9.0}


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """All steps of the library, replaced."""
    outcomes = {
        "generate_config": Outcome(Path("conf.json"), True, {"configurations": 3, "targets": 20, "model": "demo"}),
        "generate_scheme": Outcome(Path("conf_prune.json"), True, PLANNED),
        "show_scheme": Outcome(Path("scheme.png"), True, {**PLANNED, "nodes": [NODE], "picture": "scheme.png"}),
        "show_model": Outcome(
            Path("base"),
            True,
            {
                "parameters": 1000,
                "zeros": 10,
                "bytes": 4000,
                "sparsity": 0.01,
                "targets": [{"path": "a.o", "kind": "linear", "weights": 500, "zeros": 10}],
                "kept": "3 of 4 heads kept",
                "units": [{"path": "a", "kind": "attention", "before": 4, "after": 3, "density": 1.0}],
                "picture": "base-kept.png",
            },
        ),
        "prune": Outcome(Path("modules/pruned"), True, {"variants": 40, "sublayers": 23, "made": 38, "seconds": 1.23}),
        "finetune_blocks": Outcome(
            Path("modules/finetuned"),
            True,
            {"blocks": 66, "tuned": 26, "teacher_passes": 200, "seconds": 75.0, "stats": "stats/block.csv"},
        ),
        "build_model": Outcome(
            Path("models/2"), True, {"configuration": 2, "sparsity": 0.42, "from": "modules/finetuned"}
        ),
        "finetune_model": Outcome(Path("models/2-finetuned"), True, {**TUNED, "stats": "stats/model-2.csv"}),
        "evaluate": Outcome(Path("results"), True, {"results": [RESULT]}),
        "predict": ["Ein Mann.", "Zwei Hunde."],
        "scheme_size": 2,
        "compare": Outcome(Path("report.html"), True, COMPARED),
        "run": Outcome(Path("t5/report.html"), True, COMPARED),
        "plan": [{"step": "prune", "does": "every variant once", "done": True}],
        "plot": None,
    }
    made = Recorder(outcomes=outcomes)
    for name in outcomes:
        monkeypatch.setattr(importlib.import_module(f"composer.{HOMES[name]}"), name, made(name))
    return made
