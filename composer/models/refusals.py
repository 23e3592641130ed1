"""Folders that are not models of ours: said by name, with what to take instead, before anything is read of them."""

from __future__ import annotations

from pathlib import Path

from ..errors import ModelError
from .family import ModelConfig

OTHER_FOLDERS = (
    ("model_index.json", "a diffusers pipeline", "name the folder of one of its models"),
    ("conf.json", "a folder of runs", "name one of the models in its models/"),
    ("scheme-*.json", "a library of blocks", "make a model of it (`compose build-model`), and name that"),
    ("*/config.json", "a folder of models", "name one of them"),
    ("snapshots", "a folder of the hub's cache", "name the folder in its snapshots/, or the model by its hub id"),
    ("dataset_info.json", "a data set", "give it with --data"),
    ("*.gguf", "GGUF weights", "take the checkpoint that they were converted from"),
    ("*.onnx", "an ONNX export", "take the model that it was exported from"),
    ("openvino_model.xml", "an OpenVINO export", "take the model that it was exported from"),
    ("tokenizer_config.json", "a tokenizer without its model", "name the folder that holds config.json too"),
)
"""What lies in a folder without a ``config.json``, what the folder then is, and what to do."""


def check_has_config(folder: Path) -> None:
    """Refuse a folder without ``config.json``, by what it is instead.

    Raises:
        ModelError: in one line.
    """
    path = folder / "config.json"
    if path.is_file():
        if (folder / "adapter_config.json").is_file():
            raise ModelError(
                f"{folder}: holds a peft adapter (adapter_config.json) beside a model, and nobody says which is "
                "meant; merge it into the model (merge_and_unload), or take it out of the folder"
            )
        return
    for pattern, kind, advice in OTHER_FOLDERS:
        if found := sorted(folder.glob(pattern)):
            raise ModelError(f"{path}: no such file; the folder is {kind} ({found[0].name}); {advice}")
    raise ModelError(f"{path}: no such file; a model folder holds config.json and model.safetensors")


def check_is_dense(config: ModelConfig, path: str) -> None:
    """Refuse quantised checkpoints: their weights are packed, and no single one can be removed.

    Raises:
        ModelError: naming the method.
    """
    said = config.get("quantization_config")
    if not said:
        return
    method = said.get("quant_method") if isinstance(said, dict) else None
    raise ModelError(
        f"{path}: quantization_config: the checkpoint is quantised ({method or 'method not named'}), and weights that "
        "are packed cannot be pruned; take the float checkpoint that it was made from, prune that, and quantise it then"
    )
