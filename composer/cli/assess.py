"""The command that tells what can go: assess."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from composer.errors import RecipeError
from composer.models.no_targets import said

from . import tables
from .format import NONE, number, percent
from .options import COMMON, DATA, Common, Data
from .parameters import Device, Force, Memory, Places, Seed, Whole, Words
from .session import session
from .study import curves_of_suites, study
from .suites import FLAGS, SuiteFlags
from .tables import Shown

DEFAULT = Path("assessment")


def assess(
    model: Annotated[str, Parameter("MODEL", help="Model folder, hub id, or 'demo'.")],
    /,
    *,
    output: Annotated[Path, Parameter(["-o", "--output"], help="Folder of everything [assessment].")] = DEFAULT,
    rates: Annotated[Words | None, Parameter(metavar="RATE...", help="Rates, or 0:0.9:0.1 [0.25 0.5 0.75].")] = None,
    criteria: Annotated[
        Words | None, Parameter(help="Compared by the curves; sensitivity takes the first [l1 wanda].")
    ] = None,
    granularities: Annotated[
        Words | None, Parameter(help="Of linear targets, for the curves: row, 2:4, … [unstructured].")
    ] = None,
    calibration: Annotated[
        Places | None, Parameter(help="Compare these calibration sets: files, folders, hub datasets [none].")
    ] = None,
    evaluation: Annotated[
        Places | None, Parameter(help="Folders or hub datasets that they are measured on beside --data [none].")
    ] = None,
    beside: Annotated[
        Places | None, Parameter(help="Other models' assessments, whose curves of suites are drawn with these [none].")
    ] = None,
    repair: Annotated[bool, Parameter(negative="--no-repair", help="Refit what is left, too [yes].")] = True,
    sparsity: Annotated[float, Parameter(help="Of the proposal and the calibration matrix [0.5].")] = 0.5,
    parts: Annotated[
        Words | None, Parameter(help="Of weights, sensitivity, curves, runtime, calibration, proposal [all].")
    ] = None,
    targets: Annotated[
        Words | None, Parameter(metavar="GLOB...", help="Only these; needed for a model of no known family.")
    ] = None,
    calibration_size: Annotated[
        Whole | None, Parameter(help="Training examples that criteria and repair look at [256].")
    ] = None,
    memory: Memory = None,
    device: Device = None,
    suites: SuiteFlags = FLAGS,
    data: Data = DATA,
    seed: Seed = None,
    force: Force = False,
    common: Common = COMMON,
) -> None:
    """Show what can go from a model, and what it costs.

    Weights; the loss when a single target or head is pruned, with and without
    repair; loss and metric against the rate; runtime against the rate, masked
    and shrunk; calibration sets against data; and a proposal of rates as
    conf.json. A repeated command goes on where it was.

    With --suite the curves are those of the suites' tasks, too: each against
    the rate, runtime beside it, and --beside other models in the same picture.

    With --suite the calibration sets are a study: the model is pruned once with
    each (for all --criteria that look at data, --granularities and --rates) and
    asked the tasks of the suites; the best of a column is marked where that is
    sure, and the overlap of the masks stands beside it.

    Example

        compose assess models/base --data multi30k
        compose assess models/base --data multi30k --parts weights sensitivity
        compose assess models/base --data c4 --calibration a.jsonl b.jsonl
        compose assess models/base --parts curves runtime --suite glue --suite-data data --data sst2
        compose assess models/base --parts calibration --calibration a.jsonl b.txt --suite language --suite-data data
    """
    from composer.assess.assess import assess as work
    from composer.assess.settings import CRITERIA_SHOWN, GRANULARITIES, RATES, Asked, Settings, parse_rates

    if suites.asked and not any(suites.names.values()):
        raise RecipeError("--suite: nothing given; name suites, or single --tasks, for the other flags of suites")
    said = parse_rates(rates) if rates else ()
    given: dict[str, Any] = {
        "rates": said or RATES,
        "matrix_rates": said,
        "criteria": tuple(criteria or CRITERIA_SHOWN),
        "granularities": tuple(granularities or GRANULARITIES),
        "calibrations": tuple(calibration or ()),
        "evaluations": tuple(evaluation or ()),
        "beside": tuple(beside or ()),
        "sparsity": sparsity,
        "repair": repair,
        "parts": tuple(parts or ()),
        "asked": Asked(**suites.names),
    }
    Settings(**given)  # before anything is read
    machine = {"calibration_size": calibration_size, "memory": memory, "device": device}
    with session(common, data, model=model, seed=seed, targets=targets, **machine) as (recipe, console):
        options = suites.options(recipe.source_lang, recipe.target_lang, recipe.seed)
        settings = Settings(**given, suite_options=options)
        outcome = work(recipe, settings, output, force=force, progress=console.progress)
        console.show(outcome, _shown(outcome.summary, asked=not parts))


def _shown(told: Any, *, asked: bool = True) -> Shown:
    if curves := told.get("curves"):
        yield _curves(curves)
    if suite_curves := told.get("suite-curves"):
        yield from curves_of_suites(suite_curves)
    if runtime := told.get("runtime"):
        yield _runtime(runtime)
    if calibration := told.get("calibration"):
        yield from study(calibration) if "matrices" in calibration else [_calibration(calibration)]
    if proposal := told.get("proposal"):
        sheet = tables.Sheet("Proposal", ["model"], ["sparsity", "loss"])
        sheet.add_row("dense", percent(0.0), number(proposal["dense_loss"]))
        sheet.add_row("proposal", percent(proposal["reached"]), number(proposal["measured_loss"]))
        sheet.add_row("uniform rate", percent(proposal["reached"]), number(proposal["uniform_loss"]))
        yield sheet
    outside = (said(told[part].get("no_targets")) for part in told["parts"])
    yield from dict.fromkeys(line for line in outside if line)
    if asked and "calibration" not in told["parts"]:
        yield "calibration: not made; it compares the sets named with --calibration"
    yield f"page: {told['page']}"


def _curves(told: Any) -> tables.Sheet:
    dense = told["dense"]
    metric = dense["metric"]["name"]
    columns = ["removed", "loss", metric, "95 % interval"]
    note = f"Losses of {told['examples']} examples, {metric} of {told['scored']} of them. {told['speed_note']}"
    sheet = tables.Sheet("Curves", ["pruned by", "repaired"], columns, note)
    own = number(dense["loss"]), number(dense["metric"]["value"]), _interval(dense)
    sheet.add_row("dense", "", percent(0.0), *own)
    for row in told["rows"]:
        name, repaired = f"{row['criterion']}, {row['granularity']}", "yes" if row["repaired"] else "no"
        own = number(row["loss"]), number(row["metric"]), _interval(row)
        sheet.add_row(name, repaired, percent(row["removed_share"]), *own)
    return sheet


def _interval(row: Any) -> str:
    """Of a metric, for the examples that it is of."""
    ends = row.get("interval")
    return f"{number(ends[0])} to {number(ends[1])}" if ends else NONE


def _runtime(told: Any) -> tables.Sheet:
    columns = ["removed", "dense\nms", "ms", "times\nas fast", "95 %\ninterval", "by MACs", "MB"]
    pattern = told["two_of_four"]
    sheet = tables.Sheet("Runtime", ["what goes", "part"], columns, f"{told['note']} {pattern['note']}".strip())
    for row in told["rows"]:
        faster = _faster(row["faster"])
        times = number(row["milliseconds_dense"], 1), number(row["milliseconds"], 1)
        sizes = number(row["macs"], 2), number(row["bytes"] / 1e6, 1)
        name = f"{row['form']}, {percent(row['rate'])}"
        sheet.add_row(name, row["part"], percent(row["removed_share"]), *times, *faster, *sizes)
    for row in pattern["rows"]:
        both = (f"{1e3 * row[key]['median']:.3g}" for key in ("dense", "own"))
        name = f"2:4, {row['path']}" + (f" and {row['count'] - 1} like it" if row["count"] > 1 else "")
        sheet.add_row(name, "matrix", percent(row["sparsity"]), *both, *_faster(row["faster"]), NONE, NONE)
    return sheet


def _faster(ratio: Any) -> tuple[str, str]:
    """A ratio, with a question mark where it is too noisy to say, and its interval."""
    return f"{ratio['value']:.2f}{'?' * ratio['noisy']}", f"{ratio['low']:.2f} to {ratio['high']:.2f}"


def _calibration(told: Any) -> tables.Sheet:
    title = f"Calibration: {told['criterion']} at {told['rate']:g}"
    sheet = tables.Sheet(
        title, ["calibrated on", "measured on"], ["loss", told["rows"][0]["metric_name"], "95 % interval"]
    )
    for row in told["rows"]:
        sheet.add_row(row["calibration"], row["task"], number(row["loss"]), number(row["metric"]), _interval(row))
    return sheet
