"""``LearnMasks`` in a plain Trainer, and its rules."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForSequenceClassification, TrainerCallback

import composer
from composer.errors import ConfigError, ModelError
from composer.models.folder import BaseModel
from composer.plugin import LearntScores
from composer.scheme.rules import read_rules
from tests.training.callbacks.test_keep_sparse import EXAMPLES, Stops, trainer

HYBRID = {
    "*.attention": {"rate": 0.5, "granularity": "head"},
    "*.out_lin": {"rate": 0.25, "granularity": "2x2"},
    "re:.*ffn.lin1": {"rate": 0.75, "granularity": "neuron", "warm-up": 0.0},
}
LIN2 = "distilbert.transformer.layer.0.ffn.lin2.weight"


def test_hybrid_masks_are_learnt_and_exact_at_the_end(distilbert_folder: Path, tmp_path: Path) -> None:
    model: Any = AutoModelForSequenceClassification.from_pretrained(distilbert_folder)
    dense = {name: p.detach().clone() for name, p in model.named_parameters()}
    rules = tmp_path / "rules.yaml"
    rules.write_text("".join(f"'{path}': {said}\n" for path, said in HYBRID.items()).replace("'", '"'))
    run = trainer(model, tmp_path, [composer.LearnMasks(rules)], gradient_accumulation_steps=2, max_steps=6)
    run.train()
    for layer in model.distilbert.transformer.layer:
        heads = layer.attention.q_lin.weight.reshape(4, -1).ne(0).any(1)
        assert int(heads.sum()) == 2
        assert torch.equal(heads, layer.attention.v_lin.weight.reshape(4, -1).ne(0).any(1))
        blocks = layer.attention.out_lin.weight.reshape(8, 2, 8, 2).ne(0).any(3).any(1)
        assert int(blocks.sum()) == 48
        neurons = layer.ffn.lin1.weight.ne(0).any(1)
        assert int(neurons.sum()) == 6
        assert torch.equal(neurons, layer.ffn.lin2.weight.ne(0).any(0))
    assert not torch.equal(model.classifier.weight, dense["classifier.weight"])
    told = [entry["sparsity"] for entry in run.state.log_history if "loss" in entry]
    assert told == sorted(told)
    assert 0 < told[0] < told[-1]


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({"*.fnn.lin1": {"rate": 0.5}}, r"rule '\*\.fnn\.lin1': matches no target; did you mean '\*\.ffn\.lin1'"),
        ({r"re:.*\.lin[34]": {"rate": 0.5}}, r"rule 're:.*': matches no target; did you mean '\*\.lin[12]' or"),
        ({"*.lin1": {"rate": 0.5}, "re:.*lin1": {"rate": 0.2}}, r"rules '\*\.lin1' and 're:\.\*lin1': both name"),
        ({"*.lin1": {"rate": 0.5, "granularity": "5x5"}}, r"5 does not divide the output dimension"),
        ({"*.lin1": {"rate": 0.5, "granularity": "5y5"}}, r"rule '\*\.lin1': granularity: got '5y5'; allowed"),
        ({"*.lin1": {"rate": 0.5, "warm-up": 0.8, "cool-down": 0.4}}, r"are 1\.2 of the training; at most 1"),
        ({"*.lin1": {"rate": 2, "granularty": "row"}}, r"unknown key 'granularty'; did you mean 'granularity'"),
        ({"*.lin1": {"rate": 0.5, "granularity": "neuron"}, "*.lin2": {"rate": 0.1}}, "go with the neurons of"),
        ({"*.attention": {"rate": 0.5, "granularity": "stack-head"}}, "ranks over several targets"),
        ([0.5], r"^LearnMasks: rules: got \[0\.5\]; allowed: a mapping"),
    ],
)
def test_rules_that_make_no_sense_are_refused(distilbert_folder: Path, rules: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_rules(rules, BaseModel(distilbert_folder).layout)


def test_no_weight_has_two_learners_and_an_interrupted_training_leaves_none(
    distilbert_folder: Path, tmp_path: Path
) -> None:
    class Interrupts(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 3:
                raise KeyboardInterrupt

    def learn(model: Any, callbacks: list[Any]) -> dict[str, Tensor]:
        trainer(model, tmp_path, callbacks, max_steps=4).train()
        return {name: p.detach().clone() for name, p in model.named_parameters()}

    def loaded() -> Any:
        return AutoModelForSequenceClassification.from_pretrained(distilbert_folder)

    lin1, lin2 = ({f"*.{name}": {"rate": 0.5}} for name in ("lin1", "lin2"))
    with pytest.raises(ModelError, match=r"layer\.0\.ffn\.lin1\.weight and 1 more weights: named by two LearnMasks"):
        learn(loaded(), [composer.LearnMasks(lin1), composer.LearnMasks(lin1 | lin2)])
    apart = learn(loaded(), [composer.LearnMasks(lin1), composer.LearnMasks(lin2)])
    together = learn(loaded(), [composer.LearnMasks(lin1 | lin2)])
    assert all(torch.equal(apart[name], together[name]) for name in together)

    model = loaded()
    with pytest.raises(KeyboardInterrupt):
        learn(model, [composer.LearnMasks({"*.lin2": {"rate": 0.9, "warm-up": 0.0, "cool-down": 0.9}}), Interrupts()])
    values = {name: p.detach().clone() for name, p in model.named_parameters()}
    again = learn(model, [composer.LearnMasks(lin1)])
    assert bool((values[LIN2] == 0).any())
    assert not bool((again[LIN2] == 0).any())


PENALISED = {"*.attention": {"penalty": 9.0}, "*.lin1": {"penalty": 9.0, "granularity": "4x4"}}


@pytest.mark.parametrize(("way", "rules"), [("movement", HYBRID), ("l0", PENALISED)])
def test_a_resumed_run_ends_with_the_same_bytes_and_the_best_model_has_all_masks(
    way: str, rules: Any, distilbert_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("composer.tensors.learnt.scores.REFRESHED", 2)  # not where it ends in between
    saving: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps", "eval_steps": 2}
    saving |= {"eval_dataset": EXAMPLES[:4], "load_best_model_at_end": True, "max_steps": 6, "learning_rate": 1e-3}

    def run(folder: Path, *more: Any, resume: bool | None = None) -> tuple[dict[str, Tensor], Any]:
        model = AutoModelForSequenceClassification.from_pretrained(distilbert_folder)
        train = trainer(model, folder, [composer.LearnMasks(rules, scores=way), *more], **saving)
        train.train(resume_from_checkpoint=resume)
        return {**model.state_dict()}, train.state

    whole, state = run(tmp_path / "whole")
    run(tmp_path / "parts", Stops())
    resumed, _ = run(tmp_path / "parts", resume=True)
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    assert state.best_global_step == 6  # measured where the cool-down has begun
    best = load_file(tmp_path / "whole" / f"checkpoint-{state.best_global_step}" / "model.safetensors")
    assert all(torch.equal(value, whole[name]) for name, value in best.items())
    if way == "movement":
        kept = whole["distilbert.transformer.layer.0.ffn.lin1.weight"].ne(0).any(1)
        assert int(kept.sum()) == 6
    (tmp_path / "parts" / "checkpoint-6" / "masks.safetensors").unlink()
    with pytest.raises(ModelError, match=r"checkpoint-6 has no masks\.safetensors"):
        run(tmp_path / "parts", resume=True)


class Random(LearntScores):
    """A new algorithm: units go by chance, but what the last batch has pulled at stays."""

    def begin(self, weight: Tensor) -> Tensor:
        return torch.rand(weight.shape)

    def learn(self, name: str, gradient: Tensor, weight: Tensor) -> None:
        self.pulled = {**getattr(self, "pulled", {}), name: gradient.abs() > gradient.abs().median()}

    def step(self, weights: Mapping[str, Tensor]) -> None:
        for name, pulled in self.pulled.items():
            self.of[name] += pulled


@pytest.mark.parametrize("way", [Random, "magnitude"])
def test_a_new_algorithm_says_how_scores_move_and_the_rest_is_there(
    way: Any, distilbert_folder: Path, tmp_path: Path
) -> None:
    model: Any = AutoModelForSequenceClassification.from_pretrained(distilbert_folder)
    callback = composer.LearnMasks({"*.lin2": {"rate": 0.75, "cool-down": 0.9, "warm-up": 0.0}}, scores=way)
    trainer(model, tmp_path, [callback], max_steps=3, learning_rate=0.0).train()
    for layer, old in zip(
        model.distilbert.transformer.layer,
        BaseModel(distilbert_folder).load().distilbert.transformer.layer,
        strict=True,
    ):
        weight, before = layer.ffn.lin2.weight.detach(), old.ffn.lin2.weight.detach().abs()
        assert int((weight == 0).sum()) == round(0.75 * weight.numel())
        smallest = before[weight == 0].max() <= before[weight != 0].min()
        assert bool(smallest) == (way == "magnitude")
    with pytest.raises(
        ConfigError, match="got 'movment'; allowed: movement, magnitude, sigmoid, l0, or a class of LearntScores; did"
    ):
        composer.LearnMasks({}, scores="movment")
    with pytest.raises(ModelError, match=r"embeddings\.weight: got float16, .*; allowed: float32"):
        trainer(model.half(), tmp_path, [callback]).train()


class Magnitudes(LearntScores):
    """They never move, or all turn round after the first step."""

    turned = False

    def begin(self, weight: Tensor) -> Tensor:
        return weight.abs()

    def step(self, weights: Mapping[str, Tensor]) -> None:
        for name in self.of if self.turned else ():
            self.of[name] = 1 - self.of[name]
        self.turned = False


@pytest.mark.parametrize("turned", [False, True])
def test_learning_goes_on_from_a_pruned_model_and_what_it_lacks_can_come_back(
    turned: bool, distilbert_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Magnitudes, "turned", turned)
    model, dense, pruned = (AutoModelForSequenceClassification.from_pretrained(distilbert_folder) for _ in range(3))
    with torch.no_grad():
        for parameter in pruned.parameters():
            parameter.mul_(1.5)  # as if it had been repaired
        for layer in pruned.distilbert.transformer.layer:
            for gone in (layer.ffn.lin1.weight[3:15], layer.ffn.lin1.bias[3:15], layer.ffn.lin2.weight[:, 3:15]):
                gone.zero_()
    pruned.save_pretrained(tmp_path / "pruned")
    rules = {"*.lin1": {"rate": 0.5, "granularity": "neuron"}}
    callback = composer.LearnMasks(rules, scores=Magnitudes, start=tmp_path / "pruned")
    run = trainer(model, tmp_path, [callback], max_steps=2, learning_rate=0.0, logging_steps=1)
    run.train()
    assert [entry["sparsity"] for entry in run.state.log_history if "loss" in entry] == [0.5, 0.5]
    wanted = dict(pruned.named_parameters())
    if turned:  # 12 of 24 neurons were gone: now the others are
        for layer, now in zip(dense.distilbert.transformer.layer, pruned.distilbert.transformer.layer, strict=True):
            with torch.no_grad():
                for new, old in zip(now.ffn.parameters(), layer.ffn.parameters(), strict=True):
                    if new.shape != now.ffn.lin2.bias.shape:
                        new.copy_(torch.where(new == 0, old, torch.zeros(())))
    assert all(torch.equal(p, wanted[name]) for name, p in model.named_parameters())
    other = trainer(model, tmp_path, [composer.LearnMasks({"*.attention": {"rate": 0.5}}, start=tmp_path / "pruned")])
    with pytest.raises(ModelError, match="of what the rules name no unit is gone"):
        other.train()
    with pytest.raises(ConfigError, match="start: got 'x' with 'l0', which begins with all weights"):
        composer.LearnMasks({}, scores="l0", start="x")


def test_sparsity_and_thresholds_of_each_kind_reach_tensorboard(distilbert_folder: Path, tmp_path: Path) -> None:
    reason = "tensorboard is not installed: pip install 'composer-pruning[tensorboard]'"
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason=reason)
    model = AutoModelForSequenceClassification.from_pretrained(distilbert_folder)
    run = trainer(model, tmp_path, [composer.LearnMasks(HYBRID)], max_steps=4, report_to=["tensorboard"])
    run.train()
    [file] = tmp_path.rglob("events.out.*")
    read = events.EventAccumulator(str(file))
    read.Reload()
    for name in ("sparsity", "sparsity_attention", "sparsity_linear", "threshold_attention", "threshold_linear"):
        [tag] = [tag for tag in read.Tags()["scalars"] if tag.removeprefix("train/") == name]
        told = {event.step: event.value for event in read.Scalars(tag)}
        wanted = {entry["step"]: entry[name] for entry in run.state.log_history if name in entry}
        assert told == pytest.approx(wanted)
        assert max(told) == 4
