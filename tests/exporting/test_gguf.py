"""GGUF: what the file holds, read by its own reader; and where llama.cpp is at hand, the same tokens."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

import composer
from composer.cli.export import shown
from composer.errors import ModelError
from composer.exporting.llama_cpp import Sizes, check_gguf, tensors, turned
from composer.models.folder import BaseModel
from composer.recipe import Recipe
from composer.shrinking.shrink import shrink_into
from composer.shrinking.units import Units
from tests.conftest import Folder
from tests.reference.zeroed import masked_folder

needs_gguf = pytest.mark.skipif(find_spec("gguf") is None, reason="gguf is not installed: `make test-export`")
SIZES: dict[str, Any] = {
    "vocab_size": 290,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}


def byte_pairs() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    specials = ["<pad>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(vocab_size=280, special_tokens=specials, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(["the old man sees the dog"] * 9, trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>")


def ragged(i: int, units: Units) -> range:
    """Another number of units of each; nothing of the second layer's feed-forward and of the last attention."""
    layer = i // 2
    if (layer, units.kind) in ((1, "feed_forward"), (3, "attention")):
        return range(units.count)
    return range(layer % 2) if units.kind == "attention" else range(3 * layer)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llama_like("llama", tmp_path_factory.mktemp("llama") / "base")


def llama_like(kind: str, folder: Path) -> Path:
    """A small model of this ``model_type``, whose answers depend on all of its weights."""
    torch.manual_seed(0)
    more = {} if kind in ("llama", "qwen2") else {"head_dim": 6}
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(kind, **SIZES | more | {"tie_word_embeddings": kind == "gemma"})
    )
    for parameter in model.parameters():
        parameter.data.mul_(8) if parameter.dim() > 1 else parameter.data.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    byte_pairs().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def exact(llama: Path) -> Path:
    folder = llama.with_name("exact")
    folder.mkdir()
    shrink_into(folder, masked_folder(llama, llama.with_name("masked"), ragged), "exact")
    return folder


@needs_gguf
@pytest.mark.parametrize(("which", "architecture"), [("base", "llama"), ("exact", "deci")])
def test_the_reader_finds_all_of_the_model(
    which: str, architecture: str, llama: Path, exact: Path, tmp_path: Path
) -> None:
    from gguf import GGUFReader

    folder = llama.with_name(exact.name if which == "exact" else llama.name)
    done = composer.export(Recipe(), folder, "gguf", output=tmp_path / "x")
    assert (done.summary["architecture"], done.summary["difference"]) == (architecture, 0)
    assert "read back" in next(iter(shown(done.summary, "")))  # type: ignore[operator]
    reader = GGUFReader(tmp_path / "x" / "model.gguf")
    there = {tensor.name: tensor.data for tensor in reader.tensors}
    stored = {name: value.numpy() for name, value in load_file(folder / "model.safetensors").items()}
    assert np.array_equal(there["blk.0.ffn_down.weight"], stored["model.layers.0.mlp.down_proj.weight"])
    keys = stored["model.layers.0.self_attn.k_proj.weight"].reshape(-1, 2, 4, 32)
    assert np.array_equal(there["blk.0.attn_k.weight"].reshape(-1, 4, 2, 32), keys.swapaxes(1, 2))
    told = {key.rpartition(".")[2]: field.contents() for key, field in reader.fields.items()}
    if which == "exact":
        assert (told["head_count"], told["head_count_kv"]) == ([4, 2, 4, 0], [2, 1, 2, 0])
        assert told["feed_forward_length"] == [48, 1, 42, 39]
        assert not there["blk.1.ffn_up.weight"].any()
        assert "blk.3.attn_norm.weight" not in there
    else:
        assert (told["head_count"], told["head_count_kv"], told["feed_forward_length"]) == (4, 2, 48)
    assert (told["model"], len(told["tokens"])) == ("gpt2", 290)
    with pytest.raises(ModelError, match=r"is an export for llama.cpp: llama.cpp runs it, and nothing here does"):
        BaseModel(tmp_path / "x").load()


@pytest.mark.skipif(find_spec("xllamacpp") is None or find_spec("gguf") is None, reason="no llama.cpp is at hand")
@pytest.mark.parametrize("which", ["base", "exact", "qwen2", "qwen3", "gemma"])
def test_llama_cpp_writes_the_same_tokens(which: str, llama: Path, exact: Path, tmp_path: Path) -> None:
    import xllamacpp

    folder = {"exact": exact, "base": llama}.get(which) or llama_like(which, tmp_path / which)
    done = composer.export(Recipe(), folder, "gguf", output=tmp_path / "x")
    assert done.summary["architecture"] == {"base": "llama", "exact": "deci"}.get(which, which)
    model: Any = composer.load(folder)
    ids = [5, 17, 33, 60, 8, 9, 40]
    asked = {"max_new_tokens": 20, "min_new_tokens": 20, "do_sample": False, "eos_token_id": 2, "pad_token_id": 0}
    wanted = model.generate(torch.tensor([ids]), **asked)[0, len(ids) :]
    given = xllamacpp.CommonParams()
    given.model.path = str(tmp_path / "x" / "model.gguf")
    given.n_ctx, given.n_parallel, given.warmup = 64, 1, False
    prompt = {"prompt": ids, "n_predict": 20, "temperature": 0, "top_k": 1, "ignore_eos": True}
    said = xllamacpp.Server(given).handle_completions(prompt)
    assert said["choices"][0]["text"] == byte_pairs().decode(wanted)


def test_rows_are_turned_head_by_head() -> None:
    assert turned(np.arange(12), 3).tolist() == [0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11]


def test_what_llama_cpp_cannot_be_told_is_refused(llama: Path, model_folder: Folder, tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"--to: got gguf, and .* is a gpt2; allowed: llama, mistral, qwen2, qwen3, gemma"
    ):
        check_gguf(BaseModel(model_folder("gpt2")))
    ragged_one = masked_folder(model_folder("qwen2"), tmp_path / "masked", lambda i, _: range(i // 2))
    (tmp_path / "qwen").mkdir()
    shrink_into(tmp_path / "qwen", ragged_one, "exact")
    with pytest.raises(ModelError, match=r"a qwen2 has the same heads and neurons in all layers, and .*qwen has not"):
        check_gguf(BaseModel(tmp_path / "qwen"))
    yarn = transformers.LlamaConfig(**SIZES, rope_parameters={"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0})
    yarn.architectures = ["LlamaForCausalLM"]
    yarn.save_pretrained(tmp_path / "yarn")
    with pytest.raises(ModelError, match=r"positions of .*yarn are 'yarn'; allowed: default, linear, llama3"):
        check_gguf(BaseModel(tmp_path / "yarn"))
    yarn.hidden_act = "relu"  # as `compose simplify` leaves it
    yarn.save_pretrained(tmp_path / "relu")
    with pytest.raises(ModelError, match=r"in which no llama has the activation relu, as .*relu has; use onnx"):
        check_gguf(BaseModel(tmp_path / "relu"))


def test_a_constant_of_an_attention_without_heads_is_refused(model_folder: Folder, tmp_path: Path) -> None:
    def attentions(_: int, units: Units) -> range:
        return range(units.count if units.kind == "attention" else 0)

    base = masked_folder(model_folder("llama"), tmp_path / "m", attentions)
    (tmp_path / "x").mkdir()
    shrink_into(tmp_path / "x", base, "exact")
    small = BaseModel(tmp_path / "x")
    with pytest.raises(ModelError, match=r"an attention without heads has no constant, as 'model.*0.*o_proj.bias'"):
        tensors(small, small.load(), Sizes.of(small))
