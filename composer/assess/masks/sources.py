"""What a pruned model or a library of pruned blocks lacks, piece by piece, as boolean matrices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ...errors import LibraryError, ModelError
from ...library.catalogue import Catalogue
from ...library.store import Library
from ...models.folder import BaseModel
from ...models.hub import names_a_repository
from ..measure.stored_weights import Weights, layers, numbered

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Matrix = NDArray[np.bool_]


@dataclass(frozen=True)
class Piece:
    """A target of a model, or a variant of a library.

    ``shapes`` are those of its matrices; pieces of two sources are compared where they are equal.
    """

    name: str
    kind: str
    layer: str
    part: str
    shapes: tuple[tuple[int, ...], ...]


class Source(Protocol):
    """Where masks come from."""

    name: str
    pieces: dict[str, Piece]
    """By what identifies them in every source of the same sort, in execution order."""

    def removed(self, key: str) -> list[Matrix]:
        """The matrices of a piece: True where a weight is removed."""


class ModelSource:
    """A model folder: what is exactly 0 in its targets."""

    def __init__(self, name: str, files: ExitStack) -> None:
        base = BaseModel(name)
        self.name, self.layout = name, base.layout
        self._weights = files.enter_context(Weights(base))
        places = layers(base.layout)
        self.pieces = {
            t.path: Piece(
                t.path, t.kind, *places[t.path], tuple((p.out_features, p.in_features) for p in t.projections)
            )
            for t in base.layout.targets
        }

    def removed(self, key: str) -> list[Matrix]:
        """True where a weight is exactly 0."""
        return [matrix == 0 for matrix in self._weights.of(self.layout.target(key))]


class LibrarySource:
    """A library: the masks of its pruned variants. The same node of two schemes is the same piece."""

    def __init__(self, name: str) -> None:
        self.name, self.library = name, Library(name)
        self._addresses: dict[str, str] = {}
        self.pieces: dict[str, Piece] = {}
        catalogue = Catalogue.open(Path(name), [Path(name)])
        for item in catalogue.items():
            head = self.library.header(item.address)
            shapes = {n: mask.shape for n, mask in head.tensors.items() if n.startswith("mask:")}
            if item.stage != "pruned" or not item.path:
                continue
            key = str(head.lineage["node"])
            if key in self.pieces:
                raise LibraryError(
                    f"{name}: holds {item.path} at {_rates(item.rates)} twice, from other criteria or samples; "
                    "needed: libraries of one criterion each"
                )
            matrices = tuple(shape for _, shape in sorted(shapes.items()) if len(shape) == 2)
            name_and_rates = f"{item.path} at {_rates(item.rates)}"
            self.pieces[key] = Piece(name_and_rates, "variant", numbered(item.path), "", matrices)
            self._addresses[key] = item.address
        if not self.pieces:
            raise LibraryError(f"{name}: no pruned blocks in it; `compose prune` makes them (modules/pruned)")

    def removed(self, key: str) -> list[Matrix]:
        """True where a mask does not keep a weight."""
        masks = self.library.get(self._addresses[key]).masks
        return [~masks[name].numpy() for name in sorted(masks) if masks[name].dim() == 2]


def open_sources(names: Sequence[str], files: ExitStack) -> list[Source]:
    """What is to be compared: model folders, or libraries.

    Raises:
        ModelError: fewer than two, models beside libraries, other targets or shapes.
        LibraryError: libraries that have no variant in common.
    """
    if len(names) < 2:
        raise ModelError(f"MODEL: got {len(names)}; needed: two or more pruned models to compare")
    missing = [name for name in names if not Path(name).is_dir() and not names_a_repository(name)]
    if missing:
        raise ModelError([f"{name}: no such model folder; needed: a pruned model, or a library" for name in missing])
    sorts = [_is_library(Path(name)) for name in names]
    if len(set(sorts)) > 1:
        model, library = names[sorts.index(False)], names[sorts.index(True)]
        raise ModelError(f"{model} is a model and {library} a library; needed: models only, or libraries only")
    if sorts[0]:
        return [LibrarySource(name) for name in names]
    return [ModelSource(name, files) for name in names]


def shared(sources: Sequence[Source]) -> list[str]:
    """The keys of the pieces that are compared.

    Raises:
        ModelError, LibraryError: see :func:`open_sources`.
    """
    first = sources[0]
    keys = [key for key in first.pieces if all(key in source.pieces for source in sources)]
    problems = list(_mismatches(sources, keys))
    if problems:
        raise ModelError(problems[:5])
    if not keys:
        raise LibraryError(f"{', '.join(s.name for s in sources)}: no variant in common; needed: one base and scheme")
    return keys


def _mismatches(sources: Sequence[Source], keys: Sequence[str]) -> Iterator[str]:
    first = sources[0]
    for other in sources[1:]:
        if isinstance(other, ModelSource):
            for mine, yours in ((first, other), (other, first)):
                odd = [key for key in mine.pieces if key not in yours.pieces]
                if odd:
                    more = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
                    yield f"{mine.name} has the target {odd[0]}{more}, {yours.name} has not; needed: the same targets"
                    return
        for key in keys:
            a, b = first.pieces[key], other.pieces[key]
            if a.shapes != b.shapes:
                yield f"{a.name}: its matrices are {_shapes(a)} in {first.name} and {_shapes(b)} in {other.name}"
                return


def _shapes(piece: Piece) -> str:
    return ", ".join(dict.fromkeys("x".join(map(str, shape)) for shape in piece.shapes))


def _rates(rates: Sequence[float]) -> str:
    return "/".join(f"{rate:.4g}" for rate in rates)


def _is_library(folder: Path) -> bool:
    """A folder without a model, with blocks in it."""
    return folder.is_dir() and not (folder / "config.json").exists() and any(folder.glob("*.safetensors"))
