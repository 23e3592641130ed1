"""Composed models: every weight from its highest stored ancestor, every removed weight exactly zero."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from composer.composing.assemble import compose, cover
from composer.errors import LibraryError
from composer.library.store import Library
from composer.models.folder import BaseModel
from composer.pruning.criteria.l1 import L1
from composer.pruning.variants import prune
from composer.scheme.building import build_scheme
from composer.scheme.configurations import Configurations, resolve
from composer.scheme.graph import Node, Scheme
from composer.tensors import masks
from tests.reference import modules, pruning

Folder = Callable[[str], Path]

HIGH, LOW = 0.5, 0.25
NAMES = {"t5": ("q", "k", "v"), "distilbert": ("q_lin", "k_lin", "v_lin"), "bert": ("query", "key", "value")}


def base_of(model_folder: Folder, name: str) -> BaseModel:
    return BaseModel(model_folder(name))


def make_scheme(base: BaseModel, *configurations: dict[str, float], levels: tuple[str, ...] = ()) -> Scheme:
    rates = resolve(Configurations(configurations=list(configurations)), base.layout)
    return build_scheme(
        rates,
        base.layout,
        model=base.name,
        fingerprint=base.fingerprint,
        block_levels=levels or ("module", "sublayer", "layer"),  # type: ignore[arg-type]
    )


def mixed(base: BaseModel) -> list[dict[str, float]]:
    """Two configurations that differ target by target, some dense."""
    rates = [0.0, 0.25, 0.5, 0.75, 0.3]
    return [{path: rates[(i * step) % 5] for i, path in enumerate(base.layout.paths)} for step in (1, 2)]


@pytest.fixture(scope="module", params=["t5", "distilbert", "bert"])
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "library")


def test_from_an_l1_library_it_is_the_model_pruned_by_hand(model_folder: Folder, library: Library, family: str) -> None:
    base = base_of(model_folder, family)
    scheme = make_scheme(base, *mixed(base))
    addresses = prune(base.load(), base.layout, scheme, L1(), library)
    for i, rates in enumerate(mixed(base)):
        model = base.load()
        state = {name: value.clone() for name, value in model.state_dict().items()}
        found = modules.discover(model)
        wanted = pruning.prune_state(
            state,
            {path: (NAMES[family], 4, rates[path]) for path in found if len(found[path]) == 3},
            {path: rates[path] for path in found if len(found[path]) == 1},
        )

        keep = compose(model, base.layout, scheme, i, library, addresses)

        assert set(model.state_dict()) == set(wanted)
        for name, value in model.state_dict().items():
            assert torch.equal(value, wanted[name]), name
        assert not masks.violations(dict(model.named_parameters()), keep)
        for name, mask in keep.items():
            assert torch.equal(mask, (wanted[name] != 0) | (state[name] == 0)), name


def hand_made(base: BaseModel, library: Library, nodes: Mapping[str, float], scheme: Scheme) -> dict[str, str]:
    """Store the nodes of these levels with every weight set to the level's value, masked by l1."""
    model = base.load()
    addresses = {}
    for node in scheme.nodes.values():
        if node.level not in nodes:
            continue
        keep: dict[str, Tensor] = {}
        for target, rate in node.rates.items():
            shape = base.layout.target(target)
            scores = torch.arange(float(shape.units))
            kept = scores >= round(rate * shape.units)
            if shape.kind == "linear":
                kept = kept.reshape(shape.projections[0].out_features, -1)
            keep |= masks.expand(shape, kept)
        below = [n for n, _ in model.named_parameters() if _inside(n, node, base)]
        weights = {n: torch.full_like(model.get_parameter(n), nodes[node.level]) for n in below}
        masks.apply(weights, keep)
        addresses[node.hash] = library.put({"hand-made": node.hash}, weights, keep)
    return addresses


def _inside(name: str, node: Node, base: BaseModel) -> bool:
    owns = node.block(base.layout).owns
    return any(name.startswith(f"{path}.") for path in owns) and "relative_attention_bias" not in name


def test_weights_come_from_the_highest_stored_ancestor(model_folder: Folder, library: Library) -> None:
    base = base_of(model_folder, "t5")
    layer = "encoder.block.0"
    scheme = make_scheme(base, {f"{layer}.*": HIGH, "encoder.block.1.layer.0.SelfAttention": HIGH})
    values = {"module": 1.0, "sublayer": 2.0, "layer": 3.0}
    for stored in (("module",), ("module", "sublayer"), ("module", "sublayer", "layer"), ("layer",)):
        addresses = hand_made(base, library, {level: values[level] for level in stored}, scheme)
        model, original = base.load(), base.load()
        compose(model, base.layout, scheme, 0, library, addresses)
        top = values[stored[-1]]
        for name, value in model.named_parameters():
            untouched = torch.equal(value, original.get_parameter(name))
            if name.startswith(f"{layer}.layer.1.DenseReluDense"):
                assert set(value.unique().tolist()) == {0.0, top}
            elif name == f"{layer}.layer.1.layer_norm.weight":
                assert untouched == (stored == ("module",))
            elif "relative_attention_bias" in name or name.startswith("decoder."):
                assert untouched


def test_a_block_below_a_stored_one_is_not_read(model_folder: Folder, library: Library) -> None:
    base = base_of(model_folder, "t5")
    scheme = make_scheme(base, {"encoder.block.0.layer.0.*": HIGH})
    addresses = hand_made(base, library, {"module": 1.0, "sublayer": 2.0}, scheme)
    for node in scheme.at("module"):
        library.path(addresses[node.hash]).write_bytes(b"damaged")

    compose(base.load(), base.layout, scheme, 0, library, addresses)

    assert [node.level for node in cover(scheme, 0, addresses)] == ["sublayer"]


def test_what_covers_a_configuration_holds_each_pruned_target_once(
    model_folder: Folder, library: Library, family: str
) -> None:
    base = base_of(model_folder, family)
    scheme = make_scheme(base, *mixed(base))
    for levels in ({"module"}, {"module", "sublayer"}, {"module", "layer"}):
        addresses = {n.hash: "address" for n in scheme.nodes.values() if n.level in levels}
        for i in range(2):
            covered = [target for node in cover(scheme, i, addresses) for target in node.rates]
            assert sorted(covered) == sorted(scheme.root(i).rates)


def test_a_dense_configuration_is_the_base_model(model_folder: Folder, library: Library) -> None:
    base = base_of(model_folder, "distilbert")
    scheme = make_scheme(base, {"*": 0.5}, {})
    model = base.load()
    assert compose(model, base.layout, scheme, 1, library, {}) == {}
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), base.load().parameters(), strict=True))


def test_targets_that_stay_dense_keep_the_bases_weights(model_folder: Folder, library: Library) -> None:
    base = base_of(model_folder, "bert")
    scheme = make_scheme(base, {"*.layer.1.intermediate.dense": 0.5})
    model = base.load()
    addresses = prune(model, base.layout, scheme, L1(), library)
    compose(model, base.layout, scheme, 0, library, addresses)
    changed = [n for n, p in base.load().named_parameters() if not torch.equal(p, model.get_parameter(n))]
    assert changed == ["bert.encoder.layer.1.intermediate.dense.weight"]


def test_a_missing_block_is_refused_by_name(model_folder: Folder, library: Library) -> None:
    base = base_of(model_folder, "distilbert")
    scheme = make_scheme(base, {"*.0.ffn.lin1": 0.5, "*.0.ffn.lin2": 0.25})
    addresses = prune(base.load(), base.layout, scheme, L1(), library)
    second = scheme.at("module")[1]

    fewer = {name: address for name, address in addresses.items() if name != second.hash}
    with pytest.raises(
        LibraryError, match=r"configuration 0: the library has no block for module .*\.0\.ffn\.lin2 at 0\.25"
    ):
        compose(base.load(), base.layout, scheme, 0, library, fewer)

    library.path(addresses[second.hash]).unlink()
    with pytest.raises(LibraryError, match=r"safetensors: no such block in this library"):
        compose(base.load(), base.layout, scheme, 0, library, addresses)


def test_a_damaged_block_is_refused_by_name(model_folder: Folder, library: Library) -> None:
    base = base_of(model_folder, "distilbert")
    scheme = make_scheme(base, {"*.0.ffn.lin1": 0.5})
    (address,) = prune(base.load(), base.layout, scheme, L1(), library).values()
    library.path(address).write_bytes(library.path(address).read_bytes()[:-8])
    with pytest.raises(LibraryError, match=rf"{address}.safetensors: damaged"):
        compose(base.load(), base.layout, scheme, 0, library, {scheme.at("module")[0].hash: address})


@pytest.mark.parametrize("kind", ["one weight less", "no mask"])
def test_counts_that_are_not_the_schemes_are_refused(model_folder: Folder, library: Library, kind: str) -> None:
    base = base_of(model_folder, "distilbert")
    path = "distilbert.transformer.layer.0.ffn.lin1"
    scheme = make_scheme(base, {path: 0.5})
    weight = base.load().get_parameter(f"{path}.weight").detach()
    keep = torch.ones_like(weight, dtype=torch.bool)
    keep.view(-1)[: weight.numel() // 2 - 1] = False
    stored = {} if kind == "no mask" else {f"{path}.weight": keep}
    address = library.put({"wrong": kind}, {f"{path}.weight": weight}, stored)

    removed = 0 if kind == "no mask" else 191
    with pytest.raises(LibraryError, match=rf"{path} at 0.5: {removed} weights are masked; the scheme says 192"):
        compose(base.load(), base.layout, scheme, 0, library, {scheme.at("module")[0].hash: address})


def test_a_removed_weight_that_a_block_holds_is_zeroed(model_folder: Folder, library: Library) -> None:
    base = base_of(model_folder, "distilbert")
    path = "distilbert.transformer.layer.0.ffn.lin1"
    scheme = make_scheme(base, {path: 0.5})
    weight = torch.ones(24, 16)
    keep = torch.ones(24, 16, dtype=torch.bool)
    keep[:12] = False
    address = library.put({"unmasked": 1}, {f"{path}.weight": weight}, {f"{path}.weight": keep})
    model = base.load()
    compose(model, base.layout, scheme, 0, library, {scheme.at("module")[0].hash: address})
    assert torch.equal(model.get_parameter(f"{path}.weight"), keep.float())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_base_is_composed_in_float32_and_saved_as_it_was(
    model_folder: Folder, library: Library, tmp_path: Path, dtype: torch.dtype
) -> None:
    folder = shutil.copytree(model_folder("t5"), tmp_path / "half")
    halved = {name: value.to(dtype) for name, value in load_file(folder / "model.safetensors").items()}
    save_file(halved, folder / "model.safetensors", metadata={"format": "pt"})
    base = BaseModel(folder)
    scheme = make_scheme(base, {"*": LOW})
    model: nn.Module = base.load()
    keep = compose(model, base.layout, scheme, 0, library, prune(model, base.layout, scheme, L1(), library))
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    for name, mask in keep.items():
        assert torch.equal(model.get_parameter(name), halved[name].float() * mask)
    path = next(name for name, mask in keep.items() if mask.any())
    model.get_parameter(path).data[keep[path]] = 1e-12  # what is not removed is not 0 in any dtype
    model.get_parameter("shared.weight").data[0, 0] = 1e30  # too large for float16
    base.save(model, tmp_path / "saved")
    stored = load_file(tmp_path / "saved" / "model.safetensors")
    too_large = {"shared.weight"} if dtype is torch.float16 else set()
    assert {name for name, value in stored.items() if value.dtype != dtype} == too_large
    assert torch.equal(stored[path] != 0, keep[path])
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["dtype"] == str(dtype).partition(".")[2]


def test_other_rates_give_other_models_from_one_library(model_folder: Folder, library: Library) -> None:
    base = base_of(model_folder, "t5")
    scheme = make_scheme(base, {"*": LOW}, {"*": HIGH}, {"*": LOW})
    addresses = prune(base.load(), base.layout, scheme, L1(), library)
    zeros = []
    for i in range(3):
        model = base.load()
        compose(model, base.layout, scheme, i, library, addresses)
        counts = masks.zeros_per_target(model, base.layout)
        zeros.append(sum(zero for zero, _ in counts.values()) / sum(size for _, size in counts.values()))
        assert zeros[-1] == pytest.approx(scheme.sparsity(i, base.layout))
    assert zeros == [0.25, 0.5, 0.25]
