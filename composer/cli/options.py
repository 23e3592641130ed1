"""The groups of flags that commands share: one dataclass each, the same words everywhere.

A flag that is not given is None and leaves the recipe's value alone. Each dataclass says with ``given()``
which fields of a :class:`composer.recipe.Recipe` its flags set.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from cyclopts import Group, Parameter

from .parameters import (
    COMMON_GROUP,
    RATES_GROUP,
    CalibrationLengths,
    Device,
    Memory,
    Rates,
    Seed,
    Whole,
    Words,
)

_TASKS = (
    "translation, classification, multi_label_classification, language_model, masked_language_model or "
    "question_answering [from the model]."
)

_DATA = Group("Data and task", sort_key=5)
_MACHINE = Group("Numbers and machine", sort_key=6)


class Flags(Protocol):
    """A group of flags."""

    def given(self) -> dict[str, Any]:
        """Recipe fields that these flags set; None where a flag was not given."""


@Parameter("*", group=COMMON_GROUP)
@dataclass(frozen=True, kw_only=True)
class Talk:
    """What a command prints."""

    quiet: Annotated[bool, Parameter(help="Print nothing but errors.")] = False
    json: Annotated[bool, Parameter(help="Result as JSON on standard output, and nothing else there.")] = False


@Parameter("*", group=COMMON_GROUP)
@dataclass(frozen=True, kw_only=True)
class Common(Talk):
    """What every command with a recipe understands."""

    recipe: Annotated[Path | None, Parameter(help="Recipe with options of any command [compose.yaml].")] = None
    new_head: Annotated[
        bool | None, Parameter(negative=(), help="Draw a head that the base model lacks, by the seed [refuse].")
    ] = None


@Parameter("*", group=_DATA)
@dataclass(frozen=True, kw_only=True)
class Data:
    """Where examples come from; the fields of ``composer.tasks.data.options.DataOptions``, without the seed."""

    data: Annotated[str | None, Parameter(help="A folder, a hub dataset (name or name:config), or 'demo'.")] = None
    task: Annotated[str | None, Parameter(metavar="TASK", help=_TASKS)] = None
    train_size: Annotated[Whole | None, Parameter(help="Use so many training examples [all].")] = None
    valid_size: Annotated[Whole | None, Parameter(help="Use so many validation examples [all].")] = None
    test_size: Annotated[Whole | None, Parameter(help="Use so many test examples [all].")] = None
    valid_split: Annotated[str | None, Parameter(help="Name of the validation split [validation, dev, …].")] = None
    test_split: Annotated[str | None, Parameter(help="Name of the test split [the first test*].")] = None
    source_lang: Annotated[str | None, Parameter(help="Language translated from [en].")] = None
    target_lang: Annotated[str | None, Parameter(help="Language translated to [de].")] = None
    prefix: Annotated[
        str | None,
        Parameter(allow_leading_hyphen=True, help="Text before every source sentence [from the model]."),
    ] = None
    source_column: Annotated[str | None, Parameter(help="Column of source sentences.")] = None
    target_column: Annotated[str | None, Parameter(help="Column of target sentences.")] = None
    text_column: Annotated[str | None, Parameter(help="Column of texts [usual names].")] = None
    pair_column: Annotated[str | None, Parameter(help="Column of second texts, for pairs [usual names].")] = None
    label_column: Annotated[str | None, Parameter(help="Column of labels.")] = None
    max_source_length: Annotated[Whole | None, Parameter(help="Tokens of a text or window [by the task].")] = None
    max_target_length: Annotated[Whole | None, Parameter(help="Tokens kept of a target [128].")] = None
    num_beams: Annotated[Whole | None, Parameter(help="Beams of generation [1].")] = None
    doc_stride: Annotated[Whole | None, Parameter(help="Context tokens that windows share [128].")] = None
    max_answer_length: Annotated[Whole | None, Parameter(help="Most tokens of an answer [30].")] = None
    null_score_diff_threshold: Annotated[
        float | None, Parameter(help="No answer where it scores higher than the best one by more than this [0].")
    ] = None

    def given(self) -> dict[str, Any]:
        """All fields, under their own names."""
        return asdict(self)


@Parameter("*", group=_MACHINE)
@dataclass(frozen=True, kw_only=True)
class Machine:
    """How it is computed."""

    seed: Seed = None
    precision: Annotated[Literal["fp32", "bf16"] | None, Parameter(help="Of model-level fine-tuning [fp32].")] = None
    device: Device = None
    calibration_size: Annotated[
        Whole | None, Parameter(help="Training examples that criteria and closed forms look at [512].")
    ] = None
    calibration_lengths: CalibrationLengths = None
    metric: Annotated[
        Literal["plain", "loss"] | None,
        Parameter(help="How they look at them: all tokens alike, or by what each matters to the loss [plain]."),
    ] = None
    memory: Memory = None
    calibration: Annotated[
        Literal["base", "sequential"] | None,
        Parameter(help="Inputs criteria look at: the base model's, or pruned layers' as published [base]."),
    ] = None
    jobs: Annotated[Whole | None, Parameter(help="Processes that tune blocks side by side [1].")] = None
    cluster: Annotated[
        str | None, Parameter(metavar="ADDRESS", help="Tune them on a Ray cluster: its address, auto or local [no].")
    ] = None

    def given(self) -> dict[str, Any]:
        """All fields, under their own names."""
        return asdict(self)


@Parameter("*", group=RATES_GROUP)
@dataclass(frozen=True, kw_only=True)
class Generating:
    """Which configurations are made."""

    attention: Annotated[Rates | None, Parameter(help="Rates of attention targets [0.25 0.5 0.25].")] = None
    linear: Annotated[Rates | None, Parameter(help="Rates of linear targets [0.3 0.3 0.5].")] = None
    count: Annotated[Whole | None, Parameter(help="How many [the lists' length].")] = None
    short_count: Annotated[Whole | None, Parameter("-n", show=False)] = None
    """The same under the name that it had at first; elsewhere ``-n`` names a configuration."""
    grid: Annotated[bool | None, Parameter(help="Every combination of the rates.")] = None
    random: Annotated[Whole | None, Parameter(help="Draw so many, a rate for each target.")] = None
    targets: Annotated[
        Words | None,
        Parameter(metavar="GLOB...", help="Only these targets are pruned; needed for a model of no known family."),
    ] = None
    granularity: Annotated[
        str | None,
        Parameter(help="Shape removed from linear targets: per-row, global, row, column, neuron, N:M, RxC [weights]."),
    ] = None
    attention_granularity: Annotated[
        str | None,
        Parameter(help="Shape removed from attention: unstructured, per-row, global, row, column, N:M, RxC [heads]."),
    ] = None
    structured: Annotated[
        bool | None, Parameter(help="Only heads and neurons go, so that a model can be shrunk to what is left.")
    ] = None
    uniform: Annotated[
        bool | None, Parameter(help="The same, and every layer keeps the same number: plain shapes load anywhere.")
    ] = None
    multiple: Annotated[
        Whole | None, Parameter(help="The same, and the number of kept neurons is a multiple of N, such as 8.")
    ] = None

    def given(self) -> dict[str, Any]:
        """All fields, under their own names; of the two names of the count the one that was given."""
        fields = asdict(self)
        short = fields.pop("short_count")
        return fields | ({"count": short} if fields["count"] is None else {})


# What the commands default to: nothing given.
TALK = Talk()
COMMON = Common()
DATA = Data()
MACHINE = Machine()
GENERATING = Generating()
