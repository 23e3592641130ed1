"""GPT-2: decoder, pre-norm, with biases; ``Conv1D`` stores (in, out), and one of them holds q, k and v."""

from __future__ import annotations

from collections.abc import Iterator

from ...scheme.layout import Projection, Target
from ..family import Family, Layer, ModelConfig, Stated, Sublayer, linear
from .prefix import prefix


def _attention(path: str, config: ModelConfig) -> Sublayer:
    width = config["n_embd"]
    qkv = tuple(
        Projection(f"{path}.c_attn", width, width, True, "decoder", transposed=True, part=(i * width, 3 * width))
        for i in range(3)
    )
    out = linear(f"{path}.c_proj", width, width, bias=True, stream="decoder", transposed=True)
    return Sublayer(path, (Target(path, "attention", qkv, config["n_head"]), out), (path,), "decoder")


def _feed_forward(path: str, config: ModelConfig) -> Sublayer:
    width = config["n_embd"]
    inner = config.get("n_inner") or 4 * width
    first = linear(f"{path}.c_fc", inner, width, bias=True, stream="decoder", transposed=True)
    second = linear(f"{path}.c_proj", width, inner, bias=True, stream="decoder", transposed=True)
    return Sublayer(path, (first, second), (path,), "decoder")


def layers(config: ModelConfig) -> Iterator[Layer]:
    """All layers, in execution order."""
    start = prefix(config, "transformer")
    for i in range(config["n_layer"]):
        path = f"{start}h.{i}"
        yield Layer(path, (_attention(f"{path}.attn", config), _feed_forward(f"{path}.mlp", config)), "decoder")


FAMILY = Family(
    name="GPT-2",
    model_types=("gpt2",),
    layers=layers,
    sizes=("n_embd", "n_layer", "n_head"),
    optional=("n_inner",),
    stated=Stated(neurons={"decoder": "n_inner"}, layers={"decoder": "n_layer"}),
)
