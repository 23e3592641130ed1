"""What the steps of one run read: base model, task, data, scheme and device, each when first needed."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import LibraryError, ModelError, OutputError, RecipeError, SchemeError
from .files.jsonfile import digest_of
from .library.store import Library
from .models.folder import DEMO, BaseModel
from .recipe import Recipe
from .run_folder import RunFolder, located, stored_name
from .scheme.configurations import read_configurations
from .scheme.graph import Scheme
from .scheme.stored import load_scheme
from .tasks import open_task
from .tasks.task import Examples, Split, Task

if TYPE_CHECKING:
    from torch import nn

DEVICES = ("cpu", "cuda", "mps")


class RunInputs(RunFolder):
    """A recipe, the folder of its run, and what has been read for it."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe.folder)
        self.recipe = recipe
        self._assumed = False
        self._examples: dict[Split, Examples] = {}
        self._schemes: dict[Path, Scheme] = {}

    def close(self) -> None:
        """Let go of all that was read."""
        self._examples.clear()
        self._schemes.clear()
        for name in ("base", "task", "device"):  # where cached_property keeps them
            self.__dict__.pop(name, None)

    def result_file(self, model: BaseModel) -> Path:
        """``results/<name of the model>.json``; ``results/base.json`` for what was said to be the base model."""
        if model.folder == self.base.folder and not self._assumed:
            return self.result_named("base")
        return self.result_named(model.place.name)

    def check_output(self, output: Path, *inputs: Path) -> None:
        """Refuse to write a folder over something that this run reads.

        Args:
            inputs: further files and folders that it reads.

        Raises:
            OutputError: an input is this folder, or lies in it.
        """
        data = [Path(self.recipe.data).expanduser()] if self.recipe.data else []
        own = [self.base.folder, self.base.place, self.conf, self.conf_prune, self.pruned, self.finetuned]
        place = output.resolve()
        for path in [*own, *data, *inputs]:
            if path.exists() and (place == path.resolve() or place in path.resolve().parents):
                raise OutputError(f"-o/--output: {output}: this run reads {path}; name a folder that it does not read")

    def stored_name(self, folder: Path) -> str:
        """How the base model is named in a file in ``folder``; see :func:`composer.run_folder.stored_name`."""
        return stored_name(self.base.name, folder)

    @cached_property
    def base(self) -> BaseModel:
        """The base model: the one the recipe names, else the one ``conf.json`` names."""
        if self.recipe.model:
            return BaseModel(self.recipe.model, self._new_head)
        named = read_configurations(self.conf).model if self.conf.is_file() else None
        if not named:
            raise ModelError(f"-m/--model: nothing given, and {self.conf} names none")
        return BaseModel(located(named, self.folder), self._new_head)

    @property
    def _new_head(self) -> int | None:
        """The seed of the head that the base model lacks; None where it is said to have one."""
        return self.recipe.seed if self.recipe.new_head else None

    def model(self, name: str | Path) -> BaseModel:
        """The model of this name: the base model itself, where it is meant, with the head that it was given."""
        found = BaseModel(name)
        if not self.recipe.new_head:
            return found
        if not self.has_base and not self.conf.is_file():
            return BaseModel(name, self._new_head)
        return self.base if found.folder == self.base.folder else found

    @property
    def has_base(self) -> bool:
        """Whether the recipe, or a file that was read, has said which the base model is."""
        return bool(self.recipe.model) or "base" in self.__dict__

    def take_base(self, name: str, folder: Path) -> None:
        """Take the model that a file in ``folder`` names, where nothing has said yet which it is."""
        if not self.has_base:
            self.base = BaseModel(located(name, folder), self._new_head)

    def assume_base(self, base: BaseModel) -> None:
        """Take ``base`` for the base model where neither the recipe nor ``conf.json`` names one."""
        if not self.has_base and not self.conf.is_file():
            self.base, self._assumed = base, True

    @cached_property
    def task(self) -> Task:
        """The task, with the base model's tokenizer."""
        recipe = self.recipe
        if not recipe.data and self.base.name == DEMO:  # the embedded model knows one corpus
            recipe = recipe.model_copy(update={"data": DEMO})
        return open_task(recipe.data_options, self.base.folder, self.base.config, self.base.task)

    def examples(self, split: Split) -> Examples:
        """A split, read once; its digest also covers how it was tokenised."""
        if split not in self._examples:
            # The task's digest is of raw texts: lengths, prefixes and the tokenizer change what a model sees of them.
            loaded = self.task.load(split)
            digest = digest_of([loaded.digest, [list(map(str, f.values())) for f in loaded.features]])
            self._examples[split] = replace(loaded, digest=digest)
        return self._examples[split]

    def scheme(self, path: Path | None = None) -> Scheme:
        """The scheme, held to its digest and to the base model."""
        path = path or self.conf_prune
        if path not in self._schemes:
            if not path.exists():
                raise SchemeError(f"{path}: no such file; run `compose generate-scheme` first")
            scheme = load_scheme(path)
            self.take_base(scheme.model, path.parent)
            if scheme.fingerprint != self.base.fingerprint:
                raise SchemeError(
                    f"{path}: made for another model (weights {scheme.fingerprint[:12]}; {self.base.name} has "
                    f"{self.base.fingerprint[:12]}); run `compose generate-scheme` again"
                )
            self._schemes[path] = scheme
        return self._schemes[path]

    def forget_scheme(self, path: Path) -> None:
        """Read a scheme anew when it is next needed."""
        self._schemes.pop(path, None)

    @cached_property
    def device(self) -> str:
        """``auto`` resolved: cuda, then mps, then cpu; an unknown or missing device is a ``RecipeError``."""
        import torch

        wanted = self.recipe.device
        if wanted in ("auto", "cuda") and "LOCAL_RANK" in os.environ and torch.cuda.is_available():
            return f"cuda:{os.environ['LOCAL_RANK']}"  # a launcher gives each process a GPU
        if wanted == "auto":
            return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        try:
            device = torch.device(wanted)
            if device.type not in DEVICES:  # torch knows more kinds than it can compute on
                raise NotImplementedError(device.type)
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError, NotImplementedError):
            raise RecipeError(
                f"--device: {wanted!r} is not on this machine; allowed: auto, cpu, cuda[:n], mps"
            ) from None
        return wanted

    def fresh_model(self) -> nn.Module:
        """A newly loaded base model on the device. Nobody else has it: steps prune and train models in place."""
        return self.base.load().to(self.device)

    @property
    def lengths_like(self) -> Examples | None:
        """The split whose lengths the calibration sample has; None where they are those of the training split."""
        return self.examples("valid") if self.recipe.lengths_like == "valid" else None

    def addresses(self, library: Library, scheme: Scheme) -> dict[str, str]:
        """Node hash -> address that ``library`` recorded for this scheme."""
        manifest = library.manifest(scheme.digest)
        if manifest is None:
            raise LibraryError(
                f"{library.folder}: holds nothing for this scheme ({scheme.digest[:12]}); "
                "run `compose prune` and `compose finetune --level block` first"
            )
        return dict(manifest["addresses"])

    def resolved(self) -> dict[str, Any]:
        """The recipe as plain data, for the record beside each result."""
        return self.recipe.model_dump(mode="json", exclude={"folder"})
