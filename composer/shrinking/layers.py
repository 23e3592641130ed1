"""Layers of which nothing is left: they go, and those after them move up.

A layer that normalises before its sublayers adds what these give to the stream. Where they give a constant, the layer
before it can add that as well, in its last bias: so nothing of the layer is needed. A layer that normalises after
them changes the stream without them too, and stays.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ..models.shapes import SIMPLE, simple_norms
from ..scheme.layout import Block
from .plan import Plan, parsed_config
from .units import Units
from .zeros import Found


def drop_layers(plan: Plan) -> Plan:
    """The plan without the layers that can go; of each stack at least one stays."""
    family = plan.base.family
    if not (family and family.stated and family.stated.layers) or plan.base.config.get(
        "scale_attn_by_inverse_layer_idx"
    ):
        return plan  # GPT-2 may divide scores by the number of the layer
    dropped: list[str] = []
    shifts = dict(plan.shifts)
    least = 1
    for stack in reversed(_stacks(plan).values()):  # the decoder's first
        before: Units | None = None
        left = len(stack)
        for layer in stack:
            own = [pair for pair in plan.found.values() if pair[0].layer == layer.path]
            constant = _constant(plan, layer, own)
            name = before.last.bias_name if before else None
            if constant is None or left == least or (bool(constant.any()) and name is None):
                before = own[-1][0] if len(own) == _sublayers(plan, layer) else None
                continue
            if name and bool(constant.any()):
                shifts[name] = shifts[name] + constant if name in shifts else constant
            dropped.append(layer.path)
            left -= 1
        least = left if family.stated.decoder_no_deeper else 1
    return replace(plan, dropped=tuple(dropped), shifts=shifts)


def _stacks(plan: Plan) -> dict[str, list[Block]]:
    """Layers by what their paths begin with."""
    stacks: dict[str, list[Block]] = {}
    for layer in _all_layers(plan):
        stacks.setdefault(layer.path.rpartition(".")[0], []).append(layer)
    return stacks


def _all_layers(plan: Plan) -> Iterator[Block]:
    from ..models.layouts import full_layout

    return full_layout(plan.base.config).at("layer")


def _constant(plan: Plan, layer: Block, own: list[tuple[Units, Found]]) -> Tensor | None:
    """What a layer adds to the stream when it adds a constant, (width,); None when it does more than that."""
    if layer.tap or any(found.kept for _, found in own) or len(own) != _sublayers(plan, layer):
        return None
    total = torch.zeros(own[0][0].last.out_features)
    for units, found in own:
        if units.last.bias_name:
            total += units.last.bias_of(plan.weights.read(units.last.bias_name)).float()
        total += 0 if found.shift is None else found.shift
    return total


def _sublayers(plan: Plan, layer: Block) -> int:
    """How many sublayers a layer has by its family's table; of a shrunk model they may be gone, and leave constants."""
    return sum(1 for path in plan.full if path.startswith(f"{layer.path}."))


def moved(plan: Plan) -> dict[str, str]:
    """Old path of a layer -> its new one, for those that move up."""
    paths: dict[str, str] = {}
    for stack, layers in _stacks(plan).items():
        stay = [layer.path for layer in layers if layer.path not in plan.dropped]
        paths |= {old: f"{stack}.{i}" for i, old in enumerate(stay) if old != f"{stack}.{i}"}
    return paths


def new_path(path: str, paths: Mapping[str, str]) -> str:
    """Where what stood at ``path`` stands after its layer has moved."""
    found = re.fullmatch(r"(.*?\.\d+)(\..*)?", path)
    return f"{paths.get(found[1], found[1])}{found[2] or ''}" if found else path


def new_names(plan: Plan) -> dict[str, str | None]:
    """Stored name of a tensor -> its new one, None for one that goes with its layer.

    What a stack shares stands in its first layer, whichever that is, and stays there.
    """
    paths: dict[str, str | None] = {**moved(plan), **dict.fromkeys(plan.dropped)}
    if not paths:
        return {}
    shared = plan.base.family.shared if plan.base.family else ()
    tails = {path.partition(".")[2]: path for path in paths}
    names: dict[str, str | None] = {}
    for name in plan.weights.entries:
        found = re.match(r"(.*?\.\d+)\.", name)
        if not found or (shared and name.endswith(shared)):
            continue
        if found[1] in paths:
            new = paths[found[1]]
            names[name] = new and new + name[len(found[1]) :]
        elif found[1] in tails:  # stored without the body's name
            new = paths[tails[found[1]]]
            names[name] = new and new.partition(".")[2] + name[len(found[1]) :]
    return names


def fewer_layers(plan: Plan) -> dict[str, object]:
    """What ``config.json`` says of fewer layers: their number, the lists with an entry for each, and their norms."""
    stated = plan.base.family.stated if plan.base.family else None
    changed: dict[str, object] = {}
    if not plan.dropped or stated is None:
        return changed
    stacks = _stacks(plan)
    for stream, key in stated.layers.items():
        for name, layers in stacks.items():
            if len(stated.layers) == 1 or stream in name.split("."):
                stay = [i for i, layer in enumerate(layers) if layer.path not in plan.dropped]
                changed[key] = len(stay)
    if norms := simple_norms(plan.base.config):
        paths, gone = moved(plan), tuple(f"{layer}." for layer in plan.dropped)
        changed[SIMPLE] = {"norms": {new_path(p, paths): n for p, n in norms.items() if not p.startswith(gone)}}
    if len(stated.layers) == 1:
        everything = parsed_config(plan.base.config).to_dict()
        changed |= {key: [everything[key][i] for i in stay] for key in PER_LAYER if everything.get(key)}
    if "encoder_layers" in changed and "num_hidden_layers" in plan.base.config:
        changed["num_hidden_layers"] = changed["encoder_layers"]  # BART's says it twice
    return changed


PER_LAYER = ("layer_types", "no_rope_layers")
"""Lists of configurations with an entry for each layer."""
