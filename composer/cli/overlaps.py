"""The result of `masks` as lines and tables."""

from __future__ import annotations

from collections.abc import Sequence

from composer.assess.masks.contents import Overlap, PairOverlap, TargetOverlap, in_all
from composer.steps.outcome import Outcome

from .format import number, percent, plural
from .tables import Sheet, Shown, finished

MOST = 8
"""Targets listed where two models differ most."""
FIGURES = ("removed a", "removed b", "overlap", "by chance")


def overlaps(outcome: Outcome) -> Shown:
    """What `masks` found: all pairs, then the layers, then where two models differ most."""
    pairs: Sequence[PairOverlap] = outcome.summary["pairs"]
    whole = Sheet("What was removed", ["a", "b"], FIGURES, "overlap: Jaccard; by chance: that of random sets as large")
    for pair in pairs:
        whole.add_row(str(pair["a"]), str(pair["b"]), *_figures(in_all(pair)))
    yield whole
    if len(pairs) == 1:
        yield _sheet("By layer", "layer", [(row["layer"], row) for row in pairs[0]["layers"]])
        most: Sequence[TargetOverlap] = outcome.summary["differing"][:MOST]
        yield _sheet("Where they differ most", "target", [(row["target"], row) for row in most])
    else:
        yield _layers(outcome.summary["models"], pairs)
    pieces = plural(len(pairs[0]["rows"]), "target")
    yield finished(outcome, f"{plural(len(pairs), 'pair')} of models, {pieces}; {outcome.summary['page']}")


def _sheet(title: str, name: str, rows: Sequence[tuple[str, Overlap]]) -> Sheet:
    sheet = Sheet(title, [name], FIGURES)
    for text, row in rows:
        sheet.add_row(text, *_figures(row))
    return sheet


def _layers(models: Sequence[str], pairs: Sequence[PairOverlap]) -> Sheet:
    """A column for each pair, by the models' numbers."""
    numbers = {name: i for i, name in enumerate(models)}
    names = [f"{numbers[pair['a']]}–{numbers[pair['b']]}" for pair in pairs]
    caption = ", ".join(f"{i}: {name}" for name, i in numbers.items())
    sheet = Sheet("Overlap by layer", ["layer"], names, caption)
    for i, row in enumerate(pairs[0]["layers"]):
        sheet.add_row(row["layer"], *(number(pair["layers"][i]["jaccard"]) for pair in pairs))
    return sheet


def _figures(row: Overlap) -> list[str]:
    removed = [percent(count / row["total"]) for count in (row["removed_a"], row["removed_b"])]
    return [*removed, number(row["jaccard"]), number(row["chance"])]
