"""``KeepSparse`` and ``sparse`` in training scripts that know nothing of Composer: plain Trainers and plain loops."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    DistilBertConfig,
    Trainer,
    TrainingArguments,
)
from transformers.trainer_callback import TrainerCallback

import composer
from composer.errors import ModelError
from tests.reference.events import HANGING

EXAMPLES = [{"input_ids": [3, 6 + i % 9, 7 + i % 5, 4], "labels": i % 2} for i in range(16)]


@pytest.fixture(scope="module")
def pruned(distilbert_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny DistilBERT without half of each projection's weights, saved by transformers alone."""
    folder = tmp_path_factory.mktemp("pruned")
    model = AutoModelForSequenceClassification.from_pretrained(distilbert_folder)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "layer." in name and parameter.dim() == 2:
                parameter[torch.rand(parameter.shape, generator=draw) < 0.5] = 0.0
    model.save_pretrained(folder)
    return folder


def projections(model: nn.Module | Path) -> dict[str, Tensor]:
    """Weights that are pruned, of a model or of a checkpoint's file."""
    named = load_file(model / "model.safetensors") if isinstance(model, Path) else dict(model.named_parameters())
    return {n: p.detach().clone() for n, p in named.items() if "transformer.layer" in n and p.dim() == 2}


def assert_same_zeros(model: nn.Module | Path, start: dict[str, Tensor]) -> None:
    now = projections(model)
    assert now.keys() == start.keys()
    for name, before in start.items():
        assert torch.equal(now[name] == 0, before == 0), name
    assert any(not torch.equal(now[name], before) for name, before in start.items())


def trainer(model: nn.Module, folder: Path, callbacks: list[Any], **options: Any) -> Trainer:
    given = {"max_steps": 4, "learning_rate": 0.01, "per_device_train_batch_size": 4, "weight_decay": 0.1}
    quiet: dict[str, Any] = {
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "logging_steps": 2,
    }
    more = {key: options.pop(key) for key in ("eval_dataset", "compute_loss_func", "optimizers") if key in options}
    args = TrainingArguments(output_dir=str(folder), **{**quiet, **given, **options})
    return Trainer(model=model, args=args, train_dataset=EXAMPLES, callbacks=callbacks, **more)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"optim": "adamw_torch_fused", "gradient_accumulation_steps": 2, "max_grad_norm": 0.1},
        {"optim": "adafactor", "bf16": True},
    ],
    ids=lambda o: o.get("optim", "adamw"),
)
def test_the_zeros_that_are_there_stay(pruned: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(pruned)
    start = projections(model)
    trainer(model, tmp_path, [composer.KeepSparse()], **options).train()
    assert_same_zeros(model, start)


def test_without_it_they_are_lost(pruned: Path, tmp_path: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(pruned)
    trainer(model, tmp_path, []).train()
    assert all((weight != 0).float().mean() > 0.9 for weight in projections(model).values())


def test_zeros_of_a_folder_are_put_into_a_dense_model(pruned: Path, distilbert_folder: Path, tmp_path: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(distilbert_folder)
    trainer(model, tmp_path, [composer.KeepSparse(pruned)]).train()
    assert_same_zeros(model, projections(pruned))


class Stops(TrainerCallback):
    """Ends the training after two steps, as if the machine had been needed elsewhere."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        control.should_training_stop |= state.global_step == 2
        return control


def test_a_resumed_run_ends_with_the_same_bytes_and_checkpoints_are_sparse(pruned: Path, tmp_path: Path) -> None:
    saving = {"save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps", "eval_steps": 2, "seed": 3}
    saving |= {"eval_dataset": EXAMPLES[:4], "load_best_model_at_end": True}

    def run(folder: Path, *more: TrainerCallback, resume: bool | None = None) -> dict[str, Tensor]:
        model = AutoModelForSequenceClassification.from_pretrained(pruned)
        trainer(model, folder, [composer.KeepSparse(), *more], **saving).train(resume_from_checkpoint=resume)
        return {**model.state_dict()}

    whole = run(tmp_path / "whole")
    run(tmp_path / "parts", Stops())
    resumed = run(tmp_path / "parts", resume=True)
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    for step in (2, 4):
        assert_same_zeros(tmp_path / "parts" / f"checkpoint-{step}", projections(pruned))


def test_it_says_what_it_holds_and_logs_it_to_all_that_report(
    pruned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Reports(TrainerCallback):  # stands where TensorBoard does: before the callbacks that were given
        told: list[dict[str, float]] = []  # noqa: RUF012

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            self.told.append(dict(logs))

    Reports.__module__ = "transformers.integrations.integration_utils"
    said: list[str] = []
    monkeypatch.setattr("composer.training.callbacks.keep_sparse.logger.warning", said.append)
    model = AutoModelForSequenceClassification.from_pretrained(pruned)
    keep = composer.KeepSparse()
    train = trainer(model, tmp_path, [Reports(), keep])
    train.train()

    zeros = sum(int((w == 0).sum()) for w in projections(model).values())
    share = zeros / sum(w.numel() for w in projections(model).values())
    assert said == [f"KeepSparse: 8 of 8 targets have zeros, {share:.2%} of their weights; they are held at 0"]
    assert keep.held.share == pytest.approx(share)
    history = [entry for entry in train.state.log_history if "loss" in entry]
    assert [entry["sparsity"] for entry in history] == [pytest.approx(share)] * 2
    assert [told["sparsity"] for told in Reports.told if "sparsity" in told][:2] == [pytest.approx(share)] * 2
    assert set(history[0]) >= {"sparsity_attention", "sparsity_linear"}


def test_a_dense_model_and_another_s_zeros_are_refused(
    distilbert_folder: Path, bert_folder: Path, pruned: Path, tmp_path: Path
) -> None:
    dense = AutoModelForSequenceClassification.from_pretrained(distilbert_folder)
    with pytest.raises(ModelError, match=r"^DistilBertFor\w+: 0\.00% of the weights .* are 0: nothing to hold; load a"):
        trainer(dense, tmp_path, [composer.KeepSparse()]).train()
    other = AutoModelForSequenceClassification.from_pretrained(bert_folder)
    with pytest.raises(ModelError, match="the model has no parameter of this name"):
        trainer(other, tmp_path, [composer.KeepSparse(pruned)]).train()


def test_what_else_moves_a_removed_weight_is_named_when_the_model_is_saved(pruned: Path, tmp_path: Path) -> None:
    class Moves(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            with torch.no_grad():
                kwargs["model"].distilbert.transformer.layer[0].ffn.lin1.weight.add_(1.0)

    model = AutoModelForSequenceClassification.from_pretrained(pruned)
    options = {"save_strategy": "steps", "save_steps": 1, "max_steps": 1}
    with pytest.raises(
        ModelError, match=r"^distilbert\.transformer\.layer\.0\.ffn\.lin1\.weight: checkpoint of step 1"
    ):
        trainer(model, tmp_path, [composer.KeepSparse(), Moves()], **options).train()


def test_spread_parameters_are_refused_by_name(pruned: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(pruned)
    model.classifier.weight.ds_id = 0  # how DeepSpeed marks what ZeRO-3 has spread
    with pytest.raises(ModelError, match="ZeRO-3"), composer.sparse(model, torch.optim.SGD(model.parameters())):
        pass

    class FSDPDistilBert(nn.Sequential):
        pass

    wrapped = FSDPDistilBert(nn.Linear(2, 2))
    with pytest.raises(ModelError, match="FSDP: parameters are spread"):
        composer.sparse(wrapped, torch.optim.SGD(wrapped.parameters())).__enter__()


Make = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


@pytest.mark.parametrize(
    "make",
    [lambda p: torch.optim.Muon(p, lr=0.01), lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1)],
    ids=["muon", "adamw"],
)
def test_any_loop_of_any_model_keeps_its_zeros_even_where_the_optimiser_mixes_entries(make: Make) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8, bias=False), nn.ReLU(), nn.Linear(8, 4, bias=False))
    with torch.no_grad():
        model[0].weight[:, ::2] = 0.0
    optimizer = make(list(model.parameters()))
    with composer.sparse(model, optimizer) as held:
        assert str(held).startswith("1 of 2 targets have zeros, 30.00% of their weights")
        for step in range(5):
            optimizer.zero_grad()
            out = model(torch.randn(3, 6)).pow(2).sum()
            (out * (torch.inf if step == 4 else 1.0)).backward()  # as a step in half precision may bring
            assert not model[0].weight.grad[:, ::2].any()
            optimizer.step()
            assert not model[0].weight[:, ::2].any()
    model(torch.ones(1, 6)).sum().backward()
    assert model[0].weight.grad[:, ::2].any()  # the body has ended


class Compiled(nn.Module):
    """What ``torch.compile`` makes of a model, which takes seconds: it has no length and asks the model inside."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._orig_mod = model

    def __getattr__(self, name: str) -> Any:
        return super().__getattr__(name) if name == "_orig_mod" else getattr(self._orig_mod, name)

    def __len__(self) -> int:
        raise TypeError("does not support len()")

    def forward(self, **batch: Any) -> Any:
        return self._orig_mod(**batch)


def test_a_teacher_s_answers_are_learnt_too(pruned: Path, distilbert_folder: Path, tmp_path: Path) -> None:
    teacher = AutoModelForSequenceClassification.from_pretrained(distilbert_folder).eval()
    model = AutoModelForSequenceClassification.from_pretrained(pruned)
    compiled = Compiled(model)
    loss = composer.distill_loss(teacher, compiled, share=0.25, temperature=2.0)
    batch = {"input_ids": torch.tensor([e["input_ids"] for e in EXAMPLES[:4]])}
    labels = torch.tensor([e["labels"] for e in EXAMPLES[:4]])
    outputs = compiled.train()(**batch)
    with torch.no_grad():
        wanted = (teacher(**batch).logits / 2).softmax(-1)
    own = (outputs.logits / 2).log_softmax(-1)
    learnt = (wanted * (wanted.log() - own)).sum() / 8 * 4
    task = nn.functional.cross_entropy(outputs.logits, labels, reduction="sum") / 8
    assert torch.allclose(loss(outputs, labels, num_items_in_batch=8), 0.75 * task + 0.25 * learnt, atol=1e-6)

    loss = composer.distill_loss(teacher, share=0.25, temperature=2.0)
    before = {**teacher.state_dict()}
    train = trainer(model, tmp_path, [composer.KeepSparse()], compute_loss_func=loss, gradient_accumulation_steps=2)
    train.train()
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert json.dumps(train.state.log_history)

    def other(kind: Any = AutoModelForSequenceClassification, **fields: Any) -> nn.Module:
        return kind.from_config(DistilBertConfig(**model.config.to_dict() | fields))

    for wrong, said in (
        (other(num_labels=3), "teacher: has 3 classes, the model 2"),
        (other(id2label={0: "positive", 1: "negative"}), "has the labels positive, negative, the model negative, pos"),
        (other(AutoModelForMaskedLM), "is a DistilBertForMaskedLM, the model a DistilBertForSequenceClassification"),
    ):
        with pytest.raises(ModelError, match=said):
            composer.distill_loss(wrong, model)


def learnt_masks(base: Path, folder: Path, **options: Any) -> dict[str, Tensor]:
    """Weights after masks were learnt with a teacher."""
    still = {"dropout": 0.0, "attention_dropout": 0.0, "seq_classif_dropout": 0.0}
    model, teacher = (AutoModelForSequenceClassification.from_pretrained(base, **still) for _ in range(2))
    with torch.no_grad():
        teacher.classifier.weight.neg_()
    rules = {"*.attention": {"rate": 0.5}, "*.lin1": {"rate": 0.5}}
    callbacks: list[Any] = [composer.LearnMasks(rules)]
    loss = composer.distill_loss(teacher, temperature=2.0, hidden=0.5)
    run = trainer(model, folder, callbacks, compute_loss_func=loss, per_device_train_batch_size=2, **options)
    run.train()
    return {name: p.detach() for name, p in model.named_parameters()}


def in_process(rank: int, base: Path, folder: Path, answer: Any) -> None:
    """One of two processes that train a model together, each on inputs of its own; answers its weights."""
    meeting = folder / "meeting"
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 2))
    with torch.no_grad():
        inner[0].weight[::2, 1:] = 0.0
    model = nn.parallel.DistributedDataParallel(inner)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    torch.manual_seed(rank)
    with composer.sparse(model, optimizer):
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.randn(4, 6)).pow(2).sum().backward()
            optimizer.step()
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": "1",
    }
    AcceleratorState._reset_state(reset_partial_state=True)
    learnt = learnt_masks(base, folder)
    torch.distributed.barrier()
    answer.put((rank, inner[0].weight.detach().tolist(), {name: p.tolist() for name, p in learnt.items()}))
    answer.close()
    answer.join_thread()
    # Nothing is torn down: DDP's end waits, with the interpreter's lock, for a thread of gloo that may want that lock.
    os._exit(0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_two_processes_of_ddp_hold_the_same_zeros_and_learn_the_masks_of_one(
    distilbert_folder: Path, tmp_path: Path
) -> None:
    context = multiprocessing.get_context("fork")  # what is imported already need not be imported twice
    answer = context.Queue()
    workers = [
        context.Process(target=in_process, args=(rank, distilbert_folder, tmp_path, answer)) for rank in range(2)
    ]
    for worker in workers:
        worker.start()
    answers = {rank: both for rank, *both in (answer.get(timeout=HANGING) for _ in workers)}
    for worker in workers:
        worker.join(HANGING)
    assert answers[0] == answers[1]
    weights, learnt = answers[0]
    zeros = torch.tensor(weights) == 0
    assert zeros[::2, 1:].all()
    assert zeros.sum() == 10
    for name, alone in learnt_masks(distilbert_folder, tmp_path, gradient_accumulation_steps=2).items():
        assert torch.allclose(torch.tensor(learnt[name]), alone, atol=1e-4), name
