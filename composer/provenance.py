"""What must be known to repeat a result: versions, machine, resolved recipe; and when an output is current."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from uuid import uuid4

from .errors import OutputError
from .jsonfile import digest_of, read_json, reported, write_json

RECORD = "composer.json"
PACKAGES = (
    "composer",
    "torch",
    "transformers",
    "accelerate",
    "datasets",
    "safetensors",
    "sacrebleu",
    "numpy",
)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that shape results."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


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


def is_current(output: Path, inputs: Mapping[str, Any], *, force: bool = False) -> bool:
    """Whether ``output`` exists and was made from the same inputs (then there is nothing to do).

    Raises:
        OutputError: it exists and was made from other inputs, or by somebody else, and ``force`` is off.
    """
    if force or not output.exists():
        return False
    path = record_path(output)
    if path.is_file():
        held = read_json(path, OutputError).get("inputs")
        if held is not None and digest_of(held) == digest_of(dict(inputs)):
            return True
        changed = _changed(held or {}, inputs)
        raise OutputError(f"{output}: exists and was made from other inputs ({changed}); --force replaces it")
    raise OutputError(f"{output}: exists and has no record of how it was made; --force replaces it")


@contextmanager
def new_folder(output: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``output`` that takes its place when the body succeeds."""
    temporary = output.parent / f".{output.name}.{uuid4().hex[:8]}.tmp"
    with reported(output):
        temporary.mkdir(parents=True)
        try:
            yield temporary
            if output.exists():
                old = temporary.with_suffix(".old")
                output.rename(old)
                temporary.rename(output)
                shutil.rmtree(old)
            else:
                temporary.rename(output)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def write_record(output: Path, content: Mapping[str, Any]) -> None:
    """Write an output's record, whole or not at all."""
    write_json(record_path(output), dict(content))


def _changed(held: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Names of the inputs that differ, with values where they are short."""
    parts = []
    for key in sorted({*held, *wanted}):
        before, now = held.get(key), wanted.get(key)
        if isinstance(before, dict) and isinstance(now, dict):
            inner = [k for k in sorted({*before, *now}) if before.get(k) != now.get(k)]
            parts += [f"{k}: {before.get(k)!r} then, {now.get(k)!r} now" for k in inner]
        elif before != now:
            parts.append(f"{key}: {before!r} then, {now!r} now" if len(f"{before}{now}") < 60 else f"another {key}")
    return "; ".join(parts) or "the record is damaged"


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
