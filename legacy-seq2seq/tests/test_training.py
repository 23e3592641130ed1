"""Training, its loss, its checkpoint, and the command line around it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from sacrebleu import corpus_bleu
from torch import nn

from legacy_seq2seq import data
from legacy_seq2seq.__main__ import main
from legacy_seq2seq.config import Config
from legacy_seq2seq.evaluation import bleu, evaluate
from legacy_seq2seq.model import Seq2Seq
from legacy_seq2seq.training import Epoch, Settings, rate_at, token_loss, train, validation_loss
from legacy_seq2seq.vocabulary import PAD, Vocabularies

BATCH = data.Batch(torch.tensor([[2, 5, 6, 3], [2, 8, 3, PAD]]), torch.tensor([[2, 4, 5, 6, 3], [2, 7, 3, PAD, PAD]]))
Learnt = tuple[Seq2Seq, Vocabularies, list[Epoch]]
QUICK = Settings(epochs=3, batch_size=16, learning_rate=5e-3, patience=3)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_loss_is_torchs(model: Seq2Seq, smoothing: float) -> None:
    loss, tokens = token_loss(model, BATCH, smoothing)
    logits = model(BATCH.source, BATCH.target[:, :-1])
    plain = nn.CrossEntropyLoss(ignore_index=PAD, label_smoothing=smoothing)
    torch.testing.assert_close(loss, plain(logits.flatten(0, 1), BATCH.target[:, 1:].flatten()))
    assert tokens == 6


def test_smoothing_by_its_definition(model: Seq2Seq) -> None:
    """Szegedy et al. 2016: the label gets 1 - s, and s is spread evenly over all words."""
    scores = model(BATCH.source, BATCH.target[:, :-1]).log_softmax(-1)
    labels = BATCH.target[:, 1:]
    terms = [
        -(0.9 * scores[row, place, labels[row, place]] + 0.1 * scores[row, place].mean())
        for row, place in (labels != PAD).nonzero().tolist()
    ]
    torch.testing.assert_close(token_loss(model, BATCH, 0.1)[0], torch.stack(terms).mean())


def test_validation_weighs_tokens_alike(model: Seq2Seq) -> None:
    examples: list[data.Example] = [([2, 5, 6, 3], [2, 4, 5, 6, 3]), ([2, 8, 3], [2, 7, 3])]
    both = token_loss(model, BATCH)[0].item()
    assert validation_loss(model, examples, 1) == pytest.approx(both, rel=1e-5)
    assert validation_loss(model, examples, 2) == pytest.approx(both, rel=1e-5)


def test_rate_rises_then_falls() -> None:
    settings = Settings(learning_rate=1.0, warm_up=0.2)
    rates = [rate_at(step, 10, settings) for step in range(10)]
    assert rates == pytest.approx([0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125])


def test_bleu_is_sacrebleus() -> None:
    answers, references = ["a man runs.", "the dog sees a red child"], ["A man runs.", "the dog likes a red child ."]
    score, signature = bleu(answers, references)
    assert score == pytest.approx(corpus_bleu(answers, [references], lowercase=True).score)
    assert "case:lc" in signature


@pytest.fixture(scope="module")
def learn(pairs: list[data.Pair]) -> Callable[..., tuple[Seq2Seq, Vocabularies, list[Epoch]]]:
    def run(
        folder: Path, settings: Settings = QUICK, stop_after: int = 99
    ) -> tuple[Seq2Seq, Vocabularies, list[Epoch]]:
        words = data.vocabularies(pairs)
        config = Config(len(words.source), len(words.target), 32, 4, 1, 1, 48)
        examples = data.encode(pairs, words, config.max_length)
        epochs: list[Epoch] = []

        def note(epoch: Epoch) -> None:
            epochs.append(epoch)
            if epoch.epoch == stop_after:
                raise KeyboardInterrupt

        return train(config, words, examples, examples[:20], folder, settings, on_epoch=note), words, epochs

    return run


def test_model_learns_a_language(learn: Callable[..., Learnt], pairs: list[data.Pair], tmp_path: Path) -> None:
    model, words, epochs = learn(tmp_path, Settings(epochs=25, batch_size=16, learning_rate=5e-3, patience=25))
    assert epochs[-1].validation_loss < 0.5 * epochs[0].validation_loss
    found = evaluate(model, words, pairs[:40], beams=2)
    assert found["bleu"] > 60  # how far above depends on the machine's arithmetic: 79 with torch 2.3
    assert found["loss"] < 0.5
    assert found["examples"] == 40


def test_interrupted_training_goes_on_as_if_nothing_had_been(learn: Callable[..., Learnt], tmp_path: Path) -> None:
    whole, _, epochs = learn(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        learn(tmp_path / "broken", stop_after=1)
    torch.rand(7)  # whatever the generator did in between
    mended, _, rest = learn(tmp_path / "broken")
    assert [epoch.epoch for epoch in rest] == [2, 3]
    assert [e.validation_loss for e in rest] == [e.validation_loss for e in epochs[1:]]
    for name, tensor in whole.state_dict().items():
        assert torch.equal(mended.state_dict()[name], tensor), name


def test_other_settings_do_not_go_on(learn: Callable[..., Learnt], tmp_path: Path) -> None:
    learn(tmp_path, Settings(epochs=1, batch_size=16))
    with pytest.raises(ValueError, match=r"label_smoothing was 0\.1, now 0\.2; go on with the same settings"):
        learn(tmp_path, Settings(epochs=1, batch_size=16, label_smoothing=0.2))


def test_training_stops_when_validation_gets_worse(learn: Callable[..., Learnt], tmp_path: Path) -> None:
    """A rate that wrecks the model: the best epoch stays, two more are allowed."""
    model, _, epochs = learn(tmp_path, Settings(epochs=30, batch_size=16, learning_rate=1.0, warm_up=1.0, patience=2))
    best = min(epochs, key=lambda epoch: epoch.validation_loss)
    assert len(epochs) == best.epoch + 2 < 30
    assert best.best
    assert [epoch.best for epoch in epochs[-2:]] == [False, False]
    assert torch.equal(Seq2Seq.load(tmp_path).generator.weight, model.generator.weight)


def write(folder: Path, pairs: list[data.Pair]) -> None:
    for name, some in (("train", pairs), ("val", pairs[:20]), ("test_2016_flickr", pairs[20:40])):
        for side, language in enumerate(("de", "en")):
            (folder / f"{name}.{language}").write_text("".join(pair[side] + "\n" for pair in some), encoding="utf-8")


@pytest.mark.parametrize("flags", [[], ["--reverse", "--norm-first"]])
def test_commands(flags: list[str], pairs: list[data.Pair], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, pairs)
    sizes = ["--d-model", "16", "--heads", "2", "--d-ff", "16", "--encoder-layers", "1", "--decoder-layers", "1"]
    folder = str(tmp_path / "model")
    assert main(["train", folder, "--data", str(tmp_path), "--epochs", "1", *sizes, *flags]) == 0
    assert "epoch 1: training loss" in capsys.readouterr().out
    assert Seq2Seq.load(folder).config.source_language == ("en" if flags else "de")
    assert main(["translate", folder, "Mann sieht Hund.", "Kind."]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert main(["evaluate", folder, "--data", str(tmp_path), "--examples", "5", "--beams", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["examples"] == 5


def test_command_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(tmp_path / "model"), "--data", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"legacy-seq2seq: {tmp_path}/train.de: no such file\n"
