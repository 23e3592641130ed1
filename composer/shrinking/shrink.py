"""From a masked folder to a smaller one: what can go is found, a form is chosen, weights are cut, files written."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ..errors import ModelError
from ..files.jsonfile import write_json
from ..files.safetensors import DTYPES, weight_files
from ..models.folder import BaseModel
from ..models.shapes import KEY, Shapes, resized, shapes_of
from ..models.storage import CODE, HuggingFace, auto_map, write_code
from ..progress import SILENT, Progress
from ..scheme.layout import Target
from .records import Change, Form, Report, row, total
from .units import Units, units_of
from .weights import Cuts, Weights, write_cut
from .zeros import Activation, Found, find

Asked = Literal["auto", "plain", "padded", "exact"]
FORMS = ("auto", "plain", "padded", "exact")

OURS = ("composer.json", "README.md", CODE.name)
"""Files of a masked folder that say something of that folder alone."""


@dataclass(frozen=True)
class Plan:
    """What of a model stays: what was found of each of its units."""

    base: BaseModel
    weights: Weights
    found: Mapping[str, tuple[Units, Found]]

    @property
    def removed(self) -> int:
        """How many units go."""
        return sum(units.count - len(found.kept) for units, found in self.found.values())


def make_plan(base: BaseModel, progress: Progress = SILENT) -> Plan:
    """Look through the weights of a folder for units that can go.

    Raises:
        ModelError: a model that no family's table serves or whose folder is not Hugging Face's, or nothing can go.
    """
    if not isinstance(base.storage, HuggingFace):
        raise ModelError(
            f"{base.name}: a {base.layout.family} folder is not one of transformers; shrinking takes those"
        )
    layout, weights = base.layout, Weights(base.folder)
    every = list(units_of(layout))
    if not every:
        raise ModelError(
            f"{base.name}: no table says which heads and neurons a {base.config['model_type']} has; shrinking takes "
            "models of the families"
        )
    act = activation(base)
    found: dict[str, tuple[Units, Found]] = {}
    with progress.bar("look for units", len(every)) as bar:
        for units in every:
            found[units.path] = units, find(units, weights.read, act)
            bar.advance(units.path)
    plan = Plan(base, weights, found)
    if not plan.removed:
        raise ModelError(f"{base.name}: nothing can be taken out: {_why_nothing(plan)}")
    return plan


def _why_nothing(plan: Plan) -> str:
    zeros = sum(found.zeros_before for _, found in plan.found.values())
    weights = sum(p.out_features * p.in_features for units, _ in plan.found.values() for p in units.projections)
    if not zeros:
        return "no weight of its targets is zero; prune it first"
    return (
        f"{zeros / weights:.0%} of single weights are zero, no whole unit is; use heads and neurons "
        "(`compose generate-config --granularity neuron`), which are whole rows"
    ).replace("%", " %", 1)


def activation(base: BaseModel) -> Activation:
    """The activation of a model's feed-forwards."""
    from transformers import CONFIG_MAPPING
    from transformers.activations import ACT2FN

    parsed = CONFIG_MAPPING[base.config["model_type"]].from_dict(dict(base.config))
    names = ("dense_act_fn", "hidden_act", "activation_function", "activation", "hidden_activation")
    found: Any = next((getattr(parsed, name) for name in names if getattr(parsed, name, None)), None)
    if not isinstance(found, str):
        raise ModelError(f"{base.name}: config.json: no activation in it; looked for {', '.join(names)}")
    act: Activation = ACT2FN[found]
    return act


def write(plan: Plan, form: Form, why: str, folder: Path) -> Report:
    """Write the smaller model into the empty ``folder``.

    Raises:
        ModelError: it is written already in part, or a weight is not there.
    """
    base, config = plan.base, exact_config(plan)
    cuts, family = Cuts(), base.family
    for units, found in plan.found.values():
        cuts.take(units, found, plan.weights, family.followers if family else ())
    left = write_cut(plan.weights, cuts, folder)
    write_json(folder / "config.json", config)
    copy_others(base.folder, folder)
    if config.get(KEY):
        write_code(folder)
    return _report(plan, form, why, left)


def exact_config(plan: Plan) -> dict[str, Any]:
    """``config.json`` with the shapes of every layer under a key of our own."""
    before = shapes_of(plan.base.config)
    linear, heads = dict(before.linear), dict(before.heads)
    for units, found in plan.found.values():
        if len(found.kept) == units.count:
            continue
        linear |= resized(Target(units.path, units.kind, units.projections, units.count), units.last, len(found.kept))
        if units.kind == "attention":
            rows = units.rows(units.first[0]) * len(found.kept)
            follow = plan.base.family.followers if plan.base.family else ()
            linear |= dict.fromkeys(plan.weights.following(units, follow), (rows, units.first[0].in_features))
            had = before.heads.get(units.path, range(units.count))
            heads[units.path] = tuple(had[i] for i in found.kept)
    config = {**plan.base.config, KEY: Shapes(linear, heads).as_json()}
    config["architectures"] = [architecture(plan.base)]
    return config | {"auto_map": auto_map(config)}


def architecture(base: BaseModel) -> str:
    """The class of the model, where ``config.json`` names none the bare body."""
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    named = (base.config.get("architectures") or [None])[0] or MODEL_MAPPING_NAMES[base.config["model_type"]]
    return str(named if isinstance(named, str) else named[0])


def copy_others(source: Path, folder: Path) -> None:
    """Copy what stands beside the weights: vocabulary, generation settings, licence."""
    weights = {path.name for path in weight_files(source)}
    skipped = {*weights, *OURS, "config.json", "model.safetensors.index.json"}
    for path in sorted(source.iterdir()):
        if path.is_file() and path.name not in skipped and not path.name.startswith(".") and path.suffix not in HEAVY:
            shutil.copyfile(path, folder / path.name)


HEAVY = (".bin", ".pt", ".pth", ".h5", ".msgpack", ".onnx", ".gguf", ".safetensors")
"""Suffixes of the same weights in other formats."""


def _report(plan: Plan, form: Form, why: str, left: tuple[int, int]) -> Report:
    entries = plan.weights.entries
    rows = tuple(
        row(units, found, DTYPES[entries[plan.weights.stored(units.last.weight)].dtype])
        for units, found in plan.found.values()
    )
    count, size = (
        sum(figures) for figures in zip(*((e.size, e.stop - e.start) for e in entries.values()), strict=True)
    )
    macs = total([one.macs for one in rows])
    return Report(form, why, rows, Change(count, left[0]), Change(size, left[1]), macs)


def with_found(plan: Plan, changed: Mapping[str, Sequence[int]]) -> Plan:
    """The plan with other units that stay, by path."""
    found = {
        path: (units, replace(one, kept=tuple(changed[path])) if path in changed else one)
        for path, (units, one) in plan.found.items()
    }
    return replace(plan, found=found)
