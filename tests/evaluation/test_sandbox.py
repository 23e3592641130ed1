"""Nothing gets out of the sandbox, and nothing hangs it: one test for each way that was thought of."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from composer.evaluation.sandbox import run as sandbox
from composer.evaluation.sandbox.run import Limits, SandboxError, run_program

SHORT = Limits(seconds=3, wall=10)


def refuses() -> str:
    """Why this machine has no sandbox; empty where it has one."""
    try:
        run_program("pass")
    except SandboxError as bad:
        return str(bad)
    return ""


pytestmark = pytest.mark.skipif(bool(refuses()), reason=f"no sandbox here: {refuses()}")


def test_a_program_that_goes_through_has_passed_and_any_other_has_not() -> None:
    assert run_program("import math, re, typing, collections, heapq, hashlib\nprint('hello')") == sandbox.Outcome(
        True, "passed", "hello\n"
    )
    failed = run_program("assert 1 == 2, 'not equal'")
    assert (failed.passed, failed.why) == (False, "error")
    assert "not equal" in failed.output
    for leaves in ("import sys; sys.exit(0)", "import os; os._exit(0)"):
        assert not run_program(f"{leaves}\nassert False").passed


def test_a_fork_bomb_is_held() -> None:
    run_program("import os\nwhile True: os.fork()", SHORT)
    sleepers = "try:\n  while True:\n    if os.fork() == 0: time.sleep(99)\n    n += 1\nexcept OSError: print(n)"
    count = f"import os, time\nn = 0\n{sleepers}"
    outcome = run_program(count, SHORT)
    assert outcome.passed
    assert int(outcome.output) < SHORT.processes


def test_the_disk_is_not_filled(tmp_path: Path) -> None:
    free = os.statvfs(tmp_path).f_bavail
    fill = "for i in range(10_000):\n    with open(f'f{i}', 'wb') as f: f.write(b'x' * 2**20)"
    outcome = run_program(fill, SHORT)
    assert "No space left" in outcome.output or "File too large" in outcome.output
    assert os.statvfs(tmp_path).f_bavail > free - 2**22 // os.statvfs(tmp_path).f_bsize * 64


def test_endless_sleep_and_endless_work_are_ended() -> None:
    short = Limits(seconds=1, wall=0.5)
    assert run_program("import time\ntime.sleep(10_000)", short).why == "time"
    assert run_program("while True: pass", Limits(seconds=1)).why == "time"
    ignores = (
        "import signal, time\nfor s in range(1, 32):\n  try: signal.signal(s, signal.SIG_IGN)\n  except OSError: pass\n"
    )
    assert run_program(ignores + "time.sleep(10_000)", short).why == "time"


def test_endless_print_is_ended() -> None:
    outcome = run_program("while True: print('x' * 1000)")
    assert outcome.why == "output"
    assert len(outcome.output) < 2 * Limits().output + 65536


def test_memory_is_limited() -> None:
    assert "MemoryError" in run_program("x = bytearray(4 << 30)").output


@pytest.mark.parametrize(
    "attack",
    [
        "import os; os.remove({file!r})",
        "import shutil; shutil.rmtree({folder!r})",
        "open({file!r}, 'w').write('gone')",
        "import os; os.rename({file!r}, {file!r} + '2')",
        "import os; os.truncate({file!r}, 0)",
        "print(open({file!r}).read())",
        "import os; print(os.listdir({home!r}))",
        "open('/usr/bin/evil', 'w')",
        "print(open('/etc/passwd').read())",
        "print(open('/proc/1/environ').read())",
    ],
)
def test_files_outside_can_be_neither_changed_nor_read(attack: str, tmp_path: Path) -> None:
    file = tmp_path / "kept.txt"
    file.write_text("kept")
    tmp_path.chmod(0o777)
    file.chmod(0o666)
    places = {"file": str(file), "folder": str(tmp_path), "home": str(Path.home())}
    outcome = run_program(attack.format(**places), SHORT)
    assert not outcome.passed
    assert file.read_text() == "kept"
    assert "kept\n" not in outcome.output


@pytest.mark.parametrize(
    "attack",
    [
        "s = socket.create_connection(('127.0.0.1', {port}), 2)",
        "s = socket.create_connection(('192.0.2.1', 80), 1)",
        "s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()",
        "s = socket.socket(socket.AF_UNIX); s.connect({path!r})",
    ],
)
def test_sockets_lead_nowhere(attack: str, tmp_path: Path) -> None:
    import socket

    with socket.socket() as server, socket.socket(socket.AF_UNIX) as local:
        server.bind(("127.0.0.1", 0))
        server.listen()
        path = str(tmp_path / "s")
        local.bind(path)
        local.listen()
        os.chmod(path, 0o777)
        program = "import socket\n" + attack.format(port=server.getsockname()[1], path=path)
        assert run_program(program, SHORT).why == "error"


def test_other_processes_are_out_of_reach() -> None:
    kill = "for pid in (os.getppid(), 1, {pid}):\n  try: os.kill(pid, 9)\n  except OSError as bad: print(bad.errno)"
    outcome = run_program("import os\n" + kill.format(pid=os.getpid()), SHORT)
    assert outcome.passed
    assert outcome.output.count("\n") == 3


def test_what_a_program_leaves_running_dies_with_it() -> None:
    """Its pipe has no other end any more: the reader comes to its end instead of waiting."""
    leave = "import os, time\nif os.fork() == 0:\n  os.setsid()\n  time.sleep(10_000)"
    assert run_program(leave, Limits(wall=60)).passed


def test_nothing_of_the_environment_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "42")
    assert "SECRET" not in run_program("import os; print(dict(os.environ), os.getcwd())").output


def test_a_missing_part_is_named_and_nothing_is_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "inside.py"
    text = sandbox.INSIDE.read_text(encoding="utf-8").replace("libc.syscall(444, None, 0, 1)", "libc.syscall(9999)")
    broken.write_text(text, encoding="utf-8")
    monkeypatch.setattr(sandbox, "INSIDE", broken)
    with pytest.raises(SandboxError, match=r"lacks a part of the sandbox: Landlock .*nothing was run; --weak-sandbox"):
        run_program("print('ran')")
    assert run_program("print('ran')", weak=True).output == "ran\n"
    monkeypatch.setattr(sandbox.sys, "platform", "win32")
    with pytest.raises(SandboxError, match="needs Linux"):
        run_program("pass")
