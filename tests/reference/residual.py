"""What blocks add to the stream of a real model, by hooks of its own on modules named here.

Pre-norm (T5, GPT-2, Llama): a sublayer and a layer are modules whose output contains their input. Post-norm (BERT,
DistilBERT): a sublayer's part is what is added before a norm, so it is the norm's input minus what entered
the sublayer; a layer's part is its last norm's input minus the layer's input.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn

NORMS = {
    "BART": (
        r"model\.(encoder|decoder)\.layers\.\d+",
        {"self_attn": "self_attn_layer_norm", "encoder_attn": "encoder_attn_layer_norm", "fc2": "final_layer_norm"},
    ),
    "OPT": (r"model\.decoder\.layers\.\d+", {"self_attn": "self_attn_layer_norm", "fc2": "final_layer_norm"}),
    "GPT-2": (r"transformer\.h\.\d+", {"attn": "ln_1", "mlp": "ln_2"}),
    "Llama": (r"model\.layers\.\d+", {"self_attn": "input_layernorm", "mlp": "post_attention_layernorm"}),
}
"""Family -> its layers, and their sublayers with the norm of each, in the order in which they run."""

Added = dict[tuple[str, str], Tensor]


def added(model: nn.Module, family: str, run: Callable[[], Any]) -> Added:
    """(level, path) -> what the block adds, for every sublayer and layer."""
    if family in NORMS:
        return _by_norms(model, run, *NORMS[family])
    return {"T5": _t5, "BERT": _bert, "DeBERTa-v2": _bert, "DistilBERT": _distilbert}[family](model, run)


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
    layers = _matching(model, re.compile(r"(bert\.|deberta\.)?encoder\.layer\.\d+"))
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


def _by_norms(model: nn.Module, run: Callable[[], Any], pattern: str, norms: dict[str, str]) -> Added:
    config: Any = model.config
    post = config.model_type == "bart" or getattr(config, "do_layer_norm_before", True) is False
    layers = _matching(model, re.compile(pattern))
    here = {p for p, _ in model.named_modules()}
    seen = _seen(model, {*layers, *(f"{p}.{norm}" for p in layers for norm in norms.values())} & here, run)
    made: Added = {}
    for p in layers:
        entered, left = seen[p]
        passed = [(name, *seen[f"{p}.{norm}"]) for name, norm in norms.items() if f"{p}.{norm}" in here]
        if post:  # each norm reads the sum, and what it gives enters the next sublayer
            ends = [read for _, read, _ in passed]
            starts = [entered, *(_first(given) for _, _, given in passed[:-1])]
        else:  # each norm reads the stream as the sublayers before it left it
            starts = [read.view_as(entered) for _, read, _ in passed]
            ends = [*starts[1:], _first(left)]
        for (name, *_), start, end in zip(passed, starts, ends, strict=True):
            made["sublayer", f"{p}.{name}"] = end - start
        made["layer", p] = ends[-1] - entered
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
