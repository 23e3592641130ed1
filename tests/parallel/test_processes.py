"""Executors: order, workers that die, errors, Ctrl-C; with works so small that a worker starts in no time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil
import pytest

import composer
from composer.errors import LibraryError, WorkerError
from composer.parallel import processes, protocol
from composer.parallel.choice import executor_of
from composer.parallel.processes import Processes
from composer.parallel.protocol import threads_for
from composer.progress import SILENT, Progress
from tests.reference import shares
from tests.reference.events import HANGING, until

HANGS = """
import pathlib, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored in the background of a script
from composer.parallel.processes import Processes
from composer.progress import SILENT
from tests.reference.shares import sleep
if __name__ == "__main__":
    executor = Processes(1, SILENT)
    try:
        executor.run(sleep, [pathlib.Path(sys.argv[1])], lambda: print("looked", flush=True))
    except KeyboardInterrupt:
        executor.close(at_once=True)
        print("interrupted")
"""


class Notes(Progress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def nothing() -> None:
    """Watches nothing."""


def pids(folder: Path) -> list[int]:
    return [int(path.stem) for path in folder.glob("*.pid")]


def alive(pids: Iterable[int]) -> bool:
    """Whether any of them is; what nobody has waited for yet is not."""
    return any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids)


def test_results_come_in_order_from_several_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    looks: list[int] = []
    with executor_of(2, None, device="cpu", progress=SILENT) as executor:
        assert executor is not None
        told = executor.run(shares.which, [tmp_path] * 4, lambda: looks.append(1))
        assert executor.run(shares.square, [3, 1, 2], nothing) == [9, 1, 4]
        assert executor.run(shares.square, [], nothing) == []
    assert len({pid for pid, _ in told} - {os.getpid()}) == 2
    assert {threads for _, threads in told} == {"3"}
    assert looks
    assert not alive(pid for pid, _ in told)


def test_one_job_is_this_process() -> None:
    with executor_of(1, None, device="auto", progress=SILENT) as executor:
        assert executor is None


def test_cores_are_divided_unless_the_threads_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "cores", lambda: 8)
    for said, jobs, wanted in [("", 2, 4), ("", 3, 2), ("", 9, 1), ("5", 2, 5), ("many", 2, 4), ("0", 4, 2)]:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
        assert threads_for(jobs) == wanted


def test_the_share_of_a_killed_worker_is_done_again_and_no_other(tmp_path: Path) -> None:
    told, executor = Notes(), Processes(2, Notes())
    executor.progress = told
    names = ["quick", "mortal", "late"]
    assert executor.run(shares.die_once, [(tmp_path, name) for name in names], nothing) == names
    executor.close()
    assert {name: (tmp_path / f"{name}.begun").read_text() for name in ("quick", "mortal")} == {
        "quick": ".",
        "mortal": "..",
    }
    (note,) = told.notes
    assert "a worker process was killed by SIGKILL" in note
    assert "is started again (1 of 3)" in note


def test_a_work_that_kills_every_worker_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "RESTARTS", 1)
    executor = Processes(2, SILENT)
    with pytest.raises(WorkerError, match=r"^--jobs: 2 times a worker process was killed by SIGKILL \(.*"):
        executor.run(shares.die, [tmp_path], nothing)
    assert (tmp_path / "begun").read_text() == ".."
    monkeypatch.setattr(processes, "RESTARTS", 0)
    with pytest.raises(WorkerError, match=r"^--jobs: 1 times a worker process ended with status 7;"):
        executor.run(shares.leave, [1], nothing)
    executor.close()


def test_errors_come_back_as_they_are(capfd: pytest.CaptureFixture[str]) -> None:
    with executor_of(2, None, device="cpu", progress=SILENT) as executor:
        assert executor is not None
        with pytest.raises(LibraryError) as lacking:
            executor.run(shares.lack, [1], nothing)
        with pytest.raises(RuntimeError, match="Peculiar: this and that"):
            executor.run(shares.err, [1], nothing)
        with pytest.raises(TypeError) as bug:
            executor.run(shares.square, [{}], nothing)  # type: ignore[list-item]
        assert executor.run(shares.square, [2], nothing) == [4]
    assert lacking.value.problems == ("a.safetensors: damaged", "b.safetensors: no such block")
    assert "shares.py" in bug.value.__notes__[0]
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "said on standard output\n")


def test_ctrl_c_ends_workers_in_the_middle(tmp_path: Path) -> None:
    def impatient() -> None:
        if pids(tmp_path):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_and_close(None, shares.sleep, [tmp_path], impatient)
    assert not alive(pids(tmp_path))


def hanging(folder: Path) -> subprocess.Popen[str]:
    """A process whose worker never ends, in a process group of its own."""
    script = folder / "hangs.py"
    script.write_text(HANGS)
    environment = {**os.environ, "PYTHONPATH": str(Path(composer.__file__).parents[1])}
    command, pipe = [sys.executable, str(script), str(folder)], subprocess.PIPE
    return subprocess.Popen(command, env=environment, start_new_session=True, stdout=pipe, stderr=pipe, text=True)


def test_ctrl_c_of_a_terminal_is_for_the_parent_alone(tmp_path: Path) -> None:
    """It reaches the whole process group; the parent ends its workers itself, and they say nothing."""
    parent = hanging(tmp_path)
    assert parent.stdout
    assert parent.stdout.readline() == "looked\n"
    os.killpg(parent.pid, signal.SIGINT)
    said, complained = parent.communicate(timeout=HANGING)
    assert said.splitlines()[-1] == "interrupted"
    assert complained == ""
    assert not alive(pids(tmp_path))


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    parent = hanging(tmp_path)
    until(lambda: bool(pids(tmp_path)))
    os.kill(parent.pid, signal.SIGKILL)
    parent.communicate(timeout=HANGING)  # ends when nobody holds the pipes any more
    until(lambda: not alive(pids(tmp_path)))


def test_a_cluster_without_ray_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(WorkerError, match=r"^--cluster: needs Ray, .*; pip install 'composer-pruning\[ray\]'$"):
        run_and_close("local", shares.square, [1], nothing)


def run_and_close(cluster: str | None, *what: Any) -> list[Any]:
    with executor_of(2, cluster, device="cpu", progress=SILENT) as executor:
        assert executor is not None
        return executor.run(*what)
