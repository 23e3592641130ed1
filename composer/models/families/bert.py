"""BERT and ELECTRA: encoder, post-norm, with biases; the feed-forward is two modules around no common one."""

from __future__ import annotations

from collections.abc import Iterator

from ..family import Family, Layer, ModelConfig, Stated, Sublayer, attention, linear
from .prefix import prefix

SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")


def layers(config: ModelConfig) -> Iterator[Layer]:
    """All layers, in execution order."""
    return encoder(config, config["model_type"], ("query", "key", "value"))


def encoder(config: ModelConfig, body: str, names: tuple[str, str, str]) -> Iterator[Layer]:
    """All layers of an encoder built like BERT's, whose query, key and value have these names."""
    width, inner, start = config["hidden_size"], config["intermediate_size"], prefix(config, body)
    for i in range(config["num_hidden_layers"]):
        path = f"{start}encoder.layer.{i}"
        qkv = attention(
            f"{path}.attention.self",
            names,
            width=width,
            inner=width,
            heads=config["num_attention_heads"],
            bias=True,
            stream="encoder",
        )
        out = linear(f"{path}.attention.output.dense", width, width, bias=True, stream="encoder")
        first = linear(f"{path}.intermediate.dense", inner, width, bias=True, stream="encoder")
        second = linear(f"{path}.output.dense", width, inner, bias=True, stream="encoder")
        yield Layer(
            path,
            (
                Sublayer(
                    f"{path}.attention",
                    (qkv, out),
                    (f"{path}.attention.self", f"{path}.attention.output.dense"),
                    "encoder",
                ),
                Sublayer(
                    f"{path}.output",
                    (first, second),
                    (f"{path}.intermediate", f"{path}.output.dense"),
                    "encoder",
                ),
            ),
            "encoder",
            tap=f"{path}.output.LayerNorm",
        )


STATED = Stated(neurons={"encoder": "intermediate_size"}, layers={"encoder": "num_hidden_layers"})

FAMILY = Family(name="BERT", model_types=("bert", "electra"), layers=layers, sizes=SIZES, stated=STATED)
