"""Tasks: what a model is asked to do, with data, loss and metric. Nothing here imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError, ModelError
from ..registry import Registry
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
        "language_model": "composer.tasks.language_model:LanguageModelTask",
        "masked_language_model": "composer.tasks.masked_language_model:MaskedLanguageModelTask",
        "question_answering": "composer.tasks.question_answering:QuestionAnsweringTask",
    },
    group="composer.tasks",
)
"""Task name -> class, made with (options, tokenizer, config.json as a dict).

A class whose models have no Hugging Face tokenizer says with ``vocabulary(model_folder)`` what it gets in its place.
"""

SUFFIXES = {
    "ForConditionalGeneration": "translation",
    "MTModel": "translation",
    "ForSequenceClassification": "classification",
    "ForCausalLM": "language_model",
    "LMHeadModel": "language_model",
    "ForMaskedLM": "masked_language_model",
    "ForQuestionAnswering": "question_answering",
}
"""End of an architecture's name -> task."""

VOCABULARIES = ("tokenizer.json", "*.model", "vocab.*", "*.spm")
"""Files of which a folder with a tokenizer has at least one."""


def infer_task(config: dict[str, Any]) -> str:
    """The task that a model's config.json implies by the architecture it names.

    >>> infer_task({"architectures": ["T5ForConditionalGeneration"]})
    'translation'

    Raises:
        DataError: the architecture is missing or fits no task.
    """
    architectures = config.get("architectures") or []
    for architecture in architectures:
        for suffix, task in SUFFIXES.items():
            if architecture.endswith(suffix):
                return task
    named = ", ".join(architectures) or f"none (model_type {config.get('model_type')!r})"
    raise DataError(
        f"the task does not follow from the model's architecture {named}; "
        f"name it with --task: {', '.join(TASKS.names())}"
    )


def open_task(options: DataOptions, model_folder: Path, config: dict[str, Any], implied: str | None = None) -> Task:
    """Make the task that ``options`` name, with the tokenizer of ``model_folder``.

    Args:
        implied: the task where the options name none; None takes what ``config`` implies.

    Raises:
        InputError: no task of this name.
        DataError: the task cannot be inferred, or the options do not fit the model.
        ModelError: no tokenizer in the folder, or one with more tokens than the model.
    """
    make = TASKS.get(options.task or implied or infer_task(config))
    tokenizer = getattr(make, "vocabulary", load_tokenizer)(model_folder)
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
        return AutoTokenizer.from_pretrained(model_folder, local_files_only=True)
    except Exception as error:  # tokenizers raises bare Exception for a damaged file
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{model_folder}: the tokenizer does not load: {reason}") from error
