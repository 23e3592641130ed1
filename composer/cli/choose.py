"""The command that turns wishes into configurations: choose."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

from composer.tasks.metrics.table import metric_of

from . import tables
from .format import number, percent, plural
from .options import COMMON, DATA, Common, Data
from .parameters import CalibrationLengths, Device, Force, Model, Output, Rates, Seed, Whole, Words
from .session import session
from .tables import Shown

_WISHES = Group("Wishes", sort_key=2)
_TIME = Group("What is timed", sort_key=3)


@Parameter("*", group=_WISHES)
@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What is wished: lists with an entry for each configuration."""

    speedup: Annotated[Rates | None, Parameter(metavar="TIMES...", help="Times as fast on this machine.")] = None
    latency_ms: Annotated[Rates | None, Parameter(metavar="MS...", help="Milliseconds that a pass may take.")] = None
    keep_macs: Annotated[
        Rates | None, Parameter(metavar="PART...", help="Multiplications of the layers that may stay.")
    ] = None
    keep_parameters: Annotated[
        Rates | None, Parameter(metavar="PART...", help="Parameters of the model that may stay.")
    ] = None
    keep_bytes: Annotated[Rates | None, Parameter(metavar="PART...", help="Bytes on disk that may stay.")] = None
    loss_at_most: Annotated[
        Words | None,
        Parameter(metavar="LOSS...", help="Loss without training that is allowed; +0.05: above the base model's."),
    ] = None

    def given(self) -> dict[str, Any]:
        """All fields; where any is given, those that are not are no wishes, whatever a file says."""
        fields = asdict(self)
        return {n: v or [] for n, v in fields.items()} if any(fields.values()) else fields


@Parameter("*", group=_TIME)
@dataclass(frozen=True, kw_only=True)
class Timing:
    """The part ``time`` of a recipe."""

    batch_size: Annotated[Whole | None, Parameter(help="Texts at once [1].")] = None
    length: Annotated[Whole | None, Parameter(help="Tokens of each text, or of a prompt [128].")] = None
    new_tokens: Annotated[Whole | None, Parameter(help="Tokens that models make, if they generate [32].")] = None
    runtime: Annotated[Literal["torch", "onnx"] | None, Parameter(help="Where models are to be fast [torch].")] = None
    threads: Annotated[Whole | None, Parameter(help="Threads of PyTorch [1].")] = None
    repeat: Annotated[Whole | None, Parameter(help="Times that each is timed; more on a noisy machine [15].")] = None

    def given(self) -> dict[str, Any]:
        """The part."""
        return {"time": asdict(self)}


WISHES, TIMING = Wishes(), Timing()
Unstructured = Annotated[
    bool | None, Parameter(group=_WISHES, help="Single weights may go too: for parameters, or the loss alone [no].")
]


def choose(
    *,
    model: Model = None,
    wishes: Wishes = WISHES,
    unstructured: Unstructured = None,
    timing: Timing = TIMING,
    measure: Annotated[
        bool, Parameter(negative="--no-measure", help="Measure each choice, and a uniform one of equal size [yes].")
    ] = True,
    search: Annotated[
        Whole | None,
        Parameter(metavar="N", help="Composed models that are tried for each wish, from calibration data [0]."),
    ] = None,
    beside: Annotated[
        list[Literal["owl", "block-influence"]] | None,
        Parameter(consume_multiple=(1, 9), help="Published ways to spread a budget, tried as well [none]."),
    ] = None,
    rerank: Annotated[
        Whole | None,
        Parameter(metavar="STEPS", help="Steps in which the best candidates learn together, before one is taken [0]."),
    ] = None,
    learning_rate: Annotated[float | None, Parameter(help="Peak learning rate of these steps [0.0001].")] = None,
    calibration_size: Annotated[Whole | None, Parameter(help="Training examples that are looked at [512].")] = None,
    calibration_lengths: CalibrationLengths = None,
    device: Device = None,
    data: Data = DATA,
    seed: Seed = None,
    output: Output = None,
    force: Force = False,
    common: Common = COMMON,
) -> None:
    """Choose what each layer keeps, for a wished speed or size.

    Each wish becomes one configuration of conf.json, in heads and neurons. One
    pass over training examples tells what every attention and feed-forward
    costs the loss at every width, a few models in turn tell what it takes of
    the time on this machine; an integer program takes the widths that cost
    least. The other commands go on from conf.json. Several kinds of wishes
    count together. With --unstructured single weights go too, which spares
    parameters and nothing else. choice.json, choice.html and choice.png show it.

    Example

        compose choose -m models/base --data sst2 --speedup 1.5 2 3
        compose choose -m models/base --data sst2 --keep-macs 0.7 0.5 0.3
        compose choose -m models/base --data sst2 --speedup 2 --keep-bytes 0.4
    """
    from composer.steps.choose import choose as work

    sample = {"calibration_size": calibration_size, "calibration_lengths": calibration_lengths}
    learning = {"beside": beside, "rerank": rerank, "finetune": {"learning_rate": learning_rate}}
    machine = {"unstructured": unstructured, "search": search, **learning, **sample, "device": device}
    with session(common, data, wishes, timing, model=model, seed=seed, **machine) as (recipe, console):
        outcome = work(recipe, output=output, measure=measure, force=force, progress=console.progress)
        hint = _AGAIN if any(asdict(wishes).values()) and recipe.lengths_like == "valid" else ""
        console.show(outcome, _shown(outcome.summary, str(outcome.output), hint))


def _shown(told: Any, output: str, hint: str) -> Shown:
    rows = told["choices"]
    yield _choices(told)
    if told["dense"]:
        yield _ways("Candidates: validation loss, no training step", rows, "steps")
    if told["rerank"]:
        yield _ways(f"The best of them after {told['rerank']} steps of learning together", rows, "learnt")
    yield _kept(rows)
    if told["sharing"]:
        yield told["sharing"]
    yield f"{output}: {plural(len(rows), 'configuration')}; choice.html beside it shows them"
    yield f"The models are made, beside baselines to compare them with, by: {told['next']}"
    yield f"Or step by step by: compose generate-scheme{hint}"


def _choices(told: Any) -> tables.Sheet:
    """What is left by each choice and, where it was measured, what it loses; below each the uniform one."""
    dense, metric = told["dense"], metric_of(told["metric"])
    sizes = [name for name in ("macs", "parameters", "bytes") if name in told["choices"][0]["left"]]
    predicted = ["times as fast\nby the table"] * (told["times"] is not None)
    measured = ["loss", metric.label, "times as fast\nmeasured"] if dense else []
    sheet = tables.Sheet("Choices", ["wish"], [*sizes, *predicted, *measured], _CAPTION if dense else "")

    def line(name: str, one: Any) -> None:
        cells = [percent(one["left"][size]) for size in sizes]
        cells += [number(1 / one["left"]["seconds"], 2) for _ in predicted]
        if dense:
            scores, fast = one["measured"], one["faster"]
            cells += [number(scores["loss"]), number(scores[told["metric"]], metric.decimals)]
            cells.append(f"{number(fast['value'], 2)}{'?' * fast['noisy']}")
        sheet.add_row(name, *cells)

    if dense:
        same = {"left": dict.fromkeys([*sizes, "seconds"], 1.0), "measured": dense}
        line("dense", {**same, "faster": {"value": 1.0, "noisy": False}})
    for row in told["choices"]:
        line(_wish(row["wish"]), row)
        if dense:
            line("  uniform", row["uniform"])
    return sheet


def _ways(title: str, rows: Any, field: str) -> tables.Sheet:
    """A row for each candidate, a column for each wish."""
    names = list(dict.fromkeys(name for row in rows for name in row[field]))
    sheet = tables.Sheet(title, ["candidate"], [_wish(row["wish"], "\n") for row in rows], "*: taken")
    for name in names:
        known = [row[field].get(name) for row in rows]
        losses = [one if field == "steps" or one is None else one["loss"] for one in known]
        marks = ["*" if name == row["taken"] else " " for row in rows]
        sheet.add_row(name, *(f"{number(loss)}{mark}" for loss, mark in zip(losses, marks, strict=True)))
    return sheet


_AGAIN = (
    ", then compose prune --calibration-lengths valid\n"
    "and compose finetune --level block --calibration-lengths valid, which look at the same examples"
)
_CAPTION = (
    "Pruned and repaired in closed form, no training step; uniform: the same part of every layer, within\n"
    "the same wish; ?: too noisy to say"
)


def _wish(wish: Any, between: str = ", ") -> str:
    return between.join(f"{name.replace('_', ' ')} {value}" for name, value in wish.items())


def _kept(choices: Any) -> tables.Sheet:
    title = "Heads and neurons kept" + (", or single weights gone" if any(c["weights"] for c in choices) else "")
    sheet = tables.Sheet(title, ["where"], [_wish(choice["wish"], "\n") for choice in choices])
    for path in choices[0]["kept"]:
        sheet.add_row(path, *(_level(choice, path) for choice in choices))
    return sheet


def _level(choice: Any, path: str) -> str:
    gone = choice["weights"].get(path)
    return f"-{percent(gone)} weights" if gone else str(choice["kept"][path])
