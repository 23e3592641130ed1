"""DistilBERT: encoder, post-norm, with biases."""

from __future__ import annotations

from collections.abc import Iterator

from ..family import Family, Layer, ModelConfig, Stated, Sublayer, attention, linear
from .prefix import prefix


def layers(config: ModelConfig) -> Iterator[Layer]:
    """All layers, in execution order."""
    width, inner, start = config["dim"], config["hidden_dim"], prefix(config, "distilbert")
    for i in range(config["n_layers"]):
        path = f"{start}transformer.layer.{i}"
        qkv = attention(
            f"{path}.attention",
            ("q_lin", "k_lin", "v_lin"),
            width=width,
            inner=width,
            heads=config["n_heads"],
            bias=True,
            stream="encoder",
        )
        out = linear(f"{path}.attention.out_lin", width, width, bias=True, stream="encoder")
        first = linear(f"{path}.ffn.lin1", inner, width, bias=True, stream="encoder")
        second = linear(f"{path}.ffn.lin2", width, inner, bias=True, stream="encoder")
        yield Layer(
            path,
            (
                Sublayer(f"{path}.attention", (qkv, out), (f"{path}.attention",), "encoder"),
                Sublayer(f"{path}.ffn", (first, second), (f"{path}.ffn",), "encoder"),
            ),
            "encoder",
            tap=f"{path}.output_layer_norm",
        )


FAMILY = Family(
    name="DistilBERT",
    model_types=("distilbert",),
    layers=layers,
    sizes=("dim", "hidden_dim", "n_layers", "n_heads"),
    stated=Stated(neurons={"encoder": "hidden_dim"}, layers={"encoder": "n_layers"}),
)
