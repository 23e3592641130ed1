"""Parts of a recipe: block-level and model-level fine-tuning, what is timed, how movement learns."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from ..tasks.data.options import Size
from ..training.length import joint_steps
from .options import Options, Positive

PEAK_RATES = {"all": 1e-4, "biases-norms": 1e-2, "lora": 3e-3}
"""What learns -> its peak rate where nobody says one: few numbers want more than all weights do."""


class BlockOptions(Options):
    """Block-level fine-tuning."""

    steps: Size = 100
    """At most so many steps for each block; joint: for all configurations together."""
    times: Positive | None = None
    """joint: where no steps are given, so many times those of one model; None goes by length, from 1 to 2."""
    batch_size: Size = 32
    """Examples per step."""
    learning_rate: Positive = 1e-3
    """Peak learning rate; linear decay to 0."""
    patience: Size = 3
    """Stop a block after so many validations without improvement."""
    valid_size: Size = 256
    """Validation examples that the early stop looks at."""
    evaluations: Size = 4
    """joint: how often all configurations' validation losses are measured, spread over the steps."""
    start: Literal["repaired", "pruned"] = "repaired"
    """joint: from blocks in closed form, or from pruned ones as they are."""
    damping: Positive = 0.01
    """Closed forms: pull towards the weights before repair, as a share of the mean squared input."""


class ModelOptions(Options):
    """Model-level fine-tuning."""

    steps: Size | None = None
    """Optimiser steps; wins over ``epochs``."""
    epochs: Positive = 1.0
    """Passes over the training examples, when no steps are given."""
    batch_size: Size = 32
    """Examples per step (and process)."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the steps in which the rate rises; then it falls linearly to 0."""
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """AdamW weight decay."""
    dropout: bool = True
    """Whether dropout is as the model says; else there is none while it learns."""
    group_by_length: bool = False
    """Whether the examples of a batch have like lengths, so that less of it is padding."""
    clip: Positive = 1.0
    """Largest gradient norm."""
    teacher: str | None = None
    """Model whose answers are learnt, of any size, with the same tokenizer and labels; None is the base model."""
    distill: Annotated[float, Field(ge=0, le=1)] | None = None
    """Weight of the teacher's answers in the loss, of whole models on both sides, of joint tuning and of movement;
    None is 0.5 where a teacher is named, else 0."""
    temperature: Positive = 1.0
    """That the teacher's and the model's probabilities are softened by where they are compared."""
    hidden: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Weight of the distance between the teacher's hidden states and the model's, layer to layer."""
    train: Literal["all", "biases-norms", "lora"] = "all"
    """What of a model learns: everything, biases and norms alone, or those and low-rank updates under the masks."""
    learning_rate: Positive = Field(default_factory=lambda data: PEAK_RATES[data["train"]])
    """Peak learning rate of both sides, where no search replaces it. Low enough not to spoil a model that has learnt
    its task already; one that has much to learn wants more. Unsaid, it goes by ``train``: 0.0001, of biases-norms 0.01,
    of lora 0.003."""
    own: Literal["none", "biases-norms", "lora"] = "none"
    """joint: what each configuration has of its own beside the weights that all share."""
    own_rate: Positive | None = None
    """joint: peak learning rate of that; None takes 0.01, of low-rank updates 0.003."""
    evaluations: Size = 8
    """How often the validation loss is measured, spread over the steps."""
    keep: Literal["best", "last"] = "best"
    """Weights of the lowest validation loss (the start's among them), or those after the last step."""

    @property
    def share(self) -> float:
        """``distill``, or what stands for it where it is not said."""
        return self.distill if self.distill is not None else 0.5 * (self.teacher is not None and not self.hidden)

    @field_validator("teacher", mode="after")
    @classmethod
    def _home_is_known(cls, value: str | None) -> str | None:
        return str(Path(value).expanduser()) if value else value


class TimeOptions(Options):
    """What ``choose`` times: one pass, or generating, on random tokens."""

    batch_size: Size = 1
    """Texts at once."""
    length: Size = 128
    """Tokens of each text, or of a prompt."""
    new_tokens: Size = 32
    """Tokens that a model which generates makes."""
    runtime: Literal["torch", "onnx"] = "torch"
    """Where models run."""
    threads: Size = 1
    """Threads of PyTorch."""
    repeat: Annotated[int, Field(ge=7)] = 15
    """How often each is timed; more of it where a machine is noisy."""


class MovementOptions(Options):
    """How the criterion ``movement`` learns its scores."""

    steps: Size = 100
    """Steps of the run whose scores serve every rate."""
    batch_size: Size = 32
    """Examples per step."""
    learning_rate: Positive = 5e-5
    """Peak learning rate of the weights."""
    rate: Annotated[float, Field(ge=0, lt=1)] = 0.7
    """Share of each pruned target that is masked at the end of the run."""
    units: Literal["default", "structured"] = "default"
    """What is masked while it learns: heads and single weights, or heads and neurons."""
    mode: Literal["movement", "magnitude", "sigmoid", "l0"] = "movement"
    """How scores are learnt; ``sigmoid`` and ``l0`` find the rates by a penalty."""
    penalty: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 100.0
    """Weight of what is kept in the loss, of ``sigmoid`` and ``l0``."""
    rules: dict[str, dict[str, str | float]] | None = None
    """What is masked while it learns, by path, with a schedule of its own each; None masks what is pruned, alike."""


def as_for_one_model(block: BlockOptions, whole: ModelOptions, steps: int | None) -> BlockOptions:
    """Options of joint tuning: what was not said is as for one model, but the steps, which are ``block.times`` as many.

    Args:
        steps: of one whole model; None where epochs cannot be counted yet.
    """
    unsaid: dict[str, int | float | None] = {
        "steps": joint_steps(steps, block.times) if steps else None,
        "batch_size": whole.batch_size,
        "learning_rate": whole.learning_rate,
    }
    given = {name: value for name, value in unsaid.items() if value and name not in block.model_fields_set}
    return block.model_copy(update=given)
