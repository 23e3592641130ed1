"""The sizes of a model and its ``config.json``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from .vocabulary import BOS, EOS, PAD, UNK

MODEL_TYPE = "legacy-seq2seq"
CONFIG_FILE = "config.json"


@dataclass(frozen=True)
class Config:
    """Everything that fixes the shapes and the meaning of the weights.

    Raises:
        ValueError: a size below one, heads that do not divide ``d_model``, an id outside its vocabulary.
    """

    source_vocabulary: int
    target_vocabulary: int
    d_model: int = 128
    heads: int = 4
    encoder_layers: int = 2
    decoder_layers: int = 2
    d_ff: int = 256
    dropout: float = 0.1
    max_length: int = 128
    norm_first: bool = True
    unk_id: int = UNK
    pad_id: int = PAD
    bos_id: int = BOS
    eos_id: int = EOS
    source_language: str = "de"
    target_language: str = "en"

    def __post_init__(self) -> None:
        """Refuse what no model could be built from."""
        sizes = ("source_vocabulary", "target_vocabulary", "d_model", "heads", "encoder_layers", "decoder_layers")
        for name in (*sizes, "d_ff", "max_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.d_model % self.heads:
            raise ValueError(f"heads must divide d_model, got {self.heads} heads and d_model {self.d_model}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {self.dropout}")
        for name in ("unk_id", "pad_id", "bos_id", "eos_id"):
            if not 0 <= getattr(self, name) < min(self.source_vocabulary, self.target_vocabulary):
                raise ValueError(f"{name} must lie in both vocabularies, got {getattr(self, name)}")

    def to_dict(self) -> dict[str, Any]:
        """The fields and ``model_type``, as they stand in ``config.json``."""
        return {"model_type": MODEL_TYPE, **asdict(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Config:
        """Fields of ``config.json``; keys that are none of ours are left alone (others may add theirs)."""
        got = values.get("model_type")
        if got != MODEL_TYPE:
            raise ValueError(f"model_type must be {MODEL_TYPE!r}, got {got!r}")
        return cls(**{field.name: values[field.name] for field in fields(cls) if field.name in values})

    def save(self, folder: Path) -> None:
        """Write ``config.json``."""
        (folder / CONFIG_FILE).write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Config:
        """Read ``config.json``."""
        return cls.from_dict(json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8")))
