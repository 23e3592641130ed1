"""``assess.html``: one self-contained page of what lies in a folder, made from its JSON files alone."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from ...errors import OutputError
from ...files.jsonfile import read_json
from ...files.records import changes
from ...models.no_targets import said
from ...report.kit import components
from ...report.kit.components import Section, Tile, amount, dig, number, percent, plain, provenance_facts
from ...report.kit.labels import short_name
from ..contents import Contents, TargetLoss
from ..study import show as show_study
from ..study import show_curves as show_suite_curves
from ..study.contents import SUITE_CURVES, SuiteCurvesFile
from . import show_curves, show_proposal, show_runtime, show_sensitivity, show_weights
from .parts import Part, rise, unit_of

PAGE = "assess.html"
NAMES = ("proposal", "sensitivity", "curves", "runtime", "weights", "calibration")
"""Files of an assessment, in the order of the page."""
FILES = (*NAMES[:3], SUITE_CURVES, *NAMES[3:], "study")
"""Those, and the ones that curves and calibration write where suites are asked."""
HINTS = {
    "weights": ("Weights: histograms, cutoffs, outliers", "--parts weights"),
    "sensitivity": ("Sensitivity of every target and head", "--parts sensitivity"),
    "curves": ("Metric and loss against the rate", "--parts curves --rates 0:0.9:0.1"),
    "runtime": ("Seconds against the rate, masked and shrunk", "--parts runtime --rates 0.25 0.5 0.75"),
    "calibration": ("Calibration sets against tasks", "--parts calibration --calibration a.jsonl b.jsonl"),
    "proposal": ("A proposal for a wished sparsity", "--parts sensitivity proposal --sparsity 0.5"),
}
"""What makes a part that is missing."""

USED = {"proposal": ("weights", "sensitivity"), SUITE_CURVES: ("runtime",)}
"""Other files that a section looks at: a proposal names all targets; runtime stands beside the curves of suites."""
SAME = ("version", "task", "targets", "valid", "examples", "calibration", "damping", "dead_columns", "device")
"""What all parts of a page should have been measured with."""
Row = Mapping[str, Any]
Drawn = dict[str, tuple[Any, Part]]
"""By name of a part: what it was drawn from, and the drawing."""


def write_page(folder: Path, *, pictures: bool = True, drawn: Drawn | None = None) -> Path:
    """Write ``assess.html`` into ``folder``, and every picture in it as PNG and SVG; returns the page.

    Args:
        pictures: write the picture files too; those newer than what they show are left alone.
        drawn: what earlier calls drew; a part whose file is the same is not drawn again.

    Raises:
        OutputError: no file of an assessment is there, or one is none.
    """
    contents = read_parts(folder, FILES)
    files = cast("Contents", contents)
    if not contents:
        named = ", ".join(f"{name}.json" for name in FILES)
        raise OutputError(f"{folder}: nothing to show; needed: at least one of {named} (`compose assess` writes them)")
    parts = _parts(folder, contents, {} if drawn is None else drawn)
    if pictures:
        for name, part in parts.items():
            used = [name, *(other for other in USED.get(name, ()) if other in contents)]
            part.save(folder, *(folder / f"{one}.json" for one in used))
    first = next(iter(contents.values()))
    sections = [_with_differences(part.section, contents[name], first) for name, part in parts.items()]
    data = dig(first, "provenance", "data")
    call = shlex.join(
        ["compose", "assess", str(first.get("model")), *(["--data", str(data)] if data else []), "-o", str(folder)]
    )
    instead = {"study": "calibration", SUITE_CURVES: "curves"}
    there = {*contents, *(part for name, part in instead.items() if name in contents)}
    missing = [(name, f"{call} {how}") for key, (name, how) in HINTS.items() if key not in there]
    proposal = contents.get("proposal")
    components.write_page(
        folder / PAGE,
        "report.html",
        title=f"What can go in {Path(str(first.get('model'))).name}",
        verdict=summary(files),
        tiles=_tiles(files),
        facts=_facts(contents),
        sections=sections,
        links=[(s.name, s.heading) for s in sections] + [("again", "Repeat it")],
        hints=missing,
        next_text="To go on with the proposal:",
        next_command=shlex.join(
            ["compose", "generate-scheme", "-c", str(folder / str(proposal.get("conf") or "conf.json"))]
        )
        if proposal
        else "",
        command=dig(first, "provenance", "command"),
        provenance=provenance_facts(first.get("provenance")),
        recipe="",
    )
    return folder / PAGE


def read_parts(folder: Path, names: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """The files that are there, by name.

    Raises:
        OutputError: one that is not what its name says.
    """
    contents = {}
    for name in names:
        path = folder / f"{name}.json"
        if path.is_file():
            content = read_json(path, OutputError)
            if not isinstance(content, dict) or content.get("what") != name:
                raise OutputError(f'{path}: is no result of an assessment; needed: an object with "what": "{name}"')
            contents[name] = content
    return contents


def _with_differences(section: Section, content: Row, first: Row) -> Section:
    """A section whose figures were measured on other data, or otherwise, than those of the first part says so."""
    then, now = (dig(one, "provenance", "inputs") or {} for one in (first, content))
    both = [name for name in SAME if name in then and name in now]
    then, now = ({name: inputs[name] for name in both} for inputs in (then, now))
    if then == now:
        return section
    lead = f"Not measured as the first part of this page was ({changes(then, now)})."
    return replace(section, lead=f"{lead} {section.lead}".strip())


def _parts(folder: Path, contents: Mapping[str, Row], drawn: Drawn) -> dict[str, Part]:
    for name, content in contents.items():
        source = [content, *(contents.get(other) for other in USED.get(name, ()))]
        if name not in drawn or drawn[name][0] != source:
            drawn[name] = source, _part(folder / f"{name}.json", content, contents)
    return {name: drawn[name][1] for name in contents}


def _part(path: Path, content: Row, contents: Mapping[str, Row]) -> Part:
    makers: dict[str, Callable[[Any], Part]] = {
        "weights": show_weights.part,
        "sensitivity": show_sensitivity.part,
        "curves": show_curves.part,
        SUITE_CURVES: lambda curves: show_suite_curves.part(curves, contents.get("runtime", {}).get("rows", [])),
        "runtime": show_runtime.part,
        "calibration": show_curves.calibration_part,
        "study": show_study.part,
        "proposal": lambda proposal: show_proposal.part(proposal, _targets(cast("Contents", contents))),
    }
    try:
        return makers[path.stem](content)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as bad:
        raise OutputError(f"{path}: cannot be shown, what it holds is not complete: {bad!r}; make it again") from bad


def _targets(files: Contents) -> list[str]:
    """All targets, where a file names them."""
    if "weights" in files:
        return [row["target"] for row in files["weights"]["targets"]]
    sensitivity = files.get("sensitivity")
    return list(dict.fromkeys(row["target"] for row in sensitivity["rows"])) if sensitivity else []


def summary(files: Contents) -> str:
    """What can go, in two sentences."""
    studied = show_study.summary(files["study"]) if "study" in files else ""
    curves = cast("SuiteCurvesFile | None", files.get(SUITE_CURVES))  # no name of a field: it has a hyphen
    curved = show_suite_curves.summary(curves) if curves else ""
    sentences = [text for text in (_proposed(files), _single(files), curved, studied, _sizes(files)) if text]
    return " ".join(sentences[:2])


def _proposed(files: Contents) -> str:
    content = files.get("proposal")
    dense = show_proposal.dense_loss(content) if content else None
    measured = amount(content.get("measured_loss")) if content else None
    if content is None or measured is None or dense is None:
        return ""
    text = f"{percent(content['reached'], 0)} of the target weights can go for {rise(measured, dense, 2)} "
    text += f"{unit_of(content)} of loss ({number(dense, 2)} to {number(measured, 2)})"
    uniform = amount(content.get("uniform_loss"))
    return text + (f"; one rate for all targets would take {rise(uniform, dense, 2)}." if uniform is not None else ".")


def _single(files: Contents) -> str:
    content = files.get("sensitivity")
    extremes = show_sensitivity.extremes(content) if content else None
    if content is None or extremes is None:
        return ""
    least, most, rate = extremes
    dense = content["dense"]["loss"]
    names = [f"{short_name([row['target']])} ({_cost(row, dense)})" for row in (least, most)]
    return f"Pruned alone at {percent(rate, 0)}, {names[0]} costs least and {names[1]} most."


def _cost(row: TargetLoss, dense: float) -> str:
    repaired = amount(row.get("loss_repaired"))
    return rise(row["loss"] if repaired is None else repaired, dense)


def _sizes(files: Contents) -> str:
    content = files.get("weights")
    if content is None:
        return ""
    rows, points = content["targets"], content["cutoffs"]
    count = sum(row["count"] for row in rows)
    half = next((point for point in points if point["share_below"]["all"] >= 0.5), points[-1])
    largest = max(row["max_abs"] for row in rows)
    below = percent(half["share_below"]["all"], 0)
    return (
        f"{below} of the {count:,} target weights are smaller than {half['cutoff']:.2g}, the largest is {largest:.2g}. "
        "What they are worth only a measurement tells."
    )


def _tiles(files: Contents) -> list[Tile]:
    tiles = show_proposal.tiles(files["proposal"]) if "proposal" in files else []
    if "weights" in files:
        rows = files["weights"]["targets"]
        tiles.append(Tile(f"{sum(row['count'] for row in rows):,}", f"weights in {len(rows)} targets"))
    return tiles


def _facts(contents: Mapping[str, Row]) -> list[tuple[str, str]]:
    first = next(iter(contents.values()))
    facts = [("Model", plain(first.get("model")))]
    for key, text in (("criterion", "Criterion"), ("examples", "Examples measured"), ("unit", "Unit of losses")):
        found = next((content[key] for content in contents.values() if content.get(key)), None)
        if found is not None:
            facts.append((text, plain(found)))
    if outside := said(first.get("no_targets")):
        facts.append(("Beside the targets", outside))
    data = dig(first, "provenance", "data")
    return facts + ([("Data", plain(data))] if data else [])
