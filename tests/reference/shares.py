"""Small works for executors: each takes a share and does something that a test can see from outside."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import NoReturn

from composer.errors import LibraryError
from tests.reference.events import until


def square(number: int) -> int:
    return number**2


def which(folder: Path) -> tuple[int, str]:
    """The process and the threads that it may use; nobody is done before a second process has come."""
    (folder / f"{os.getpid()}.here").touch()
    until(lambda: len([*folder.glob("*.here")]) > 1)
    return os.getpid(), os.environ["OMP_NUM_THREADS"]


def die_once(share: tuple[Path, str]) -> str:
    """The first time ``mortal`` is met its process is killed; each share that was done leaves a file.

    It dies when ``quick`` is done and ``late`` has begun: where two workers take what comes next, the one that has
    begun ``late`` has handed in the result of ``quick``.
    """
    folder, name = share
    with (folder / f"{name}.begun").open("a") as file:
        file.write(".")
    if name == "mortal" and len((folder / "mortal.begun").read_text()) == 1:
        until(lambda: (folder / "quick.done").exists() and (folder / "late.begun").exists())
        os.kill(os.getpid(), signal.SIGKILL)
    (folder / f"{name}.done").touch()
    return name


def die(folder: Path) -> NoReturn:
    with (folder / "begun").open("a") as file:
        file.write(".")
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("not reached")


def leave(_: int) -> NoReturn:
    os._exit(7)


def lack(_: int) -> NoReturn:
    print("said on standard output", flush=True)
    raise LibraryError(["a.safetensors: damaged", "b.safetensors: no such block"])


class Peculiar(Exception):  # noqa: N818
    """Cannot be made again from its arguments."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} and {other}")


def err(_: int) -> NoReturn:
    raise Peculiar("this", "that")


def sleep(folder: Path) -> NoReturn:
    """Tell the process, and never end."""
    (folder / f"{os.getpid()}.pid").touch()
    while True:
        time.sleep(1)
