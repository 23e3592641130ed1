"""A teacher of another size: answers at a temperature, layers in pairs, answers kept; and those that cannot teach."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    DataCollatorForSeq2Seq,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    T5Config,
    T5ForConditionalGeneration,
)

import composer
from composer.cli.app import call
from composer.models.folder import BaseModel
from composer.models.layouts import layout_of
from composer.tasks import DataOptions, open_task
from composer.training.distillation import Answers
from composer.training.hidden import RIDGE, HiddenStates, layer_pairs

Change = Callable[..., Path]


@pytest.fixture(scope="module")
def large(distilbert_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of four layers, wider than the DistilBERT of two, with its tokenizer."""
    folder = tmp_path_factory.mktemp("teachers") / "large"
    shutil.copytree(distilbert_folder, folder)
    torch.manual_seed(3)
    words = BaseModel(distilbert_folder).config["vocab_size"]
    sizes = {"hidden_size": 24, "num_attention_heads": 2, "intermediate_size": 16, "num_hidden_layers": 4}
    config = BertConfig(vocab_size=words, max_position_embeddings=64, **sizes)
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def test_layers_are_paired_at_equal_distances_in_both() -> None:
    def layout(layers: int, **shrunk: Any) -> Any:
        sizes = {"dim": 8, "hidden_dim": 8, "n_heads": 2, "n_layers": layers, **shrunk}
        return layout_of({"model_type": "distilbert", "architectures": ["DistilBertModel"], **sizes}, "x")

    def numbers(ours: int, theirs: int) -> list[tuple[int, int]]:
        return [pair.numbers for pair in layer_pairs(layout(ours), layout(theirs))]

    assert numbers(6, 12) == [(1, 2), (2, 4), (3, 6), (4, 8), (5, 10), (6, 12)]
    assert numbers(6, 3) == [(2, 1), (4, 2), (6, 3)]
    assert numbers(2, 2) == [(1, 1), (2, 2)]
    gone = {f"transformer.layer.0.ffn.lin{i}": size for i, size in ((1, [0, 8]), (2, [8, 0]))}
    small = layout(3, shrunk={"linear": gone, "heads": {}})
    assert [pair.numbers for pair in layer_pairs(small, layout(3))] == [(1, 1), (2, 2), (3, 3)]
    said = str(HiddenStates(layout(2), layout(4)))
    assert said == "hidden states: layer 1 of 2 from 2 of 4, layer 2 of 2 from 4 of 4"


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_the_loss_is_that_of_labels_answers_and_layers_written_out(
    distilbert_folder: Path, large: Path, classification_data: Path, share: float
) -> None:
    base, big = BaseModel(distilbert_folder), BaseModel(large)
    task = open_task(DataOptions(data=str(classification_data)), base.folder, base.config)
    train = task.load("train")
    student, teacher = base.load(), big.load()
    hidden = HiddenStates(base.layout, big.layout)
    answers = Answers(teacher.train(), task, share, temperature=3.0, hidden=hidden, weight=0.7)
    answers.begin(student, train)
    batch = task.collate(train.features[3:9])
    loss = answers.loss(student, batch)

    def states(model: Any, inputs: dict[str, Any]) -> Any:
        with torch.no_grad():
            return copy.deepcopy(model).eval()(**inputs, output_hidden_states=True)

    def rows(model: Any, inputs: dict[str, Any], layer: int) -> Any:
        return states(model, inputs).hidden_states[layer][inputs["attention_mask"].bool()].double().numpy()

    whole, apart = task.collate(train.features), []
    for ours, theirs in ((1, 2), (2, 4)):
        x, y = rows(student, whole, ours), rows(teacher, whole, theirs)
        gram = x.T @ x
        pull = RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram))
        learnt = rows(student, batch, ours) @ np.linalg.solve(gram + pull, x.T @ y)
        wanted = rows(teacher, batch, theirs)
        apart.append(((learnt - wanted) ** 2).sum() / (wanted**2).sum())
    own, wanted_logits = states(student, batch), states(teacher, batch).logits
    soft = nn.functional.kl_div((own.logits / 3).log_softmax(-1), (wanted_logits / 3).softmax(-1), reduction="sum")
    expected = (1 - share) * own.loss + share * 9 * soft / 6 + 0.7 * np.mean(apart)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    loss.backward()
    assert all(p.grad is None for p in teacher.parameters())


def test_a_trainer_of_anybody_learns_answers_and_layers_without_being_told_which_model(
    distilbert_folder: Path, large: Path, tmp_path: Path
) -> None:
    from transformers import Trainer, TrainingArguments

    student, teacher = (AutoModelForSequenceClassification.from_pretrained(f) for f in (distilbert_folder, large))
    loss = composer.distill_loss(teacher, share=0.5, hidden=1.0)
    data = [{"input_ids": [5, 9, 7 + i % 5, 12], "attention_mask": [1] * 4, "labels": i % 2} for i in range(48)]
    given = {"report_to": [], "disable_tqdm": True, "use_cpu": True, "per_device_train_batch_size": 4}
    args = TrainingArguments(str(tmp_path), max_steps=12, learning_rate=0.01, save_strategy="no", **given)
    before = [p.clone() for p in student.distilbert.transformer.parameters()]
    Trainer(student, args, train_dataset=data, compute_loss_func=loss).train()
    assert set(loss.hidden.maps) == {"distilbert.transformer.layer.0", "distilbert.transformer.layer.1"}
    assert loss.last["hidden"] > 0
    assert all(not torch.equal(a, b) for a, b in zip(before, student.distilbert.transformer.parameters(), strict=True))


class Both(composer.SparseTrainer, Seq2SeqTrainer):
    """As a mixin before a trainer of another kind."""


def test_as_a_mixin_an_encoder_decoder_learns_masks_and_the_layers_of_a_teacher_of_another_size(
    t5_folder: Path, tmp_path: Path
) -> None:
    model: Any = T5ForConditionalGeneration.from_pretrained(t5_folder)
    config = {**model.config.to_dict(), "d_model": 8, "num_layers": 4}
    teacher = T5ForConditionalGeneration(T5Config(**config))
    draw = torch.Generator().manual_seed(0)
    lengths = [(3 + i % 3, 2 + i % 4) for i in range(20)]
    data = [
        {
            name: torch.randint(4, 30, (n,), generator=draw).tolist()
            for name, n in zip(("input_ids", "labels"), one, strict=True)
        }
        for one in lengths
    ]
    given = {"report_to": [], "disable_tqdm": True, "use_cpu": True, "per_device_train_batch_size": 2}
    more = {"save_strategy": "no", "predict_with_generate": True, "generation_max_length": 4}
    tokenizer = AutoTokenizer.from_pretrained(t5_folder)
    run = Both(
        model,
        Seq2SeqTrainingArguments(str(tmp_path / "work"), max_steps=10, **given, **more),
        rules={"*SelfAttention": {"rate": 0.5}},
        teacher=teacher,
        hidden=1.0,
        train_dataset=data,
        data_collator=DataCollatorForSeq2Seq(tokenizer, model),
        processing_class=tokenizer,
    )
    run.train()
    said = run.compute_loss_func
    assert [pair.numbers for pair in said.hidden.pairs] == [(1, 2), (2, 4), (1, 1), (2, 2)]
    assert said.last["hidden"] > 0
    assert run.predict(data[:2]).predictions.shape[0] == 2
    assert run.state.log_history[-1]["sparsity"] == 0.5


@pytest.fixture
def tune(distilbert_folder: Path, classification_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`compose finetune` on the tiny DistilBERT, and how often a model of another class was asked."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Answers, "ask", _counted(passes := list[int](), Answers.ask))

    def run(output: str, *flags: str, ends: int = 0) -> int:
        passes.clear()
        words = ["finetune", str(distilbert_folder), "-o", output, "--data", str(classification_data), *flags]
        assert call([*words, "--steps", "9", "--batch-size", "8", "--device", "cpu"]) == ends
        return len(passes)

    return run


def _counted(passes: list[int], ask: Any) -> Any:
    return lambda answers, batch: passes.append(1) or ask(answers, batch)


def test_answers_are_kept_for_all_passes_over_the_data_for_the_next_model_and_over_a_kill(
    tune: Any, large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ("--teacher", str(large))
    assert tune("one", *flags) == 3  # 24 examples in batches of 8; nine steps
    assert tune("two", *flags, "--learning-rate", "0.005") == 0
    shutil.rmtree(tmp_path / ".answers")
    each_step = (*flags, "--learning-rate", "0.005")  # nine checkpoints
    with monkeypatch.context() as patch:
        patch.setattr(Answers, "loss", _killed_in(3, Answers.loss))
        assert tune("three", *each_step, ends=130) == 2
    assert tune("three", *each_step) == 1  # the answers of the first two steps were kept with their checkpoints
    two, three = (load_file(tmp_path / name / "model.safetensors") for name in ("two", "three"))
    assert all(torch.equal(value, three[name]) for name, value in two.items())
    settings = json.loads((tmp_path / "one" / "composer.json").read_text())["inputs"]["settings"]
    assert (settings["distill"], settings["teacher"]) == (0.5, BaseModel(large).fingerprint)


def _killed_in(step: int, loss: Any) -> Any:
    calls: list[int] = []

    def killed(*given: Any) -> Any:
        calls.append(1)
        if len(calls) == step:
            raise KeyboardInterrupt
        return loss(*given)

    return killed


@pytest.fixture
def changed(large: Path, tmp_path: Path) -> Change:
    """The large teacher, with something else in its files."""

    def change(name: str, **fields: Any) -> Path:
        folder = tmp_path / "other"
        shutil.copytree(large, folder)
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**content, **fields}))
        return folder

    return change


def test_who_cannot_teach_is_refused_in_one_line(
    changed: Change,
    bert_folder: Path,
    distilbert_folder: Path,
    classification_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)

    def refused(*flags: str) -> str:
        words = ["finetune", str(distilbert_folder), "-o", "out", "--data", str(classification_data), "--steps", "1"]
        assert call([*words, *flags]) == 2
        assert not (tmp_path / "out").exists()
        return capfd.readouterr().err

    labels = changed("config.json", id2label={"0": "bad", "1": "good", "2": "so so"})
    assert "has the labels bad, good, so so, the model negative, positive" in refused("--teacher", str(labels))
    shutil.rmtree(labels)
    head = changed("config.json", architectures=["BertForMaskedLM"])
    assert "is a BertForMaskedLM, the model a DistilBertForSequenceClassification" in refused("--teacher", str(head))
    shutil.rmtree(head)
    words = changed("tokenizer.json")
    content = json.loads((words / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["film"], vocabulary["very"] = vocabulary["very"], vocabulary["film"]
    (words / "tokenizer.json").write_text(json.dumps(content))
    assert "another tokenizer: 'film' is number" in refused("--teacher", str(words))
    assert "nothing of it is learnt" in refused("--teacher", str(bert_folder), "--distill", "0")
    assert "no such model folder" in refused("--teacher", "nowhere")
