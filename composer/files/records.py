"""What must be known to repeat a result: versions, machine, resolved recipe; and when an output is current."""

from __future__ import annotations

import errno
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from uuid import uuid4

from .. import __version__
from ..errors import OutputError
from ..registry import plugin_versions
from .jsonfile import alone, digest_of, is_abandoned, owned, read_json, reported, write_json

RECORD = "composer.json"
LEFT = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.(?P<end>tmp|old)")
"""What an output is called while it is written (tmp), or while another takes its place (old)."""
FULL_DISK = ("No space left on device", "unexpected pos", "file write failed", "iostream error")
"""How safetensors and ``torch.save`` put it."""
PACKAGES = (
    "torch",
    "transformers",
    "accelerate",
    "datasets",
    "safetensors",
    "sacrebleu",
    "numpy",
)


def versions() -> dict[str, str]:
    """Versions of Python, of Composer (the package that runs, however it was installed) and of the packages that shape
    results, those among them whose family, task, criterion or trainer is used."""
    found = {"python": platform.python_version(), "composer": __version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return {**found, **plugin_versions()}


def machine() -> dict[str, Any]:
    """Processor, cores, memory and operating system; no host name, no paths."""
    import psutil

    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "threads": _threads(),
    }


def record(inputs: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """The record kept beside a result. ``inputs`` decide whether it is current."""
    return {"inputs": dict(inputs), "versions": versions(), "machine": machine(), **more}


def record_path(output: Path) -> Path:
    """Where an output's record is: inside a folder; beside a file, with ``.json`` for its suffix."""
    return output / RECORD if output.is_dir() else output.with_suffix(".json")


def is_current(output: Path, inputs: Mapping[str, Any], *, force: bool = False, renew: bool = False) -> bool:
    """Whether ``output`` exists and was made from the same inputs (then there is nothing to do).

    Args:
        renew: one that was made from other inputs is not current, and nobody need be asked.

    Raises:
        OutputError: it exists and was made from other inputs, or by somebody else, and neither ``force`` nor
            ``renew`` is on.
    """
    if force or not output.exists():
        return False
    path = record_path(output)
    held = held_inputs(path) if path.is_file() else None
    if renew:
        return held == dict(inputs)
    if held is None:
        raise OutputError(f"{output}: exists and has no record of how it was made; --force replaces it")
    if digest_of(held) == digest_of(dict(inputs)):
        return True
    changed = changes(held, inputs)
    raise OutputError(f"{output}: exists and was made from other inputs ({changed}); --force replaces it")


def held_inputs(path: Path) -> dict[str, Any] | None:
    """The inputs that a record names, if it names any."""
    content = read_json(path, OutputError)
    held = content.get("inputs") if isinstance(content, dict) else None
    return held if isinstance(held, dict) else None


def held_result(output: Path) -> dict[str, Any] | None:
    """The result that an output's record holds; None where there is no record."""
    path = record_path(output)
    return dict(read_json(path, OutputError)["result"]) if path.is_file() else None


@contextmanager
def new_folder(output: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``output`` that takes its place when the body succeeds.

    What killed processes left of such folders there is removed first.
    """
    temporary = output.parent / f".{output.name}.{uuid4().hex[:8]}.tmp"
    with full_disk_reported(output), ExitStack() as stack:
        output.parent.mkdir(parents=True, exist_ok=True)
        with alone(output.parent):  # nobody sweeps it before it is known to be somebody's
            sweep_folders(output.parent)
            temporary.mkdir()
            stack.enter_context(owned(temporary))
        try:
            yield temporary
            _put_in_place(temporary, output)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _put_in_place(made: Path, output: Path) -> None:
    """Rename ``made`` to ``output``; what stood there goes only when that has worked."""
    if not output.exists():
        made.rename(output)
        return
    old = made.with_suffix(".old")
    with owned(output):
        output.rename(old)
        try:
            made.rename(output)
        except BaseException:
            old.rename(output)
            raise
        _remove(old)


def sweep_folders(place: Path) -> int:
    """Remove what killed processes left of :func:`new_folder` in ``place``; returns how many.

    One that was killed while its folder took the place of another is undone: that one is there again.
    """
    found = [(path, match) for path in sorted(place.glob(".*")) if (match := LEFT.fullmatch(path.name))]
    left = [(path, match) for path, match in found if is_abandoned(path)]
    for path, match in left:
        output = place / match["name"]
        if match["end"] == "old" and not output.exists():
            path.rename(output)
        else:
            _remove(path)
    return len(left)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


@contextmanager
def full_disk_reported(output: Path) -> Iterator[None]:
    """As :func:`composer.files.jsonfile.reported`, for the libraries that have their own words for a full disk."""
    from safetensors import SafetensorError

    with reported(output):
        try:
            yield
        except (RuntimeError, SafetensorError) as bad:
            if any(words in str(bad) for words in FULL_DISK):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from bad
            raise


def write_record(output: Path, content: Mapping[str, Any]) -> None:
    """Write an output's record, whole or not at all."""
    write_json(record_path(output), dict(content))


def changes(held: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Names of the inputs that differ, with values where they are short.

    >>> changes({"data": {"train": "a" * 64}, "seed": 0}, {"data": {"train": "b" * 64}, "seed": 1})
    'data: another train; seed: 0 then, 1 now'
    """
    parts = []
    for key, before, now in _differing(held, wanted):
        if isinstance(before, dict) and isinstance(now, dict):
            inner = [_change(*difference) for difference in _differing(before, now)]
            parts.append(f"{key}: {', '.join(inner) if len(inner) < 4 else f'{len(inner)} differ'}")
        else:
            parts.append(_change(key, before, now))
    return "; ".join(parts) or "the record is damaged"


def _differing(held: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    values = ((key, held.get(key), wanted.get(key)) for key in sorted({*held, *wanted}))
    return ((key, before, now) for key, before, now in values if before != now)


def _change(key: str, before: Any, now: Any) -> str:
    return f"{key}: {before!r} then, {now!r} now" if len(f"{before}{now}") < 60 else f"another {key}"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or "unknown"


def _threads() -> int | None:
    torch = sys.modules.get("torch")
    return torch.get_num_threads() if torch else None
