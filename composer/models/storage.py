"""Ordinary Hugging Face folders: what transformers saves and loads, with the tokenizer beside it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelError
from ..files.safetensors import weight_files
from ..scheme.layout import Layout
from .any_linear import model_class
from .family import ModelConfig
from .shapes import needs_code

if TYPE_CHECKING:
    from torch import nn

AUTO_CLASSES = (
    ("ForConditionalGeneration", "AutoModelForSeq2SeqLM"),
    ("ForQuestionAnswering", "AutoModelForQuestionAnswering"),
    ("ForTokenClassification", "AutoModelForTokenClassification"),
    ("ForMultipleChoice", "AutoModelForMultipleChoice"),
    ("EncoderModel", "AutoModelForTextEncoding"),
    ("ForSequenceClassification", "AutoModelForSequenceClassification"),
    ("ForMaskedLM", "AutoModelForMaskedLM"),
    ("ForCausalLM", "AutoModelForCausalLM"),
    ("LMHeadModel", "AutoModelForCausalLM"),
    ("MTModel", "AutoModelForSeq2SeqLM"),
)
"""End of an architecture's name -> the class with which anyone loads such a folder."""

CODE = Path(__file__).with_name("modeling_shrunk.py")
"""The code that loads shapes of their own."""


class HuggingFace:
    """See :class:`composer.models.family.Storage`.

    Args:
        new_head: the seed of a head that the checkpoint lacks; None refuses such a checkpoint.
    """

    library = "transformers"

    def __init__(self, new_head: int | None = None) -> None:
        self.new_head = new_head

    def load(self, folder: Path, config: ModelConfig, layout: Layout) -> nn.Module:
        """The model in float32, without its cache; see :class:`composer.models.family.Storage`."""
        loaded = self.load_with_cache(folder, config, layout)
        for module in loaded.modules():  # T5's stacks have configurations of their own
            own: Any = getattr(module, "config", None)
            if hasattr(own, "use_cache"):
                # A block is run again on captured arguments; a cache among them would grow.
                own.use_cache = False
        return loaded

    def load_with_cache(self, folder: Path, config: ModelConfig, layout: Layout) -> nn.Module:
        """The model in float32, as it generates."""
        import torch
        import transformers
        from safetensors import SafetensorError

        # Composed models are loaded often; the progress bar of each load would drown everything else.
        transformers.utils.logging.disable_progress_bar()
        given = {"config": _parsed(config)} if needs_code(config) else {}
        try:
            with _random_head(self.new_head), _unreported():
                model, info = model_class(config).from_pretrained(
                    folder,
                    dtype=torch.float32,
                    use_safetensors=True,
                    output_loading_info=True,
                    trust_remote_code=False,
                    ignore_mismatched_sizes=True,  # they are refused below, by name
                    **given,
                )
        except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as bad:
            raise ModelError(f"{folder}: cannot be loaded: {str(bad).splitlines()[0]}") from bad
        loaded: nn.Module = model
        if wrong := sorted(info["mismatched_keys"]):
            name, stored, stated = wrong[0][:3]
            raise ModelError(
                f"{folder}: config.json and the weights do not belong together: {name!r} is {tuple(stored)} in the "
                f"checkpoint, and {tuple(stated)} by config.json ({len(wrong)} differ); correct config.json"
            )
        _check_complete(info["missing_keys"], layout, folder, loaded, self.new_head is not None)
        return loaded

    def save(self, model: nn.Module, folder: Path, source: Path, config: ModelConfig) -> None:
        """Write model and tokenizer files, weights in the dtype that ``source`` stores them in.

        See :class:`composer.models.family.Storage`.
        """
        from .stored_dtype import keep_dtype

        own: Any = model.config
        kept = own.__dict__.pop("use_cache", None)  # the Trainer sets it also where the family has none
        if hasattr(type(own), "use_cache"):
            own.use_cache = config.get("use_cache", True)
        coded = needs_code(config) or needs_code(vars(own))  # a model may have been simplified since it was loaded
        if coded:
            own.auto_map = auto_map({**config, "architectures": [type(model).__name__]})
        try:
            model.save_pretrained(folder, safe_serialization=True)  # type: ignore[operator]
        finally:
            if kept is not None:
                own.use_cache = kept
        keep_dtype(folder, source)
        weights = {path.name for path in weight_files(source)}
        for path in sorted(source.iterdir()):
            if path.is_file() and _is_tokenizer_file(path.name) and path.name not in weights:
                shutil.copyfile(path, folder / path.name)
        if coded:
            write_code(folder)

    def example(self, config: ModelConfig) -> str:
        """With the Auto class of the architecture."""
        auto = auto_class(config) or (config.get("architectures") or ["AutoModel"])[0]
        more = ", trust_remote_code=True" if needs_code(config) else ""
        return f'transformers.{auto}.from_pretrained("<this folder>"{more})'


def auto_class(config: ModelConfig) -> str | None:
    """The Auto class that loads this architecture; None where none is known to."""
    architecture = (config.get("architectures") or [""])[0]
    return next((auto for suffix, auto in AUTO_CLASSES if architecture.endswith(suffix)), None)


def auto_map(config: ModelConfig) -> dict[str, str]:
    """What ``config.json`` says to transformers: which classes of :data:`CODE` load a model with shapes of its own."""
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    architecture, body = config["architectures"][0], MODEL_MAPPING_NAMES.get(config["model_type"])
    classes = {"AutoModel": body if isinstance(body, str) else architecture}
    if auto := auto_class(config):
        classes[auto] = architecture
    return {auto: f"{CODE.stem}.{name}" for auto, name in classes.items()}


def write_code(folder: Path) -> None:
    """Put the code beside the weights that loads shapes of their own, for those who have no Composer."""
    shutil.copyfile(CODE, folder / CODE.name)


def _parsed(config: ModelConfig) -> Any:
    from transformers import CONFIG_MAPPING

    # A dictionary of its own: the class takes keys out of what it is given.
    return CONFIG_MAPPING[config["model_type"]].from_dict(dict(config))


@contextmanager
def _unreported() -> Iterator[None]:
    """Within the body transformers does not list missing and unknown weights; :func:`_check_complete` says it."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity(max(before, logging.ERROR))
    try:
        yield
    finally:
        logging.set_verbosity(before)


@contextmanager
def _random_head(seed: int | None) -> Iterator[None]:
    """Within the body, what transformers fills with random numbers has the same ones each time."""
    import torch

    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _check_complete(missing: Iterable[str], layout: Layout, folder: Path, model: Any, new_head: bool) -> None:
    """Refuse a checkpoint that lacks weights: transformers would fill them with random numbers, others at each load.

    A bare body's pooler may be missing, as no task looks at it.

    Args:
        new_head: what stands outside of the body, or is its pooler, may be missing, and something has to.

    Raises:
        ModelError: naming the targets that are missing, or else what is missing of the head.
    """
    targets = {p.weight for t in layout.targets for p in t.projections}
    lost = sorted(name for name in missing if name in targets or not name.startswith("pooler."))
    if first := [name for name in lost if name in targets]:
        raise ModelError([f"{folder}: the checkpoint has no weights for {weight!r}" for weight in first[:5]])
    kind, body = type(model).__name__, f"{model.base_model_prefix}."
    if new_head and not lost:
        raise ModelError(f"--new-head: {folder}: the checkpoint has all weights of a {kind}; leave the option out")
    if new_head:
        lost = [name for name in lost if name.startswith(body) and not name.startswith(f"{body}pooler.")]
    if lost:
        raise ModelError(
            f"{folder}: config.json names a {kind}, and the checkpoint has no weights for {lost[0]!r} "
            f"({len(lost)} missing): "
            + (
                "it is not of the head, and no random numbers can stand for it"
                if new_head
                else "its head was never trained; fine-tune the model for its task first, or name the "
                "architecture that the weights belong to; --new-head takes a random one, the same everywhere"
            )
        )


def _is_tokenizer_file(name: str) -> bool:
    exact = {"vocab.txt", "vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json"}
    return name in exact or name.startswith(("tokenizer", "chat_template")) or name.endswith((".model", ".spm"))
