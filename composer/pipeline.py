"""The whole way from rates to compared models, resumable: what is there and current is skipped."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .jsonfile import digest_of, read_json, write_json
from .outcome import Outcome
from .progress import SILENT, Progress
from .provenance import record
from .recipe import Recipe, load_recipe, merged
from .workspace import Given, Workspace

RATE_FIELDS = {"attention", "linear", "count", "grid", "random", "targets", "granularity", "attention_granularity"}
"""A recipe that sets one of these makes its own configurations; otherwise a `conf.json` that is there is taken."""

BEST: dict[str, Any] = {"criterion": "obs", "trainer": "joint"}
"""What ``compose run`` takes where its recipe says nothing: the way that measured best (README, docs/decisions.md)."""
CLASSIC: dict[str, Any] = {
    "criterion": "l1",
    "trainer": "distill",
    "dead_columns": False,
    "sweep": False,
    "block_levels": ["module"],
}
"""The original recipe: magnitudes, and every pruned module by itself distilled by gradients."""


def with_best(recipe: Recipe) -> Recipe:
    """The recipe with :data:`BEST` for everything of it that nobody has said."""
    unsaid = {name: value for name, value in BEST.items() if name not in recipe.model_fields_set}
    return recipe.model_copy(update=unsaid)


def run(recipe: Given, *, force: bool = False, progress: Progress = SILENT) -> Outcome:
    """All steps of one recipe, from ``conf.json`` to ``report.html``."""
    from . import steps

    space = Workspace.of(recipe)
    space.folder.mkdir(parents=True, exist_ok=True)
    if space.recipe.config:
        steps.take_config(space, space.recipe.config, force=force)
    elif force or not space.conf.is_file() or RATE_FIELDS & space.recipe.model_fields_set:
        steps.generate_config(space, force=force)
    steps.generate_scheme(space, force=force)
    steps.prune(space, force=force, progress=progress)
    steps.finetune_blocks(space, force=force, progress=progress)
    for i in range(len(space.scheme().roots)):
        steps.build_model(space, i, force=force)
    return compare(space, force=force, progress=progress)


def plan(recipe: Given) -> list[dict[str, Any]]:
    """The steps that :func:`run` would take: name, what it does, whether its output is there already."""
    space = Workspace.of(recipe)
    n = len(space.scheme().roots) if space.conf_prune.is_file() else "all"
    composed = space.folder / "models" / (str(n - 1) if isinstance(n, int) else "0")
    rows = [
        ("generate-config", f"rates to {space.conf}", space.conf),
        ("generate-scheme", f"the graph, {space.conf_prune}", space.conf_prune),
        ("prune", f"every variant once, {space.pruned}", space.pruned),
        ("finetune --level block", f"every block once, {space.finetuned}", space.finetuned),
        (
            "build-model",
            f"compose {n} models, {space.folder / 'models'}",
            composed,
        ),
        (
            "compare",
            "baselines, composed models and the dense control, fine-tuned and measured",
            _comparison(space),
        ),
        ("report", f"{space.folder / 'report.html'}", space.folder / "report.html"),
    ]
    return [{"step": name, "does": does, "done": output.exists()} for name, does, output in rows]


def compare(recipe: Given, *, train: bool = True, force: bool = False, progress: Progress = SILENT) -> Outcome:
    """The table that answers the question, ``report.html``, and the ledger as a picture, ``ledger.png``.

    Args:
        train: run what the table lacks; otherwise only tabulate what is there.
    """
    from .comparison import Comparison

    space = Workspace.of(recipe)
    table = Comparison(space, progress, force=force).make(train=train)
    path, report, picture = _comparison(space), space.folder / "report.html", space.folder / "ledger.png"
    content = record({"scheme": space.scheme().digest}, result=table)
    before = read_json(path).get("result") if path.is_file() else None
    drawn = report.is_file() and picture.is_file() >= bool(table["ledger"]["growth"])
    fresh = before is None or digest_of(before) != digest_of(table) or not drawn
    if fresh:
        from .stages.report.page import write_report

        write_json(path, content)
        stats = {p.stem: p for p in sorted((space.folder / "stats").glob("*.csv"))}
        write_report(table, stats, space.scheme(), report, layout=space.base.layout)
        if table["ledger"]["growth"]:
            from .stages.report.costs import draw

            draw(table["ledger"], picture)
    if train:  # otherwise the work of a run that was killed waits there to be gone on with
        shutil.rmtree(space.folder / ".work", ignore_errors=True)
    return Outcome(report, fresh, table)


def demo_recipe(folder: Path, given: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe of ``compose demo``: embedded model and corpus, three configurations, two minutes."""
    import yaml

    path = Path(__file__).parent / "demo" / "recipe.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return load_recipe(None, merged(merged(content, given or {}), {"folder": str(folder)}), file=False)


def _comparison(space: Workspace) -> Path:
    return space.folder / "results" / "comparison.json"
