"""The model: ``torch.nn.Transformer`` between two embeddings and a linear layer. Pure torch, from 2.3 on.

A trained model is a folder: ``model.safetensors``, ``config.json`` and ``vocabulary.json``.

Hooks and the fast path. In evaluation without gradients ``nn.TransformerEncoderLayer`` and ``nn.MultiheadAttention``
may hand their weights to one fused kernel; ``linear1`` and ``linear2`` are then never called, and the rounding differs
from training's. Every model here keeps to the plain path, whatever the global switch says and without touching it:
encoder layers are told that their activation has no fused form, nested tensors are off, and masks are floating point,
which the attention's kernel refuses. ``out_proj`` is a mere container of weights to ``nn.MultiheadAttention``, never
called on either path: hooks on it do not fire.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .config import Config
from .vocabulary import Vocabularies

WEIGHTS_FILE = "model.safetensors"


def positions(length: int, width: int, like: Tensor) -> Tensor:
    """Sinusoids (length, width) of Vaswani et al. 2017, section 3.5: sines in even columns, cosines in odd ones."""
    place = torch.arange(length, dtype=torch.float32, device=like.device)[:, None]
    column = torch.arange(0, width, 2, dtype=torch.float32, device=like.device)
    angle = place * torch.exp(column * (-math.log(10000.0) / width))
    waves = torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1)
    return waves[:, :width].to(like.dtype)


def additive(masked: Tensor, like: Tensor) -> Tensor:
    """A bool mask (true: hidden) as what is added to the attention scores: 0 or minus infinity."""
    return torch.zeros(masked.shape, dtype=like.dtype, device=masked.device).masked_fill_(masked, float("-inf"))


def _encoder(config: Config) -> nn.TransformerEncoder:
    """What ``nn.Transformer`` would build, kept to the plain path (see above)."""
    layer = nn.TransformerEncoderLayer(
        config.d_model, config.heads, config.d_ff, config.dropout, batch_first=True, norm_first=config.norm_first
    )
    norm = nn.LayerNorm(config.d_model)
    encoder = nn.TransformerEncoder(layer, config.encoder_layers, norm, enable_nested_tensor=False)
    for layer in encoder.layers:
        layer.activation_relu_or_gelu = 0
    return encoder


class Seq2Seq(nn.Module):
    """Encoder-decoder over word ids; the target's ids are what the decoder has read so far, beginning with ``bos``.

    Padding is on the right, and a sentence has at least one real token.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.source_embedding = nn.Embedding(config.source_vocabulary, config.d_model, padding_idx=config.pad_id)
        self.target_embedding = nn.Embedding(config.target_vocabulary, config.d_model, padding_idx=config.pad_id)
        self.dropout = nn.Dropout(config.dropout)
        self.transformer = nn.Transformer(
            config.d_model,
            config.heads,
            config.encoder_layers,
            config.decoder_layers,
            config.d_ff,
            config.dropout,
            custom_encoder=_encoder(config),
            batch_first=True,
            norm_first=config.norm_first,
        )
        self.generator = nn.Linear(config.d_model, config.target_vocabulary)
        self._initialise()

    def forward(self, source_ids: Tensor, target_ids: Tensor) -> Tensor:
        """Logits (batch, target, vocabulary) of source (batch, source) and target (batch, target)."""
        return self.generator(self.decode(target_ids, self.encode(source_ids), source_ids))

    def encode(self, source_ids: Tensor) -> Tensor:
        """Memory (batch, source, d_model) of source ids (batch, source)."""
        states = self._embed(self.source_embedding, source_ids)
        return self.transformer.encoder(states, src_key_padding_mask=self._padding(source_ids, states))

    def decode(self, target_ids: Tensor, memory: Tensor, source_ids: Tensor) -> Tensor:
        """Decoder states (batch, target, d_model); the source's ids say which of the memory is padding."""
        states = self._embed(self.target_embedding, target_ids)
        length = target_ids.shape[1]
        ahead = torch.ones(length, length, dtype=torch.bool, device=states.device).triu(1)
        return self.transformer.decoder(
            states,
            memory,
            tgt_mask=additive(ahead, states),
            tgt_key_padding_mask=self._padding(target_ids, states),
            memory_key_padding_mask=self._padding(source_ids, states),
        )

    def _embed(self, embedding: nn.Embedding, ids: Tensor) -> Tensor:
        if ids.shape[1] > self.config.max_length:
            raise ValueError(f"a sentence has {ids.shape[1]} tokens, max_length is {self.config.max_length}")
        states = embedding(ids) * math.sqrt(self.config.d_model)
        return self.dropout(states + positions(ids.shape[1], self.config.d_model, states))

    def _padding(self, ids: Tensor, like: Tensor) -> Tensor:
        return additive(ids == self.config.pad_id, like)

    def _initialise(self) -> None:
        """Glorot's uniform for matrices (``nn.Transformer`` does its own); embeddings of unit norm after scaling."""
        for embedding in (self.source_embedding, self.target_embedding):
            nn.init.normal_(embedding.weight, std=self.config.d_model**-0.5)
            with torch.no_grad():
                embedding.weight[self.config.pad_id].zero_()
        nn.init.xavier_uniform_(self.generator.weight)
        nn.init.zeros_(self.generator.bias)

    def save(self, folder: Path | str, vocabularies: Vocabularies) -> None:
        """Write weights, configuration and vocabulary; what ``load`` reads back is equal to the bit."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
        self.config.save(folder)
        vocabularies.save(folder)

    @classmethod
    def load(cls, folder: Path | str) -> Seq2Seq:
        """The saved model in evaluation mode; ``Vocabularies.load`` reads the words beside it."""
        folder = Path(folder)
        model = cls(Config.load(folder))
        model.load_state_dict(load_file(folder / WEIGHTS_FILE))
        return model.eval()
