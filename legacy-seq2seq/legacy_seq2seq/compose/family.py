"""The family's table: which parameters of ``torch.nn.Transformer`` are pruned, and where its blocks begin and end.

An attention is one ``nn.MultiheadAttention``, whose packed ``in_proj_weight`` (3 · d_model, d_model) holds query, key
and value on top of each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from composer.plugin import Family, Layer, Layout, ModelConfig, ModelError, Projection, Stream, Sublayer, Target, linear

from ..config import MODEL_TYPE

if TYPE_CHECKING:
    from torch import nn

STREAMS: tuple[Stream, ...] = ("encoder", "decoder")


def layers(config: ModelConfig) -> Iterator[Layer]:
    """Encoder layers, then decoder layers."""
    for stream in STREAMS:
        for i in range(config[f"{stream}_layers"]):
            path = f"transformer.{stream}.layers.{i}"
            sublayers = [_attention(f"{path}.self_attn", config, stream, stream)]
            if stream == "decoder":
                sublayers.append(_attention(f"{path}.multihead_attn", config, stream, "encoder"))
            sublayers.append(_feed_forward(path, config, stream))
            # After-norm layers are compared before their last norm; the encoder has two of them, the decoder three.
            norm = None if config.get("norm_first") else f"{path}.norm{len(sublayers)}"
            yield Layer(path, tuple(sublayers), stream, tap=norm)


def _attention(path: str, config: ModelConfig, stream: Stream, memory: Stream) -> Sublayer:
    width = config["d_model"]
    held = f"{path}.in_proj_weight", f"{path}.in_proj_bias"
    qkv = tuple(
        Projection(f"{path}.{name}", width, width, True, of, part=(i * width, 3 * width), held=held)
        for i, (name, of) in enumerate({"query": stream, "key": memory, "value": memory}.items())
    )
    out = linear(f"{path}.out_proj", width, width, bias=True, stream=stream)
    return Sublayer(path, (Target(path, "attention", qkv, config["heads"]), out), (path,), stream)


def _feed_forward(path: str, config: ModelConfig, stream: Stream) -> Sublayer:
    width, inner = config["d_model"], config["d_ff"]
    first = linear(f"{path}.linear1", inner, width, bias=True, stream=stream)
    second = linear(f"{path}.linear2", width, inner, bias=True, stream=stream)
    chain = (f"{path}.linear1", f"{path}.activation", f"{path}.linear2")
    return Sublayer(f"{path}.linear2", (first, second), chain, stream, owns=(f"{path}.linear1", f"{path}.linear2"))


class LegacyStorage:
    """Folders of :meth:`legacy_seq2seq.model.Seq2Seq.save`; see :class:`composer.plugin.Storage`."""

    library = "legacy-seq2seq"

    def load(self, folder: Path, config: ModelConfig, layout: Layout) -> nn.Module:
        """The model in float32, with attentions and activations that are called as modules."""
        from safetensors import SafetensorError

        from ..model import Seq2Seq
        from .attention import open_up

        try:
            model = Seq2Seq.load(folder)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as bad:
            reason = (str(bad).splitlines() or [type(bad).__name__])[0]
            raise ModelError(f"{folder}: cannot be loaded: {reason}") from bad
        return open_up(model.float())

    def save(self, model: nn.Module, folder: Path, source: Path, config: ModelConfig) -> None:
        """Weights, configuration and vocabulary: parameters have the names that the original gave them."""
        from ..model import Seq2Seq
        from ..vocabulary import Vocabularies

        assert isinstance(model, Seq2Seq)
        model.save(folder, Vocabularies.load(source))

    def example(self, config: ModelConfig) -> str:
        """With the package's own class."""
        return 'legacy_seq2seq.model.Seq2Seq.load("<this folder>")'


FAMILY = Family(
    name="legacy-seq2seq",
    model_types=(MODEL_TYPE,),
    layers=layers,
    sizes=("d_model", "d_ff", "heads", "encoder_layers", "decoder_layers", "source_vocabulary", "target_vocabulary"),
    storage=LegacyStorage(),
    task="legacy_translation",
)
