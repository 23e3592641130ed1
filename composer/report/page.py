"""``report.html``: one self-contained page that says what was compared, what came out and what it cost."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..models.no_targets import said
from ..scheme.graph import Scheme
from . import family, tables
from .curves import Curve, read_stats
from .kit.components import (
    Figure,
    Section,
    Table,
    Tile,
    dig,
    fraction,
    number,
    plain,
    provenance_facts,
    seconds,
    write_page,
)
from .ledger import pays_text
from .records import Comparison

if TYPE_CHECKING:
    from ..scheme.layout import Layout
    from .kept import Stack

TITLE = "Composed against baseline"
FAMILY = "A family of small models"
NO_VERDICT = "There is no verdict yet: not everything that it needs has been trained."
FACTS = {
    "criterion": "Criterion",
    "block_levels": "Block levels",
    "trainer": "Block trainer",
    "steps": "Model-level steps",
    "precision": "Precision",
}


def write_report(
    comparison: Comparison,
    stats: Mapping[str, Path],
    scheme: Scheme | None,
    output: Path,
    *,
    layout: Layout | None = None,
    kept: Mapping[int, Sequence[Stack]] | None = None,
    small: family.Rows = (),
    title: str | None = None,
) -> None:
    """Write the page of a comparison, or of a family of small models; nothing in it is loaded from elsewhere.

    Args:
        comparison: what ``compose compare`` found; what is not known in it is a dash on the page.
        stats: the runs' CSV files by name (``model-0``, ``baseline-0``, ``dense``, ``block``); files that
            do not exist are left out.
        scheme: for the picture of the graph.
        layout: gives the picture its execution order.
        kept: configuration -> what its model keeps of its heads and neurons.
        small: rows of :func:`composer.steps.shrunk_models.shrunk_models`. Where nothing was compared, the page is about
            them alone.
        title: of the page [by what it is about].

    Raises:
        DataError: a stats file that is malformed.
    """
    alone = bool(small) and not any(row.baseline for row in comparison.rows)
    metric, curves = comparison.metric, _read(stats)
    sections = [family.section_of(small, metric)] if small else []
    sections += [] if alone else _about_the_comparison(comparison, curves)
    sections += _about_the_blocks(comparison, curves, scheme, layout, kept or {})
    sections = [section for section in sections if section.parts]
    provenance = comparison.provenance
    write_page(
        output,
        "report.html",
        title=title or (FAMILY if alone else TITLE),
        verdict=family.text_of(small, metric) if alone else comparison.verdict or NO_VERDICT,
        tiles=family.tiles_of(small, metric) if alone else _tiles(comparison),
        facts=_facts(comparison, scheme),
        sections=sections,
        links=[(s.name, s.heading) for s in sections] + [("again", "Repeat it")],
        command=provenance.get("command"),
        provenance=provenance_facts(provenance),
        recipe=json.dumps(provenance.get("recipe") or {}, indent=2, ensure_ascii=False, default=str),
    )


@dataclass
class _Curves:
    """Runs by name, and the curves of the block phase and of the joint phase."""

    runs: dict[str, Curve] = field(default_factory=dict)
    blocks: list[Curve] = field(default_factory=list)
    joint: list[Curve] = field(default_factory=list)


def _read(stats: Mapping[str, Path]) -> _Curves:
    """All stats files that exist, sorted by what they hold."""
    curves = _Curves()
    for name, path in stats.items():
        if not path.exists():
            continue
        file = read_stats(path, may_be_empty=True)
        if file.kind == "run":
            curves.runs |= [(name, Curve(name, curve.points)) for curve in file.curves]
        else:
            getattr(curves, file.kind).extend(file.curves)
    return curves


def _about_the_comparison(comparison: Comparison, curves: _Curves) -> Iterator[Section]:
    from . import drawings

    yield Section(
        "result",
        "Result",
        "Baseline: each configuration pruned and fine-tuned whole. Composed: put together from blocks that "
        "were tuned once and shared, then fine-tuned whole where it is not there yet. "
        "Lower loss is better, and so is lower perplexity; of all "
        "other metrics more is better.",
        _filled(tables.result_table(comparison), tables.dense_table(comparison)),
    )
    figures = drawings.curve_figures(comparison, curves.runs)
    yield Section("curves", "Loss curves", "Validation loss during model-level fine-tuning.", figures)
    budgets = _filled(tables.budget_table(comparison))
    yield Section("budget", "How much of the budget is needed", "", budgets)
    ledger = _filled(tables.ledger_table(comparison)) if comparison.ledger.here is not None else []
    ledger += drawings.cost_figures(comparison)
    yield Section("cost", "What it cost", _cost_lead(comparison), ledger)
    yield Section("rates", "Learning rates", "", _filled(tables.search_table(comparison)))


def _about_the_blocks(
    comparison: Comparison,
    curves: _Curves,
    scheme: Scheme | None,
    layout: Layout | None,
    kept: Mapping[int, Sequence[Stack]],
) -> Iterator[Section]:
    from . import drawings

    parts: list[Table | Figure] = _filled(tables.sharing_table(comparison))
    if curves.joint:
        parts.append(drawings.joint_figure(curves.joint))
    if curves.blocks:
        parts.append(drawings.block_figure(curves.blocks))
    if scheme is not None and scheme.nodes:
        parts.append(drawings.graph_figure(scheme, layout))
    lead = "Every block that configurations share is pruned and tuned once, towards the base model's output."
    lead += " Then all configurations learn together, as one network." if curves.joint else ""
    yield Section("blocks", "The block phase", lead, parts)
    lead = (
        "A cell for each head, a bar for all neurons of a layer; what is hollow is gone, what is pale has zeros inside."
    )
    yield Section("kept", "What is left", lead, drawings.kept_figures(kept))


def _filled(*some: Table) -> list[Table | Figure]:
    """The tables that have rows; a heading without any says nothing."""
    return [table for table in some if table.rows]


def _tiles(comparison: Comparison) -> list[Tile]:
    """The figures that answer the question at a glance; what is not known is left out."""
    rows, ledger = comparison.rows, comparison.ledger
    tiles = []
    composed = tables.mean([row.composed.loss for row in rows])
    pruned = tables.mean([row.pruned.loss for row in rows])
    if composed is not None and pruned is not None:
        text = "nats: mean loss before any model-level step, composed against baseline"
        tiles.append(Tile(f"{number(composed, 2)} vs {number(pruned, 2)}", text))
    shares = [row.share for row in rows if row.share is not None]
    if shares:
        text = f"of the baseline's steps reach its loss, median; {len(shares)} of {len(rows)} models get there"
        tiles.append(Tile(fraction(statistics.median(shares)), text))
    if ledger.composed and ledger.baseline:
        spent = f"{seconds(ledger.composed.seconds)} vs {seconds(ledger.baseline.seconds)}"
        tiles.append(Tile(spent, "all work, composed against baseline"))
        pays = ledger.pays_from
        if pays is not None:
            tiles.append(Tile(str(pays), "configurations or more: composing pays"))
        else:
            tiles.append(Tile("more work", "at these settings, however many configurations: composing does not pay"))
    return tiles


def _cost_lead(comparison: Comparison) -> str:
    pays, here = comparison.ledger.pays_from, comparison.ledger.here
    if not (comparison.ledger.baseline and comparison.ledger.composed):
        return ""
    return pays_text(pays, here)


def _facts(comparison: Comparison, scheme: Scheme | None) -> list[tuple[str, str]]:
    """What was compared, in a few words."""
    recipe, data = (comparison.provenance.get(key) for key in ("recipe", "data"))
    name = _find(recipe, "model") or (scheme.model if scheme is not None else None)
    known = _find(recipe, "data") or _find(data, "name") or _find(data, "path")
    facts = [("Model", name), ("Data", known), ("Configurations", len(comparison.rows) or None)]
    for key, text in FACTS.items():
        value = _find(recipe, "finetune", "steps") if key == "steps" else _find(recipe, key)
        if key == "steps":
            used = {row.baseline.steps for row in comparison.rows if row.baseline}
            value = next(iter(used)) if len(used) == 1 else value
        if key == "block_levels" and value is None and scheme is not None:
            value = scheme.block_levels
        facts.append((text, value))
    facts.append(("Seed", comparison.provenance.get("seed")))
    if outside := said(comparison.no_targets):
        facts.append(("Beside the targets", outside))
    return [(text, plain(value)) for text, value in facts]


def _find(value: Any, *keys: str) -> Any:
    """``dig`` that takes keys in either spelling: ``block_levels`` or ``block-levels``."""
    for key in keys:
        found = dig(value, key)
        value = found if found is not None else dig(value, key.replace("_", "-"))
    return value
