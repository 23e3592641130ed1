"""The groups of flags of commands that train: whose answers are learnt, how long and how fast, what is compared."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

from .parameters import Rates, Whole

_TRAINING = Group("Training", sort_key=4)


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
    learning_rate: Annotated[
        float | None,
        Parameter(help="Peak learning rate (blocks by themselves 0.001, biases-norms 0.01, lora 0.003) [0.0001]."),
    ] = None
    train: Annotated[
        Literal["all", "biases-norms", "lora"] | None,
        Parameter(help="What learns; lora: low-rank updates under the masks (extra peft) [all]."),
    ] = None
    dropout: Annotated[
        bool | None, Parameter(negative="--no-dropout", help="As the model says, or none [as it says].")
    ] = None
    group_by_length: Annotated[
        bool | None, Parameter(negative=(), help="Batches of examples of like lengths: less padding, other batches.")
    ] = None
    keep: Annotated[
        Literal["best", "last"] | None,
        Parameter(help="Weights of the lowest validation loss, the start's too, or of the last step [best]."),
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


# What the commands default to: nothing given.
TEACHING = Teaching()
TRAINING = Training()
BLOCK_TRAINING = BlockTraining()
RUN_BLOCK_TRAINING = RunBlockTraining()
COMPARING = Comparing()
