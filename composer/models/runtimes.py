"""Exported models as modules: called, and asked to generate, like the models of transformers that they come from."""

from __future__ import annotations

import json
from abc import abstractmethod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import ModelOutput

from ..errors import ModelError
from .exported import Exported
from .exports import DECODER, TRANSLATOR, Export


class Graph(Exported):
    """One graph that transformers' own runners load."""

    def __init__(self, folder: Path, export: Export) -> None:
        super().__init__(folder, export)
        from transformers.exporters import ExportedModel

        self._program = ExportedModel.from_pretrained(folder, device="cpu", **self.options())

    @staticmethod
    @abstractmethod
    def options() -> dict[str, Any]:
        """What the runner of this runtime is told."""

    def forward(self, **inputs: Any) -> Any:
        """What the model of transformers gives; the loss is left to the task."""
        return self._program(**{name: tensor for name, tensor in inputs.items() if name != "labels"})


class OnnxModel(Graph):
    """One graph in ONNX Runtime."""

    @staticmethod
    def options() -> dict[str, Any]:
        """How it is run."""
        import onnxruntime

        onnxruntime.set_default_logger_severity(3)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        # A norm fused with the sum before it takes five times as long as both apart (docs/decisions/engine.md).
        options.add_session_config_entry("optimization.disable_specified_optimizers", "SkipLayerNormFusion")
        return {"session_options": options}


class OpenVinoModel(Graph):
    """One graph in OpenVINO."""

    @staticmethod
    def options() -> dict[str, Any]:
        """How it is run."""
        # Left to itself it computes in 16 bits where it thinks that is faster: logits then differ by a hundredth.
        config = {
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "f32",
        }
        return {"config": config}


class TranslateModel(Exported):
    """A translation model in CTranslate2: it searches by itself, and scores given translations."""

    def __init__(self, folder: Path, export: Export) -> None:
        super().__init__(folder, export)
        import ctranslate2

        threads = torch.get_num_threads()
        place = folder / TRANSLATOR
        self._translator = ctranslate2.Translator(str(place), device="cpu", inter_threads=1, intra_threads=threads)
        self._source, self._target = _vocabularies(place)
        self._ids = {token: i for i, token in enumerate(self._target)}

    def can_generate(self) -> bool:
        """Yes, and it does little else."""
        return True

    def forward(self, **inputs: Any) -> Any:
        """``loss``: mean cross entropy of the labels in nats, over all that are not -100.

        Raises:
            ModelError: no labels: there are no logits to give.
        """
        labels: Tensor | None = inputs.get("labels")
        if labels is None:
            raise ModelError(f"{self.folder}: CTranslate2 gives no logits; it translates, and scores translations")
        end = self._translator_end()
        targets = [[self._target[i] for i in row.tolist() if i not in (-100, end)] for row in labels]
        scored = self._translator.score_batch(self._sources(inputs), targets)
        total = -sum(sum(one.log_probs) for one in scored)
        return ModelOutput(loss=torch.tensor(total / max(1, int((labels != -100).sum()))))

    def generate(self, input_ids: Tensor, attention_mask: Tensor, generation_config: Any = None, **_: Any) -> Tensor:
        """Token ids of the translations after the decoder's first token, (batch, longest), padded."""
        how = generation_config or self.generation_config
        most = int(how.max_new_tokens or how.max_length)
        answers = self._translator.translate_batch(
            self._sources({"input_ids": input_ids, "attention_mask": attention_mask}),
            beam_size=how.num_beams or 1,
            max_decoding_length=most,
            min_decoding_length=int(how.min_new_tokens or 1),
            max_input_length=0,
            length_penalty=how.length_penalty if how.length_penalty is not None else 1.0,
        )
        rows = [[self._ids[token] for token in answer.hypotheses[0]] for answer in answers]
        start = self.config.decoder_start_token_id or 0
        out = torch.full((len(rows), 1 + max(map(len, rows), default=0)), int(how.pad_token_id or 0))
        out[:, 0] = start
        for i, row in enumerate(rows):
            out[i, 1 : 1 + len(row)] = torch.tensor(row)
        return out

    def _sources(self, inputs: Any) -> list[list[str]]:
        pairs = zip(inputs["input_ids"].tolist(), inputs["attention_mask"].tolist(), strict=True)
        return [[self._source[i] for i, real in zip(ids, mask, strict=True) if real] for ids, mask in pairs]

    def _translator_end(self) -> int | None:
        end = self.config.eos_token_id
        return end[0] if isinstance(end, list) else end


def _vocabularies(folder: Path) -> tuple[list[str], list[str]]:
    """Tokens by id, of sources and of targets."""

    def read(name: str) -> list[str]:
        tokens: list[str] = json.loads((folder / name).read_text(encoding="utf-8"))
        return tokens

    if (folder / "shared_vocabulary.json").is_file():
        shared = read("shared_vocabulary.json")
        return shared, shared
    return read("source_vocabulary.json"), read("target_vocabulary.json")


def load_export(folder: Path, export: Export) -> Exported:
    """The exported model in ``folder``.

    Raises:
        ModelError: packages are missing, or the runtime cannot read what is there.
    """
    if not export.runtime.runs:
        raise ModelError(f"{folder}: {export.can}, and nothing here does; name the model that it was made from")
    kinds: dict[str, type[Any]] = {kind.__name__: kind for kind in (OnnxModel, OpenVinoModel, TranslateModel)}
    kind = kinds[export.runtime.runs]
    try:
        loaded: Exported
        if (folder / DECODER).is_dir():
            from .two_graphs import TwoGraphs

            loaded = TwoGraphs(folder, export, kind.options())
        else:
            loaded = kind(folder, export)
    except (OSError, ValueError, RuntimeError, KeyError) as bad:
        raise ModelError(f"{folder}: {export.runtime.title} cannot load it: {str(bad).splitlines()[0]}") from bad
    return loaded.eval()
