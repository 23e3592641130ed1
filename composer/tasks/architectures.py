"""Which task a model is for, by the architecture that its ``config.json`` names, and which it can be asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..errors import DataError

HEADS: dict[str, tuple[str, ...]] = {
    "ForConditionalGeneration": ("translation", "masked_language_model"),
    "MTModel": ("translation",),
    "ForSequenceClassification": ("classification", "multi_label_classification"),
    "ForCausalLM": ("language_model",),
    "LMHeadModel": ("language_model",),
    "DoubleHeadsModel": ("language_model",),
    "ForMaskedLM": ("masked_language_model",),
    "ForQuestionAnswering": ("question_answering",),
}
"""End of an architecture's name -> the tasks that its head can do; the first is what it is for. (BART and its like
were trained to fill masks too.)"""

OURS = tuple(dict.fromkeys([tasks[0] for tasks in HEADS.values()] + [t for tasks in HEADS.values() for t in tasks]))
"""The tasks that this table is about; those of other packages know their models themselves."""


OTHER_INPUTS = ("vision_config", "audio_config", "num_mel_bins", "image_size", "patch_size")
"""Keys of a ``config.json`` whose model reads pictures or sound."""


def tasks_of(architecture: str) -> tuple[str, ...]:
    """The tasks that a model of this architecture can do; none for a bare body, or a head that no task is about.

    >>> tasks_of("GPT2LMHeadModel"), tasks_of("BertModel")
    (('language_model',), ())
    """
    return next((tasks for suffix, tasks in HEADS.items() if architecture.endswith(suffix)), ())


def infer_task(config: dict[str, Any], names: Iterable[str] = OURS) -> str:
    """The task that a model's config.json implies by the architecture it names.

    >>> infer_task({"architectures": ["T5ForConditionalGeneration"]})
    'translation'

    Args:
        names: the tasks there are; those of other packages are named in the message.

    Raises:
        DataError: the architecture is missing or fits no task.
    """
    architectures = config.get("architectures") or []
    for architecture in architectures:
        if tasks := tasks_of(architecture):
            named = config.get("problem_type")
            return named if named in tasks else tasks[0]
    raise DataError(_no_task(config, [name for name in names if name not in OURS]))


def _no_task(config: dict[str, Any], others: list[str]) -> str:
    """Why no task follows, and what can be done: a name of ours would only be refused after (:func:`check_task`)."""
    architectures = config.get("architectures") or []
    if not architectures:
        named, why = f"none (model_type {config.get('model_type')!r})", "add the key 'architectures' to its config.json"
    elif other := _other_input(config):
        named, why = ", ".join(architectures), f"it does not read texts alone ({other}), and all tasks are of texts"
    else:
        named = ", ".join(architectures)
        why = "it has no head that a task is about (show, prune --criterion l1 and build-model need none)"
    plugins = f"; tasks of other packages, to name with --task: {', '.join(others)}" if others else ""
    return f"the task does not follow from the model's architecture {named}: {why}{plugins}"


def _other_input(config: dict[str, Any]) -> str | None:
    """The key that says that a model reads pictures or sound."""
    return next((key for key in OTHER_INPUTS if config.get(key) is not None), None)


def check_task(task: str, config: dict[str, Any], where: str) -> None:
    """Refuse a task that the model's architecture has no head for.

    Args:
        where: the model's folder, for the message.

    Raises:
        DataError: in one line, with the tasks that it can do.
    """
    if task not in OURS:
        return
    if other := _other_input(config):
        kind = (config.get("architectures") or [config.get("model_type")])[0]
        raise DataError(f"{where}/config.json: {kind} does not read texts alone ({other}), and all tasks are of texts")
    architectures = config.get("architectures") or []
    if not architectures:
        raise DataError(
            f"{where}/config.json: names no architecture, so transformers loads the body without a head, and no task "
            f"can be asked of it; for {task} add the key 'architectures'"
        )
    able = tasks_of(architectures[0])
    if task not in able:
        instead = f"allowed: {', '.join(able)}" if able else "it has no head that a task is about"
        raise DataError(f"--task: got {task}, which {architectures[0]} ({where}) cannot do; {instead}")
