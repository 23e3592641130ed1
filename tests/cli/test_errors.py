"""What goes wrong: one plain line on standard error per problem, and the exit status."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from composer.errors import ConfigError
from composer.steps.outcome import Outcome

from .conftest import Compose, Recorder

FULL = "cannot be written: the disk is full; finished work is kept"

WRONG = {
    "assess -m demo": "unknown option '-m': name the model without it, as `compose assess MODEL` "
    "(see `compose assess --help`)",
    "prun": "unknown command 'prun'; did you mean 'prune'? (see `compose --help`)",
    "prune foo": "unexpected argument 'foo' (see `compose prune --help`)",
    "compare --no-trian": "unknown option '--no-trian'; did you mean '--no-train'? (see `compose compare --help`)",
    "generate-config --attention 0.25 abc": "--attention: got 'abc'; allowed: numbers, parted by spaces or commas",
    "generate-config --linear true": "--linear: got 'true'; allowed: numbers, parted by spaces or commas",
    "generate-config --attention": "--attention: nothing given (see `compose generate-config --help`)",
    "generate-config -n 1.5": "-n: got '1.5'; allowed: a whole number",
    "prune --seed null": "--seed: got 'null'; allowed: a whole number",
    "prune --seed 1 --seed 2": "--seed: given more than once; allowed: once",
    "prune --force=perhaps": "--force: got 'perhaps'; allowed: no value",
    "prune --criterion": "--criterion: nothing given (see `compose prune --help`)",
    "finetune": "--level: nothing given; allowed: block, model (see `compose finetune --help`)",
    "finetune --level blok": "--level: got 'blok'; allowed: block, model; did you mean 'block'?",
    "finetune --level model": "-n/--configuration: nothing given; allowed: a number counted from 0, or --all",
    "finetune --level block --epochs 1": "--epochs: not together with --level block",
    "finetune --level model --dense --all": "--all: not together with --dense",
    "finetune --level model -n 0 --steps 1 --epochs 1": "--steps, --epochs: got both; allowed: one of them",
    "prune --precision fp64": "--precision: got 'fp64'; allowed: fp32, bf16",
    "build-model": "-n/--configuration: nothing given; allowed: a number counted from 0, or --all",
    "build-model --all -o x": "-o/--output: not together with --all",
    "evaluate": "MODEL: nothing given (see `compose evaluate --help`)",
    "plot": "stats: no *.csv in it; `compose finetune` writes them",
    "show demo -o x.txt": "x.txt: the suffix is '.txt'; allowed: .png or .svg",
    "run": "compose.yaml: no such file; name a recipe (compose run my.yaml), write one, of two lines at least, such "
    "as 'model: models/base' and 'data: multi30k', or say both as options: -m models/base --data multi30k",
    "run a.yaml --recipe b.yaml": "--recipe: got b.yaml and a.yaml; allowed: one recipe",
    "run a.yaml -c c.json --linear 0.5": "--linear: not together with -c/--config",
    "run a.yaml": "a.yaml: no such file",
    "prune -s nothing.json": "nothing.json: no such file; run `compose generate-scheme` first",
}


@pytest.mark.parametrize("line", WRONG)
def test_one_line(line: str, compose: Compose) -> None:
    result = compose(*line.split())
    assert (result.status, result.out) == (2, "")
    assert result.err == f"error: {WRONG[line]}\n"


def test_every_problem_has_its_line(compose: Compose, tmp_path: Path) -> None:
    result = compose("generate-config", "-m", "demo", "--attention", "nan", "1.5", "-0.5", "0.5")
    assert result.status == 2
    assert result.err.splitlines() == [
        f"error: --attention[{i}]: got {got}; allowed: a number with 0 <= rate <= 1"
        for i, got in enumerate(["nan", "1.5", "-0.5"])
    ]
    assert list(tmp_path.iterdir()) == []


def test_the_recipe_s_problems_come_all_at_once(compose: Compose) -> None:
    Path("compose.yaml").write_text("sede: 3\nfinetune: {batch-sise: 4}\n")
    result = compose("prune", "--train-size", "0")
    assert result.status == 2
    assert len(result.err.splitlines()) == 3
    assert "unknown key 'sede'; did you mean 'seed'?" in result.err
    assert "did you mean 'batch-size'?" in result.err
    assert "train-size: got 0" in result.err


def test_problems_are_printed_as_they_are(compose: Compose, recorder: Recorder) -> None:
    recorder.outcomes["prune"] = ConfigError(["[bold]a[/bold] :smile: " + "long " * 60 + "end", "b\nc"])
    first, second = compose("prune").err.splitlines()
    assert first.startswith("error: [bold]a[/bold] :smile: long")
    assert first.endswith("long end")
    assert second == "error: b c"


def test_interrupted(compose: Compose, recorder: Recorder) -> None:
    recorder.outcomes["prune"] = KeyboardInterrupt()
    result = compose("prune")
    assert (result.status, result.out) == (130, "")
    assert result.err == "interrupted; finished work is kept\n"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "full", "x/y"), f"x/y: {FULL}"),
        (
            RuntimeError("I/O: No space left on device (28)"),
            "output: cannot be written: the disk is full; finished work is kept",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "/x: permission denied"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "a/b"), "a/b: not a directory"),
    ],
)
def test_failures_of_the_file_system(error: Exception, line: str, compose: Compose, recorder: Recorder) -> None:
    recorder.outcomes["prune"] = error
    result = compose("prune")
    assert (result.status, result.err) == (2, f"error: {line}\n")


@pytest.mark.parametrize("error", [ZeroDivisionError("a bug"), OSError(errno.EBADF, "a bug")])
def test_a_bug_is_not_hidden(error: Exception, compose: Compose, recorder: Recorder) -> None:
    recorder.outcomes["prune"] = error
    with pytest.raises(type(error), match="a bug"):
        compose("prune")


def test_standard_input_without_a_text(compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    result = compose("predict", "demo")
    assert result.status == 2
    assert result.err == "error: TEXT: nothing given, and standard input is empty; allowed: one or more texts\n"


def test_standard_input_that_is_no_text(compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a\xff\n"), "utf-8"))
    result = compose("predict", "demo")
    assert (result.status, result.err) == (
        2,
        "error: standard input: byte 1 is not UTF-8; the text must be UTF-8\n",
    )


def python_m_composer(*words: str, folder: Path, **options: int) -> subprocess.CompletedProcess[str]:
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.run([sys.executable, "-m", "composer", *words], cwd=folder, text=True, check=False, **streams)  # type: ignore[call-overload, no-any-return]


def test_the_process_ends_with_the_status(tmp_path: Path) -> None:
    done = python_m_composer("generate-config", "-m", "nowhere", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: nowhere: no such model folder")
    assert len(done.stderr.splitlines()) == 1


def test_nobody_reads(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = python_m_composer("--help", folder=tmp_path, stdout=write)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_standard_output_on_a_full_disk(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = python_m_composer("--help", folder=tmp_path, stdout=full.fileno())
    assert done.returncode == 2
    assert done.stderr == f"error: output: {FULL}\n"


def test_an_output_that_is_up_to_date_is_no_error(compose: Compose, recorder: Recorder) -> None:
    for name, words in {"prune": ["prune"], "generate_scheme": ["generate-scheme"]}.items():
        outcome = recorder.outcomes[name]
        recorder.outcomes[name] = Outcome(outcome.output, False, outcome.summary)
        result = compose(*words)
        assert (result.status, result.out) == (0, f"{outcome.output} is up to date\n")


def test_a_home_folder_in_quotes_is_found(compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert compose("generate-config", "-m", "demo", "-o", "~/conf.json").status == 0
    assert (tmp_path / "home" / "conf.json").is_file()


def test_a_folder_that_was_removed_is_named(compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    result = compose("generate-config", "-m", "demo")
    assert (result.status, result.err) == (
        2,
        "error: the current folder does not exist any more; go to one that does\n",
    )
