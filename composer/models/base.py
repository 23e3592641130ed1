"""A model folder: its configuration, layout and fingerprint without torch, its modules with it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelError
from ..fingerprint import fingerprint, tensor_entries, weight_files
from ..jsonfile import read_json
from ..layout import Layout, Projection
from . import layout_of
from .adapter import ModelConfig
from .anything import model_class

if TYPE_CHECKING:
    from torch import nn

DEMO = "demo"
"""The name of the embedded model."""

AUTO_CLASSES = (
    ("ForConditionalGeneration", "AutoModelForSeq2SeqLM"),
    ("ForSequenceClassification", "AutoModelForSequenceClassification"),
    ("ForMaskedLM", "AutoModelForMaskedLM"),
    ("ForCausalLM", "AutoModelForCausalLM"),
    ("LMHeadModel", "AutoModelForCausalLM"),
    ("MTModel", "AutoModelForSeq2SeqLM"),
)
"""End of an architecture's name -> the class with which anyone loads such a folder (for model cards)."""


class BaseModel:
    """A Hugging Face folder that Composer reads.

    Raises:
        ModelError: no folder, no ``config.json``, an unknown family, weights that are not safetensors.
    """

    def __init__(self, folder: str | Path) -> None:
        self.name = str(folder)
        self.folder = demo_folder() if self.name == DEMO else Path(folder)
        if not self.folder.is_dir():
            what = "is a file; a model folder is needed" if self.folder.exists() else "no such model folder"
            hint = "" if self.folder.exists() else " (`compose download` brings one from the hub)"
            raise ModelError(f"{self.folder}: {what}{hint}")

    @cached_property
    def config(self) -> ModelConfig:
        """The parsed ``config.json``."""
        path = self.folder / "config.json"
        config = read_json(path, ModelError)
        if not isinstance(config, dict):
            raise ModelError(f"{path}: not a model configuration: an object is needed")
        return config

    @cached_property
    def layout(self) -> Layout:
        """Targets and blocks, from ``config.json`` alone."""
        return layout_of(self.config, str(self.folder / "config.json"))

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over the weights (see :func:`composer.fingerprint.fingerprint`)."""
        return fingerprint(self.folder)

    @cached_property
    def parameters(self) -> int:
        """Number of parameters on disk."""
        return sum(entry.size for entry in tensor_entries(self.folder))

    def load(self) -> nn.Module:
        """The model in float32 and evaluation mode, checked against the layout, without its cache."""
        import torch
        import transformers
        from safetensors import SafetensorError

        tensor_entries(self.folder)  # .bin alone and damaged files are refused before transformers sees them
        # Composed models are loaded often; the progress bar of each load would drown everything else.
        transformers.utils.logging.disable_progress_bar()
        try:
            model, info = model_class(self.config).from_pretrained(
                self.folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True
            )
        except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as bad:
            raise ModelError(f"{self.folder}: cannot be loaded: {str(bad).splitlines()[0]}") from bad
        _check_complete(info["missing_keys"], self.layout, self.name)
        for module in model.modules():  # T5's stacks have configurations of their own
            if hasattr(getattr(module, "config", None), "use_cache"):
                # A block is run again on captured arguments; a cache among them would grow.
                module.config.use_cache = False
        check_layout(model, self.layout, self.name)
        return model.eval()

    def save(self, model: nn.Module, folder: Path) -> None:
        """Write ``model`` as an ordinary Hugging Face folder, with this folder's tokenizer files."""
        config: Any = model.config
        kept = config.__dict__.pop("use_cache", None)  # the Trainer sets it also where the family has none
        if hasattr(type(config), "use_cache"):
            config.use_cache = self.config.get("use_cache", True)
        try:
            model.save_pretrained(folder, safe_serialization=True)  # type: ignore[operator]
        finally:
            if kept is not None:
                config.use_cache = kept
        weights = {path.name for path in weight_files(self.folder)}
        for path in sorted(self.folder.iterdir()):
            if path.is_file() and _is_tokenizer_file(path.name) and path.name not in weights:
                shutil.copyfile(path, folder / path.name)


def demo_folder() -> Path:
    """Where the embedded checkpoint is."""
    return Path(__file__).parent.parent / "demo" / "checkpoint"


def check_layout(model: nn.Module, layout: Layout, name: str) -> None:
    """Compare every projection of the layout with the real module.

    Raises:
        ModelError: a rule that matches no module, or one of another shape; never silently skipped.
    """
    modules = dict(model.named_modules())
    problems = [p for t in layout.targets for q in t.projections if (p := _mismatch(modules, q))]
    if problems:
        raise ModelError([f"{name}: {problem}" for problem in problems[:5]])


def _check_complete(missing: Iterable[str], layout: Layout, name: str) -> None:
    """Refuse a target that the checkpoint lacks: transformers would fill it with random numbers."""
    lost = set(missing) & {p.weight for t in layout.targets for p in t.projections}
    if lost:
        raise ModelError([f"{name}: the checkpoint has no weights for {weight!r}" for weight in sorted(lost)[:5]])


def _mismatch(modules: dict[str, nn.Module], projection: Projection) -> str | None:
    module = modules.get(projection.path)
    if module is None:
        return f"the model has no module {projection.path!r} that its family's table names"
    shape, wanted = tuple(module.get_parameter("weight").shape), projection.stored
    if shape != wanted:
        return f"{projection.path!r} has a weight of shape {shape}; its family's table says {wanted}"
    if (getattr(module, "bias", None) is not None) != projection.bias:
        has, says = ("no bias", "one") if projection.bias else ("a bias", "none")
        return f"{projection.path!r} has {has}; its family's table says {says}"
    return None


def _is_tokenizer_file(name: str) -> bool:
    exact = {"vocab.txt", "vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json"}
    return name in exact or name.startswith(("tokenizer", "chat_template")) or name.endswith((".model", ".spm"))
