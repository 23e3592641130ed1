"""The command that turns wishes into configurations: choose."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

from . import tables
from .format import number, percent
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
    rows, dense = told["choices"], told["dense"]
    sizes = [name for name in ("macs", "parameters", "bytes") if name in rows[0]["left"]]
    timed = told["times"] is not None
    measured = ["loss", told["metric"], "times as fast"] if dense else []
    figures = [*sizes, *(["predicted"] if timed else []), *measured, *(f"uniform {name}" for name in measured)]
    sheet = tables.Sheet("Choices", ["wish"], figures, _CAPTION if dense else "")
    if dense:
        first = [percent(1.0)] * len(sizes) + [number(1.0, 2)] * timed
        sheet.add_row("dense", *first, number(dense["loss"]), number(dense[told["metric"]]), number(1.0, 2))
    for row in rows:
        cells = [percent(row["left"][name]) for name in sizes]
        cells += [number(1 / row["left"]["seconds"], 2)] if timed else []
        for one in (row, row["uniform"]) if dense else ():
            cells += [number(one["measured"]["loss"]), number(one["measured"][told["metric"]]), _faster(one)]
        sheet.add_row(_wish(row["wish"]), *cells)
    yield sheet
    if dense:
        yield _ways("Ways to choose: validation loss, no training step", rows, "steps")
    if told["rerank"]:
        yield _ways(f"The best of them after {told['rerank']} steps of learning together", rows, "learnt")
    yield _kept(rows)
    if told["sharing"]:
        yield told["sharing"]
    yield f"{output}: {len(rows)} configurations; go on with compose generate-scheme{hint}"


def _ways(title: str, rows: Any, field: str) -> tables.Sheet:
    names = list(dict.fromkeys(name for row in rows for name in row[field]))
    sheet = tables.Sheet(title, ["wish"], [*names, "taken"])
    for row in rows:
        known = {name: loss if field == "steps" else loss["loss"] for name, loss in row[field].items()}
        sheet.add_row(_wish(row["wish"]), *(number(known.get(name)) for name in names), row["taken"])
    return sheet


_AGAIN = ", then compose prune --calibration-lengths valid (and so finetune), to look at the same examples"
_CAPTION = (
    "Pruned and repaired in closed form, no training step; uniform: the same part of every layer, within the same wish."
)


def _wish(wish: Any) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in wish.items())


def _faster(row: Any) -> str:
    return "too noisy to say" if row["faster"]["noisy"] else number(row["faster"]["value"], 2)


def _kept(choices: Any) -> tables.Sheet:
    title = "Heads and neurons kept" + (", or single weights gone" if any(c["weights"] for c in choices) else "")
    sheet = tables.Sheet(title, ["where"], [str(i) for i in range(len(choices))])
    for path in choices[0]["kept"]:
        sheet.add_row(path, *(_level(choice, path) for choice in choices))
    return sheet


def _level(choice: Any, path: str) -> str:
    gone = choice["weights"].get(path)
    return f"-{percent(gone)} weights" if gone else str(choice["kept"][path])
