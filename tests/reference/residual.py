"""What blocks add to the stream of a real model, by hooks of its own on modules named here.

Pre-norm (T5): a sublayer and a layer are modules whose output contains their input. Post-norm (BERT,
DistilBERT): a sublayer's part is what is added before a norm, so it is the norm's input minus what entered
the sublayer; a layer's part is its last norm's input minus the layer's input.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn

Added = dict[tuple[str, str], Tensor]


def added(model: nn.Module, family: str, run: Callable[[], Any]) -> Added:
    """(level, path) -> what the block adds, for every sublayer and layer."""
    return {"T5": _t5, "BERT": _bert, "DistilBERT": _distilbert}[family](model, run)


def outputs(model: nn.Module, paths: Iterable[str], run: Callable[[], Any]) -> dict[str, Tensor]:
    """Output of each module."""
    return {path: _first(out) for path, (_, out) in _seen(model, set(paths), run).items()}


def flat(value: Any) -> list[Tensor]:
    """Every tensor in nested arguments."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        return [tensor for item in value.values() for tensor in flat(item)]
    return [tensor for item in value for tensor in flat(item)] if isinstance(value, (tuple, list)) else []


def _t5(model: nn.Module, run: Callable[[], Any]) -> Added:
    sublayer = re.compile(r"(encoder|decoder)\.block\.\d+\.layer\.\d+")
    layer = re.compile(r"(encoder|decoder)\.block\.\d+")
    levels = {"sublayer": _matching(model, sublayer), "layer": _matching(model, layer)}
    seen = _seen(model, {p for paths in levels.values() for p in paths}, run)
    return {(level, p): _first(seen[p][1]) - seen[p][0] for level, paths in levels.items() for p in paths}


def _bert(model: nn.Module, run: Callable[[], Any]) -> Added:
    layers = _matching(model, re.compile(r"(bert\.)?encoder\.layer\.\d+"))
    paths = {f"{p}{part}" for p in layers for part in ("", ".attention.output.LayerNorm", ".output.LayerNorm")}
    seen = _seen(model, paths, run)
    made: Added = {}
    for p in layers:
        middle, last = seen[f"{p}.attention.output.LayerNorm"], seen[f"{p}.output.LayerNorm"]
        made["sublayer", f"{p}.attention"] = middle[0] - seen[p][0]
        made["sublayer", f"{p}.output"] = last[0] - middle[1]
        made["layer", p] = last[0] - seen[p][0]
    return made


def _distilbert(model: nn.Module, run: Callable[[], Any]) -> Added:
    layers = _matching(model, re.compile(r"(distilbert\.)?transformer\.layer\.\d+"))
    paths = {f"{p}{part}" for p in layers for part in ("", ".sa_layer_norm", ".output_layer_norm")}
    seen = _seen(model, paths, run)
    made: Added = {}
    for p in layers:
        middle, last = seen[f"{p}.sa_layer_norm"], seen[f"{p}.output_layer_norm"]
        made["sublayer", f"{p}.attention"] = middle[0] - seen[p][0]
        made["sublayer", f"{p}.ffn"] = last[0] - middle[1]
        made["layer", p] = last[0] - seen[p][0]
    return made


def _matching(model: nn.Module, pattern: re.Pattern[str]) -> list[str]:
    return [path for path, _ in model.named_modules() if pattern.fullmatch(path)]


def _seen(model: nn.Module, paths: set[str], run: Callable[[], Any]) -> dict[str, tuple[Tensor, Any]]:
    """First input and output of each module during ``run``, copied."""
    found: dict[str, tuple[Tensor, Any]] = {}
    handles = []

    def watch(path: str) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            given = args[0] if args else kwargs["hidden_states"]
            found[path] = given.clone(), _first(output).clone()

        return hook

    for path, module in model.named_modules():
        if path in paths:
            handles.append(module.register_forward_hook(watch(path), with_kwargs=True))
    run()
    for handle in handles:
        handle.remove()
    return found


def _first(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]
