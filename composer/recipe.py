"""The recipe: every option of every command, in one checked object; ``compose.yaml`` is its file form.

What is written in the file gives the defaults; what is given as a flag (or keyword) wins. Keys are written
as the flags are (``batch-size``) or with underscores. An unknown key is an error that names the near miss.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ByteSize, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from .choosing.wishes import WishOptions
from .errors import RecipeError, did_you_mean, shown
from .files.jsonfile import read_text
from .scheme.generate import DEFAULT_ATTENTION, DEFAULT_LINEAR
from .scheme.layout import Level
from .tasks.data.options import DataOptions, Size
from .training.length import joint_steps

RECIPE_FILE = "compose.yaml"

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1)]


def _kebab(name: str) -> str:
    """A field's name as a flag and in the file."""
    return name.replace("_", "-")


class Options(BaseModel):
    """Base of the parts of a recipe: frozen, strict about unknown keys."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=_kebab,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_boolean_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        """pydantic reads True as 1; here a switch is a switch."""
        values = value if isinstance(value, list) else [value]
        is_switch = info.field_name and cls.model_fields[info.field_name].annotation is bool
        if not is_switch and any(isinstance(one, bool) for one in values):
            raise PydanticCustomError("boolean", "this option is no switch")
        return value


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
    learning_rate: Positive = 1e-3
    """Peak learning rate of both sides, where no search replaces it."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the steps in which the rate rises; then it falls linearly to 0."""
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """AdamW weight decay."""
    clip: Positive = 1.0
    """Largest gradient norm."""
    distill: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Weight of the base model's answers in the loss, of whole models on both sides and of joint tuning."""
    train: Literal["all", "biases-norms", "lora"] = "all"
    """What of a model learns: everything, biases and norms alone, or those and low-rank updates under the masks."""
    evaluations: Size = 8
    """How often the validation loss is measured, spread over the steps; the best weights are kept."""


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
    """Share of each target that is masked at the end of the run."""
    units: Literal["default", "structured"] = "default"
    """What is masked while it learns: heads and single weights, or heads and neurons."""


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


class Recipe(Options, DataOptions, WishOptions):
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


def load_recipe(path: Path | None = None, given: Mapping[str, Any] | None = None, *, file: bool = True) -> Recipe:
    """Read a recipe file and lay ``given`` over it (nested mappings are merged; None is not given).

    Args:
        path: the file; None takes ``compose.yaml`` of the current folder where there is one.
        given: field -> value, as ``{"seed": 1, "finetune": {"steps": 300}}``.
        file: False reads no file at all.

    Raises:
        RecipeError: unreadable YAML, unknown keys, values that are not allowed; all of them at once.
    """
    source = path or (Path(RECIPE_FILE) if file and Path(RECIPE_FILE).is_file() else None)
    content, flags = _normal(_read_yaml(source) if source else {}), _normal(given or {})
    ours, theirs = flags.get("finetune"), content.get("finetune")
    if isinstance(ours, dict) and isinstance(theirs, dict) and "epochs" in ours and "steps" not in ours:
        theirs.pop("steps", None)  # the file's steps would win over the epochs just given
    try:
        return Recipe.model_validate(_merged(content, flags))
    except ValidationError as bad:
        raise RecipeError(
            [_problem(e, "options" if _among(e["loc"], flags) else str(source)) for e in bad.errors()]
        ) from None


def _among(loc: tuple[Any, ...], flags: dict[str, Any]) -> bool:
    """Whether the value at ``loc`` was given as a flag, not by the file."""
    for part in loc:
        if not isinstance(flags, dict):
            break
        name = str(part).replace("-", "_")
        if name not in flags:
            return False
        flags = flags[name]
    return True


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """``above`` laid over ``below``, nested mappings merged; keys get underscores."""
    return _merged(_normal(below), _normal(above))


def _read_yaml(path: Path) -> dict[str, Any]:
    """The options in a file, as they are written; an empty file has none."""
    import yaml

    text = read_text(path, RecipeError)
    try:
        content, twice = yaml.safe_load(text), list(_given_twice(yaml.compose(text, Loader=yaml.SafeLoader)))
    except yaml.YAMLError as bad:
        mark = getattr(bad, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise RecipeError(f"{path}: {place}not valid YAML: {_reason(bad)}") from None
    if twice:
        raise RecipeError([f"{path}: {problem}" for problem in twice])
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise RecipeError(f"{path}: got {type(content).__name__}; allowed: a mapping of options to values")
    return content


def _reason(bad: Any) -> str:
    """What YAML found wrong, in a line; not every one of its errors has a problem by itself."""
    return getattr(bad, "problem", None) or str(bad).splitlines()[0]


def _given_twice(node: Any) -> Iterator[str]:
    """Keys that stand twice in one mapping, however they are written; YAML would take the last."""
    pairs = getattr(node, "value", None)
    if not isinstance(pairs, list):
        return
    seen: set[str] = set()
    for item in pairs:
        key, value = item if isinstance(item, tuple) else (None, item)
        name = str(key.value).replace("-", "_") if key else ""
        if key and name in seen:
            yield f"line {key.start_mark.line + 1}: key {_kebab(name)!r} is given twice; give it once"
        seen.add(name)
        yield from _given_twice(value)


def _normal(content: Mapping[str, Any]) -> dict[str, Any]:
    """Keys with underscores, nested mappings too; None is left out: what nobody said must not win over a file."""
    return {
        str(key).replace("-", "_"): _normal(value) if isinstance(value, Mapping) else value
        for key, value in content.items()
        if value is not None
    }


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """See :func:`merged`; both have their keys with underscores."""
    result = dict(below)
    for key, value in above.items():
        held = result.get(key)
        result[key] = _merged(held, value) if isinstance(held, dict) and isinstance(value, dict) else value
    return result


def _problem(error: ErrorDetails, where: str) -> str:
    """One of pydantic's errors as a line in our words: the place as a user writes it, what was got, what is allowed."""
    place = ".".join(_kebab(str(part)) if isinstance(part, str) else str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key {place!r}{did_you_mean(place.split('.')[-1], _known(error['loc']))}"
    return f"{where}: {place}: got {shown(error['input'])}; {error['msg'][0].lower()}{error['msg'][1:]}"


def _known(loc: tuple[Any, ...]) -> list[str]:
    """The options that could stand at ``loc``: of the recipe, or of the part of it that ``loc`` leads into."""
    parts: dict[str, type[BaseModel]] = {
        "block": BlockOptions,
        "finetune": ModelOptions,
        "movement": MovementOptions,
        "time": TimeOptions,
    }
    part = parts.get(str(loc[0]), Recipe) if len(loc) > 1 else Recipe
    return [_kebab(name) for name in part.model_fields]
