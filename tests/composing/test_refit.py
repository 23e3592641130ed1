"""The sweep after composing, against a slow one that runs both whole models again for every sublayer."""

from __future__ import annotations

import copy
import gc
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from composer.composing.refit import SweepResult, sweep
from composer.errors import ModelError
from composer.models.folder import BaseModel
from composer.progress import Bar, Progress
from composer.scheme.layout import Layout, Target
from composer.tasks import DataOptions, Examples, Task, infer_task, open_task
from composer.tensors import masks
from composer.training.blocks import moments
from tests.conftest import VOCABULARY, make_folder
from tests.reference import closed_form
from tests.reference.inputs import seen_by_rows
from tests.zoo import COUSINS, make_config

Folder = Callable[[str], Path]
Masks = dict[str, Tensor]

FAMILIES = ["t5", "gated", "distilbert", "bert", "gpt2", "llama", "granite", "opt", "opt-post", "pegasus", "marian"]
SOME = (r"encoder\.block\.1|decoder\.block\.0", r"(\.layers?|h)\.0\.")
"""Patterns of targets, where not all are pruned."""
SCALED = 0.3  # what of a sublayer's result Granite adds to the stream
DAMPING = 0.05
EXAMPLES = 7

# Model type -> last projections of sublayers, each with the module whose output ("out") or input ("in") is the stream
# after it. Norm first: what the next norm reads or the layer gives; norm after the sublayer: what that one reads.
Places = list[tuple[str, str, str]]
BERT: Places = [
    (r"(.*)\.attention\.output\.dense", r"\1.attention.output.LayerNorm", "in"),
    (r"(.*)(?<!attention)\.output\.dense", r"\1.output.LayerNorm", "in"),
]
DISTILBERT: Places = [
    (r"(.*)\.attention\.out_lin", r"\1.sa_layer_norm", "in"),
    (r"(.*)\.ffn\.lin2", r"\1.output_layer_norm", "in"),
]
T5: Places = [(r"(.*\.layer\.\d+)\.(SelfAttention\.o|EncDecAttention\.o|DenseReluDense\.wo)", r"\1", "out")]
GPT2: Places = [(r"(.*)\.attn\.c_proj", r"\1.ln_2", "in"), (r"(.*)\.mlp\.c_proj", r"\1", "out")]
LLAMA: Places = [
    (r"(.*)\.self_attn\.o_proj", r"\1.post_attention_layernorm", "in"),
    (r"(.*)\.mlp\.down_proj", r"\1", "out"),
]
OPT: Places = [(r"(.*)\.self_attn\.out_proj", r"\1.final_layer_norm", "in"), (r"(.*)\.fc2", r"\1", "out")]
PEGASUS: Places = [
    (r"(.*\.decoder.*)\.self_attn\.out_proj", r"\1.encoder_attn_layer_norm", "in"),
    (r"(.*\.encoder.*)\.self_attn\.out_proj", r"\1.final_layer_norm", "in"),
    (r"(.*)\.encoder_attn\.out_proj", r"\1.final_layer_norm", "in"),
    (r"(.*)\.fc2", r"\1", "out"),
]
MARIAN: Places = [
    (r"(.*_attn)\.out_proj", r"\1_layer_norm", "in"),
    (r"(.*)\.fc2", r"\1.final_layer_norm", "in"),
]
PLACES = {
    "t5": T5,
    "distilbert": DISTILBERT,
    "bert": BERT,
    "gpt2": GPT2,
    "llama": LLAMA,
    "granite": LLAMA,
    "opt": OPT,
    "pegasus": PEGASUS,
    "marian": MARIAN,
}


@dataclass(frozen=True)
class Place:
    """A base model, its data, and copies of it to prune."""

    base: nn.Module
    layout: Layout
    task: Task
    data: Examples

    def pruned(self, *patterns: str) -> tuple[nn.Module, Masks]:
        """A copy without half of the weights, and one of four heads, of the targets that match."""
        model, keep = copy.deepcopy(self.base), {}
        draw = torch.Generator().manual_seed(1)
        for target in self.layout.targets:
            if any(re.search(pattern, target.path) for pattern in patterns or [""]):
                keep |= masks.expand(target, _kept(target, draw))
        masks.apply(dict(model.named_parameters()), keep)
        return model, keep

    def sweep(self, model: nn.Module, keep: Masks, **options: Any) -> SweepResult:
        given = {"size": len(self.data), "batch_size": 3, "damping": DAMPING}
        return sweep(model, self.base, self.layout, keep, self.task, self.data, **given | options)


def _kept(target: Target, draw: torch.Generator) -> Tensor:
    if target.kind == "attention":
        return torch.arange(target.heads) != int(torch.randint(target.heads, (), generator=draw))
    (projection,) = target.projections
    return torch.rand(projection.out_features, projection.in_features, generator=draw) < 0.5


@pytest.fixture(scope="module")
def granite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    architecture, settings = COUSINS["granite"]
    config = make_config(architecture, settings | {"residual_multiplier": SCALED}, VOCABULARY)
    return make_folder(tmp_path_factory.mktemp("models") / "granite", architecture, config, "$A </s>")


@pytest.fixture(scope="module")
def place(
    model_folder: Folder, granite: Path, translation_data: Path, classification_data: Path, running_text: Path
) -> Callable[[str], Place]:
    def make(name: str) -> Place:
        base = BaseModel(granite if name == "granite" else model_folder(name))
        kind = infer_task(base.config)
        data = {"translation": translation_data, "classification": classification_data, "language_model": running_text}
        options = DataOptions(data=str(data[kind]), max_source_length=9 if kind == "language_model" else None)
        task = open_task(options, base.folder, base.config)
        examples = task.load("train")
        features = examples.features[:EXAMPLES]
        if kind == "language_model":  # windows are all of one length
            features = [{"input_ids": feature["input_ids"][: 6 + i % 4]} for i, feature in enumerate(features)]
        return Place(base.load(), base.layout, task, replace(examples, features=features))

    return make


def ends(model: Any) -> Iterator[tuple[str, str, str]]:
    """Last projections in execution order, each with where the stream after it is."""
    post = getattr(model.config, "do_layer_norm_before", True) is False
    for path, _ in model.named_modules():
        for pattern, where, side in MARIAN if post else PLACES[model.config.model_type]:
            if found := re.fullmatch(pattern, path):
                yield path, found.expand(where), side
                break


def scale_of(model: Any) -> float:
    """What of a sublayer's result is added to the stream."""
    return getattr(model.config, "residual_multiplier", 1.0)


def observe(model: nn.Module, place: Place, last: str, where: str, side: str) -> tuple[np.ndarray, np.ndarray]:
    """What a projection reads, and the stream after its sublayer: one example at a time, without padding."""
    read: list[Tensor] = []
    stream: list[Tensor] = []
    modules = dict(model.named_modules())

    def keep_stream(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        value = args[0] if side == "in" else output
        stream.append((value if isinstance(value, Tensor) else value[0]).flatten(0, -2))

    handles = [
        modules[last].register_forward_pre_hook(lambda _, args: read.append(args[0].flatten(0, -2))),
        modules[where].register_forward_hook(keep_stream),
    ]
    with torch.no_grad():
        for feature in place.data.features:
            place.task.loss(model, place.task.collate([feature]))
    for handle in handles:
        handle.remove()
    return closed_form.array(torch.cat(read)), closed_form.array(torch.cat(stream))


def slow_sweep(model: nn.Module, keep: Masks, place: Place) -> nn.Module:
    """Two passes and dense normal equations, row by row, per sublayer; everything in float64."""
    model, base = copy.deepcopy(model).double(), copy.deepcopy(place.base).double()
    for last, where, side in ends(model):
        module = model.get_submodule(last)
        (X, now), (_, goal) = observe(model, place, last, where, side), observe(base, place, last, where, side)
        W = closed_form.array(seen_by_rows(module))
        M = np.ones(W.shape, dtype=bool)
        if f"{last}.weight" in keep:
            M = seen_by_rows(module, keep[f"{last}.weight"]).numpy()
        if module.bias is not None:
            X = np.hstack([X, np.ones((len(X), 1))])
            W = np.hstack([W, closed_form.array(module.bias)[:, None]])
            M = np.hstack([M, np.ones((len(M), 1), dtype=bool)])
        A, strength = closed_form.damped(X.T @ X, DAMPING)
        Y = X @ W.T + (goal - now) / scale_of(model)
        solved = torch.from_numpy(closed_form.masked_rows(W, A, M, Y.T @ X + strength * W))
        with torch.no_grad():
            weight = solved[:, :-1] if module.bias is not None else solved
            module.weight.copy_(seen_by_rows(module, weight))
            if module.bias is not None:
                module.bias.copy_(solved[:, -1])
    return model


def assert_same(model: nn.Module, other: nn.Module, **tolerance: float) -> None:
    for (name, p), (_, q) in zip(model.named_parameters(), other.named_parameters(), strict=True):
        torch.testing.assert_close(p, q.to(p), msg=lambda text, name=name: f"{name}: {text}", **tolerance)


def hooks(*models: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for model in models for m in model.modules())


@pytest.fixture
def _precise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Conjugate gradients go as far as float32 lets them."""
    monkeypatch.setattr(moments, "TOLERANCE", 1e-6)


@pytest.mark.usefixtures("_precise")
@pytest.mark.parametrize(
    ("name", "patterns"), [*((name, ()) for name in FAMILIES), *((name, SOME) for name in ("t5", "bert", "pegasus"))]
)
def test_it_equals_whole_passes_and_dense_equations_for_every_sublayer(
    name: str, patterns: tuple[str, ...], place: Callable[[str], Place]
) -> None:
    at = place(name)
    model, keep = at.pruned(*patterns)
    wanted = slow_sweep(model, keep, at)
    before = copy.deepcopy(model)
    at.sweep(model, keep)
    assert_same(model, wanted, atol=1e-4, rtol=1e-3)
    assert masks.violations(dict(model.named_parameters()), keep) == []
    lasts = {last for last, _, _ in ends(model)}
    assert len(lasts) == len(list(at.layout.at("sublayer")))
    for parameter, p in model.named_parameters():
        assert torch.equal(p, before.get_parameter(parameter)) or parameter.rpartition(".")[0] in lasts


@pytest.mark.parametrize("name", FAMILIES)
def test_errors_are_those_of_the_streams_of_plain_passes(name: str, place: Callable[[str], Place]) -> None:
    at = place(name)
    model, keep = at.pruned()
    result = at.sweep(model, keep)
    assert [refit.path for refit in result.refits] == [block.path for block in at.layout.at("sublayer")]
    for refit, (last, where, side) in zip(result.refits, ends(model), strict=True):
        X, goal = observe(at.base, at, last, where, side)
        module = at.base.get_submodule(last)
        added = X @ closed_form.array(seen_by_rows(module)).T
        if module.bias is not None:
            added += closed_form.array(module.bias)
        added *= scale_of(at.base)
        now = observe(model, at, last, where, side)[1]
        assert refit.after == pytest.approx(((now - goal) ** 2).sum() / (added**2).sum(), rel=1e-3)
        assert refit.after <= refit.before


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_equal_to_its_base_is_left_as_it_is(name: str, place: Callable[[str], Place]) -> None:
    at = place(name)
    model = copy.deepcopy(at.base)
    result = at.sweep(model, {}, damping=1e-3)
    assert_same(model, at.base, atol=0, rtol=0)
    assert max(refit.before for refit in result.refits) < 1e-6


def test_what_comes_before_the_first_removed_weight_is_left_as_it_is(place: Callable[[str], Place]) -> None:
    at = place("t5")
    model, keep = at.pruned("decoder.block.1.layer.1")
    at.sweep(model, keep)
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, at.base.get_parameter(name))}
    after = "decoder.block.1.layer.2.DenseReluDense.wo.weight"  # dense, but its inputs are others now
    assert changed == {*keep, after}


@pytest.mark.usefixtures("_precise")
def test_batches_do_not_matter(place: Callable[[str], Place]) -> None:
    at = place("t5")
    (one, keep), (other, _) = at.pruned(), at.pruned()
    at.sweep(one, keep, batch_size=1)
    at.sweep(other, keep, batch_size=64)
    assert_same(one, other, atol=1e-4, rtol=1e-3)


def test_the_sample_is_drawn_by_size_and_seed(place: Callable[[str], Place]) -> None:
    at = place("t5")
    models = []
    for seed in (0, 0, 1):
        model, keep = at.pruned()
        at.sweep(model, keep, size=4, seed=seed)
        models.append(model.get_parameter("encoder.block.0.layer.0.SelfAttention.o.weight"))
    assert torch.equal(models[0], models[1])
    assert not torch.equal(models[0], models[2])


@pytest.mark.usefixtures("_precise")
def test_weights_stored_in_out_are_refitted_alike(place: Callable[[str], Place]) -> None:
    at = place("distilbert")
    model, keep = at.pruned()
    turned, at_turned = copy.deepcopy(model), replace(at, base=copy.deepcopy(at.base), layout=_turned(at.layout))
    for owner in (turned, at_turned.base):
        for path in _second(at.layout):
            linear, other = owner.get_submodule(path), Conv1D(16, 24)
            with torch.no_grad():
                other.weight.copy_(linear.weight.T)
                other.bias.copy_(linear.bias)
            owner.set_submodule(path, other.eval())
    at_turned.sweep(turned, keep | {f"{path}.weight": keep[f"{path}.weight"].T for path in _second(at.layout)})
    at.sweep(model, keep)
    for path in _second(at.layout):
        turned.get_submodule(path).weight = nn.Parameter(turned.get_submodule(path).weight.T.contiguous())
    assert_same(model, turned, atol=1e-5, rtol=1e-4)


def _second(layout: Layout) -> list[str]:
    return [path for path in layout.paths if path.endswith("lin2")]


def _turned(layout: Layout) -> Layout:
    targets = [
        replace(t, projections=(replace(t.projections[0], transposed=True),)) if t.path.endswith("lin2") else t
        for t in layout.targets
    ]
    return Layout(layout.family, tuple(targets), layout.blocks)


def test_both_models_run_once_per_batch_and_not_beyond_the_last_sublayer(place: Callable[[str], Place]) -> None:
    at = place("t5")
    model, keep = at.pruned()
    runs: Counter[str] = Counter()
    for kind, owner in (("model", model), ("base", at.base)):
        for path, module in owner.named_modules():
            module.register_forward_pre_hook(lambda *_, name=f"{kind} {path}": runs.update([name]))
    at.sweep(model, keep, size=7, batch_size=3)
    paths = ["", *(block.path for block in at.layout.at("sublayer")), *(last for last, _, _ in ends(model))]
    assert {runs[f"{kind} {path}"] for kind in ("model", "base") for path in paths} == {3}
    assert not any(path in name for path in ("decoder.final_layer_norm", "lm_head") for name in runs)


class Stopped(Progress):
    """Is interrupted after a few sublayers."""

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Bar]:
        class Third(Bar):
            done = 0

            def advance(self, detail: str = "") -> None:
                self.done += 1
                if self.done == 3:
                    raise KeyboardInterrupt

        yield Third()


def test_an_interruption_leaves_nothing_behind(place: Callable[[str], Place]) -> None:
    from composer.tensors.lockstep import Pass

    at = place("t5")
    model, keep = at.pruned()
    model.train()
    with pytest.raises(KeyboardInterrupt):
        at.sweep(model, keep, progress=Stopped())
    assert hooks(model, at.base) == 0
    assert model.training
    assert not at.base.training
    assert not any(type(thing) is Pass for thing in gc.get_objects() if thing is not None)
    assert torch.is_grad_enabled()
    at.sweep(model, keep)
    assert masks.violations(dict(model.named_parameters()), keep) == []


def test_an_error_inside_a_model_comes_out(place: Callable[[str], Place]) -> None:
    at = place("bert")
    model, keep = at.pruned()

    def fail(*_: Any) -> None:
        raise RuntimeError("out of luck")

    handle = model.get_submodule("bert.encoder.layer.1.attention.self").register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="out of luck"):
        at.sweep(model, keep)
    handle.remove()
    assert hooks(model, at.base) == 0


def test_a_layout_that_the_model_does_not_follow_is_refused(place: Callable[[str], Place]) -> None:
    at = place("distilbert")
    model, keep = at.pruned()
    layout = replace(at.layout, blocks=at.layout.blocks[::-1])
    with pytest.raises(
        ModelError, match=r"layer.1.ffn: must .* in the layout's order; .* came to .*layer.0.attention inst"
    ):
        replace(at, layout=layout).sweep(model, keep)
    ghost = replace(list(at.layout.at("sublayer"))[-1], path="ghost", chain=("ghost",))
    model.ghost = at.base.ghost = nn.Identity()
    with pytest.raises(ModelError, match=r"ghost: .*the model ended instead"):
        replace(at, layout=replace(at.layout, blocks=(*at.layout.blocks, ghost))).sweep(model, keep)
    assert hooks(model, at.base) == 0
