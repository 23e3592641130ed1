"""T5, v1.1 (gated feed-forward) and mT5: encoder and decoder, pre-norm, no biases."""

from __future__ import annotations

from collections.abc import Iterator

from ...scheme.layout import Stream
from ..family import Family, Layer, ModelConfig, Stated, Sublayer, attention, linear


def _attention(path: str, name: str, config: ModelConfig, stream: Stream, memory: Stream) -> Sublayer:
    width, inner = config["d_model"], config["num_heads"] * config["d_kv"]
    owner = f"{path}.{name}"
    qkv = attention(
        owner,
        ("q", "k", "v"),
        width=width,
        inner=inner,
        heads=config["num_heads"],
        bias=False,
        stream=stream,
        memory=(width, memory),
    )
    out = linear(f"{owner}.o", width, inner, bias=False, stream=stream)
    return Sublayer(path, (qkv, out), (path,), stream, residual=True)


def _feed_forward(path: str, config: ModelConfig, stream: Stream) -> Sublayer:
    width, inner = config["d_model"], config["d_ff"]
    gated = str(config.get("feed_forward_proj", "relu")).startswith("gated")
    first = [
        linear(f"{path}.DenseReluDense.{name}", inner, width, bias=False, stream=stream)
        for name in (("wi_0", "wi_1") if gated else ("wi",))
    ]
    second = linear(f"{path}.DenseReluDense.wo", width, inner, bias=False, stream=stream)
    return Sublayer(path, (*first, second), (path,), stream, residual=True)


def layers(config: ModelConfig) -> Iterator[Layer]:
    """Encoder layers, then decoder layers."""
    for i in range(config["num_layers"]):
        path = f"encoder.block.{i}"
        yield Layer(
            path,
            (
                _attention(f"{path}.layer.0", "SelfAttention", config, "encoder", "encoder"),
                _feed_forward(f"{path}.layer.1", config, "encoder"),
            ),
            "encoder",
        )
    if (config.get("architectures") or [""])[0].endswith("EncoderModel"):
        return
    for i in range(config.get("num_decoder_layers") or config["num_layers"]):
        path = f"decoder.block.{i}"
        yield Layer(
            path,
            (
                _attention(f"{path}.layer.0", "SelfAttention", config, "decoder", "decoder"),
                _attention(f"{path}.layer.1", "EncDecAttention", config, "decoder", "encoder"),
                _feed_forward(f"{path}.layer.2", config, "decoder"),
            ),
            "decoder",
        )


# The position bias is computed in block 0 and read by every block of its stack.
FAMILY = Family(
    name="T5",
    model_types=("t5", "mt5"),
    layers=layers,
    sizes=("d_model", "d_kv", "d_ff", "num_heads", "num_layers"),
    shared=("relative_attention_bias.weight",),
    stated=Stated(
        neurons={"encoder": "d_ff", "decoder": "d_ff"},
        layers={"encoder": "num_layers", "decoder": "num_decoder_layers"},
        heads="num_heads",
        decoder_no_deeper=True,
    ),
)
