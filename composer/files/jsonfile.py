"""JSON files read strictly and written whole, and the digests made from them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ..errors import InputError
from .atomic import replacing


def canonical(value: Any) -> str:
    """JSON with sorted keys and no blanks: equal values give equal text.

    >>> canonical({"b": 1, "a": [0.5]})
    '{"a":[0.5],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_of(value: Any) -> str:
    """sha256 (hex) of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def read_text(path: Path, error: type[InputError] = InputError) -> str:
    """Read a UTF-8 file; what can go wrong becomes one line of ``error``."""
    try:
        return path.read_bytes().decode("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise error(f"{path}: no such file") from None
    except IsADirectoryError:
        raise error(f"{path}: is a folder; a file is needed here") from None
    except PermissionError:
        raise error(f"{path}: cannot be read: permission denied") from None
    except UnicodeDecodeError as bad:
        raise error(f"{path}: byte {bad.start} is not UTF-8; the file must be UTF-8 text") from None


def read_json(path: Path, error: type[InputError] = InputError, problems: list[str] | None = None) -> Any:
    """Parse a JSON file strictly: a key given twice in one object is an error, like broken syntax.

    Given ``problems``, keys given twice are added there, for a reader that reports them with its own.
    """
    text = read_text(path, error)
    twice: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in items:
            if key in result:
                twice.append(key)
            result[key] = value
        return result

    try:
        value = json.loads(text, object_pairs_hook=pairs)
    except json.JSONDecodeError as bad:
        raise error(f"{path}: line {bad.lineno}, column {bad.colno}: not valid JSON: {bad.msg}") from None
    except RecursionError:
        raise error(f"{path}: not valid JSON: nested too deeply") from None
    except ValueError as bad:  # an integer with more digits than Python reads
        raise error(f"{path}: not valid JSON: {str(bad).partition(';')[0]}") from None
    repeated = [f"{path}: key {key!r} is given twice in one object; give it once" for key in twice]
    if problems is not None:
        problems += repeated
    elif repeated:
        raise error(repeated)
    return value


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` indented, whole or not at all."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file under a temporary name, then rename it."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
