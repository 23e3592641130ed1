"""The forms that plain transformers loads: what an architecture's configuration can state, and padding up to that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ..models.family import Stated
from ..models.shapes import KEY
from .layers import fewer_layers
from .plan import Plan, parsed_config
from .units import Units
from .zeros import Found, find

Pairs = list[tuple[Units, Found]]

SAME_FUNCTION = {"llama": "mistral"}
"""``model_type`` -> one that computes the same from the same weights, and takes any number of heads."""


def stated_config(plan: Plan) -> dict[str, Any] | str:
    """``config.json`` of an ordinary folder with these shapes; or why there is none, in a few words."""
    family = plan.base.family
    stated = family.stated if family else None
    if family is None or stated is None:
        return "no table says how its configuration states sizes"
    if len(plan.found) < len(plan.full):
        return "sublayers that are gone already have no place in its configuration"
    if gone := [units.path for units, found in plan.left if not found.kept]:
        return f"nothing is left of {gone[0]}, and its configuration cannot say so"
    changed = _neurons(plan, stated)
    heads = _heads(plan, stated, family.name) if isinstance(changed, dict) else {}
    if isinstance(changed, str) or isinstance(heads, str):
        return changed if isinstance(changed, str) else str(heads)
    config = {key: value for key, value in plan.base.config.items() if key not in (KEY, "auto_map")}
    return _accepted({**config, **fewer_layers(plan), **changed, **heads})


def _neurons(plan: Plan, stated: Stated) -> dict[str, Any] | str:
    changed: dict[str, Any] = {}
    for key, pairs in _by_key(plan, stated).items():
        counts = sorted({len(found.kept) for _, found in pairs})
        if len(counts) > 1:
            return f"its feed-forwards keep {counts[0]:,} to {counts[-1]:,} neurons, and {key} is one number"
        if counts and any(counts[0] != plan.full[units.path] for units, _ in pairs):
            changed[key] = counts[0]
    return changed


def _by_key(plan: Plan, stated: Stated) -> dict[str, Pairs]:
    """Feed-forwards whose neurons one key of the configuration counts."""
    keys: dict[str, Pairs] = {}
    for units, found in plan.left:
        if units.kind == "feed_forward":
            keys.setdefault(stated.neurons[units.last.stream], []).append((units, found))
    return keys


def _attentions(plan: Plan) -> Pairs:
    return [(units, found) for units, found in plan.left if units.kind == "attention"]


def _heads(plan: Plan, stated: Stated, family: str) -> dict[str, Any] | str:
    attentions = _attentions(plan)
    if all(len(found.kept) == plan.full[units.path] for units, found in attentions):
        return {}
    if not stated.heads:
        return f"{family}: the number of heads divides the width, so that no configuration states fewer"
    counts = sorted({len(found.kept) for _, found in attentions})
    if len(counts) > 1:
        return f"its attentions keep {counts[0]} to {counts[-1]} heads, and {stated.heads} is one number"
    for sharing in _sharing(plan):
        if len({plan.heads(units, found.kept) for units, found in sharing}) > 1:
            return "self-attentions of a stack share one position bias by head, and keep different heads"
    first = attentions[0][0]
    changed = {stated.heads: counts[0] * first.queries}
    if stated.groups:
        changed[stated.groups] = counts[0]
    if stated.head_width:
        changed[stated.head_width] = first.rows(first.first[0]) // first.queries
    return changed


def _sharing(plan: Plan) -> Iterator[Pairs]:
    """Self-attentions that read one position bias, a stack at a time."""
    layout = plan.base.layout
    stacks: dict[tuple[str, ...], Pairs] = {}
    for units, found in _attentions(plan):
        if layout.shares_bias(units.path):
            stacks.setdefault(layout.stack(units.path), []).append((units, found))
    yield from stacks.values()


def _accepted(config: dict[str, Any]) -> dict[str, Any] | str:
    """The configuration, as the same function under another name where its own class refuses the sizes."""
    try:
        parsed_config(config)
        return config
    except Exception as bad:
        other = SAME_FUNCTION.get(config["model_type"])
        if other is None or config.get("attention_bias") or config.get("mlp_bias"):
            return f"its configuration refuses the sizes: {(str(bad).splitlines() or [''])[-1]}"
    names = [name.replace("Llama", other.capitalize()) for name in config.get("architectures") or []]
    left = {key: value for key, value in config.items() if key not in ("attention_bias", "mlp_bias", "pretraining_tp")}
    return {**left, "model_type": other, "architectures": names, "sliding_window": None}


def padded(plan: Plan) -> Plan:
    """The plan with units of zeros kept, so that its configuration can state what is left."""
    family = plan.base.family
    stated = family.stated if family else None
    if stated is None:
        return plan
    kept: dict[str, tuple[int, ...]] = {}
    for pairs in _by_key(plan, stated).values():
        most = max(max(len(found.kept) for _, found in pairs), 1)
        kept |= {units.path: filled(found.kept, most, units.count) for units, found in pairs}
    kept |= _padded_heads(plan, stated)
    found = {
        path: (units, find(units, plan.weights.read, plan.activation, kept.get(path)))
        for path, (units, _) in plan.found.items()
    }
    return replace(plan, found=found)


def _padded_heads(plan: Plan, stated: Stated) -> dict[str, tuple[int, ...]]:
    attentions = _attentions(plan)
    if not stated.heads:
        return {units.path: tuple(range(units.count)) for units, _ in attentions}
    wanted = {units.path: found.kept for units, found in attentions}
    for sharing in _sharing(plan):
        union = tuple(sorted(set().union(*(found.kept for _, found in sharing))))
        wanted |= {units.path: union for units, _ in sharing}
    most = max(max(map(len, wanted.values())), 1)
    return {units.path: filled(wanted[units.path], most, units.count) for units, _ in attentions}


def filled(kept: tuple[int, ...], most: int, count: int) -> tuple[int, ...]:
    """Indices up to ``most`` of ``count``: those that are kept, then the first others.

    >>> filled((2, 5), 4, 8)
    (0, 1, 2, 5)
    """
    others = [i for i in range(count) if i not in set(kept)]
    return tuple(sorted([*kept, *others[: max(0, most - len(kept))]]))
