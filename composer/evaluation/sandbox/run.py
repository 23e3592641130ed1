"""Run one program in the sandbox: limits, and what came of it."""

from __future__ import annotations

import json
import os
import secrets
import selectors
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from ...errors import InputError

INSIDE = Path(__file__).with_name("inside.py")
REFUSED = 97
"""As :data:`composer.evaluation.sandbox.inside.REFUSED`."""


class SandboxError(InputError):
    """Programs cannot be run safely on this machine."""


@dataclass(frozen=True)
class Limits:
    """What a program may use.

    Attributes:
        seconds: of processor time, of each process.
        wall: seconds from the beginning, after which all its processes are killed: more, as a busy machine is slow.
        memory: bytes of address space of each process.
        processes: at once, threads too.
        disk: bytes that it can write, all files together, in memory.
        output: bytes that it can print; one more and it is killed.
        files: open at once.
    """

    seconds: float = 15.0
    wall: float = 120.0
    memory: int = 1 << 30
    processes: int = 8
    disk: int = 16 << 20
    output: int = 64 << 10
    files: int = 64


@dataclass(frozen=True)
class Outcome:
    """What came of a program: ``passed`` says that it went through to its end without an exception.

    ``why`` is a word for the rest: time, output, error, exit.
    """

    passed: bool
    why: str
    output: str


def run_program(program: str, limits: Limits | None = None, *, weak: bool = False) -> Outcome:
    """Run a Python program in a fresh interpreter that nothing gets out of.

    Args:
        weak: run it also where the kernel lacks a part of the sandbox.

    Raises:
        SandboxError: a part is missing; nothing was run.
    """
    if sys.platform != "linux":
        raise SandboxError("--run-generated-code: the sandbox needs Linux; nothing was run")
    limits, token = limits or Limits(), secrets.token_hex(16)
    settings = {
        "token": token,
        "weak": weak,
        "disk": limits.disk,
        "CPU": max(1, round(limits.seconds)),
        "AS": limits.memory,
        "FSIZE": limits.disk,
        "NOFILE": limits.files,
        "NPROC": limits.processes,
        "CORE": 0,
    }
    command = [sys.executable, "-I", "-S", "-c", INSIDE.read_text(encoding="utf-8"), json.dumps(settings)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    # The token is an argument of processes that the program cannot see: it has no /proc, and cannot ask others.
    with subprocess.Popen(command, env={}, cwd="/", start_new_session=True, **pipes) as process:  # type: ignore[call-overload]
        try:
            ended, printed, errors = _watched(process, program.encode("utf-8", "replace"), limits)
        finally:
            _kill(process)
    if process.returncode == REFUSED:
        missing = errors.decode("utf-8", "replace")
        raise SandboxError(
            f"--run-generated-code: this machine lacks a part of the sandbox: {missing}; nothing was run; "
            "--weak-sandbox runs programs without it"
        )
    text = (printed + errors).decode("utf-8", "replace")
    if ended:
        return Outcome(False, ended, text)
    passed = process.returncode == 0 and printed.endswith(token.encode())
    spent = process.returncode in (128 + signal.SIGXCPU, 128 + signal.SIGKILL)
    why = "passed" if passed else "exit" if process.returncode == 0 else "time" if spent else "error"
    return Outcome(passed, why, text.replace(token, ""))


def _watched(process: subprocess.Popen[bytes], program: bytes, limits: Limits) -> tuple[str, bytes, bytes]:
    """Feed the program, read what it prints; ``time`` or ``output`` where it had to be stopped for it."""
    assert process.stdin
    assert process.stdout
    assert process.stderr
    end = time.monotonic() + limits.wall
    streams = {process.stdout: bytearray(), process.stderr: bytearray()}
    try:
        process.stdin.write(program)
        process.stdin.close()
    except BrokenPipeError:  # it ended before it had read all
        pass
    ended = ""
    with selectors.DefaultSelector() as selector:
        for stream in streams:
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map() and not ended:
            left = end - time.monotonic()
            ready = selector.select(max(0.0, left)) if left > 0 else []
            if not ready:
                ended = "time"
            for key, _ in ready:
                piece = os.read(key.fd, 65536)
                if not piece:
                    selector.unregister(key.fileobj)
                streams[key.fileobj] += piece  # type: ignore[index]
                if sum(map(len, streams.values())) > limits.output + 64:
                    ended = "output"
    if not ended:
        try:
            process.wait(max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            ended = "time"
    printed, errors = (bytes(stream) for stream in streams.values())
    return ended, printed, errors


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the one outside; the namespace of all others dies with it."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
