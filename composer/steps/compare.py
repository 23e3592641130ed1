"""`compose compare`: composed models against baselines, under one budget and one ledger."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files.environment import machine, versions
from ..files.jsonfile import digest_of, read_json, write_json
from ..files.records import RECORD, record
from ..models.folder import BaseModel
from ..progress import SILENT, Progress
from ..report.ledger import ledger_of, verdict_of
from ..report.records import Comparison, Shared
from ..workspace import Given, Workspace
from .card import refresh_card
from .compared_runs import ComparedRuns
from .outcome import Outcome
from .recorded_work import tried_together, work_of

if TYPE_CHECKING:
    from ..report.kept import Stack


def compare(
    recipe: Given,
    *,
    train: bool = True,
    small: Sequence[Mapping[str, Any]] | None = None,
    force: bool = False,
    progress: Progress = SILENT,
) -> Outcome:
    """The table that answers the question, ``report.html``, and two pictures: what came out and what it took,
    ``summary.png``, and the ledger, ``ledger.png``.

    Args:
        train: run what the table lacks; otherwise only tabulate what is there.
        small: rows of :func:`.shrunk_models.shrunk_models`, which the page is to show too; None leaves those that the
            file has of this scheme.
    """
    space = Workspace.of(recipe)
    table = table_of(space, ComparedRuns(space, train=train, force=force, progress=progress))
    path, report, picture = comparison_file(space), space.folder / "report.html", space.folder / "ledger.png"
    summary = space.folder / "summary.png"
    inputs = {"scheme": space.scheme().digest}
    told = read_json(path) if path.is_file() else {}
    before = told.get("result")
    if small is None and told.get("inputs") == inputs:
        small = (before or {}).get("small")
    result = table.plain() | ({"small": list(small)} if small else {})
    drawn = report.is_file() and min(picture.is_file(), summary.is_file()) >= bool(table.ledger.growth)
    fresh = before is None or digest_of(before) != digest_of(result) or not drawn
    if fresh:
        from ..report import headline
        from ..report.headline import Headline
        from ..report.page import write_report

        write_json(path, record(inputs, result=result))
        stats = {p.stem: p for p in sorted((space.folder / "stats").glob("*.csv"))}
        how: dict[str, Any] = {"layout": space.base.layout, "kept": _kept(space), "small": small or ()}
        write_report(table, stats, space.scheme(), report, **how)
        if table.ledger.growth:
            from ..report.costs import draw

            draw(table.ledger, picture)
        if found := Headline.of(table):
            headline.draw(found, summary)
        for folder in sorted((space.folder / "models").glob("*/")):
            if (folder / RECORD).is_file():  # models are measured one by one, what they are compared with among them
                refresh_card(space, BaseModel(folder))
    if train:  # otherwise the work of a run that was killed waits there to be gone on with
        shutil.rmtree(space.folder / ".work", ignore_errors=True)
    return Outcome(report, fresh, result)


def table_of(space: Workspace, runs: ComparedRuns) -> Comparison:
    """All runs as one table, with the ledger of their work."""
    scheme, tried = space.scheme(), tried_together(space)
    search = runs.search().model_copy(update={"joint": tried})
    dense = runs.dense()
    rows = tuple(runs.row(i, search.chosen) for i in range(len(scheme.roots)))
    ledger = ledger_of(work_of(space, rows, search), dense.finetuned)
    levels = scheme.sharing(space.base.layout)
    return Comparison(
        metric=space.task.main_metric,
        rows=rows,
        dense=dense,
        search=search,
        sharing=tuple(Shared(level=s.level, blocks=s.blocks, uses=s.uses, saved=s.saved) for s in levels),
        ledger=ledger,
        verdict=verdict_of(rows, ledger),
        no_targets=space.base.no_targets,
        provenance=_provenance(space),
    )


def _provenance(space: Workspace) -> dict[str, Any]:
    """What the page says about how the comparison can be repeated."""
    digests = {name: space.examples(name).digest for name in ("train", "valid", "test")}
    sources = {f"{name} from": space.examples(name).source for name in ("train", "valid", "test")}
    return {
        "model": space.base.name,
        "fingerprint": space.base.fingerprint,
        "scheme": space.scheme().digest,
        "versions": versions(),
        "machine": machine(),
        "device": space.device,
        "seed": space.recipe.seed,
        "data": {**sources, **digests},
        "recipe": space.resolved(),
        "command": "compose run",
    }


def comparison_file(space: Workspace) -> Path:
    """Where the table is kept."""
    return space.folder / "results" / "comparison.json"


def _kept(space: Workspace) -> dict[int, list[Stack]]:
    """What each configuration's model keeps of its heads and neurons, of those that are built."""
    from ..shrinking.kept import kept_units

    folders = {i: space.built_model(i) for i in range(len(space.scheme().roots))}
    bases = {i: BaseModel(folder) for i, folder in folders.items() if folder.is_dir()}
    return {i: kept_units(base, dict(base.load().named_parameters())) for i, base in bases.items()}
