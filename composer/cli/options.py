"""The flags that commands share: one dataclass per group, the same words everywhere.

A flag that is not given is None and leaves the recipe's value alone. Each dataclass says with ``given()``
which fields of a :class:`composer.recipe.Recipe` its flags set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from cyclopts import Group, Parameter, Token

_TASKS = (
    "translation, classification, multi_label_classification, language_model, masked_language_model or "
    "question_answering [from the model]."
)

_COMMON = Group("Common options", sort_key=9)
_DATA = Group("Data and task", sort_key=5)
_TRAINING = Group("Training", sort_key=4)
_MACHINE = Group("Numbers and machine", sort_key=6)
_RATES = Group("Configurations", sort_key=3)


def whole_number(_type: Any, tokens: Sequence[Token]) -> int:
    """Read an integer; ``1.5`` is refused, not rounded."""
    try:
        return int(tokens[0].value)
    except ValueError:
        raise ValueError(f"got {tokens[0].value!r}; allowed: a whole number") from None


def numbers(_type: Any, tokens: Sequence[Token]) -> list[float]:
    """Read numbers, each a word of its own or parted by commas."""
    words = [word for token in tokens for word in token.value.split(",") if word.strip()]
    wrong = next((word for word in words if not _is_number(word)), None)
    if wrong is not None or not words:
        raise ValueError(f"got {wrong or ','!r}; allowed: numbers, parted by spaces or commas")
    return [float(word) for word in words]


def words(_type: Any, tokens: Sequence[Token]) -> list[str]:
    """Read words, parted by spaces or commas."""
    return levels([token.value for token in tokens]) or []


def _is_number(word: str) -> bool:
    try:
        return float(word) is not None
    except ValueError:
        return False


Whole = Annotated[int, Parameter(converter=whole_number, metavar="N")]
Rates = Annotated[list[float], Parameter(converter=numbers, consume_multiple=(1, 1_000_000), metavar="RATE...")]
Words = Annotated[list[str], Parameter(converter=words, consume_multiple=(1, 1_000_000))]
Places = Annotated[list[str], Parameter(consume_multiple=(1, 1_000_000))]

Model = Annotated[str | None, Parameter(["-m", "--model"], help="Base model: a folder, a hub id, or 'demo'.")]
Output = Annotated[Path | None, Parameter(["-o", "--output"], help="Where to write.")]
Config = Annotated[Path | None, Parameter(["-c", "--config"], help="The configurations [conf.json].")]
SchemeFile = Annotated[Path | None, Parameter(["-s", "--scheme"], help="The scheme [conf_prune.json].")]
Criterion = Annotated[str | None, Parameter(help="What makes a unit unimportant [l1].")]
RunCriterion = Annotated[str | None, Parameter("--criterion", help="What makes a unit unimportant [obs].")]
DeadColumns = Annotated[
    bool | None,
    Parameter(
        "--dead-columns",
        negative="--no-dead-columns",
        help="Out-projections lose the columns of removed heads first, same count [yes].",
    ),
]
Sweep = Annotated[
    bool | None, Parameter(help="After composing, refit each sublayer on the inputs that it really gets [no].")
]
Seed = Annotated[Whole | None, Parameter(help="Same seed, same bytes [0].")]
Device = Annotated[str | None, Parameter(help="auto, cpu, cuda, cuda:1, mps [auto].")]
CalibrationLengths = Annotated[
    Literal["train", "valid"] | None,
    Parameter(help="Split whose lengths they have [valid where models are wished for, else train]."),
]
Memory = Annotated[
    str | None, Parameter(metavar="SIZE", help="Most memory for their moments, such as 2GiB [no limit].")
]
Force = Annotated[
    bool, Parameter(group=_COMMON, help="Replace an output that was made from other inputs; redo finished work.")
]
Which = Annotated[Whole | None, Parameter(["-n", "--configuration"], help="Configuration, counted from 0.")]
Every = Annotated[bool, Parameter("--all", help="Every configuration.")]


class Flags(Protocol):
    """A group of flags."""

    def given(self) -> dict[str, Any]:
        """Recipe fields that these flags set; None where a flag was not given."""


@Parameter("*", group=_COMMON)
@dataclass(frozen=True, kw_only=True)
class Talk:
    """What a command prints."""

    quiet: Annotated[bool, Parameter(help="Print nothing but errors.")] = False
    json: Annotated[bool, Parameter(help="Result as JSON on standard output, and nothing else there.")] = False


@Parameter("*", group=_COMMON)
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


@Parameter("*", group=_TRAINING)
@dataclass(frozen=True, kw_only=True)
class Teaching:
    """Whose answers are learnt beside the labels."""

    teacher: Annotated[
        str | None, Parameter(metavar="MODEL", help="Of any size; same tokenizer and labels [the base model].")
    ] = None
    distill: Annotated[
        float | None, Parameter(metavar="SHARE", help="Weight of its answers in the loss [0; with --teacher 0.5].")
    ] = None
    temperature: Annotated[float | None, Parameter(help="That softens both sides' answers [1].")] = None
    hidden: Annotated[
        float | None, Parameter(metavar="WEIGHT", help="Of its hidden states in the loss, layer to layer [0].")
    ] = None

    def given(self) -> dict[str, Any]:
        """The part ``finetune`` of a recipe."""
        return {"finetune": asdict(self)}


@Parameter("*", group=_TRAINING)
@dataclass(frozen=True, kw_only=True)
class Training(Teaching):
    """How long and how fast; of blocks or of whole models, as the command says."""

    steps: Annotated[Whole | None, Parameter(help="Optimiser steps (blocks: at most [100]).")] = None
    epochs: Annotated[float | None, Parameter(help="Passes over the training examples, instead of steps [1].")] = None
    batch_size: Annotated[Whole | None, Parameter(help="Examples per step [32].")] = None
    learning_rate: Annotated[float | None, Parameter(help="Peak learning rate [0.001].")] = None
    train: Annotated[
        Literal["all", "biases-norms", "lora"] | None,
        Parameter(help="What learns; lora: low-rank updates under the masks (extra peft) [all]."),
    ] = None
    own: Annotated[
        Literal["none", "biases-norms", "lora"] | None,
        Parameter(help="Trainer joint: what each model has of its own beside shared weights [none]."),
    ] = None

    def given(self) -> dict[str, Any]:
        """The part ``finetune`` of a recipe: whole models."""
        return {"finetune": asdict(self)}

    def for_blocks(self) -> dict[str, Any]:
        """The part ``block`` of a recipe, which knows no epochs."""
        fields = asdict(self)
        block = {name: fields[name] for name in ("steps", "batch_size", "learning_rate")}
        whole = {name: value for name, value in fields.items() if name not in ("epochs", *block)}
        return {"block": block, "finetune": whole}


@Parameter("*", group=_TRAINING)
@dataclass(frozen=True, kw_only=True)
class BlockTraining:
    """Block-level settings, for commands that train at both levels."""

    trainer: Annotated[str | None, Parameter(help="How blocks are tuned [distill].")] = None
    block_steps: Annotated[Whole | None, Parameter(help="At most so many steps per block [100].")] = None
    block_batch_size: Annotated[Whole | None, Parameter(help="Examples per step of the blocks [32].")] = None
    block_learning_rate: Annotated[float | None, Parameter(help="Peak learning rate of the blocks [0.001].")] = None
    joint_times: Annotated[float | None, Parameter(help="Joint steps, in those of one model [by length, 1 to 2].")] = (
        None
    )

    def given(self) -> dict[str, Any]:
        """The part ``block`` of a recipe, and the trainer."""
        block = {
            "steps": self.block_steps,
            "batch_size": self.block_batch_size,
            "learning_rate": self.block_learning_rate,
            "times": self.joint_times,
        }
        return {"trainer": self.trainer, "block": block}


@Parameter("*", group=_TRAINING)
@dataclass(frozen=True, kw_only=True)
class RunBlockTraining(BlockTraining):
    """The same with the defaults of ``compose run``: all configurations learn together."""

    trainer: Annotated[str | None, Parameter(help="How blocks are tuned [joint].")] = None
    block_steps: Annotated[
        Whole | None, Parameter(help="Steps of all configurations together [as many as one model has].")
    ] = None
    block_batch_size: Annotated[Whole | None, Parameter(help="Examples per step of theirs [--batch-size].")] = None
    block_learning_rate: Annotated[
        float | None, Parameter(help="Their peak learning rate [the best of --learning-rates, or --learning-rate].")
    ] = None


@Parameter("*", group=_TRAINING)
@dataclass(frozen=True, kw_only=True)
class Comparing:
    """What ``compare`` tries."""

    learning_rates: Annotated[
        Rates | None, Parameter(help="Peak rates tried for each side [none; --learning-rate is used].")
    ] = None
    finish: Annotated[
        Literal["needed", "all"] | None,
        Parameter(help="Composed models that are trained further: those above their baseline, or all [needed]."),
    ] = None
    budgets: Annotated[
        Rates | None,
        Parameter(metavar="PART...", help="Parts of the baseline's steps tried for that [1/16, 1/8 … 1]."),
    ] = None

    def given(self) -> dict[str, Any]:
        """All fields, under their own names."""
        return asdict(self)


@Parameter("*", group=_RATES)
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


BlockLevels = Annotated[
    Words | None,
    Parameter(group=_RATES, metavar="LEVEL,...", help="Levels whose blocks are tuned [module,sublayer]; also: layer."),
]


def levels(given: Sequence[str] | None) -> list[str] | None:
    """Split ``module,sublayer`` or ``module sublayer`` into its words.

    >>> levels(["module,sublayer", "layer"])
    ['module', 'sublayer', 'layer']
    """
    if given is None:
        return None
    return [word.strip() for part in given for word in part.split(",") if word.strip()]


# What the commands default to: nothing given.
TALK = Talk()
COMMON = Common()
DATA = Data()
MACHINE = Machine()
TEACHING = Teaching()
TRAINING = Training()
BLOCK_TRAINING = BlockTraining()
RUN_BLOCK_TRAINING = RunBlockTraining()
COMPARING = Comparing()
GENERATING = Generating()
