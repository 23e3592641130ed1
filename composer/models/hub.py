"""Download a base model: one ordinary Hugging Face folder, safetensors only, whole or not at all.

The hub client does the transfer, so ``HF_ENDPOINT``, ``HF_TOKEN`` and ``HF_HUB_OFFLINE`` mean what they mean
everywhere; they are read when `download` is called. Small files come first: a model that Composer cannot use
is refused before its weights are fetched. Everything lands in a hidden sibling folder that is renamed at the
end, and ``composer.json`` in it says which repository and commit it holds.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import InputError, ModelError, OutputError, did_you_mean
from ..files.atomic import new_folder
from ..files.records import RECORD
from .hub_snapshot import Snapshot, cached_snapshot, fill, in_cache, offline, remote_snapshot, select

ALIASES = {"t5": "google-t5/t5-small", "distilbert": "lvwerra/distilbert-imdb"}
"""Short names of the base models that the examples use."""

_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)


@dataclass(frozen=True)
class DownloadResult:
    """What `download` left in ``folder``; ``fetched`` is false where it was there already."""

    repo: str
    commit: str
    folder: Path
    files: tuple[str, ...]
    bytes: int
    fetched: bool


def download(
    model: str, output: Path, *, revision: str | None = None, force: bool = False, quiet: bool = False
) -> DownloadResult:
    """Bring ``model``, an alias or a hub id ``owner/name``, into the folder ``output``.

    ``revision`` is a branch, a tag or a commit (default: ``main``). A second call with the same model and
    commit changes nothing; ``force`` replaces whatever ``output`` holds. With ``HF_HUB_OFFLINE`` set, the
    files are taken from the hub client's own cache. Progress bars are shown on a terminal unless ``quiet``.

    Raises `ModelError` where the model cannot be had or is none that Composer reads (safetensors, a
    ``config.json`` with a ``model_type``, a tokenizer), and `OutputError` where ``output`` holds something
    else or cannot be written. ``output`` is then as it was before.
    """
    repo, endpoint = repo_id(model), _endpoint()
    folder = Path(output).expanduser().resolve()
    earlier = _earlier_download(folder, output, repo, force)
    if earlier is not None and _is_asked_for(earlier, revision):
        return _result(repo, earlier["commit"], output, earlier["files"], fetched=False)
    with _plain_errors(repo, revision, endpoint, output):
        snapshot = cached_snapshot(repo, revision) if offline() else remote_snapshot(repo, revision, endpoint)
    if earlier is not None:
        if earlier["commit"] != snapshot.commit:
            raise OutputError(
                f"{output} holds {repo} at {earlier['commit'][:12]}, asked for was {revision or 'main'}, "
                f"which is {snapshot.commit[:12]}: --force replaces it"
            )
        return _result(repo, snapshot.commit, output, earlier["files"], fetched=False)
    small = select(snapshot, repo, endpoint)
    with _staged(folder) as staging, _plain_errors(repo, revision, endpoint, output), _bars(quiet):
        files = fill(snapshot, small, staging)
        record = {"repo": repo, "revision": revision or "main", "commit": snapshot.commit, "files": files}
        (staging / RECORD).write_text(json.dumps({"hub": record}, indent=2) + "\n", encoding="utf-8")
    return _result(repo, snapshot.commit, output, files, fetched=True)


def names_a_repository(name: str) -> bool:
    """Whether a model's name that is no folder can be meant as a hub id: ``owner/name``.

    What stands in a folder that is there (``models/bse``) is a path that was misspelt, and the hub is not asked.
    """
    return _is_id(name) and not Path(name).parent.exists()


def _is_id(name: str) -> bool:
    bad = "--" in name or ".." in name or name.endswith((".git", "-", ".")) or len(name) > 96
    return not bad and bool(_ID.fullmatch(name))


def id_in_cache(folder: Path) -> str | None:
    """The id of the model that a folder of the client's cache holds; None of a folder elsewhere.

    >>> id_in_cache(Path("hub/models--google-t5--t5-small/snapshots/0a1b2c"))
    'google-t5/t5-small'
    """
    repo = folder.parent.parent.name
    inside = folder.parent.name == "snapshots" and repo.startswith("models--")
    return repo.removeprefix("models--").replace("--", "/") if inside else None


def cached_model(repo: str) -> Path:
    """The folder of a hub model in the client's own cache, filled where something is missing; ``main`` is taken.

    Without a connection, or with ``HF_HUB_OFFLINE`` set, what the cache holds is used as it is.

    Raises:
        ModelError: it cannot be had, or is none that Composer reads.
    """
    from huggingface_hub import constants

    return _cached_model(repo_id(repo), _endpoint(), constants.HF_HUB_CACHE, offline())


@lru_cache(maxsize=64)  # a command asks the hub once for each model, however often it is opened
def _cached_model(repo: str, endpoint: str, _cache: str, _offline: bool) -> Path:
    with _plain_errors(repo, None, endpoint, Path(repo)):
        snapshot = _newest(repo, endpoint)
        small = select(snapshot, repo, endpoint)
        folder = Path(str(snapshot.fetch("config.json", Path()))).parent
        fill(snapshot, small, folder)
    return folder


def _newest(repo: str, endpoint: str) -> Snapshot:
    """The hub's newest commit; where it cannot be reached, the cached one, if there is one."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalEntryNotFoundError

    if offline():
        return in_cache(cached_snapshot(repo, None), repo)
    try:
        return in_cache(remote_snapshot(repo, None, endpoint), repo, endpoint)
    except HfHubHTTPError:
        raise  # it answered, and said no
    except (HTTPError, OSError) as unreachable:
        try:
            return in_cache(cached_snapshot(repo, None), repo)
        except LocalEntryNotFoundError:
            raise unreachable from None


def repo_id(model: str) -> str:
    """Return the hub id that ``model`` names, an alias or an id already.

    >>> repo_id("t5")
    'google-t5/t5-small'
    >>> repo_id("distilbrt")
    Traceback (most recent call last):
    ...
    composer.errors.ModelError: unknown model 'distilbrt': allowed are t5, distilbert or a hub id \
such as 'google-t5/t5-small'; did you mean 'distilbert'?
    """
    repo = ALIASES.get(model, model)
    if not _is_id(repo):
        raise ModelError(
            f"unknown model {model!r}: allowed are {', '.join(ALIASES)} or a hub id such as "
            f"'google-t5/t5-small'{did_you_mean(model, [*ALIASES, *ALIASES.values()])}"
        )
    return repo


def _endpoint() -> str:
    """Return the hub's address, read at each call; the client itself reads it once, when imported."""
    endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"
    if not endpoint.startswith(("http://", "https://")):
        raise ModelError(f"HF_ENDPOINT is {endpoint!r}: it must begin with http:// or https://")
    return endpoint


def _result(repo: str, commit: str, output: Path, files: dict[str, int], *, fetched: bool) -> DownloadResult:
    return DownloadResult(repo, commit, Path(output), tuple(sorted(files)), sum(files.values()), fetched)


# The output folder


def _earlier_download(folder: Path, output: Path, repo: str, force: bool) -> dict[str, Any] | None:
    """Return the record of an intact download of ``repo``, or None where ``folder`` may be written."""
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{output} is a file: a model needs a folder")
    if any(inside.is_relative_to(folder) for inside in (Path.cwd(), Path.home())):
        raise OutputError(f"{output} is, or contains, the current or the home folder: name another")
    if force or not folder.exists() or not any(folder.iterdir()):
        return None
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))["hub"]
        there, commit, files = str(record["repo"]), str(record["commit"]), dict(record["files"])
    except (OSError, ValueError, KeyError, TypeError):
        count = sum(1 for _ in folder.iterdir())
        raise OutputError(
            f"{output} exists and is no download of Composer's ({count} entries): --force replaces it"
        ) from None
    if there != repo:
        raise OutputError(f"{output} holds {there} at {commit[:12]}, not {repo}: --force replaces it")
    for name, size in files.items():
        path = folder / name
        got = path.stat().st_size if path.is_file() else None
        if got != size:
            state = "is missing" if got is None else f"has {got} bytes instead of {size}"
            raise OutputError(f"{output}: {name} {state}: --force downloads it again")
    return {"repo": repo, "commit": commit, "revision": record.get("revision"), "files": files}


def _is_asked_for(earlier: dict[str, Any], revision: str | None) -> bool:
    """Whether the ``earlier`` download is what is asked for, as far as can be told without asking the hub."""
    return revision == earlier["commit"] or (offline() and revision in (None, earlier["revision"]))


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """A new folder that takes the place of ``folder`` when all went well."""
    with new_folder(folder) as staging:
        yield staging
        # The client keeps its notes on each file there; an ordinary model folder has none.
        shutil.rmtree(staging / ".cache", ignore_errors=True)


# Where the files come from


@contextmanager
def _bars(quiet: bool) -> Iterator[None]:
    """Switch the client's progress bars off while ``quiet``; without a terminal it shows none by itself."""
    from huggingface_hub import utils

    switch = quiet and not utils.are_progress_bars_disabled()
    if switch:
        utils.disable_progress_bars()
    try:
        yield
    finally:
        if switch:
            utils.enable_progress_bars()


@contextmanager
def _plain_errors(repo: str, revision: str | None, endpoint: str, output: Path) -> Iterator[None]:
    from huggingface_hub.errors import HTTPError

    try:
        yield
    except InputError:
        raise
    # hf-xet, which moves the large files of the public hub, reports its failures as RuntimeError.
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        raise _explain(error, repo, revision or "main", endpoint, output) from error


def _explain(error: Exception, repo: str, revision: str, endpoint: str, output: Path) -> InputError:
    from huggingface_hub import errors, get_token

    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    token = "no HF_TOKEN is set" if get_token() is None else "the token given may not read it"
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else 0
    if status == 401 and not isinstance(error, errors.RepositoryNotFoundError):
        return ModelError(f"{endpoint} does not accept the token given (asked for {repo}): look at HF_TOKEN")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(f"the disk is full: {output} was not written")
    if isinstance(error, OSError) and error.errno is not None:
        return OutputError(f"{output} cannot be written: {error.strerror}")
    # The first kind that fits counts: these classes are each other's children.
    lines: list[tuple[type[Exception], str]] = [
        (errors.GatedRepoError, f"{repo} is gated and {token}: ask for access at {endpoint}/{repo}"),
        (
            errors.RepositoryNotFoundError,
            f"no model {repo} at {endpoint}: it does not exist, or it is private and {token}",
        ),
        (
            errors.RevisionNotFoundError,
            f"{repo} has no revision {revision!r}: allowed is a branch, a tag or a commit",
        ),
        (errors.HfHubHTTPError, f"{endpoint} answered {status} when asked for {repo} at {revision!r}"),
        (
            errors.LocalEntryNotFoundError,
            f"HF_HUB_OFFLINE is set and {repo} at {revision!r} is not in the local cache",
        ),
        (errors.OfflineModeIsEnabled, f"HF_HUB_OFFLINE was set when the client started; asked for {repo}"),
        (errors.HTTPError, f"the connection to {endpoint} failed when asked for {repo}: {first}"),
        (errors.FileMetadataError, f"{endpoint} is no model hub (asked for {repo}): {first}"),
        (ValueError, f"{endpoint} is no model hub (asked for {repo}): {first}"),
    ]
    broken = f"the download of {repo} from {endpoint} broke off: {first}"
    return ModelError(next((line for kind, line in lines if isinstance(error, kind)), broken))
