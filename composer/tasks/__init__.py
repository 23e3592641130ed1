"""Tasks: what a model is asked to do, with data, loss and metric. Nothing here imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelError
from ..registry import Registry
from .architectures import check_task, infer_task
from .data.options import DataOptions
from .task import Examples, Score, Task

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TASKS", "DataOptions", "Examples", "Score", "Task", "infer_task", "load_tokenizer", "open_task"]

TASKS: Registry[Callable[[DataOptions, Any, dict[str, Any]], Task]] = Registry(
    "task",
    {
        "translation": "composer.tasks.translation:TranslationTask",
        "classification": "composer.tasks.classification:ClassificationTask",
        "multi_label_classification": "composer.tasks.multi_label:MultiLabelTask",
        "language_model": "composer.tasks.language_model:LanguageModelTask",
        "masked_language_model": "composer.tasks.masked_language_model:MaskedLanguageModelTask",
        "question_answering": "composer.tasks.question_answering:QuestionAnsweringTask",
    },
    group="composer.tasks",
)
"""Task name -> class, made with (options, tokenizer, config.json as a dict).

A class whose models have no Hugging Face tokenizer says with ``vocabulary(model_folder)`` what it gets in its place.
"""

VOCABULARIES = ("tokenizer.json", "*.model", "vocab.*", "*.spm")
"""Files of which a folder with a tokenizer has at least one."""


def open_task(options: DataOptions, model_folder: Path, config: dict[str, Any], implied: str | None = None) -> Task:
    """Make the task that ``options`` name, with the tokenizer of ``model_folder``.

    Args:
        implied: the task where the options name none; None takes what ``config`` implies.

    Raises:
        InputError: no task of this name.
        DataError: the task cannot be inferred, or it and the options do not fit the model.
        ModelError: no tokenizer in the folder, or one with more tokens than the model.
    """
    name = options.task or implied or infer_task(config, TASKS.names())
    make = TASKS.get(name)
    tokenizer = getattr(make, "vocabulary", load_tokenizer)(model_folder)
    check_task(name, config, str(model_folder))
    size = config.get("vocab_size")
    if size is not None and len(tokenizer) > size:
        raise ModelError(f"{model_folder}: the tokenizer has {len(tokenizer)} tokens, the model's vocab_size is {size}")
    return make(options, tokenizer, config)


def load_tokenizer(model_folder: Path) -> Any:
    """The tokenizer of a model folder; ``ModelError`` when there is none or it does not load."""
    # transformers makes an empty tokenizer for a folder without one, so look first.
    if not any(path for pattern in VOCABULARIES for path in model_folder.glob(pattern)):
        raise ModelError(f"{model_folder}: no tokenizer; looked for {', '.join(VOCABULARIES)}")
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model_folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # tokenizers raises bare Exception for a damaged file
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{model_folder}: the tokenizer does not load: {reason}") from error
