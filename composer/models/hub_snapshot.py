"""What a hub repository offers, and bringing the part of it that Composer uses into a folder."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ..errors import ModelError, OutputError

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "*.model", "*.spm")
_EXTRAS = (
    "generation_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "chat_template*",
)

_PAPERS = ("README.md", "LICENSE*", "NOTICE*")
_PAPER_BYTES = 1_000_000
# With .safetensors: weights under another name than transformers', as those of other libraries.
_FOREIGN = (".bin", ".pt", ".pth", ".h5", ".msgpack", ".onnx", ".gguf", ".safetensors")


@dataclass(frozen=True)
class Snapshot:
    """One commit of a repository: the files in it and how to bring one of them into a folder."""

    title: str
    commit: str
    sizes: dict[str, int]
    fetch: Callable[[str, Path], object]


def offline() -> bool:
    value = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return value.upper() in {"1", "ON", "YES", "TRUE"}


def remote_snapshot(repo: str, revision: str | None, endpoint: str) -> Snapshot:
    from huggingface_hub import HfApi, hf_hub_download

    info = HfApi(endpoint=endpoint).model_info(repo, revision=revision, files_metadata=True, timeout=30)
    if not info.sha:
        raise ValueError("no commit in the answer")
    commit = info.sha
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}

    def fetch(name: str, folder: Path) -> object:
        return hf_hub_download(repo, name, revision=commit, local_dir=folder, endpoint=endpoint)

    return Snapshot(f"{repo} at {commit[:12]}", commit, sizes, fetch)


def cached_snapshot(repo: str, revision: str | None) -> Snapshot:
    from huggingface_hub import snapshot_download

    path = snapshot_download(repo, revision=revision, local_files_only=True, allow_patterns="config.json")
    source = Path(path)
    sizes = {file.name: file.stat().st_size for file in source.iterdir() if file.is_file()}

    def fetch(name: str, folder: Path) -> object:
        return shutil.copyfile(source / name, folder / name)

    return Snapshot(f"the cached copy of {repo} at {source.name[:12]}", source.name, sizes, fetch)


def in_cache(snapshot: Snapshot, repo: str, endpoint: str | None = None) -> Snapshot:
    """The same commit, whose files are brought into the client's cache: ``fetch`` gives back where one lies there.

    Args:
        endpoint: the hub's; None takes what is there already.
    """
    from huggingface_hub import hf_hub_download

    def fetch(name: str, _: Path) -> object:
        if endpoint is None:
            return hf_hub_download(repo, name, revision=snapshot.commit, local_files_only=True)
        if name == "config.json":  # by the name of the branch: the cache then knows which commit it was at
            hf_hub_download(repo, name, endpoint=endpoint)
        return hf_hub_download(repo, name, revision=snapshot.commit, endpoint=endpoint)

    return replace(snapshot, fetch=fetch)


# Which files are wanted, and whether they will do


def _matching(names: Iterable[str], patterns: tuple[str, ...]) -> list[str]:
    # A "*" of fnmatch crosses "/", and nothing in a sub-folder is wanted.
    return [name for name in names if "/" not in name and any(fnmatchcase(name, p) for p in patterns)]


def select(snapshot: Snapshot, repo: str, endpoint: str) -> list[str]:
    """Return the small files to fetch, or raise with all that the repository lacks."""
    sizes, problems = snapshot.sizes, []
    if not {_WEIGHTS, _INDEX} & sizes.keys():
        problems.append(_no_weights(snapshot, repo, endpoint))
    if "config.json" not in sizes:
        problems.append(f"{snapshot.title} has no config.json: Composer needs a transformers model")
    if not _matching(sizes, _TOKENIZER):
        problems.append(f"{snapshot.title} has no tokenizer files: wanted is one of {', '.join(_TOKENIZER)}")
    if problems:
        raise ModelError(problems)
    index = () if _WEIGHTS in sizes else (_INDEX,)
    papers = [name for name in _matching(sizes, _PAPERS) if sizes[name] <= _PAPER_BYTES]
    return _matching(sizes, ("config.json", *index, *_TOKENIZER, *_EXTRAS)) + papers


def _no_weights(snapshot: Snapshot, repo: str, endpoint: str) -> str:
    foreign = sorted(name for name in snapshot.sizes if name.endswith(_FOREIGN) and "/" not in name)
    got = f"only {', '.join(foreign[:4])}" if foreign else "no weights"
    advice = _converted(repo, endpoint) or (
        "convert it with https://huggingface.co/spaces/safetensors/convert or transformers' save_pretrained"
    )
    return f"{snapshot.title} has {got}: Composer reads safetensors only ({_WEIGHTS} or {_INDEX}); {advice}"


def _converted(repo: str, endpoint: str) -> str:
    """Return where the hub's own conversion bot offers the weights as safetensors, or nothing."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError

    if offline():
        return ""
    try:
        offers = HfApi(endpoint=endpoint).get_repo_discussions(
            repo, author="SFconvertbot", discussion_type="pull_request", discussion_status="open"
        )
        return next((f"the hub's bot has converted it: --revision {o.git_reference}" for o in offers), "")
    # Only advice: the message that asks for it stands without.
    except (HTTPError, OSError, ValueError, KeyError):
        return ""


def fill(snapshot: Snapshot, small: list[str], folder: Path) -> dict[str, int]:
    """Fetch the small files, check them, then the weights; return the size of each."""
    for name in small:
        snapshot.fetch(name, folder)
    config = _read_json(snapshot, folder / "config.json")
    if not isinstance(config.get("model_type"), str):
        raise ModelError(f"{snapshot.title}: config.json has no model_type; wanted is a transformers model")
    weights = _shards(snapshot, folder / _INDEX) if _INDEX in small else [_WEIGHTS]
    needed, free = sum(snapshot.sizes[name] for name in weights), shutil.disk_usage(folder).free
    if needed > free:
        raise OutputError(f"{snapshot.title} needs {needed:,} bytes, free on the disk are {free:,}")
    for name in weights:
        snapshot.fetch(name, folder)
        _check_weights(snapshot, folder / name)
    return {name: (folder / name).stat().st_size for name in (*small, *weights)}


def _read_json(snapshot: Snapshot, path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{snapshot.title}: {path.name} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise ModelError(f"{snapshot.title}: {path.name} is a {type(content).__name__}, not an object")
    return content


def _shards(snapshot: Snapshot, index: Path) -> list[str]:
    """Return the shards that the index names; each must be a file of the repository's top folder."""
    table = _read_json(snapshot, index).get("weight_map")
    names = sorted({str(name) for name in table.values()}) if isinstance(table, dict) else []
    missing = sorted(set(names) - set(_matching(snapshot.sizes, ("*.safetensors",))))
    if missing or not names:
        what = ", ".join(missing[:4]) + ", which the repository lacks" if missing else "no shards"
        raise ModelError(f"{snapshot.title}: {index.name} names {what}")
    return names


def _check_weights(snapshot: Snapshot, path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):
            pass
    except SafetensorError as error:
        raise ModelError(f"{snapshot.title}: {path.name} is no whole safetensors file: {error}") from None


# What the client says, in plain lines
