"""Files and folders that appear whole or not at all, and locks that say who is at work.

What is being written has a temporary name beside its place and is renamed when it is done. Its writer holds a lock
on it meanwhile, which the system drops when the process ends, however it ends: so what killed writers left can be
told from what living ones write, and is removed by whoever comes next.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from ..errors import OutputError

TEMPORARY = ".tmp"
"""Suffix of what is being written."""

REFUSED = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY),
    *(errno.EEXIST, errno.ENAMETOOLONG),
)
"""Why a file system refuses a file at all, whatever would be in it."""

UNSYNCED = (errno.EINVAL, errno.EBADF, errno.ENOTSUP)
"""What file systems say that cannot sync a folder."""

LEFTOVER = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.(?P<end>tmp|old)")
"""What an output is called while it is written (tmp), or while another takes its place (old)."""

FULL_DISK = ("No space left on device", "unexpected pos", "file write failed", "iostream error")
"""How safetensors and ``torch.save`` put it."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary file name beside ``path`` that replaces it when the body succeeds.

    The file is synced before the rename, so a reader sees the old file or the whole new one; the folder is
    synced after it, so what was written later is never there without what was written before, even when the
    power fails. A full disk or a missing permission becomes an ``OutputError``; the temporary file never
    stays behind.
    """
    with disk_errors(path):
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
def new_folder(output: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``output`` that takes its place when the body succeeds.

    What killed processes left of such folders there is removed first.
    """
    temporary = output.parent / f".{output.name}.{uuid4().hex[:8]}.tmp"
    with saving_errors(output), ExitStack() as stack:
        output.parent.mkdir(parents=True, exist_ok=True)
        with locked(output.parent):  # nobody takes it for a leftover before it is marked
            remove_leftover_folders(output.parent)
            temporary.mkdir()
            stack.enter_context(marked_alive(temporary))
        try:
            yield temporary
            _put_in_place(temporary, output)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of ``folder``: one body at a time, over all processes; the folder is made when it is not there.

    The system drops the lock when its process ends, however it ends. On a file system without locks the body
    runs unguarded.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            with suppress(ImportError, OSError):
                import fcntl

                handle = os.open(folder, os.O_RDONLY)
                stack.callback(os.close, handle)
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield


@contextmanager
def marked_alive(path: Path) -> Iterator[None]:
    """Within the body this file or folder has a living writer, wherever it is renamed to: see :func:`is_abandoned`."""
    with ExitStack() as stack:
        with suppress(OSError):  # Windows opens no folders
            handle = os.open(path, os.O_RDONLY)
            stack.callback(os.close, handle)
            _lock(handle)
        yield


def remove_leftovers(folder: Path) -> int:
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


def remove_leftover_folders(parent: Path) -> int:
    """Remove what killed processes left of :func:`new_folder` in ``parent``; returns how many.

    One that was killed while its folder took the place of another is undone: that one is there again.
    """
    named = [(path, match) for path in sorted(parent.glob(".*")) if (match := LEFTOVER.fullmatch(path.name))]
    left = [(path, match) for path, match in named if is_abandoned(path)]
    for path, match in left:
        output = parent / match["name"]
        if match["end"] == "old" and not output.exists():
            path.rename(output)
        else:
            _remove(path)
    return len(left)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the failures of the file system at ``path`` into one plain line."""
    try:
        yield
    except OSError as bad:
        if bad.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(f"{path}: cannot be written: the disk is full; nothing was kept") from bad
        if bad.errno in REFUSED or (bad.errno == errno.ENOENT and str(bad.filename).startswith(f"{path.parent}/")):
            raise OutputError(f"{path}: cannot be written: {(bad.strerror or str(bad)).lower()}") from bad
        raise


@contextmanager
def saving_errors(output: Path) -> Iterator[None]:
    """As :func:`disk_errors`, where safetensors or torch writes: they say in their own words that the disk is full."""
    from safetensors import SafetensorError

    with disk_errors(output):
        try:
            yield
        except (RuntimeError, SafetensorError) as bad:
            if any(words in str(bad) for words in FULL_DISK):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from bad
            raise


def _put_in_place(new: Path, output: Path) -> None:
    """Rename ``new`` to ``output``; what stood there goes only when that has worked."""
    if not output.exists():
        new.rename(output)
        return
    old = new.with_suffix(".old")
    with marked_alive(output):
        output.rename(old)
        try:
            new.rename(output)
        except BaseException:
            old.rename(output)
            raise
        # Killed before this line, the process leaves the old folder beside the new one: the next writer removes it.
        _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


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


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
