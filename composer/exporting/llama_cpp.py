"""GGUF, the file of llama.cpp: Llama and Mistral as ``llama``, or ``deci`` where layers have shapes of their own.

Of a Llama it turns neighbouring numbers of a head by the position (``LLAMA_ROPE_TYPE_NORM``), transformers the two
halves of it: so the rows of queries and keys are stored in another order (``permute`` of llama.cpp's own converter).
Of a layer without a feed-forward it leaves out the attention too: there one neuron of zeros is stored. Qwen and Gemma
are turned by halves in both (``LLAMA_ROPE_TYPE_NEOX``); their architectures take the same shapes in all layers. A
Gemma's norms multiply by one more than their weights, and llama.cpp's by the weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ModelError
from ..files.safetensors import tensor_entries
from ..models.folder import BaseModel
from ..models.shapes import shapes_of
from .llama_vocabulary import vocabulary_of

if TYPE_CHECKING:
    from torch import Tensor, nn

FILE = "model.gguf"
MODELS = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma": "gemma"}
"""``model_type`` of what can be written -> llama.cpp's architecture, where layers are alike."""
OUTSIDE = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
INSIDE = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""Modules of a layer, by transformers and by llama.cpp."""
CLOSE = 1e-6
"""Largest difference of a tensor that is read back: it was not rounded."""
DTYPES = {"F16": "F16", "BF16": "BF16"}
"""Dtypes of matrices that stay; any other becomes F32."""


@dataclass(frozen=True)
class Sizes:
    """What llama.cpp must be told of a Llama; lists have a number for each layer."""

    config: Any
    heads: list[int]
    groups: list[int]
    neurons: list[int]

    @classmethod
    def of(cls, base: BaseModel) -> Sizes:
        """From ``config.json``, with the shapes of each layer."""
        from ..shrinking.plan import parsed_config

        config, shapes = parsed_config(base.config), shapes_of(base.config)
        paths = [f"model.layers.{i}" for i in range(config.num_hidden_layers)]
        every = range(config.num_key_value_heads)
        groups = [len(shapes.heads.get(f"{path}.self_attn", every)) for path in paths]
        whole = (config.intermediate_size, config.hidden_size)
        neurons = [max(1, shapes.linear.get(f"{path}.mlp.gate_proj", whole)[0]) for path in paths]
        queries = config.num_attention_heads // config.num_key_value_heads
        return cls(config, [queries * count for count in groups], groups, neurons)

    @cached_property
    def width(self) -> int:
        """Of a head."""
        return int(getattr(self.config, "head_dim", None) or self.config.hidden_size // self.config.num_attention_heads)

    @property
    def architecture(self) -> str:
        """What llama.cpp calls it; ``deci`` is a Llama where a layer's shape is another than the first's."""
        known = MODELS[self.config.model_type]
        return "deci" if known == "llama" and not self.alike else known

    @property
    def alike(self) -> bool:
        """Whether all layers have the same shape, with an attention."""
        return len(set(zip(self.heads, self.groups, self.neurons, strict=True))) == 1 and self.heads[0] > 0


def check_gguf(base: BaseModel) -> None:
    """Refuse what the file cannot say, before anything is loaded.

    Raises:
        ModelError: another kind of model, or positions that llama.cpp is not told of here.
    """
    kind = base.config.get("model_type")
    if kind not in MODELS:
        raise ModelError(f"--to: got gguf, and {base.name} is a {kind}; allowed: {', '.join(MODELS)}")
    sizes = Sizes.of(base)
    if sizes.config.hidden_act == "relu":  # the file names none: llama.cpp has the architecture's own
        raise ModelError(f"--to: got gguf, in which no {kind} has the activation relu, as {base.name} has; use onnx")
    if MODELS[kind] != "llama" and not sizes.alike:
        raise ModelError(
            f"--to: got gguf, in which a {kind} has the same heads and neurons in all layers, and {base.name} has not; "
            "shrink with --form padded, or choose rates with `compose generate-config --structured --uniform`"
        )
    known = ("default", "linear", "llama3") if MODELS[kind] == "llama" else ("default", "linear")
    if (how := (sizes.config.rope_parameters or {}).get("rope_type", "default")) not in known:
        raise ModelError(f"--to: got gguf, and positions of {base.name} are {how!r}; allowed: {', '.join(known)}")


def write_gguf(base: BaseModel, model: nn.Module, file: Path) -> None:
    """Write a loaded model with its sizes and vocabulary; matrices keep a 16-bit dtype, vectors have 32 bits."""
    from gguf import GGMLQuantizationType, GGUFWriter, quantize

    sizes = Sizes.of(base)
    writer = GGUFWriter(file, sizes.architecture)
    for key, value in metadata(base, sizes).items():
        getattr(writer, f"add_{key}")(value)
    for method, value in vocabulary_of(base).items():
        getattr(writer, f"add_{method}")(value)
    for name, (array, dtype) in tensors(base, model, sizes).items():
        kind = GGMLQuantizationType[dtype]
        writer.add_tensor(name, quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def metadata(base: BaseModel, sizes: Sizes) -> dict[str, Any]:
    """What the file says of the model, by the writer's methods (``add_…``)."""
    config, rope = sizes.config, sizes.config.rope_parameters or {}
    deci = sizes.architecture == "deci"
    window = getattr(config, "sliding_window", None)
    told = {
        "name": base.folder.resolve().name,
        "block_count": config.num_hidden_layers,
        "context_length": min(config.max_position_embeddings, window or config.max_position_embeddings),
        "embedding_length": config.hidden_size,
        "vocab_size": config.vocab_size,
        "head_count": sizes.heads if deci else sizes.heads[0],
        "head_count_kv": sizes.groups if deci else sizes.groups[0],
        "feed_forward_length": sizes.neurons if deci else sizes.neurons[0],
        "key_length": sizes.width,
        "value_length": sizes.width,
        "rope_dimension_count": sizes.width,
        "rope_freq_base": float(rope.get("rope_theta", 10000.0)),
        "layer_norm_rms_eps": float(config.rms_norm_eps),
    }
    if rope.get("rope_type") == "linear":
        from gguf import RopeScalingType

        told |= {"rope_scaling_type": RopeScalingType.LINEAR, "rope_scaling_factor": float(rope["factor"])}
    return told


def tensors(base: BaseModel, model: nn.Module, sizes: Sizes) -> dict[str, tuple[np.ndarray, str]]:
    """Everything that is stored, by llama.cpp's names, in float32, and the dtype that it is stored in."""
    stored = {entry.name: entry.dtype for entry in tensor_entries(base.folder)}
    made: dict[str, tuple[np.ndarray, str]] = {}
    for name, value in model.state_dict().items():
        new = _name(name, sizes)
        if new is None and name.endswith("bias") and value.any():
            raise ModelError(f"--to: got gguf, in which an attention without heads has no constant, as {name!r} is")
        if new and not _is_tied(name, base):
            dtype = DTYPES.get(stored.get(name, "F32"), "F32") if value.dim() > 1 else "F32"
            made[new] = _array(name, value, sizes), dtype
    for layer in range(len(sizes.neurons)):
        for which, shape in ("gate", (1, -1)), ("up", (1, -1)), ("down", (-1, 1)):
            zeros = np.zeros(sizes.config.hidden_size, dtype=np.float32).reshape(shape)
            made.setdefault(f"blk.{layer}.ffn_{which}.weight", (zeros, "F32"))
    if (factors := _frequencies(sizes)) is not None:
        made["rope_freqs.weight"] = factors, "F32"
    return made


def _is_tied(name: str, base: BaseModel) -> bool:
    return name == "lm_head.weight" and bool(base.config.get("tie_word_embeddings"))


def _name(name: str, sizes: Sizes) -> str | None:
    """What llama.cpp calls a parameter; None for one that belongs to what is gone.

    Raises:
        ModelError: a parameter that has no name there.
    """
    if name in OUTSIDE:
        return OUTSIDE[name]
    parts = name.split(".")
    inside, kind = ".".join(parts[3:-1]), parts[-1]
    if parts[:2] != ["model", "layers"] or inside not in INSIDE:
        raise ModelError(f"--to: got gguf, which has no place for {name!r}")
    layer, new = int(parts[2]), INSIDE[inside]
    return f"blk.{layer}.{new}.{kind}" if sizes.heads[layer] or not new.startswith("attn") else None


def _array(name: str, value: Tensor, sizes: Sizes) -> np.ndarray:
    array: np.ndarray = value.detach().float().cpu().numpy()
    if sizes.architecture == "gemma" and name.endswith("norm.weight"):
        array = array + 1
    for module, counts in (("q_proj", sizes.heads), ("k_proj", sizes.groups)):
        if f".{module}." in name and sizes.architecture in ("llama", "deci"):
            array = turned(array, counts[int(name.split(".")[2])])
    return np.ascontiguousarray(array)


def turned(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of queries or keys as llama.cpp reads them: of each head the halves become neighbours.

    >>> turned(np.arange(8), 2)
    array([0, 2, 1, 3, 4, 6, 5, 7])
    """
    return rows.reshape(heads, 2, len(rows) // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def _frequencies(sizes: Sizes) -> np.ndarray | None:
    """What frequencies are divided by in Llama 3.1 and later; None for others.

    Long waves are stretched, those between the two bounds in part (transformers' ``_compute_llama3_parameters``).
    """
    rope = sizes.config.rope_parameters or {}
    if rope.get("rope_type") != "llama3":
        return None
    factor, low, high = (float(rope[key]) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    context = float(rope["original_max_position_embeddings"])
    waves = 2 * np.pi * float(rope["rope_theta"]) ** (np.arange(0, sizes.width, 2) / sizes.width)
    smooth = np.clip((context / waves - low) / (high - low), 0, 1)
    return (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)


@dataclass(frozen=True)
class ReadBack:
    """A file read again.

    Attributes:
        architecture: that it names.
        tensors: how many it holds.
        difference: the largest to the model's, relative to the largest number of each tensor.
        bytes: of the model's weights, and of the file.
    """

    architecture: str
    tensors: int
    difference: float
    bytes: tuple[int, int]

    def plain(self) -> dict[str, Any]:
        """As JSON data."""
        return asdict(self)


def read_back(file: Path, base: BaseModel, model: nn.Module) -> ReadBack:
    """Read a file and compare all of its tensors and sizes with the model's.

    Raises:
        ModelError: tensors or sizes that are not the model's.
    """
    from gguf import GGUFReader, dequantize

    sizes, reader = Sizes.of(base), GGUFReader(file)
    wanted = tensors(base, model, sizes)
    there = {tensor.name: tensor for tensor in reader.tensors}
    if other := sorted(there.keys() ^ wanted.keys()):
        raise ModelError(f"{file.name}: read back it has other tensors than the model: {', '.join(other[:3])}")
    largest = 0.0
    for name, (array, _) in wanted.items():
        got = dequantize(there[name].data, there[name].tensor_type).reshape(array.shape)
        largest = max(largest, float(np.abs(got - array).max()) / max(float(np.abs(array).max()), 1e-30))
    for key, (said, meant) in _told(reader, base, sizes).items():
        if said != meant:
            raise ModelError(f"{file.name}: read back {key} is {said!r}, and the model's {meant!r}")
    if not largest <= CLOSE:
        raise ModelError(f"{file.name}: read back its tensors differ from the model's by {largest:.2g}")
    return ReadBack(sizes.architecture, len(there), largest, (base.bytes, file.stat().st_size))


def _told(reader: Any, base: BaseModel, sizes: Sizes) -> Mapping[str, tuple[Any, Any]]:
    """What the file says of the sizes, and what it should."""

    def pairs() -> Iterator[tuple[str, tuple[Any, Any]]]:
        for key, value in metadata(base, sizes).items():
            field = next((f for name, f in reader.fields.items() if name.endswith(f".{key}")), None)
            if field is None or key == "name":
                continue
            said = field.contents()
            yield key, (np.float32(said), np.float32(value)) if isinstance(value, float) else (said, value)

    return dict(pairs())
