"""The whole assessment: its parts in the order in which they answer, each into files, and the page after each."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, cast

from ..errors import OutputError
from ..files.jsonfile import digest_of, read_json, write_json
from ..files.records import RECORD, changes, is_current, record
from ..progress import SILENT, Progress
from ..recipe import Recipe
from ..steps.outcome import Outcome
from .contents import SensitivityFile
from .measure.assessed_model import AssessedModel
from .settings import PARTS, Part, Settings
from .study.contents import SUITE_CURVES

PAGE = "assess.html"


def assess(
    recipe: Recipe,
    settings: Settings,
    folder: Path,
    *,
    force: bool = False,
    progress: Progress = SILENT,
) -> Outcome:
    """Make the parts that ``settings`` name in ``folder``, and ``assess.html`` from all that lies there.

    Rows that were finished earlier under the same settings are taken from the journal in the folder; with all of them
    there no model is loaded.

    Args:
        force: measure these parts again, and replace the assessment of another model.

    Raises:
        OutputError: the folder holds the assessment of another model, or something else.
        InputError: settings that do not fit the model or the data.
    """
    subject = AssessedModel(recipe, settings, folder, force=force, progress=progress)
    settings.check_model(subject.layout, subject.paths)
    settings.check_sample(has_data=subject.has_data)
    _open(subject)
    from .measure.columns import add_columns
    from .pages.page import Drawn, write_page

    results: dict[str, Any] = {}
    drawn: Drawn = {}
    for name in (name for part in PARTS if part in settings.parts for name in _files_of(part, subject)):
        results[name] = _make(name, subject, results)
        write_page(folder, drawn=drawn)
        if name == "weights" and (more := add_columns(subject, results[name])):
            results[name] = more  # a model is loaded for it: the first page did not wait
            if settings.parts == ("weights",):
                write_page(folder, drawn=drawn)
    return Outcome(folder / PAGE, True, summary(results, folder))


def _open(subject: AssessedModel) -> None:
    """Say whose assessment the folder holds; another model's must not be mixed with it."""
    folder, inputs = subject.folder, {"base": subject.space.base.fingerprint}
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):  # an empty folder is as good as none
        with suppress(OutputError) if subject.force else nullcontext():
            if is_current(folder, inputs, renew=subject.force):
                return  # also with --force: the parts that are not asked for stay
        for name in (*PARTS, "heads", "columns", "study", SUITE_CURVES):
            for suffix in (".json", ".csv"):
                (folder / name).with_suffix(suffix).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / RECORD, record(inputs, model=subject.space.base.name))


def _files_of(part: Part, subject: AssessedModel) -> tuple[str, ...]:
    """What a part makes: curves are of the loss where there is data, and of suites where some are asked."""
    if part != "curves":
        return (part,)
    return (*(("curves",) if subject.has_data else ()), *((SUITE_CURVES,) if subject.settings.asked else ()))


def _make(part: str, subject: AssessedModel, results: Mapping[str, Any]) -> Mapping[str, Any]:
    if part == "weights":
        from .measure.weights import assess_weights

        base = subject.space.base
        options = {"command": subject.command, "data": subject.space.recipe.data, "seed": subject.space.recipe.seed}
        provenance = record({"base": base.fingerprint}, **options)
        return assess_weights(base, subject.folder, subject.paths, provenance=provenance, progress=subject.progress)
    if part == "sensitivity":
        from .measure.sensitivity import assess_sensitivity

        return assess_sensitivity(subject)
    if part == "curves":
        from .measure.curves import assess_curves

        return assess_curves(subject)
    if part == SUITE_CURVES:
        from .study.curves import assess_suite_curves

        return assess_suite_curves(subject)
    if part == "runtime":
        from .measure.runtime import assess_runtime

        return assess_runtime(subject)
    if part == "calibration" and subject.settings.asked:
        from .study.study import assess_study

        return assess_study(subject)
    if part == "calibration":
        from .measure.calibrations import assess_calibrations

        return assess_calibrations(subject)
    from .measure.proposal import assess_proposal

    return assess_proposal(subject, results.get("sensitivity") or _stored_sensitivities(subject))


def _stored_sensitivities(subject: AssessedModel) -> SensitivityFile:
    """The table of sensitivities that lies in the folder, if it was measured under the same circumstances."""
    path, way = subject.folder / "sensitivity.json", "name sensitivity among --parts"
    if not path.is_file():
        raise OutputError(f"{path}: no such file; the proposal is made from it: {way}")
    table = read_json(path, OutputError)
    if not isinstance(table, dict) or table.get("what") != "sensitivity":
        raise OutputError(f"{path}: is no table of sensitivities; {way}")
    now = {**subject.inputs, "repair": subject.settings.repair, "criterion": subject.settings.criteria[0]}
    inputs = (table.get("provenance") or {}).get("inputs") or {}
    was = {name: value for name, value in inputs.items() if name in now}
    if digest_of(was) != digest_of(now):
        raise OutputError(f"{path}: was measured under other circumstances ({changes(was, now)}); {way}")
    return cast("SensitivityFile", table)


def summary(results: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What the command prints: figures of each part that was made."""
    whole: dict[str, Any] = {"folder": str(folder), "page": str(folder / PAGE), "parts": list(results)}
    figures = {part: {k: v for k, v in result.items() if k != "provenance"} for part, result in results.items()}
    return {**whole, **figures}
