"""The model: masks, hooks, and what comes back from disk."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from legacy_seq2seq.config import Config
from legacy_seq2seq.model import Seq2Seq, positions
from legacy_seq2seq.vocabulary import EOS, PAD, SPECIALS, Vocabularies

from .conftest import tiny

SOURCE = torch.tensor([[2, 5, 6, 7, 3], [2, 8, 3, PAD, PAD]])
TARGET = torch.tensor([[2, 4, 5, 6], [2, 7, PAD, PAD]])


def words_of(model: Seq2Seq) -> Vocabularies:
    config = model.config
    sizes = (config.source_vocabulary, config.target_vocabulary)
    return Vocabularies(*([*SPECIALS, *(f"wört{i}" for i in range(size - 4))] for size in sizes))


@pytest.mark.parametrize("norm_first", [False, True])
def test_padding_does_not_change_logits(norm_first: bool) -> None:
    model = tiny(norm_first=norm_first)
    together = model(SOURCE, TARGET)
    alone = model(SOURCE[1:, :3], TARGET[1:, :2])
    torch.testing.assert_close(together[1, :2], alone[0])


@given(place=st.integers(1, 3), word=st.integers(4, 9))
def test_decoder_does_not_look_ahead(place: int, word: int) -> None:
    model = tiny()
    changed = TARGET.clone()
    changed[0, place] = word
    before, after = model(SOURCE, TARGET), model(SOURCE, changed)
    torch.testing.assert_close(before[0, :place], after[0, :place])
    if word != TARGET[0, place]:
        assert not torch.allclose(before[0, place], after[0, place])


def test_every_source_word_counts(model: Seq2Seq) -> None:
    for place in range(SOURCE.shape[1]):
        changed = SOURCE.clone()
        changed[0, place] = 9
        assert not torch.allclose(model(SOURCE, TARGET)[0], model(changed, TARGET)[0])


def test_forward_is_encode_decode_generate(model: Seq2Seq) -> None:
    memory = model.encode(SOURCE)
    assert memory.shape == (2, 5, 16)
    states = model.decode(TARGET, memory, SOURCE)
    assert states.shape == (2, 4, 16)
    torch.testing.assert_close(model(SOURCE, TARGET), model.generator(states), rtol=0, atol=0)


@pytest.mark.parametrize("norm_first", [False, True])
def test_equals_plain_transformer(norm_first: bool) -> None:
    """The same weights in a plain ``nn.Transformer``, each sentence alone and unmasked but for what lies ahead."""
    model = tiny(norm_first=norm_first)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch: no nested tensors with norm_first
        plain = nn.Transformer(16, 4, 2, 2, 24, 0.1, batch_first=True, norm_first=norm_first)
    plain.load_state_dict(model.transformer.state_dict())
    source, target = (
        embedding(ids[:1]) * 4.0 + positions(ids.shape[1], 16, embedding.weight)
        for embedding, ids in ((model.source_embedding, SOURCE), (model.target_embedding, TARGET))
    )
    ahead = plain.generate_square_subsequent_mask(TARGET.shape[1])
    states = plain.eval()(source, target, tgt_mask=ahead)
    torch.testing.assert_close(model.generator(states), model(SOURCE[:1], TARGET[:1]))


def test_positions_by_their_formula() -> None:
    waves = positions(7, 6, torch.zeros(1))
    for place in range(7):
        for column in range(6):
            angle = torch.tensor(place / 10000 ** ((column // 2 * 2) / 6))
            expected = angle.sin() if column % 2 == 0 else angle.cos()
            torch.testing.assert_close(waves[place, column], expected, atol=1e-5, rtol=1e-5)


def test_hooks_fire_in_evaluation(model: Seq2Seq) -> None:
    called: set[str] = set()

    def note(name: str) -> object:
        return lambda *_: called.add(name)

    with torch.inference_mode():
        dense = model(SOURCE, TARGET)
        for name, module in model.named_modules():
            module.register_forward_hook(note(name))  # type: ignore[arg-type]
        hooked = model(SOURCE, TARGET)
    for layer in (f"{side}.layers.{i}" for side in ("encoder", "decoder") for i in range(2)):
        assert {f"transformer.{layer}.{name}" for name in ("self_attn", "linear1", "linear2")} <= called
    torch.testing.assert_close(dense, hooked, rtol=0, atol=0)
    torch.testing.assert_close(dense, model(SOURCE, TARGET), rtol=0, atol=0)  # with gradients: the same path


def test_fused_kernels_are_never_called(model: Seq2Seq, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> Tensor:
        raise AssertionError("the fast path was taken")

    for name in ("_transformer_encoder_layer_fwd", "_native_multi_head_attention"):
        monkeypatch.setattr(torch, name, refuse)
    with torch.inference_mode():
        model(SOURCE, TARGET)
        with pytest.raises(AssertionError, match="fast path"):
            nn.TransformerEncoderLayer(16, 4, 24, batch_first=True).eval()(torch.zeros(1, 2, 16))


def test_saved_model_comes_back_to_the_bit(model: Seq2Seq, tmp_path: Path) -> None:
    words = words_of(model)
    model.save(tmp_path, words)
    loaded = Seq2Seq.load(tmp_path)
    assert not loaded.training
    assert loaded.config == model.config
    assert Vocabularies.load(tmp_path) == words
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    assert torch.equal(loaded(SOURCE, TARGET), model(SOURCE, TARGET))
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "legacy-seq2seq"
    assert {file.name for file in tmp_path.iterdir()} == {"model.safetensors", "config.json", "vocabulary.json"}


def test_config_names_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="heads must divide d_model, got 5 heads and d_model 16"):
        Config(10, 10, d_model=16, heads=5)
    with pytest.raises(ValueError, match="d_ff must be at least 1, got 0"):
        Config(10, 10, d_ff=0)
    with pytest.raises(ValueError, match=r"dropout must be at least 0 and below 1, got 1\.0"):
        Config(10, 10, dropout=1.0)
    with pytest.raises(ValueError, match="eos_id must lie in both vocabularies, got 3"):
        Config(10, EOS)
    with pytest.raises(ValueError, match="model_type must be 'legacy-seq2seq', got 't5'"):
        Config.from_dict({"model_type": "t5"})


def test_sentences_above_max_length_are_refused() -> None:
    model = tiny(max_length=4)
    with pytest.raises(ValueError, match="a sentence has 5 tokens, max_length is 4"):
        model(SOURCE, TARGET)
