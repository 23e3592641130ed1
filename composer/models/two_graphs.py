"""A translator in two graphs: the encoder, and the decoder with the tokens so far; searches are transformers' own.

The decoder's graph has no cache: each step reads all tokens that there are. That is simple, and right for any search;
CTranslate2 is what translates fast.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GenerationMixin
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from .exported import Exported
from .exports import DECODER, ENCODER, Export


class Encoder(nn.Module):
    """The encoder's graph, as generation calls it."""

    main_input_name = "input_ids"

    def __init__(self, program: Any) -> None:
        super().__init__()
        self._program = program

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any) -> BaseModelOutput:
        """States of the last layer, (batch, length, width)."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        return BaseModelOutput(last_hidden_state=_first(self._program(input_ids=input_ids, attention_mask=mask)))


class TwoGraphs(Exported, GenerationMixin):
    """A translator whose encoder and decoder are graphs."""

    main_input_name = "input_ids"
    # What generation asks of any model of transformers.
    base_model_prefix = ""
    input_modalities = ("text",)
    hf_quantizer = None
    _is_stateful = False

    def __init__(self, folder: Path, export: Export, options: Mapping[str, Any]) -> None:
        super().__init__(folder, export)
        from transformers.exporters import ExportedModel

        encoder, self._decoder = (
            ExportedModel.from_pretrained(folder / name, device="cpu", **options) for name in (ENCODER, DECODER)
        )
        self._encoder = Encoder(encoder)

    @property
    def device(self) -> torch.device:
        """The processor."""
        return self.here.device

    @property
    def dtype(self) -> torch.dtype:
        """Of what it gives."""
        return self.here.dtype

    def can_generate(self) -> bool:
        """Yes."""
        return True

    def get_experts_implementation(self) -> dict[str, Any]:
        """There are no experts."""
        return {}

    def is_remote_code(self) -> bool:
        """No."""
        return False

    def get_encoder(self, *_: Any, **__: Any) -> Encoder:
        """The encoder's graph."""
        return self._encoder

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        labels: Tensor | None = None,
        encoder_outputs: Any = None,
        **_: Any,
    ) -> Seq2SeqLMOutput:
        """Logits of each next token, (batch, length, vocabulary); with labels their mean cross entropy."""
        if encoder_outputs is None:
            assert input_ids is not None
            encoder_outputs = self._encoder(input_ids, attention_mask)
        states = _first(encoder_outputs)
        if decoder_input_ids is None:
            assert labels is not None
            decoder_input_ids = self._shifted(labels)
        mask = torch.ones(states.shape[:2], dtype=torch.long) if attention_mask is None else attention_mask
        # The graph reads whole numbers of one kind, in the order in which they lie.
        given = {"decoder_input_ids": decoder_input_ids.contiguous(), "attention_mask": mask.long().contiguous()}
        logits: Tensor = self._decoder(encoder_outputs=(states.contiguous(),), **given)["logits"]
        loss = None if labels is None else F.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return Seq2SeqLMOutput(loss=loss, logits=logits, encoder_last_hidden_state=states)

    def _shifted(self, labels: Tensor) -> Tensor:
        """What a decoder reads to be asked for ``labels``: a token that begins, then all of them but the last."""
        config: Any = self.config
        start = torch.full_like(labels[:, :1], config.decoder_start_token_id)
        shifted = torch.cat([start, labels[:, :-1]], dim=1)
        return shifted.masked_fill(shifted == -100, config.pad_token_id)

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, encoder_outputs: Any = None, **_: Any
    ) -> dict[str, Any]:
        """What a step of a search needs: all tokens so far, as there is no cache."""
        return {"decoder_input_ids": input_ids, "attention_mask": attention_mask, "encoder_outputs": encoder_outputs}

    def generate(self, *args: Any, generation_config: Any = None, **options: Any) -> Any:
        """As the model of transformers, without a cache."""
        if generation_config is None:
            return super().generate(*args, **{**options, "use_cache": False})
        settings = copy.deepcopy(generation_config)
        settings.use_cache = False
        return super().generate(*args, generation_config=settings, **options)


def _first(output: Any) -> Tensor:
    """The first tensor of an output, by whichever name."""
    tensor: Tensor = output["last_hidden_state"] if isinstance(output, Mapping) else output[0]
    return tensor
