"""Second moments of inputs: against inputs computed by hand, sentence by sentence, without padding."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from composer.calibration.gram import Gram
from composer.calibration.sample import Calibration, sample_indices, sample_like
from composer.errors import InputError, ModelError
from composer.library.store import Library
from composer.models.family import linear
from composer.models.folder import BaseModel
from composer.progress import Progress
from composer.pruning.criteria.l1 import L1
from composer.pruning.variants import prune
from composer.recipe import Recipe
from composer.scheme.building import build_scheme
from composer.scheme.configurations import Configurations, resolve
from composer.scheme.layout import Layout
from composer.tasks import DataOptions, Examples, Task, open_task
from composer.workspace import Workspace
from tests.reference import closed_form
from tests.reference.moments import collect

Folder = Callable[[str], Path]
Setting = tuple[Any, BaseModel, Task, Examples]


def setting(folder: Path, data: Path) -> Setting:
    base = BaseModel(folder)
    task = open_task(DataOptions(data=str(data)), base.folder, base.config)
    return base.load(), base, task, task.load("train")


@pytest.fixture(scope="module")
def t5(t5_folder: Path, translation_data: Path) -> Setting:
    return setting(t5_folder, translation_data)


@pytest.fixture(scope="module")
def distilbert(distilbert_folder: Path, classification_data: Path) -> Setting:
    return setting(distilbert_folder, classification_data)


class Notes(Progress):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


def close(a: torch.Tensor, b: np.ndarray) -> bool:
    return bool(np.allclose(a.double().numpy(), b, rtol=1e-5, atol=1e-5 * np.abs(b).max()))


def test_moments_are_those_of_inputs_computed_by_hand(t5: Setting) -> None:
    model, base, task, data = t5
    indices = [0, 3, 5, 6, 11, 17, 20]
    assert len({len(data.features[i]["labels"]) for i in indices}) > 1  # type: ignore[arg-type]

    grams = collect(model, task, data, base.layout, indices=indices, batch_size=3)

    pairs: list[Any] = [(data.features[i]["input_ids"], data.features[i]["labels"]) for i in indices]
    inputs = closed_form.t5_inputs(model, pairs)
    assert set(grams) == set(inputs)
    for path, X in inputs.items():
        assert close(grams[path].matrix, X.T @ X), path
        assert grams[path].tokens == len(X)
        assert grams[path].examples == len(indices)  # of either stream
        assert close(grams[path].norms, np.sqrt((X**2).sum(0)))


def test_paths_come_in_the_order_of_the_layout(t5: Setting) -> None:
    model, base, task, data = t5
    grams = collect(model, task, data, base.layout, size=2)
    assert list(grams) == [p.path for t in base.layout.targets for p in t.projections]


def test_projections_that_read_one_tensor_share_one_gram(t5: Setting) -> None:
    model, base, task, data = t5
    grams = collect(model, task, data, base.layout, size=4)
    own = "decoder.block.1.layer.0.SelfAttention"
    cross = "decoder.block.{}.layer.1.EncDecAttention"
    assert grams[f"{own}.q"] is grams[f"{own}.k"] is grams[f"{own}.v"]
    assert grams[f"{own}.q"] is not grams[f"{own}.o"]
    memory = {id(grams[f"{cross.format(i)}.{name}"]) for i in (0, 1) for name in "kv"}
    assert memory == {id(grams[f"{cross.format(0)}.k"])}
    assert grams[f"{cross.format(0)}.q"] is not grams[f"{cross.format(0)}.k"]
    # encoder: 2 layers of (qkv, o, wi, wo); decoder: of (qkv, o, q, o, wi, wo); and the encoder's output
    assert len({id(gram) for gram in grams.values()}) == 2 * 4 + 2 * 6 + 1


def test_gated_feed_forwards_read_one_tensor_twice(gated_folder: Path, translation_data: Path) -> None:
    model, base, task, data = setting(gated_folder, translation_data)
    grams = collect(model, task, data, base.layout, size=4)
    assert grams["encoder.block.0.layer.1.DenseReluDense.wi_0"] is grams["encoder.block.0.layer.1.DenseReluDense.wi_1"]


def test_a_bias_is_a_column_of_ones(distilbert: Setting) -> None:
    model, base, task, data = distilbert
    indices = [1, 2, 5, 8]

    gram = collect(model, task, data, base.layout, indices=indices)["distilbert.transformer.layer.0.attention.q_lin"]

    with torch.no_grad():
        rows = [model.distilbert.embeddings(torch.tensor([data.features[i]["input_ids"]]))[0] for i in indices]
    X = closed_form.array(torch.cat([torch.cat([r, torch.ones(len(r), 1)], 1) for r in rows]))
    assert gram.bias
    assert close(gram.matrix, X.T @ X)
    assert gram.matrix[-1, -1] == gram.tokens == len(X)
    assert close(gram.inputs, X[:, :-1].T @ X[:, :-1])
    assert gram.norms.shape == (16,)


def test_batches_do_not_matter(t5: Setting) -> None:
    model, base, task, data = t5
    one = collect(model, task, data, base.layout, size=9, batch_size=1)
    other = collect(model, task, data, base.layout, size=9, batch_size=4)
    for path, gram in one.items():
        assert (gram.tokens, gram.examples) == (other[path].tokens, other[path].examples)
        assert close(gram.matrix, other[path].matrix.numpy()), path


def test_the_same_sample_gives_the_same_bits_and_another_seed_another_sample(t5: Setting) -> None:
    model, base, task, data = t5
    first, again, other = (collect(model, task, data, base.layout, size=5, seed=seed) for seed in (0, 0, 1))
    assert all(torch.equal(first[path].matrix, again[path].matrix) for path in first)
    assert not any(torch.equal(first[path].matrix, other[path].matrix) for path in first)


@pytest.mark.parametrize("name", ["t5", "distilbert"])
def test_memory_splits_into_passes_that_give_the_same(name: str, request: pytest.FixtureRequest) -> None:
    model, base, task, data = request.getfixturevalue(name)
    whole = collect(model, task, data, base.layout, size=5)
    largest = max(8 * gram.matrix.numel() for gram in whole.values())
    notes = Notes()

    sample = Calibration(model, task, data, base.layout, size=5, memory=2 * largest, progress=notes)
    for path, grams in sample.moments({path: [path] for path in whole}):
        assert list(grams) == [path]
        assert torch.equal(grams[path].matrix, whole[path].matrix)

    assert sample.passes > 1
    assert notes.lines == [f"calibration: {sample.passes} passes, to stay within {2 * largest} bytes of Gram matrices"]
    total = sum(8 * matrix.numel() for matrix in {id(g): g.matrix for g in whole.values()}.values())
    assert total / (2 * largest) <= sample.passes < len(whole)


def test_one_pass_serves_all_who_ask(t5: Setting) -> None:
    model, base, task, data = t5
    sample = Calibration(model, task, data, base.layout, size=5)
    paths = [p.path for t in base.layout.targets for p in t.projections]
    for _ in range(2):
        assert [key for key, _ in sample.moments({path: [path] for path in paths})] == paths
    assert [key for key, _ in sample.moments({1: paths[:2], 2: paths})] == [1, 2]
    assert sample.passes == 1


def test_one_pass_for_moments_and_one_for_gradients_serve_all_criteria(t5: Setting, tmp_path: Path) -> None:
    model, base, task, data = t5
    mixed = {
        "*.SelfAttention": "obs",
        "*.SelfAttention.o": "wanda",
        "*.EncDecAttention": "taylor",
        "*.EncDecAttention.o": "sparsegpt",
        "*.wi": "obs",
        "*.wo": "taylor",
    }
    turned = dict(zip(mixed, ["taylor", "sparsegpt", "obs", "wanda", "wanda", "sparsegpt"], strict=True))
    configurations: list[Any] = [
        {path: {"rate": rate, "criterion": name} for path, name in one.items()}
        for one, rate in ((mixed, 0.25), (turned, 0.5))
    ]
    rates = resolve(Configurations(configurations=configurations), base.layout)
    scheme = build_scheme(rates, base.layout, model=base.name, fingerprint=base.fingerprint)
    sample = Calibration(model, task, data, base.layout, batch_size=5)
    seen = {True: 0, False: 0}

    def count(_: torch.nn.Module, args: Any, batch: dict[str, torch.Tensor]) -> None:
        seen[torch.is_grad_enabled()] += len(batch["input_ids"])

    handle = model.register_forward_pre_hook(count, with_kwargs=True)
    try:
        stored = prune(model, base.layout, scheme, L1(), Library(tmp_path), calibration=lambda: sample)
    finally:
        handle.remove()

    assert len(stored) == 2 * len(base.layout.targets)
    assert sample.passes == 2
    assert seen == {True: len(data), False: len(data) + 1}  # one example shows which projections read the same


def test_too_little_memory_is_refused(t5: Setting) -> None:
    model, base, task, data = t5
    with pytest.raises(InputError, match=r"--memory: got 1000 bytes; the moments that .* wants alone need 1152"):
        collect(model, task, data, base.layout, size=2, memory=1000)


def test_a_projection_that_never_runs_is_an_error(t5: Setting) -> None:
    model, _, task, data = t5
    model.idle = torch.nn.Linear(2, 2)
    try:
        layout = Layout("T5", (linear("idle", 2, 2, bias=True, stream="encoder"),), ())
        with pytest.raises(ModelError, match="idle: the model never runs this projection"):
            collect(model, task, data, layout, size=2)
    finally:
        del model.idle


def test_the_model_is_left_as_it_was(t5: Setting) -> None:
    model, base, task, data = t5
    before = {name: p.clone() for name, p in model.named_parameters()}
    evaluated = collect(model, task, data, base.layout, size=3)
    model.encoder.train()
    try:
        trained = collect(model, task, data, base.layout, size=3)
        assert (model.training, model.encoder.training) == (False, True)
    finally:
        model.eval()
    assert all(torch.equal(evaluated[path].matrix, trained[path].matrix) for path in trained)  # no dropout
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert not any(module._forward_pre_hooks for module in model.modules())


@given(st.integers(1, 60), st.integers(1, 80), st.integers(0, 5))
def test_a_sample_has_no_example_twice_and_grows_at_its_end(examples: int, size: int, seed: int) -> None:
    drawn = sample_indices(examples, size, seed=seed)
    assert len(set(drawn)) == len(drawn) == min(size, examples)
    assert set(drawn) <= set(range(examples))
    assert sample_indices(examples, size + 3, seed=seed)[: len(drawn)] == drawn


def test_a_sample_has_the_lengths_of_another_split_as_far_as_there_are_such_examples() -> None:
    lengths, like = [4] * 90 + [20] * 30 + [60] * 2, [4] * 20 + [20] * 60 + [60] * 20
    found = [lengths[i] for i in sample_like(lengths, like, 40, seed=1)]
    assert (len(found), found.count(20), found.count(60)) == (40, 24, 2)
    assert sample_like(lengths, [300], 7, seed=1) == sorted(sample_indices(len(lengths), 7, seed=1))


def test_what_is_chosen_is_chosen_on_lengths_of_the_validation_split(
    distilbert_folder: Path, classification_data: Path
) -> None:
    given = {"model": str(distilbert_folder), "data": str(classification_data), "calibration_size": 8}
    plain, wished, said = (
        Workspace(Recipe(**given, **more)).sample_identity()
        for more in ({}, {"keep_macs": [0.5]}, {"keep_macs": [0.5], "calibration_lengths": "train"})
    )
    assert plain == said
    assert set(wished) - set(plain) == {"lengths"}


def test_norms_of_rounding_errors_are_zero() -> None:
    assert Gram(torch.tensor([[-1e-12, 0.0], [0.0, 4.0]]), 3).norms.tolist() == [0.0, 2.0]
