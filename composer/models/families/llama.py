"""Llama and its like: decoder, pre-norm, gated feed-forward; query heads may share key and value heads."""

from __future__ import annotations

from collections.abc import Iterator

from ..family import Family, Layer, ModelConfig, Stated, Sublayer, attention, linear
from .prefix import prefix

BIASED = {"qwen2": (True, False), "mistral": (False, False)}
"""``model_type`` -> whether q, k and v, and whether the out-projection have biases, where the type settles it."""


def layers(config: ModelConfig) -> Iterator[Layer]:
    """All layers, in execution order."""
    width, inner, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    groups = config.get("num_key_value_heads") or heads
    mixed = heads * (config.get("head_dim") or width // heads)
    stated = bool(config.get("attention_bias"))
    bias, out_bias = BIASED.get(config["model_type"], (stated, stated))
    mlp_bias = bool(config.get("mlp_bias"))
    scale = float(config.get("residual_multiplier", 1)) if config["model_type"] == "granite" else 1.0
    start = prefix(config, "model")
    for i in range(config["num_hidden_layers"]):
        path = f"{start}layers.{i}"
        qkv = attention(
            f"{path}.self_attn",
            ("q_proj", "k_proj", "v_proj"),
            width=width,
            inner=mixed,
            heads=heads,
            groups=groups,
            bias=bias,
            stream="decoder",
        )
        out = linear(f"{path}.self_attn.o_proj", width, mixed, bias=out_bias, stream="decoder")
        gate, up = (
            linear(f"{path}.mlp.{name}", inner, width, bias=mlp_bias, stream="decoder")
            for name in ("gate_proj", "up_proj")
        )
        down = linear(f"{path}.mlp.down_proj", width, inner, bias=mlp_bias, stream="decoder")
        yield Layer(
            path,
            (
                Sublayer(f"{path}.self_attn", (qkv, out), (f"{path}.self_attn",), "decoder", scale=scale),
                Sublayer(f"{path}.mlp", (gate, up, down), (f"{path}.mlp",), "decoder", scale=scale),
            ),
            "decoder",
        )


FAMILY = Family(
    name="Llama",
    model_types=("llama", "mistral", "qwen2", "qwen3", "gemma", "granite", "smollm3"),
    layers=layers,
    sizes=("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    optional=("num_key_value_heads", "head_dim"),
    stated=Stated(
        neurons={"decoder": "intermediate_size"},
        layers={"decoder": "num_hidden_layers"},
        heads="num_attention_heads",
        groups="num_key_value_heads",
        head_width="head_dim",
    ),
)
