"""BART, Marian, Pegasus and their like: encoder and decoder, with biases.

The feed-forward stands in the layer itself, its activation between two projections. BART and Marian normalise
after each sublayer, Pegasus before.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...scheme.layout import Stream
from ..family import Family, Layer, ModelConfig, Stated, Sublayer, attention, linear
from .prefix import prefix

POST_NORM = ("bart", "marian", "plbart", "blenderbot-small")
PRE_NORM = ("pegasus", "mbart", "blenderbot", "m2m_100")


def attended(
    path: str, *, width: int, heads: int, stream: Stream, memory: Stream | None = None, bias: bool = True
) -> Sublayer:
    """The attention at ``path``; ``memory`` is the stream that keys and values read, if it is another."""
    qkv = attention(
        path,
        ("q_proj", "k_proj", "v_proj"),
        width=width,
        inner=width,
        heads=heads,
        bias=bias,
        stream=stream,
        memory=(width, memory or stream),
    )
    out = linear(f"{path}.out_proj", width, width, bias=bias, stream=stream)
    return Sublayer(path, (qkv, out), (path,), stream)


def fed_forward(path: str, *, width: int, inner: int, stream: Stream, bias: bool = True) -> Sublayer:
    """The feed-forward of the layer at ``path``."""
    first = linear(f"{path}.fc1", inner, width, bias=bias, stream=stream)
    second = linear(f"{path}.fc2", width, inner, bias=bias, stream=stream)
    chain = (f"{path}.fc1", f"{path}.activation_fn", f"{path}.fc2")
    return Sublayer(f"{path}.fc2", (first, second), chain, stream, owns=(f"{path}.fc1", f"{path}.fc2"))


def layers(config: ModelConfig) -> Iterator[Layer]:
    """Encoder layers, then decoder layers; a ``…ForCausalLM`` is the decoder without the encoder."""
    start, post = prefix(config, "model"), config["model_type"] in POST_NORM
    alone = (config.get("architectures") or [""])[0].endswith("ForCausalLM")
    streams: tuple[Stream, ...] = ("decoder",) if alone else ("encoder", "decoder")
    for stream in streams:
        width, inner = config["d_model"], config[f"{stream}_ffn_dim"]
        heads = config[f"{stream}_attention_heads"]
        for i in range(config[f"{stream}_layers"]):
            path = f"{start}{stream}.layers.{i}"
            sublayers = [attended(f"{path}.self_attn", width=width, heads=heads, stream=stream)]
            if stream == "decoder" and not alone:
                cross = attended(f"{path}.encoder_attn", width=width, heads=heads, stream=stream, memory="encoder")
                sublayers.append(cross)
            sublayers.append(fed_forward(path, width=width, inner=inner, stream=stream))
            yield Layer(path, tuple(sublayers), stream, tap=f"{path}.final_layer_norm" if post else None)


FAMILY = Family(
    name="BART",
    model_types=(*POST_NORM, *PRE_NORM),
    layers=layers,
    sizes=(
        "d_model",
        *(f"{s}_{what}" for s in ("encoder", "decoder") for what in ("layers", "attention_heads", "ffn_dim")),
    ),
    stated=Stated(
        neurons={"encoder": "encoder_ffn_dim", "decoder": "decoder_ffn_dim"},
        layers={"encoder": "encoder_layers", "decoder": "decoder_layers"},
    ),
)
