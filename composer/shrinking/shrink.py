"""From a masked folder to a smaller one: a form is chosen, weights are cut, files written."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from ..errors import ModelError
from ..files.jsonfile import write_json
from ..files.safetensors import DTYPES, weight_files
from ..models.folder import BaseModel
from ..models.shapes import KEY, Shapes, needs_code, shapes_of
from ..models.storage import CODE, auto_map, write_code
from ..progress import SILENT, Progress
from .layers import drop_layers, fewer_layers, moved, new_names, new_path
from .plain import padded, stated_config
from .plan import Plan, make_plan
from .records import Change, Form, Report, row, total
from .units import shapes_left
from .weights import Cuts, Written, write_cut

Asked = Literal["auto", "plain", "padded", "exact"]

OURS = ("composer.json", "README.md", CODE.name)
"""Files of a masked folder that say something of that folder alone."""
HEAVY = (".bin", ".pt", ".pth", ".h5", ".msgpack", ".onnx", ".gguf", ".safetensors")
"""Suffixes of the same weights in other formats."""


def shrink_into(
    folder: Path, base: BaseModel, asked: Asked, progress: Progress = SILENT, targets: Sequence[str] = ()
) -> Report:
    """Write ``base`` without what is removed from it into the empty ``folder``; ``targets`` as in :func:`make_plan`.

    Raises:
        ModelError: nothing can be taken out, or the form cannot state what is left.
    """
    plan, form, why, config = choose(drop_layers(make_plan(base, progress, targets)), asked)
    return write(plan, form, why, config, folder)


def choose(plan: Plan, asked: Asked) -> tuple[Plan, Form, str, dict[str, Any]]:
    """The form that was asked for: the plan for it, its name, why, and ``config.json``.

    Raises:
        ModelError: ``plain`` or ``padded``, where the configuration cannot state what is left.
    """
    if asked == "exact":
        return plan, "exact", "as asked", exact_config(plan)
    if asked == "padded":
        full = padded(plan)
        config = stated_config(full)
        if isinstance(config, str):
            raise ModelError(f"--form padded: {plan.base.name}: {config}; allowed here: exact")
        return full, "padded", _cost(plan, full), config
    config = stated_config(plan)
    if isinstance(config, dict):
        other = config["model_type"] if config["model_type"] != plan.base.config["model_type"] else None
        renamed = f", as a {other}: the same function, and any number of heads" if other else ""
        return plan, "plain", f"its configuration states what is left{renamed}", config
    if asked == "plain":
        raise ModelError(f"--form plain: {plan.base.name}: {config}; allowed here: exact, padded")
    return plan, "exact", config, exact_config(plan)


def _cost(exact: Plan, full: Plan) -> str:
    """What padding keeps."""
    ours = {units.path: len(found.kept) for units, found in exact.left}
    more = sum(units.parameters(len(found.kept)) - units.parameters(ours[units.path]) for units, found in full.left)
    return f"{more:,} parameters of zeros are kept, which exact shapes spare"


def exact_config(plan: Plan) -> dict[str, Any]:
    """``config.json`` with the shapes of every layer under a key of our own."""
    before, paths = shapes_of(plan.base.config), moved(plan)
    follow = plan.base.family.followers if plan.base.family else ()
    left = [(units, found.kept) for units, found in plan.left]
    made = shapes_left(left, lambda units: plan.weights.following(units, follow))
    linear = {**before.linear, **made.linear}
    every = {units.path: units for units, _ in left}
    heads = {**before.heads, **{path: plan.heads(every[path], kept) for path, kept in made.heads.items()}}
    gone = tuple(f"{layer}." for layer in plan.dropped)
    shapes = Shapes(
        {new_path(path, paths): sizes for path, sizes in linear.items() if not path.startswith(gone)},
        {new_path(path, paths): kept for path, kept in heads.items() if not path.startswith(gone)},
    )
    config = {**plan.base.config, **fewer_layers(plan), "architectures": [architecture(plan.base)]}
    if not shapes:
        return config
    return {**config, KEY: shapes.as_json()}


def architecture(base: BaseModel) -> str:
    """The class of the model; where ``config.json`` names none, the bare body."""
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    named = (base.config.get("architectures") or [None])[0] or MODEL_MAPPING_NAMES[base.config["model_type"]]
    return str(named if isinstance(named, str) else named[0])


def write(plan: Plan, form: Form, why: str, config: dict[str, Any], folder: Path) -> Report:
    """Write the smaller model into the empty ``folder``."""
    base, cuts, follow = plan.base, Cuts(), plan.base.family.followers if plan.base.family else ()
    for units, found in plan.left:
        cuts.take(units, found, plan.weights, follow)
        cuts.counted |= {plan.weights.stored(p.weight) for p in units.projections}
    for name, shift in plan.shifts.items():
        cuts.add(plan.weights.stored(name), shift)
    if not config.get(KEY):
        _cut_shared(plan, cuts)
    written = write_cut(plan.weights, cuts, folder, new_names(plan))
    coded = needs_code(config)  # a plain form too, where norms are none any more
    write_json(folder / "config.json", config | ({"auto_map": auto_map(config)} if coded else {}))
    copy_others(base.folder, folder)
    if coded:
        write_code(folder)
    return _report(plan, form, why, written)


def _cut_shared(plan: Plan, cuts: Cuts) -> None:
    """Cut T5's position biases, (buckets, heads), to the heads that a stack keeps; exact shapes keep all."""
    shared = plan.base.family.shared if plan.base.family else ()
    for name in plan.weights.entries if shared else ():
        stack = name.partition(".")[0]
        if name.endswith(shared):
            kept = next(plan.heads(u, f.kept) for u, f in plan.left if u.path.startswith(f"{stack}."))
            cuts.columns(name, torch.tensor(kept))


def copy_others(source: Path, folder: Path) -> None:
    """Copy what stands beside the weights: vocabulary, generation settings, licence."""
    weights = {path.name for path in weight_files(source)}
    skipped = {*weights, *OURS, "config.json", "model.safetensors.index.json"}
    for path in sorted(source.iterdir()):
        if path.is_file() and path.name not in skipped and not path.name.startswith(".") and path.suffix not in HEAVY:
            shutil.copyfile(path, folder / path.name)


def _report(plan: Plan, form: Form, why: str, written: Written) -> Report:
    entries, rows = plan.weights.entries, []
    for units, found in plan.found.values():
        names = {plan.weights.stored(p.weight) for p in units.projections}
        width = DTYPES[entries[plan.weights.stored(units.last.weight)].dtype]
        zeros = sum(written.zeros.get(name, 0) for name in names)
        rows.append(row(units, found, width, zeros, gone=units.layer in plan.dropped))
    count = sum(entry.size for entry in entries.values())
    size = sum(entry.stop - entry.start for entry in entries.values())
    macs = total([one.macs for one in rows])
    return Report(form, why, tuple(rows), Change(count, written.count), Change(size, written.bytes), macs, plan.dropped)
