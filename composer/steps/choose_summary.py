"""What is told of the choices of `compose choose`: the content of ``choice.json``, but for where it comes from."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ..choosing.choice import Choice
from ..choosing.menu import Menu
from .choose_candidates import WishCandidates

Learnt = Mapping[str, Mapping[str, float]]
"""Name of a candidate -> loss and metric after learning."""


def summary(
    menu: Menu, wishes: Sequence[WishCandidates], choices: Sequence[Choice], learnt: Sequence[Learnt]
) -> dict[str, Any]:
    """What is told of the choices, with the uniform ones beside them.

    Args:
        wishes: the candidates of each wish.
        learnt: of each wish, empty where nothing learnt.
    """
    measures, measure = wishes[0].measures, wishes[0].measure
    even = [one.known["uniform"] for one in wishes]
    both = [*choices, *even]
    faster = measures.faster(both) if measure else [None] * len(both)
    rows = [
        {
            "wish": {**one.wish.asked, **({"loss_at_most": one.wish.loss} if one.wish.loss else {})},
            **_row(one, choices[i], faster[i]),
            "taken": one.name_of(choices[i]),
            "steps": {name: one.loss(choice) for name, choice in one.known.items()} if measure else {},
            "learnt": learnt[i],
            "uniform": _row(one, even[i], faster[len(choices) + i]),
        }
        for i, one in enumerate(wishes)
    ]
    counts = blocks([menu.pruned(choice) for choice in choices])
    return {
        "model": measures.space.base.name,
        "units": {units.path: units.count for units in measures.units},
        "time": asdict(measures.setting),
        "choices": rows,
        "dense": measures.loss({}) if measure else None,
        "metric": measures.space.task.main_metric,
        "times": menu.times.plain() if menu.times else None,
        "blocks": counts,
        "sharing": sharing(counts),
        "rerank": measures.space.recipe.rerank,
        "unstructured": measures.space.recipe.unstructured,
    }


def blocks(pruned: Sequence[Collection[tuple[str, str]]]) -> dict[str, int]:
    """How many pruned parts all configurations have, and how many of them are different ones.

    Args:
        pruned: the parts of each (:meth:`~composer.choosing.menu.Menu.pruned`).
    """
    return {"all": sum(map(len, pruned)), "different": len({one for parts in pruned for one in parts})}


def sharing(counts: Mapping[str, int]) -> str:
    """What it saves that configurations have parts in common, in a sentence; empty where they have none."""
    saved = counts["all"] - counts["different"]
    if not saved:
        return ""
    return (
        f"{counts['different']} different pruned parts serve the {counts['all']} of all configurations: each is "
        f"pruned and repaired once, {saved / counts['all']:.0%} less work than one by one"
    ).replace("%", " %")


def _row(one: WishCandidates, choice: Choice, faster: Mapping[str, Any] | None) -> dict[str, Any]:
    measured = one.measures.loss(one.menu.specs(choice)) if one.measure else None
    return {**choice.plain, "measured": measured, "faster": faster}
