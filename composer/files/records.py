"""The record beside a result: what must be known to repeat it; and when an output is current."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import OutputError
from .environment import machine, versions
from .jsonfile import digest_of, read_json, write_json

RECORD = "composer.json"
"""Name of the record inside a folder."""


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
    recorded = recorded_inputs(path) if path.is_file() else None
    if renew:
        return recorded == dict(inputs)
    if recorded is None:
        raise OutputError(f"{output}: exists and has no record of how it was made; --force replaces it")
    if digest_of(recorded) == digest_of(dict(inputs)):
        return True
    changed = changes(recorded, inputs)
    raise OutputError(f"{output}: exists and was made from other inputs ({changed}); --force replaces it")


def recorded_inputs(path: Path) -> dict[str, Any] | None:
    """The inputs that a record names, if it names any."""
    content = read_json(path, OutputError)
    recorded = content.get("inputs") if isinstance(content, dict) else None
    return recorded if isinstance(recorded, dict) else None


def recorded_result(output: Path) -> dict[str, Any] | None:
    """The result that an output's record holds; None where there is no record."""
    path = record_path(output)
    return dict(read_json(path, OutputError)["result"]) if path.is_file() else None


def write_record(output: Path, content: Mapping[str, Any]) -> None:
    """Write an output's record, whole or not at all."""
    write_json(record_path(output), dict(content))


def changes(recorded: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """Names of the inputs that differ, with values where they are short.

    >>> changes({"data": {"train": "a" * 64}, "seed": 0}, {"data": {"train": "b" * 64}, "seed": 1})
    'data: another train; seed: 0 then, 1 now'
    """
    parts = []
    for key, before, now in _differing(recorded, asked):
        if isinstance(before, dict) and isinstance(now, dict):
            inner = [_change(*difference) for difference in _differing(before, now)]
            parts.append(f"{key}: {', '.join(inner) if len(inner) < 4 else f'{len(inner)} differ'}")
        else:
            parts.append(_change(key, before, now))
    return "; ".join(parts) or "the record is damaged"


def _differing(recorded: Mapping[str, Any], asked: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    values = ((key, recorded.get(key), asked.get(key)) for key in sorted({*recorded, *asked}))
    return ((key, before, now) for key, before, now in values if before != now)


def _change(key: str, before: Any, now: Any) -> str:
    return f"{key}: {before!r} then, {now!r} now" if len(f"{before}{now}") < 60 else f"another {key}"
