"""Adapters that peft has saved (LoRA, DoRA): what such a folder holds, and how one is merged into its base model.

A folder of an adapter may stand wherever a model is asked. It is merged into the base model that it names when it is
first read, into the user's cache; a masked base keeps every zero.
"""

from __future__ import annotations

import hashlib
import logging
import re
import warnings
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelError, shown
from ..files.atomic import locked, new_folder
from ..files.environment import cache_folder
from ..files.jsonfile import digest_of, read_json
from ..files.records import record, write_record
from ..files.safetensors import file_entries

if TYPE_CHECKING:
    from types import ModuleType

    from torch import nn

    from ..scheme.layout import Layout
    from ..tensors.mask_holder import MaskHolder
    from .folder import BaseModel

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
"""What peft puts before the names of the model's own modules."""
OF_A_MODULE = re.compile(r"(.+)\.lora_(A|B|embedding_A|embedding_B|magnitude_vector)(?:\.\w+)*")
"""A tensor of an adapter that belongs to a module; all others are parameters that were saved whole."""

log = logging.getLogger(__name__)


def import_peft(what: str) -> ModuleType:
    """The package peft.

    Raises:
        ModelError: it is not installed; with what to install.
    """
    try:
        import peft
    except ImportError:
        raise ModelError(f"{what}: needs peft, which is not installed; pip install 'composer-pruning[peft]'") from None
    return peft


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no model."""
    return (folder / CONFIG).is_file() and not (folder / "config.json").exists()


class Adapter:
    """A folder that peft has saved.

    Raises:
        ModelError: there is none, or it is of another kind.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not folder.is_dir():
            raise ModelError(f"{folder}: no such folder; allowed: one that peft has saved")
        for name in (CONFIG, WEIGHTS):
            if not (folder / name).is_file():
                raise ModelError(f"{folder}: has no {name}; allowed: a folder that peft has saved (safetensors)")
        content = read_json(folder / CONFIG, ModelError)
        if not isinstance(content, dict) or content.get("peft_type") != "LORA":
            got = content.get("peft_type") if isinstance(content, dict) else content
            raise ModelError(f"{folder / CONFIG}: peft_type: got {got!r}; allowed: LORA (also DoRA)")
        self.config: dict[str, Any] = content

    @property
    def base_name(self) -> str:
        """The base model that it names: a folder, as written or beside the adapter, or an id of the hub.

        Raises:
            ModelError: it names none.
        """
        named = self.config.get("base_model_name_or_path")
        if not named or not isinstance(named, str):
            raise ModelError(f"{self._named} got {shown(named)}; allowed: the model that it was made for; {self._help}")
        if Path(named).resolve() == self.folder.resolve():
            raise ModelError(f"{self._named} got {named!r}, the adapter itself; {self._help}")
        return named if Path(named).exists() or not self.base_folder else str(self.base_folder)

    @property
    def base_folder(self) -> Path | None:
        """The folder of the base model that it names, where that lies here: as written, or beside the adapter."""
        named = str(self.config.get("base_model_name_or_path") or "")
        return next((one for one in (Path(named), self.folder / named) if (one / "config.json").is_file()), None)

    @cached_property
    def digest(self) -> str:
        """sha256 over its weights."""
        with (self.folder / WEIGHTS).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def merged_into(self, base: BaseModel) -> Path:
        """The folder of the merged model, in the user's cache; made where it is not there, or no longer of these files.

        Raises:
            ModelError: the adapter does not fit, or peft is not installed.
        """
        inputs = {"model": base.fingerprint, "adapter": self.digest, "config": self.config}
        folder = cache_folder("merged") / digest_of(inputs)[:24]
        with locked(folder.parent.parent):  # new_folder takes the lock of its own parent
            if not folder.is_dir():
                self._merge(base, folder, inputs)
        log.info("%s: an adapter of peft; merged into %s, in %s", self.folder, base.name, folder)
        return folder

    def _merge(self, base: BaseModel, folder: Path, inputs: Mapping[str, Any]) -> None:
        from ..tensors.mask_holder import MaskHolder

        import_peft(str(self.folder))
        self.check_shapes(base.layout, base.name)
        model = base.load()
        holder = MaskHolder.of_zeros(model, base.layout.targets)
        merged = self.merged(model, base.name)
        hold_again(merged, holder)
        with new_folder(folder) as temporary:
            base.save(merged.eval(), temporary)
            write_record(temporary, record(inputs, base=base.fingerprint))

    def base_lost(self, lost: ModelError) -> ModelError:
        """The error for a base model that cannot be read, from the reason."""
        return ModelError([f"{self._named} got {self.base_name!r}: {line}; {self._help}" for line in lost.problems])

    def check_shapes(self, layout: Layout, name: str) -> None:
        """Make sure that the matrices of targets fit those of the model called ``name``.

        Raises:
            ModelError: naming the first of them that do not.
        """
        shapes = {q.path: (q.rows, q.in_features) for t in layout.targets for q in t.projections}
        problems = []
        for entry in file_entries(self.folder / WEIGHTS):
            found = OF_A_MODULE.fullmatch(entry.name.removeprefix(PREFIX))
            if not found or found[1] not in shapes or found[2] not in "AB":
                continue  # embeddings and heads: peft itself says what does not fit
            rows, columns = shapes[found[1]]
            has, wanted = (entry.shape[1], columns) if found[2] == "A" else (entry.shape[0], rows)
            if has != wanted:
                problems.append(f"{self.folder}: {found[1]}: adapter of {has} features, {name} has {wanted}")
        if problems:
            raise ModelError([*problems[:3], f"{self.folder}: made for another base model, or before it was shrunk"])

    def merged(self, model: nn.Module, name: str) -> nn.Module:
        """``model`` (which is called ``name``, and is used up) with the adapter in it, its zeros filled.

        Raises:
            ModelError: the adapter does not fit, or peft is not installed.
        """
        peft = import_peft(str(self.folder))
        unknown = _unknown(model, (entry.name for entry in file_entries(self.folder / WEIGHTS)))
        if unknown:  # peft passes over them
            raise ModelError(
                f"{self.folder}: has weights for {unknown[0]!r} ({len(unknown)} unknown), which {name} has not; it was "
                "made for another base model, or for one with another head"
            )
        try:
            with warnings.catch_warnings():  # peft asks transformers by an older name
                warnings.simplefilter("ignore", FutureWarning)
                adapted = peft.PeftModel.from_pretrained(model, str(self.folder))
        except (RuntimeError, ValueError, KeyError, TypeError) as bad:
            raise ModelError(f"{self.folder}: does not fit {name}: {str(bad).splitlines()[0]}") from bad
        merged: nn.Module = adapted.merge_and_unload()
        return merged

    @property
    def _named(self) -> str:
        return f"{self.folder / CONFIG}: base_model_name_or_path:"

    @property
    def _help(self) -> str:
        return f"where the base model is another folder: compose merge {self.folder} --into MODEL"


def hold_again(model: nn.Module, holder: MaskHolder) -> int:
    """Set what an adapter has filled to 0 again; returns how many zeros it had left."""
    parameters = dict(model.named_parameters())
    holder.parameters = {name: parameters[name] for name in holder.masks}
    left = sum(int((p.detach()[~holder.masks[name].to(p.device)] == 0).sum()) for name, p in holder.parameters.items())
    holder.apply()
    return left


def _unknown(model: nn.Module, stored: Iterable[str]) -> list[str]:
    """What an adapter has weights for, and the model has not."""
    modules, own = {name for name, _ in model.named_modules()}, set(model.state_dict())
    lost: dict[str, None] = {}
    for key in stored:
        name = key.removeprefix(PREFIX)
        found = OF_A_MODULE.fullmatch(name)
        if found and found[1] not in modules:
            lost[found[1]] = None
        if not found and name.replace(".base_layer.", ".").replace(".modules_to_save.", ".") not in own:
            lost[name] = None
    return list(lost)
