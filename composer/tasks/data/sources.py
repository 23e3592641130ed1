"""Where splits come from: a folder, the Hugging Face hub or the embedded corpus, all seen as named tables."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from ...errors import DataError
from .formats import READERS, TEXT_READERS, Table, joined, read_parallel
from .options import DataOptions

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?(:[\w.-]+)?")


SHARD = re.compile(r"(?P<split>.+)-\d{5}-of-(?P<count>\d{5})")
"""A part of a split, as the hub and ``datasets`` write them."""


def _split_of(path: Path) -> str:
    """Name of the split that a file holds, or holds a part of."""
    shard = SHARD.fullmatch(path.stem)
    return shard["split"] if shard else path.stem


class Source(Protocol):
    """Splits under the names that the data itself gives them."""

    place: str

    def names(self) -> list[str]:
        """Names of the splits there are, sorted."""
        ...

    def read(self, name: str) -> Table:
        """The table of one split; ``DataError`` says what is wrong with it."""
        ...

    def expected(self, stem: str) -> str:
        """What was looked for to find the split ``stem``, for messages."""
        ...

    def listing(self) -> str:
        """What there is, for messages."""
        ...


class FolderSource:
    """Files of a folder: ``train.tsv`` and such; with ``languages`` also ``train.en`` beside ``train.de``; with
    ``texts`` also ``train.txt``."""

    def __init__(self, folder: Path, languages: tuple[str, str] | None, *, texts: bool = False) -> None:
        self.place = str(folder)
        self._languages = languages
        self._readers = {**TEXT_READERS, **READERS} if texts else READERS
        self._files = {path.name: path for path in sorted(folder.iterdir()) if path.is_file()}

    def names(self) -> list[str]:
        suffixes = set(self._readers) | {f".{language}" for language in self._languages or ()}
        return sorted({_split_of(path) for path in self._files.values() if path.suffix in suffixes})

    def expected(self, stem: str) -> str:
        tables = f"{stem}{{{','.join(self._readers)}}}"
        if not self._languages:
            return tables
        source, target = self._languages
        return f"{stem}.{source} with {stem}.{target}, {tables}"

    def listing(self) -> str:
        shown = list(self._files)[:12]
        rest = len(self._files) - len(shown)
        packed = any(name.endswith((".gz", ".zip", ".zst", ".bz2", ".xz")) for name in self._files)
        found = f"files there: {', '.join(shown) or 'none'}" + (f" and {rest} more" if rest else "")
        return f"{found}; unpack what is packed" if packed else found

    def read(self, name: str) -> Table:
        parallel = {language: f"{name}.{language}" for language in self._languages or ()}
        there = {language: self._files[file] for language, file in parallel.items() if file in self._files}
        if there and len(there) == len(parallel):
            return read_parallel(there)
        files = [path for path in self._files.values() if _split_of(path) == name]
        tables = [path for suffix in self._readers for path in files if path.suffix == suffix]
        if not tables:
            missing = " and ".join(file for language, file in parallel.items() if language not in there)
            present = ", ".join(path.name for path in there.values())
            raise DataError(f"{self.place}: {present} is there, {missing} is missing")
        if shards := [path for path in tables if SHARD.fullmatch(path.stem)]:
            tables = self._whole(name, tables, shards)
        elif len(tables) > 1:
            several = ", ".join(path.name for path in tables)
            raise DataError(f"{self.place}: several files hold the split {name!r}: {several}; keep one")
        read = [self._readers[path.suffix](path) for path in tables]
        if len(read) == 1:
            return read[0]
        span = f"{tables[0].name} to {tables[-1].name}"
        return joined(read, f"{self.place}: {span}", span)

    def _whole(self, name: str, tables: list[Path], shards: list[Path]) -> list[Path]:
        """The shards of a split in order: ``test-00000-of-00002.parquet`` and so on.

        Raises:
            DataError: one is missing, or there are files of the same split beside them.
        """
        count = int(SHARD.fullmatch(shards[0].stem)["count"])  # type: ignore[index]
        suffix = shards[0].suffix
        shard_names = [f"{name}-{i:05}-of-{count:05}{suffix}" for i in range(count)]
        if missing := [file for file in shard_names if file not in self._files]:
            raise DataError(
                f"{self.place}: the split {name!r} has {count} shards, and {', '.join(missing)} is missing; bring it"
            )
        if more := ", ".join(path.name for path in tables if path.name not in shard_names):
            raise DataError(f"{self.place}: several files hold the split {name!r}: its shards, {more}; keep one")
        return [self._files[file] for file in shard_names]


class HubSource:
    """A dataset of the Hugging Face hub (or its local cache), by ``name`` or ``name:configuration``."""

    def __init__(self, place: str) -> None:
        self.place = place
        name, _, configuration = place.partition(":")
        self._splits: Any = _load_from_hub(place, name, configuration or None)

    def names(self) -> list[str]:
        return sorted(self._splits)

    def expected(self, stem: str) -> str:
        return stem

    def listing(self) -> str:
        return f"splits there: {', '.join(self.names()) or 'none'}"

    def read(self, name: str) -> Table:
        split = self._splits[name]
        source = f"{self.place}[{name}]"
        if not len(split):
            raise DataError(f"{source}: no rows")
        labels = {column: kind.names for column, kind in split.features.items() if hasattr(kind, "names")}
        return Table(source, source, split.to_dict(), range(1, len(split) + 1), labels)


@lru_cache(maxsize=2)  # each split is loaded on its own; without the network every attempt takes half a minute
def _load_from_hub(place: str, name: str, configuration: str | None) -> Any:
    import datasets

    try:
        return datasets.load_dataset(name, configuration)
    except Exception as error:  # the library, the network and the cache raise many unrelated types
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"data: there is no folder {place!r}, and as a dataset of the Hugging Face hub it could not be "
            f"loaded: {reason}"
        ) from error


class DemoSource:
    """The embedded English-German corpus."""

    place = "demo"

    def names(self) -> list[str]:
        return ["test", "train", "valid"]

    def expected(self, stem: str) -> str:
        return stem

    def listing(self) -> str:
        return f"splits there: {', '.join(self.names()) or 'none'}"

    def read(self, name: str) -> Table:
        from ...demo import corpus

        pairs: list[tuple[str, str]] = corpus.pairs(name)  # type: ignore[arg-type, unused-ignore]
        columns: dict[str, list[Any]] = {"en": [en for en, _ in pairs], "de": [de for _, de in pairs]}
        return Table(f"demo[{name}]", f"demo[{name}]", columns, range(1, len(pairs) + 1))


def open_source(options: DataOptions, *, parallel: bool = False, texts: bool = False) -> Source:
    """Open what ``options.data`` names.

    ``parallel`` lets ``train.en`` with ``train.de`` count as a split, naming a source or target column asks
    for tables; ``texts`` lets ``train.txt`` count as one. Raises ``DataError``: no such folder or dataset, a file
    instead of a folder.
    """
    data = options.data
    if data == "demo":
        return DemoSource()
    folder = Path(data).expanduser()
    if folder.is_dir():
        wants_tables = options.source_column is not None or options.target_column is not None
        languages = (options.source_lang, options.target_lang) if parallel and not wants_tables else None
        source = FolderSource(folder, languages, texts=texts)
        inner = folder / "data"  # where repositories of the hub keep their tables
        return source if source.names() or not inner.is_dir() else FolderSource(inner, languages, texts=texts)
    if folder.exists():
        raise DataError(f"data: {data!r} is a file, expected is the folder that holds it")
    if not HUB_NAME.fullmatch(data) or (os.sep in data and folder.parent.is_dir()):
        raise DataError(f"data: there is no folder {data!r}")
    return HubSource(data)
