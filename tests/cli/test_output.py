"""What is printed: tables, JSON, silence; progress on a terminal and in a log."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from composer.cli.console import Console
from composer.steps.outcome import Outcome

from .conftest import COMPARED, RESULT, ROW, Compose, Recorder

LINES = {
    "generate-config": "conf.json: 3 configurations of 20 targets of demo",
    "generate-scheme": "conf_prune.json: digest abababababab",
    "show": "picture: scheme.png",
    "show demo": "base: 1,000 parameters, 10 of them zero, 4.0 kB; sparsity of the targets 1.0 %",
    "prune": "modules/pruned: 63 variants (40 of modules, 23 of sublayers), 38 made in 1.2 s",
    "finetune --level block": "modules/finetuned: 66 blocks, 26 tuned with 200 teacher batches in 1 min 15 s; "
    "curves in stats/block.csv",
    "finetune --level model -n 2": "models/2-finetuned: 300 steps in 9 s, validation loss 3.000 to 2.000; "
    "curve in stats/model-2.csv",
    "build-model -n 2": "models/2: configuration 2 from modules/finetuned, sparsity 42.0 %",
    "evaluate m": "results: 1 result",
    "compare": "report.html: tables, curves and the graph; in one picture: summary.png",
    "plot x.csv": "loss.png: 1 run",
}


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("words", LINES)
def test_the_last_line_says_what_was_made(words: str, compose: Compose, recorder: Recorder) -> None:
    result = compose(*words.split())
    assert result.out.splitlines()[-1] == LINES[words]


@pytest.mark.parametrize("words", LINES)
def test_quiet(words: str, compose: Compose, recorder: Recorder) -> None:
    result = compose(*words.split(), "--quiet")
    assert (result.status, result.out, result.err) == (0, "", "")


@pytest.mark.parametrize("words", LINES)
def test_json(words: str, compose: Compose, recorder: Recorder) -> None:
    result = compose(*words.split(), "--json")
    told = json.loads(result.out)
    assert told["fresh"] is True
    assert isinstance(told["output"], str)
    assert len(told) > 2
    assert result.err == ""


def test_json_of_all_is_a_list(compose: Compose, recorder: Recorder) -> None:
    told = json.loads(compose("build-model", "--all", "--json").out)
    assert [part["output"] for part in told] == ["models/2", "models/2"]


def test_json_of_a_plan_and_of_predictions(compose: Compose, recorder: Recorder) -> None:
    Path("t5.yaml").touch()
    told = json.loads(compose("run", "t5.yaml", "--dry-run", "--json").out)
    assert told == {"folder": "t5", "plan": [{"step": "prune", "does": "every variant once", "done": True}]}
    told = json.loads(compose("predict", "m", "A man.", "Two dogs.", "--json").out)
    assert told["predictions"][1] == {"text": "Two dogs.", "prediction": "Zwei Hunde."}


def test_json_stays_alone_when_libraries_print(
    compose: Compose, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prune(*_: Any, **options: Any) -> Outcome:
        print("a library talks")
        options["progress"].note("a note")
        with options["progress"].bar("work", 2) as bar:
            bar.advance()
        return Outcome(Path("lib"), True, {"loss": float("nan"), "path": Path("x")})

    monkeypatch.setattr("composer.steps.prune.prune", prune)
    result = compose("prune", "--json")
    assert json.loads(result.out) == {"output": "lib", "fresh": True, "loss": None, "path": "x"}
    assert result.err == "a library talks\na note\n"


def test_predictions_are_lines_even_when_quiet(compose: Compose, recorder: Recorder) -> None:
    for flags in ([], ["--quiet"]):
        assert compose("predict", "m", "A man.", "Two dogs.", *flags).out == "Ein Mann.\nZwei Hunde.\n"


def test_the_comparison_as_tables(compose: Compose, recorder: Recorder) -> None:
    out = compose("compare").out
    assert re.search(r"^0 +28\.4 % +5\.123 +3\.200 +2\.010 +23\.14 +1\.990 +23\.14 +1/2$", out, re.MULTILINE)
    assert re.search(r"^1 +28\.4 % +– +– +– +– +– +– +–$", out, re.MULTILINE)
    assert re.search(r"^untouched +1\.900 +30\.10 +– +–$", out, re.MULTILINE)
    assert re.search(r"^0 +2\.010 +2\.200 +2\.000 \*$", out, re.MULTILINE)
    assert "learning rates tried for baseline: 0.001 (loss 2.100); chosen: 0.001\n" in out
    assert re.search(r"^in all +baseline +1 h 01 min +50,000$", out, re.MULTILINE)
    assert COMPARED["verdict"] in out


def test_a_comparison_that_is_up_to_date_is_shown_again(compose: Compose, recorder: Recorder) -> None:
    rows = [{**ROW, "share": None}]
    recorder.outcomes["compare"] = Outcome(Path("report.html"), False, {**COMPARED, "rows": rows})
    out = compose("compare").out
    assert re.search(r" >1$", out, re.MULTILINE)
    assert out.endswith("\nreport.html is up to date\n")


def test_results_with_metrics_that_differ(compose: Compose, recorder: Recorder) -> None:
    other = {**RESULT, "model": "m", "metrics": {"accuracy": 0.91234}, "details": {}}
    recorder.outcomes["evaluate"] = Outcome(Path("results"), True, {"results": [RESULT, other]})
    out = compose("evaluate", "a", "b").out
    assert re.search(r"^models/2-finetuned +2\.345 +31\.02 +55\.10 +– +42\.0 % +512 MB$", out, re.MULTILINE)
    assert re.search(r"^m +2\.345 +– +– +0\.912 ", out, re.MULTILINE)
    assert "bleu signature: nrefs:1|case:mixed\n" in out


@pytest.mark.parametrize("columns", [40, 80])
def test_a_narrow_terminal_never_cuts_a_figure(
    columns: int, compose: Compose, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    compose("compare")
    compose("show")
    out = re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue())
    assert "…" not in out
    assert all(figure in out for figure in ("5.123", "23.14", "50,000", "28.4 %"))
    if columns == 80:
        assert max(map(len, out.splitlines())) <= 80


def test_a_log_without_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.2, 0.3, 0.5])  # at the start, at each step, at the end
    monkeypatch.setattr("composer.cli.console.perf_counter", lambda: next(clock))
    console = Console()
    with console.progress.bar("wave 1/2: 48 module blocks", 2) as bar:
        bar.advance("loss 0.5")
        bar.advance()
    console.progress.note("a note [about] :smile: this")
    started, ended, note = capsys.readouterr().err.splitlines()
    assert started == "wave 1/2: 48 module blocks …"
    assert ended == "wave 1/2: 48 module blocks … done in 0.5 s, loss 0.5"
    assert note == "a note [about] :smile: this"


def test_a_log_of_long_work_says_now_and_then_where_it_stands(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 10.0, 40.0, 50.0, 71.0, 72.0, 73.0])  # at the start, at each step, at the end
    monkeypatch.setattr("composer.cli.console.perf_counter", lambda: next(clock))
    with Console().progress.bar("wave 1/2: 5 module blocks", 5) as bar:
        for path in "abcde":
            bar.advance(path)
    assert capsys.readouterr().err.splitlines() == [
        "wave 1/2: 5 module blocks …",
        "wave 1/2: 5 module blocks … 2/5, 1 min 00 s left, b",
        "wave 1/2: 5 module blocks … 4/5, 18 s left, d",
        "wave 1/2: 5 module blocks … done in 1 min 13 s, e",
    ]


def test_a_log_of_work_that_failed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), Console().progress.bar("work", 2):
        raise ZeroDivisionError
    assert capsys.readouterr().err == "work …\n"


@pytest.mark.parametrize("flags", [{"quiet": True}, {"as_json": True}])
def test_no_bars_when_quiet_or_json(flags: dict[str, bool], capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(**flags)
    with console.progress.bar("work", 1) as bar:
        bar.advance()
    assert capsys.readouterr().err == ""


def test_bars_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    console = Console()
    with console.progress.bar("outer [x]", 2) as outer:
        outer.advance("loss 0.5")
        with console.progress.bar("inner", 3) as inner:
            inner.advance()
        console.progress.note("a note")
        outer.advance()
    with pytest.raises(KeyboardInterrupt), console.progress.bar("again", 1):
        raise KeyboardInterrupt
    said = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue())
    assert "a note" in said
    assert re.search(r"outer \[x\] .* 2/2 loss 0\.5", said)
    assert "again" in said
