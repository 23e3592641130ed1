"""What a checkpoint must know of masks that are being learnt, as plain files beside the model.

``masks.safetensors`` has the values behind the masks (``weights/…``), what they are multiplied with (``masks/…``) and
the state of the scores (``scores/…``); its header says of which step and way. The rest is the Trainer's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ...errors import ModelError
from ...files.atomic import replacing
from ...tensors.parameters import set_values

if TYPE_CHECKING:
    from ...tensors.learnt.patch import Patch

FILE = "masks.safetensors"


def save(folder: Path, patch: Patch, step: int) -> None:
    """Write what a training that goes on with the step after this one needs; masks are on."""
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    plain = _flat({"weights": patch.before, "masks": patch.masks, "scores": patch.scores.state()}, "", tensors)
    said = {"step": str(step), "way": type(patch.scores).__name__, "plain": json.dumps(plain)}
    with replacing(folder / FILE) as temporary:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, temporary, said)


def load(folder: Path, patch: Patch, step: int) -> None:
    """Take up such a state: masks are on afterwards, as they were.

    Raises:
        ModelError: there is no such file, or it is of another step, way to score or model.
    """
    weights, masks, scores = _read(folder, patch, step)
    for name, mask in masks.items():
        masks[name] = mask.to(patch.parameters[name].device)
    patch.before = {}
    patch.masks = masks
    set_values(patch.parameters, weights)
    patch.on()
    patch.scores.load(scores)


def load_masks(folder: Path, patch: Patch, step: int) -> None:
    """Take the masks alone: the model in memory is already the checkpoint's."""
    patch.before = {}
    patch.masks = {name: mask.to(patch.parameters[name].device) for name, mask in _read(folder, patch, step)[1].items()}


def _read(folder: Path, patch: Patch, step: int) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]]:
    from safetensors import safe_open

    file = folder / FILE
    if not file.is_file():
        raise ModelError(f"LearnMasks: {folder} has no {FILE}: it is no checkpoint of a training that learns masks")
    with safe_open(file, framework="pt") as opened:
        said = opened.metadata() or {}
        found = _unflat({name: opened.get_tensor(name) for name in opened.keys()})  # noqa: SIM118
    way = type(patch.scores).__name__
    if (said.get("step"), said.get("way")) != (str(step), way):
        raise ModelError(
            f"LearnMasks: {file}: is of {said.get('way')} at step {said.get('step')}; this training of {way} at {step}"
        )
    weights, masks = found.get("weights", {}), found.get("masks", {})
    theirs, ours = sorted(weights), sorted(patch.scores.names)
    if theirs != ours:
        raise ModelError(f"LearnMasks: {file}: learns masks of {len(theirs)} parameters, these rules of {len(ours)}")
    return weights, masks, _merged(found.get("scores", {}), json.loads(said["plain"]).get("scores", {}))


def _flat(values: Mapping[str, Any], place: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Tensors put into ``tensors`` by their whole name; returns what is no tensor."""
    plain: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Tensor):
            tensors[f"{place}{name}"] = value
        elif isinstance(value, Mapping):
            plain[name] = _flat(value, f"{place}{name}/", tensors)
        else:
            plain[name] = value
    return plain


def _unflat(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path, tensor in tensors.items():
        *places, name = path.split("/")
        inner = found
        for place in places:
            inner = inner.setdefault(place, {})
        inner[name] = tensor
    return found


def _merged(tensors: Mapping[str, Any], plain: Mapping[str, Any]) -> dict[str, Any]:
    both = {name: _merged(tensors.get(name, {}), value) for name, value in plain.items() if isinstance(value, Mapping)}
    return {**tensors, **plain, **both}
