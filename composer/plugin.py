"""What a package of your own needs of Composer to bring it a family, a task, a criterion or a block trainer.

A plugin is found by an entry point of the package that it lies in; nothing in Composer changes. The entry point's
name is what users say (``--criterion ria``)::

    [project.entry-points."composer.criteria"]
    ria = "my_package.pruning:RIA"

==========================  ==================================================================================
group of entry points       what the entry names
==========================  ==================================================================================
``composer.families``       a :class:`Family`: which modules of an architecture can be pruned, and its blocks
``composer.tasks``          a :class:`Task` class, made with (:class:`DataOptions`, tokenizer, ``config.json``)
``composer.criteria``       a :class:`Criterion` class: what makes a unit unimportant
``composer.trainers``       a :class:`BlockTrainer` class: how a block learns
==========================  ==================================================================================

*A family* is a table: a function yields a :class:`Layer` of :class:`Sublayer` s for a model's ``config.json``, their
targets made with :func:`attention` and :func:`linear`. Folders that are not Hugging Face's have a :class:`Storage`::

    FAMILY = Family("mine", model_types=("mine",), layers=layers, sizes=("d_model", "n_layers"))

*A task* loads the splits, collates features into batches, gives the loss and the score of a model; for sentence
pairs :class:`SentencePairsTask` does all of it but tokens, loss and answers. A task whose models have no Hugging Face
tokenizer says with ``vocabulary(model_folder)`` what it is made with in its place.

*A criterion* gives scores, one for each unit, and the lowest go. Weights are (out, in), one matrix per projection::

    class Small:
        name = "small"
        needs: frozenset[str] = frozenset()  # or names of Stats, such as "gram"
        shapes = ANY_SHAPE

        def score(self, target, weights, stats, shape=None):
            return totals(target, [weight.abs() for weight in weights], shape)

One that also moves the weights it keeps derives from :class:`MovingCriterion` and has ``prune`` instead of ``score``.

*A block trainer* derives from :class:`BlockTrainer`: ``tune`` tunes the independent blocks of one wave and yields each
when it is done. One that learns batch by batch derives from :class:`Stepping` and writes ``start``, ``step``, ``error``
and ``finish`` only. Other trainers are counted (and timed) block by block by ``compose plan``, as long as they do not
say with ``work`` and ``memory`` what the blocks of a wave share.

*Masks that are learnt* in anybody's training need no entry point: a class that derives from :class:`LearntScores` says
how scores begin and what moves them, and ``composer.LearnMasks(rules, scores=Mine)`` takes it.

Errors that a user can mend are raised as :class:`InputError` or the one of its kind; the command line shows their
lines.

These names stay where they are; all other modules of ``composer`` may move. Families and criteria need no torch before
a model is loaded, so what needs it here (padding, losses, base classes of tasks and trainers) is imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from .errors import (
    ComposerError,
    ConfigError,
    DataError,
    InputError,
    LibraryError,
    ModelError,
    OutputError,
    PluginError,
    RecipeError,
    SchemeError,
    WorkerError,
)
from .models.family import Family, Layer, ModelConfig, Storage, Sublayer, attention, linear
from .progress import SILENT, Bar, Progress
from .pruning.criteria.criterion import ANY_SHAPE, Criterion, MovingCriterion, Stats, statistic
from .scheme.layout import Block, Layout, Projection, Stream, Target
from .scheme.shapes import SINGLE, Shape
from .tasks.data.options import DataOptions
from .tasks.task import Batch, Examples, Feature, Score, Split, Task
from .training.work import BlockWaves, Work

if TYPE_CHECKING:
    from .calibration.gram import Gram
    from .calibration.teacher import Teacher
    from .tasks.batching import (
        IGNORED,
        attention_mask,
        check_length,
        length_limit,
        pad,
        token_loss,
        tokenise,
        usual_length,
    )
    from .tasks.sentence_pairs import Encoded, SentencePairsTask
    from .tasks.special_tokens import pad_id
    from .tensors.batches import batch_indices, by_length, in_order
    from .tensors.forward import answering, real_rows, to_device_of
    from .tensors.learnt.scores import LearntScores
    from .tensors.ranking import Keep, totals
    from .training.blocks.stepping import Stepping
    from .training.blocks.trainer import BlockSettings, BlockTrainer, Job, Look, Run, Tuned, relative_error

_NEEDS_TORCH = {
    "calibration.gram": ("Gram",),
    "calibration.teacher": ("Teacher",),
    "tasks.batching": (
        *("IGNORED", "attention_mask", "check_length", "length_limit", "pad", "token_loss", "tokenise", "usual_length"),
    ),
    "tasks.special_tokens": ("pad_id",),
    "tasks.sentence_pairs": ("Encoded", "SentencePairsTask"),
    "tensors.batches": ("batch_indices", "by_length", "in_order"),
    "tensors.forward": ("answering", "real_rows", "to_device_of"),
    "tensors.learnt.scores": ("LearntScores",),
    "tensors.ranking": ("Keep", "totals"),
    "training.blocks.stepping": ("Stepping",),
    "training.blocks.trainer": ("BlockSettings", "BlockTrainer", "Job", "Look", "Run", "Tuned", "relative_error"),
}
"""Module -> its names here: the imports for type checkers above, for everybody else."""

__all__ = [
    "ANY_SHAPE",
    "IGNORED",
    "SILENT",
    "SINGLE",
    "Bar",
    "Batch",
    "Block",
    "BlockSettings",
    "BlockTrainer",
    "BlockWaves",
    "ComposerError",
    "ConfigError",
    "Criterion",
    "DataError",
    "DataOptions",
    "Encoded",
    "Examples",
    "Family",
    "Feature",
    "Gram",
    "InputError",
    "Job",
    "Keep",
    "Layer",
    "Layout",
    "LearntScores",
    "LibraryError",
    "Look",
    "ModelConfig",
    "ModelError",
    "MovingCriterion",
    "OutputError",
    "PluginError",
    "Progress",
    "Projection",
    "RecipeError",
    "Run",
    "SchemeError",
    "Score",
    "SentencePairsTask",
    "Shape",
    "Split",
    "Stats",
    "Stepping",
    "Storage",
    "Stream",
    "Sublayer",
    "Target",
    "Task",
    "Teacher",
    "Tuned",
    "Work",
    "WorkerError",
    "answering",
    "attention",
    "attention_mask",
    "batch_indices",
    "by_length",
    "check_length",
    "in_order",
    "length_limit",
    "linear",
    "pad",
    "pad_id",
    "real_rows",
    "relative_error",
    "statistic",
    "to_device_of",
    "token_loss",
    "tokenise",
    "totals",
    "usual_length",
]


if not TYPE_CHECKING:  # else a name that is not there would be anything to a type checker

    def __getattr__(name: str) -> object:
        for module, names in _NEEDS_TORCH.items():
            if name in names:
                return getattr(import_module(f".{module}", __package__), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
