"""The recipe: every option of every command, in one checked object."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ByteSize, ConfigDict, Field, field_validator

from ..choosing.rules import RuleName
from ..choosing.wishes import WishOptions
from ..errors import RecipeError
from ..scheme.generate import DEFAULT_ATTENTION, DEFAULT_LINEAR
from ..scheme.layout import Level
from ..tasks.data.options import DataOptions, Size
from .options import Options, Positive, Share
from .parts import BlockOptions, ModelOptions, MovementOptions, TimeOptions

RECIPE_FILE = "compose.yaml"


class Recipe(Options, DataOptions, WishOptions, BaseModel):  # the last for readers: fields, not class variables
    """Everything a run can be told. Paths of outputs are relative to ``folder``."""

    model_config = ConfigDict(**Options.model_config, protected_namespaces=())  # `model` and `model_…` are ours

    data: str | None = None  # type: ignore[assignment]
    """A folder, a dataset of the Hugging Face hub, or ``demo``."""

    model: str | None = None
    """The base model's folder, its id on the hub, or ``demo``; None takes the one named in ``conf.json``."""
    new_head: bool = False
    """A head that the base model's checkpoint lacks is drawn with ``seed``: the same in every model that is made."""
    folder: Path = Path()
    """Where everything is written: conf.json, modules/, models/, stats/, results/."""

    config: Path | None = None
    """Configurations that `run` takes instead of generating them."""
    attention: list[float] = list(DEFAULT_ATTENTION)
    """Rates for attention targets, one per configuration."""
    linear: list[float] = list(DEFAULT_LINEAR)
    """Rates for linear targets, one per configuration."""
    count: Size | None = None
    """How many configurations; None takes the lists' length."""
    grid: bool = False
    """Every combination of an attention rate with a linear rate."""
    random: Size | None = None
    """Draw so many configurations, each target's rate from its kind's list."""
    targets: list[str] = []
    """Globs; only these targets are named in the configurations."""
    granularity: str | None = None
    """Shape of what is removed from linear targets, as ``2:4`` or ``neuron``; None is single weights."""
    attention_granularity: str | None = None
    """Shape of what is removed from attention targets, as ``unstructured`` or ``2:4``; None is heads."""
    structured: bool = False
    """Only whole units: heads of attentions, neurons of feed-forwards; out-projections follow their heads."""
    uniform: bool = False
    """Structured, and every layer keeps the same number."""
    multiple: Size | None = None
    """Structured, and the number of kept neurons is a multiple of this one."""

    time: TimeOptions = TimeOptions()
    """``choose``: the shape of input for which models are to be fast, and where they run."""
    search: Annotated[int, Field(ge=0)] = 0
    """``choose``: how many composed models are tried for each wish, beyond what the tables say."""
    beside: list[RuleName] = []
    """``choose``: ways of others to spread a budget over the layers, measured beside; a search may begin there."""
    rerank: Annotated[int, Field(ge=0)] = 0
    """``choose``: steps in which the best candidates of all wishes learn together, before one of each is taken."""
    unstructured: bool = False
    """``choose``: single weights may go too, where parameters or the loss alone are wished for."""

    shrink: bool = False
    """``run``: at the end every model is shrunk, evaluated and timed beside the base model."""
    card_data: Path | None = None
    """A YAML file with fields of model cards that only the user knows, as ``license`` and ``language``."""

    block_levels: list[Level] = ["module", "sublayer"]
    """Levels whose blocks are tuned."""
    criterion: str = "l1"
    """What makes a unit unimportant."""
    movement: MovementOptions = MovementOptions()
    """How the criterion ``movement`` learns its scores."""
    trainer: str = "distill"
    """How blocks are tuned."""
    block: BlockOptions = BlockOptions()
    """Block-level fine-tuning."""
    finetune: ModelOptions = ModelOptions()
    """Model-level fine-tuning."""

    learning_rates: list[Positive] = []
    """Peak rates that are tried on each side; empty: no search. ``compare`` tries them on one configuration of each
    side, joint tuning on all configurations together for a quarter of its steps."""
    finish: Literal["needed", "all"] = "needed"
    """Which composed models ``compare`` fine-tunes: those that start above their baseline's final loss, or all."""
    budgets: list[Share] = [0.0625, 0.125, 0.25, 0.5, 1.0]
    """Shares of the baseline's steps with which the composed model tries to reach its final loss."""

    calibration_size: Size = 512
    """Training examples that criteria and closed forms look at, once."""
    calibration_lengths: Literal["train", "valid"] | None = None
    """Which split's lengths these examples have; of none said, the validation's where models are wished for."""
    calibration: Literal["base", "sequential"] = "base"
    """Inputs that criteria look at: the base model's, or those of the already pruned layers before (as published)."""
    metric: Literal["plain", "loss"] = "plain"
    """How criteria and closed forms look at them: all tokens alike, or by what each matters to the loss."""
    memory: ByteSize | None = None
    """Most memory for moments of the calibration sample, as ``2GiB``; more of them take more passes."""
    dead_columns: bool = True
    """Spend an out-projection's removals first on the columns of removed heads (same count)."""
    sweep: bool = False
    """After composing, refit each sublayer's last projection on the inputs that it really gets."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: autocast in model-level fine-tuning; weights stay float32."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    jobs: Size = 1
    """Processes that tune the blocks of a wave side by side; the machine's cores are divided between them."""
    cluster: str | None = None
    """Tune blocks on a Ray cluster: its address, ``auto`` or ``local``; ``jobs`` tasks at once."""

    @field_validator("model", "folder", "config", mode="after")
    @classmethod
    def _home_is_known(cls, value: Any) -> Any:
        """``~`` is the home folder in every path alike; a shell leaves it in a file, and in quotes."""
        return type(value)(Path(value).expanduser()) if isinstance(value, (str, Path)) and value else value

    @property
    def lengths_like(self) -> Literal["train", "valid"]:
        """Which split's lengths the calibration sample has."""
        return self.calibration_lengths or ("valid" if self.wishes_anything else "train")

    @property
    def data_options(self) -> DataOptions:
        """The part that says where examples come from.

        Raises:
            RecipeError: no data was named.
        """
        if not self.data:
            raise RecipeError(f"--data: nothing given; name a folder, a hub dataset or 'demo' (or in {RECIPE_FILE})")
        return DataOptions(**{name: getattr(self, name) for name in DataOptions.model_fields})
