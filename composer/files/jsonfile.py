"""JSON files read strictly and written whole, and the digests made from them."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import InputError, OutputError

TEMPORARY = ".tmp"
"""Suffix of what is being written."""

REFUSED = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY),
    *(errno.EEXIST, errno.ENAMETOOLONG),
)
"""Why a file system refuses a file at all, whatever would be in it."""


UNSYNCED = (errno.EINVAL, errno.EBADF, errno.ENOTSUP)
"""What file systems say that cannot sync a folder."""


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
    found = [f"{path}: key {key!r} is given twice in one object; give it once" for key in twice]
    if problems is not None:
        problems += found
    elif found:
        raise error(found)
    return value


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` indented, whole or not at all."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file under a temporary name, then rename it."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary file name beside ``path`` that replaces it when the body succeeds.

    The file is synced before the rename, so a reader sees the old file or the whole new one; the folder is
    synced after it, so what was written later is never there without what was written before, even when the
    power fails. A full disk or a missing permission becomes an ``OutputError``; the temporary file never
    stays behind.
    """
    with reported(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=TEMPORARY, dir=path.parent)
        temporary = Path(name)
        try:
            _lock(handle)
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
            _sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
            os.close(handle)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Within the body no other process is in such a body for ``folder``; it is made when it is not there.

    The system drops the lock when its process ends, however it ends. On a file system without locks the body
    runs unguarded.
    """
    with reported(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            with suppress(ImportError, OSError):
                import fcntl

                handle = os.open(folder, os.O_RDONLY)
                stack.callback(os.close, handle)
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield


def sweep(folder: Path) -> int:
    """Remove the temporary files of killed writers in ``folder``; returns how many.

    Those of writers that are alive, in this process or another, stay.
    """
    left = abandoned(folder)
    for path in left:
        path.unlink(missing_ok=True)
    return len(left)


def abandoned(folder: Path) -> list[Path]:
    """The temporary files in ``folder`` whose writers are dead."""
    return [path for path in sorted(folder.glob(f".*{TEMPORARY}")) if path.is_file() and is_abandoned(path)]


def is_abandoned(path: Path) -> bool:
    """Whether nobody who is alive has said that this file or folder is theirs; False where nobody can tell."""
    try:
        import fcntl

        handle = os.open(path, os.O_RDONLY)
    except (ImportError, OSError):  # gone, or Windows
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held
        return False
    finally:
        os.close(handle)
    return True


@contextmanager
def owned(path: Path) -> Iterator[None]:
    """Within the body this file or folder has a living writer, wherever it is renamed to: see :func:`is_abandoned`."""
    with ExitStack() as stack:
        with suppress(OSError):  # Windows opens no folders
            handle = os.open(path, os.O_RDONLY)
            stack.callback(os.close, handle)
            _lock(handle)
        yield


def _sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` as durable as what stands in the files."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders; a folder may be writable and not readable
        return
    try:
        os.fsync(handle)
    except OSError as bad:
        if bad.errno not in UNSYNCED:
            raise
    finally:
        os.close(handle)


def _lock(handle: int) -> None:
    """Show that this file has a living writer: the system drops the lock when its process ends."""
    with suppress(ImportError, OSError):  # Windows, and file systems without locks
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_SH)


@contextmanager
def reported(path: Path) -> Iterator[None]:
    """Turn the failures of the file system at ``path`` into one plain line."""
    try:
        yield
    except OSError as bad:
        if bad.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(f"{path}: cannot be written: the disk is full; nothing was kept") from bad
        if bad.errno in REFUSED:
            raise OutputError(f"{path}: cannot be written: {(bad.strerror or str(bad)).lower()}") from bad
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
