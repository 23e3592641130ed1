"""A model folder: its configuration, layout and fingerprint without torch, its modules with it."""

from __future__ import annotations

import os
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelError, OutputError, shown
from ..files.jsonfile import read_json
from ..files.safetensors import fingerprint, tensor_entries, weight_files
from ..scheme.layout import Layout, Projection
from .adapters import Adapter, is_adapter
from .exports import Export, export_fingerprint, export_of, program_bytes
from .families import family_of
from .family import Family, ModelConfig, Storage
from .hub import cached_model, id_in_cache, names_a_repository
from .layouts import layout_of, with_shapes
from .no_targets import no_targets
from .refusals import check_has_config, check_is_dense
from .storage import HuggingFace

if TYPE_CHECKING:
    from torch import nn

DEMO = "demo"
"""The name of the embedded model."""


class BaseModel:
    """A model folder that Composer reads: a Hugging Face folder, or what a family's own storage reads.

    Where there is no such folder, ``owner/name`` is a model of the hub: it is read from the client's cache, and brought
    there when it is first named. A folder that holds an adapter of peft is the model that comes of merging it.

    Args:
        new_head: makes the head that the checkpoint lacks, the same at every load; None refuses such a checkpoint.

    Raises:
        ModelError: no folder, no ``config.json``, an unknown family, weights that are not safetensors.
    """

    def __init__(self, folder: str | Path, new_head: int | None = None) -> None:
        self.name = str(Path(folder).expanduser())
        self.new_head = new_head
        self.adapter = Adapter(Path(self.name)) if is_adapter(Path(self.name)) else None
        self.folder = self._found()
        if not self.folder.is_dir():
            what = "is a file; a model folder is needed" if self.folder.exists() else "no such model folder"
            hint = "" if self.folder.exists() else " (`compose download` brings one from the hub)"
            raise ModelError(f"{self.folder}: {what}{hint}")

    def _found(self) -> Path:
        """Where its files are."""
        if self.name == DEMO:
            return demo_folder()
        if not self.adapter:
            return folder_of(self.name)
        try:
            base = BaseModel(self.adapter.base_name)
            _ = base.layout
        except ModelError as lost:
            raise self.adapter.base_lost(lost) from None
        return self.adapter.merged_into(base)

    @cached_property
    def hub_id(self) -> str | None:
        """The id of a model that lies in the hub client's cache, however it was named; None of any other."""
        return id_in_cache(Path(os.path.abspath(self.folder)))

    @property
    def title(self) -> str:
        """What it is called in texts: its id on the hub, or the name of its folder."""
        return DEMO if self.name == DEMO else self.hub_id or self._own.resolve().name

    @property
    def _own(self) -> Path:
        """The folder that was named; of an adapter its own, not the merged model's."""
        return self.adapter.folder if self.adapter else self.folder

    @property
    def place(self) -> Path:
        """Where it is for whoever names it, absolute: its folder; of a model of the hub its id, as if it were here."""
        return Path(os.path.abspath(self.hub_id or (DEMO if self.name == DEMO else self._own)))

    def beside(self, suffix: str) -> Path:
        """Where a folder that is made of it goes: beside it; never beside what the hub's client or Composer holds."""
        ours = self.hub_id or self.name == DEMO
        return Path(self.place.name + suffix) if ours else self.place.with_name(self.place.name + suffix)

    def made_into(self, output: str | Path | None, suffix: str) -> Path:
        """``output``, or else the folder :meth:`beside` it with this suffix.

        Raises:
            OutputError: the model is read from there, or from below it.
        """
        folder, own = Path(output).expanduser() if output else self.beside(suffix), self.folder.resolve()
        if folder.resolve() in (own, *own.parents):
            raise OutputError(f"-o/--output: {folder}: the model is read from there; name another folder")
        return folder

    @cached_property
    def config(self) -> ModelConfig:
        """The parsed ``config.json``."""
        path = self.folder / "config.json"
        check_has_config(self.folder)
        config = read_json(path, ModelError)
        if not isinstance(config, dict):
            raise ModelError(f"{path}: not a model configuration: an object is needed")
        named = config.get("architectures")
        if named is not None and not (isinstance(named, list) and all(isinstance(name, str) for name in named)):
            raise ModelError(f"{path}: architectures: got {shown(named)}; allowed: a list of one name")
        check_is_dense(config, str(path))
        return with_shapes(config, str(path))

    @cached_property
    def family(self) -> Family | None:
        """The family that serves it; None where no table does."""
        return family_of(self.config, str(self.folder / "config.json"))

    @cached_property
    def export(self) -> Export | None:
        """What is said of it where `compose export` wrote it; None for a model that can be pruned."""
        return export_of(self.folder)

    @cached_property
    def layout(self) -> Layout:
        """Targets and blocks, from ``config.json`` alone.

        Raises:
            ModelError: an export has none.
        """
        if self.export:
            raise ModelError(f"{self.name}: {self.export.can}; for this name the model that it was made from")
        return layout_of(self.config, str(self.folder / "config.json"))

    @cached_property
    def storage(self) -> Storage:
        """How it is read and written."""
        own = self.family and self.family.storage
        if own and self.new_head is not None:
            raise ModelError(f"--new-head: {self.name}: only for folders of transformers; leave it out")
        return own or HuggingFace(self.new_head)

    @property
    def task(self) -> str | None:
        """Name of its task, where its family has one of its own."""
        return self.family.task if self.family else None

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over the weights (see :func:`composer.files.safetensors.fingerprint`), and over a new head's seed."""
        if self.export:
            return export_fingerprint(self.folder)
        check_has_config(self.folder)
        stored = fingerprint(self.folder)
        return stored if self.new_head is None else sha256(f"{stored}\0new head {self.new_head}".encode()).hexdigest()

    @property
    def bytes(self) -> int:
        """Bytes of its weights on disk; of an export, of its programs."""
        return program_bytes(self.folder) if self.export else sum(f.stat().st_size for f in weight_files(self.folder))

    @cached_property
    def parameters(self) -> int:
        """Number of parameters on disk."""
        return sum(entry.size for entry in tensor_entries(self.folder))

    @cached_property
    def no_targets(self) -> dict[str, Any] | None:
        """How many of its weights are no targets, and why (:mod:`composer.models.no_targets`); None of an export."""
        return None if self.export else no_targets(((e.name, e) for e in tensor_entries(self.folder)), self.layout)

    def load(self, *, cache: bool = False) -> nn.Module:
        """The model in float32 and evaluation mode, checked against the layout.

        Args:
            cache: generate with the cache, where it is saved so; blocks are tuned without one.
        """
        if self.export:
            from .runtimes import load_export

            return load_export(self.folder, self.export)
        check_has_config(self.folder)
        tensor_entries(self.folder)  # .bin alone and damaged files are refused before anybody else sees them
        storage = self.storage
        load = storage.load_with_cache if cache and isinstance(storage, HuggingFace) else storage.load
        model = load(self.folder, self.config, self.layout)
        check_layout(model, self.layout, self.name)
        check_finite(model, self.name)
        return model.eval()

    def save(self, model: nn.Module, folder: Path) -> None:
        """Write ``model`` as a folder of the same kind as this one, with what stands beside the weights here."""
        self.storage.save(model, folder, self.folder, self.config)


def folder_of(name: str) -> Path:
    """The folder that a model's name means: itself, or where the hub's client keeps the model of this id."""
    if Path(name).exists() or not names_a_repository(name):
        return Path(name)
    try:
        return cached_model(name)
    except ModelError as lost:
        what = f"{name}: no such model folder, and no model of the hub"
        raise ModelError([f"{what}: {line}" for line in lost.problems]) from None


def demo_folder() -> Path:
    """Where the embedded checkpoint is."""
    return Path(__file__).parent.parent / "demo" / "checkpoint"


def check_finite(model: nn.Module, name: str) -> None:
    """Refuse weights that are no numbers: every sum that they are in would be none either.

    Raises:
        ModelError: naming the first of them.
    """
    from ..tensors.finite import first_not_finite

    if lost := first_not_finite(dict(model.named_parameters())):
        raise ModelError(f"{name}: weight {lost!r} is not finite (it holds NaN or infinity); save the model again")


def check_layout(model: nn.Module, layout: Layout, name: str) -> None:
    """Compare every projection of the layout with the real module.

    Raises:
        ModelError: a rule that matches no module, or one of another shape; never silently skipped.
    """
    modules, parameters = set(dict(model.named_modules())), dict(model.named_parameters(remove_duplicate=False))
    shapes = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    problems = [p for t in layout.targets for q in t.projections if (p := _mismatch(modules, shapes, q))]
    if problems:
        raise ModelError([f"{name}: {problem}" for problem in problems[:5]])


def _mismatch(modules: set[str], shapes: dict[str, tuple[int, ...]], projection: Projection) -> str | None:
    if projection.path not in modules:
        return f"the model has no module {projection.path!r} that its family's table names"
    shape, stored = shapes.get(projection.weight), projection.stored
    if shape != stored:
        return f"{projection.path!r} has a weight of shape {shape}; its family's table says {stored}"
    bias = projection.held[1] if projection.held else f"{projection.path}.bias"
    if (bias in shapes) != projection.bias:
        has, says = ("no bias", "one") if projection.bias else ("a bias", "none")
        return f"{projection.path!r} has {has}; its family's table says {says}"
    return None
