"""OPT: decoder, pre-norm (post-norm in the 350 M one); the layers are BART's without cross-attention."""

from __future__ import annotations

from collections.abc import Iterator

from ..family import Family, Layer, ModelConfig, Stated
from .bart import attended, fed_forward
from .prefix import prefix


def layers(config: ModelConfig) -> Iterator[Layer]:
    """All layers, in execution order."""
    start, post = prefix(config, "model"), not config.get("do_layer_norm_before", True)
    width, inner, bias = config["hidden_size"], config["ffn_dim"], bool(config.get("enable_bias", True))
    for i in range(config["num_hidden_layers"]):
        path = f"{start}decoder.layers.{i}"
        heads = config["num_attention_heads"]
        sublayers = (
            attended(f"{path}.self_attn", width=width, heads=heads, stream="decoder", bias=bias),
            fed_forward(path, width=width, inner=inner, stream="decoder", bias=bias),
        )
        yield Layer(path, sublayers, "decoder", tap=f"{path}.final_layer_norm" if post else None)


FAMILY = Family(
    name="OPT",
    model_types=("opt",),
    layers=layers,
    sizes=("hidden_size", "ffn_dim", "num_hidden_layers", "num_attention_heads"),
    stated=Stated(neurons={"decoder": "ffn_dim"}, layers={"decoder": "num_hidden_layers"}),
)
