"""Pruned variants: each once, with exact counts, everything kept as in the base model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from composer.errors import LibraryError
from composer.library.store import Library, address_of
from composer.models.folder import BaseModel
from composer.progress import Bar, Progress
from composer.pruning.addresses import pruned_lineage, variant_addresses
from composer.pruning.criteria.criterion import Stats
from composer.pruning.criteria.l1 import L1
from composer.pruning.variants import prune
from composer.scheme.building import build_scheme
from composer.scheme.configurations import Configurations, resolve
from composer.scheme.graph import Scheme
from composer.scheme.layout import Target
from composer.scheme.shapes import Shape
from tests.reference import modules

Folder = Callable[[str], Path]

CONFIGURATIONS = [
    {"*": 0.3, "*ttention": 0.25, "*.self": 0.25},
    {"*": 0.3, "*ttention": 0.5, "*.self": 0.5},
    {"*.0.*": 0.7},
]


class Counting(L1):
    """l1 that remembers what it scored."""

    def __init__(self) -> None:
        self.scored: list[str] = []

    def score(self, target: Target, weights: list[Tensor], stats: Stats, shape: Shape | None = None) -> Tensor:
        self.scored.append(target.path)
        return super().score(target, weights, stats, shape)


@pytest.fixture(scope="module", params=["t5", "gated", "distilbert", "bert"])
def base(request: pytest.FixtureRequest, model_folder: Folder) -> BaseModel:
    return BaseModel(model_folder(request.param))


@pytest.fixture(scope="module")
def model(base: BaseModel) -> nn.Module:
    return base.load()


def make_scheme(base: BaseModel, configurations: list[dict[str, float]]) -> Scheme:
    known = [{k: r for k, r in c.items() if _names(k, base)} for c in configurations]
    rates = resolve(Configurations(configurations=known), base.layout)
    return build_scheme(rates, base.layout, model=base.name, fingerprint=base.fingerprint)


def _names(key: str, base: BaseModel) -> bool:
    return any(Path(path).match(key) for path in base.layout.paths)


@pytest.fixture(scope="module")
def scheme(base: BaseModel) -> Scheme:
    return make_scheme(base, CONFIGURATIONS)


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "pruned")


def contents(library: Library) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(library.folder.iterdir())}


def test_every_variant_is_stored_once_and_every_target_scored_once(
    base: BaseModel, model: nn.Module, scheme: Scheme, library: Library
) -> None:
    criterion = Counting()
    addresses = prune(model, base.layout, scheme, criterion, library)

    assert criterion.scored == [path for path in base.layout.paths if path in scheme.modules]
    assert set(addresses) == {node.hash for node in scheme.at("module")}
    assert sorted(addresses.values()) == list(library.addresses())
    assert len(set(addresses.values())) == sum(len(rates) for rates in scheme.modules.values())
    assert max(len(rates) for rates in scheme.modules.values()) > 1


def test_counts_are_exact_removed_weights_zero_and_kept_ones_untouched(
    base: BaseModel, model: nn.Module, scheme: Scheme, library: Library
) -> None:
    addresses = prune(model, base.layout, scheme, L1(), library)
    state = model.state_dict()
    for node in scheme.at("module"):
        rate = node.rates[node.path]
        artefact = library.get(addresses[node.hash])
        projections = modules.discover(model)[node.path]
        names = [f"{p}.{what}" for p in projections for what in ("weight", "bias") if f"{p}.{what}" in state]
        assert set(artefact.weights) == set(names)
        removed = {n: int((~mask).sum()) for n, mask in artefact.masks.items()}
        size = sum(state[n].numel() for n in names if n.endswith("weight"))
        if base.layout.target(node.path).kind == "attention":
            heads = round(rate * 4)
            assert sum(count for n, count in removed.items() if n.endswith("weight")) == heads * size // 4
            assert set(removed) == set(names)
        else:
            assert removed == {f"{node.path}.weight": round(rate * size)}
        for name, value in artefact.weights.items():
            keep = artefact.masks.get(name, torch.ones_like(value, dtype=torch.bool))
            assert (value[~keep] == 0).all()
            assert torch.equal(value[keep], state[name][keep])
            assert value.dtype == torch.float32


def test_the_model_is_not_changed(base: BaseModel, model: nn.Module, scheme: Scheme, library: Library) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    prune(model, base.layout, scheme, L1(), library)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_second_call_does_nothing(base: BaseModel, model: nn.Module, scheme: Scheme, library: Library) -> None:
    first = prune(model, base.layout, scheme, L1(), library)
    before = contents(library)
    times = {path: path.stat().st_mtime_ns for path in library.folder.iterdir()}
    criterion = Counting()

    assert prune(model, base.layout, scheme, criterion, library) == first
    assert criterion.scored == []
    assert contents(library) == before
    assert {path: path.stat().st_mtime_ns for path in library.folder.iterdir()} == times


def test_two_runs_write_the_same_bytes(base: BaseModel, model: nn.Module, scheme: Scheme, tmp_path: Path) -> None:
    one, other = Library(tmp_path / "one"), Library(tmp_path / "other")
    assert prune(model, base.layout, scheme, L1(), one) == prune(base.load(), base.layout, scheme, L1(), other)
    assert contents(one) == contents(other)


def test_another_configuration_only_adds_its_new_variants(
    base: BaseModel, model: nn.Module, scheme: Scheme, library: Library
) -> None:
    prune(model, base.layout, make_scheme(base, CONFIGURATIONS[:2]), L1(), library)
    before = contents(library)
    criterion = Counting()

    prune(model, base.layout, scheme, criterion, library)

    after = contents(library)
    assert {name: after[name] for name in before} == before
    assert all(".0." in path for path in criterion.scored)
    assert len(set(after) - set(before)) == 2 * len(criterion.scored)


def test_a_missing_variant_is_made_again_with_the_same_bytes(
    base: BaseModel, model: nn.Module, scheme: Scheme, library: Library
) -> None:
    addresses = prune(model, base.layout, scheme, L1(), library)
    before = contents(library)
    gone = scheme.at("module")[3]
    library.path(addresses[gone.hash]).unlink()
    criterion = Counting()

    prune(model, base.layout, scheme, criterion, library)

    assert criterion.scored == [gone.path]
    assert contents(library) == before


def test_a_damaged_variant_is_refused_by_name(
    base: BaseModel, model: nn.Module, scheme: Scheme, library: Library
) -> None:
    addresses = prune(model, base.layout, scheme, L1(), library)
    file = library.path(addresses[scheme.at("module")[0].hash])
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(LibraryError, match=rf"{file.name}: damaged"):
        prune(model, base.layout, scheme, L1(), library)


@pytest.mark.parametrize("dead_columns", [False, True])
def test_addresses_are_known_before_anything_is_pruned(
    dead_columns: bool, base: BaseModel, model: nn.Module, scheme: Scheme, library: Library
) -> None:
    said = variant_addresses(scheme, base.layout, L1(), {}, dead_columns=dead_columns)
    assert not library.folder.exists()
    assert prune(model, base.layout, scheme, L1(), library, dead_columns=dead_columns) == said


def test_the_address_depends_on_variant_base_and_criterion(base: BaseModel, scheme: Scheme) -> None:
    first, second = scheme.at("module")[:2]
    lineages = [
        pruned_lineage(first, "base", {"name": "l1"}),
        pruned_lineage(second, "base", {"name": "l1"}),
        pruned_lineage(first, "other", {"name": "l1"}),
        pruned_lineage(first, "base", {"name": "l2"}),
    ]
    assert len({address_of(lineage) for lineage in lineages}) == 4
    assert address_of(pruned_lineage(first, "base", {"name": "l1"})) == address_of(lineages[0])


def test_the_lineage_in_the_file_says_where_it_comes_from(
    base: BaseModel, model: nn.Module, scheme: Scheme, library: Library
) -> None:
    addresses = prune(model, base.layout, scheme, L1(), library)
    for node in scheme.at("module"):
        lineage = library.get(addresses[node.hash]).lineage
        assert (lineage["stage"], lineage["node"], lineage["base"]) == ("pruned", node.hash, base.fingerprint)
        assert lineage["criterion"]["name"] == "l1"


def test_progress_counts_the_targets(base: BaseModel, model: nn.Module, scheme: Scheme, library: Library) -> None:
    totals: list[int] = []
    advanced: list[str] = []

    class Counter(Bar):
        def advance(self, detail: str = "") -> None:
            advanced.append(detail)

    class Shown(Progress):
        @contextmanager
        def bar(self, label: str, total: int) -> Iterator[Bar]:
            totals.append(total)
            yield Counter()

    prune(model, base.layout, scheme, L1(), library, progress=Shown())
    assert totals == [len(advanced)] == [len(scheme.modules)]


def test_an_out_projections_removals_go_first_into_the_columns_of_removed_heads(
    base: BaseModel, model: nn.Module, library: Library
) -> None:
    rates = {path: 0.5 if base.layout.target(path).kind == "attention" else 0.7 for path in base.layout.paths}
    scheme = make_scheme(base, [rates, {**rates, **{p: 0.25 for p, r in rates.items() if r == 0.7}}])
    plain = prune(model, base.layout, scheme, L1(), library)
    addresses = prune(model, base.layout, scheme, L1(), library, dead_columns=True)

    assert {name: address for name, address in addresses.items() if name in plain} == plain
    extra = [scheme.nodes[name] for name in addresses if name not in plain]
    assert {len(node.rates) for node in extra} == {2}
    attentions = {path for path in base.layout.paths if base.layout.target(path).kind == "attention"}
    assert {next(iter(node.rates)) for node in extra} == attentions
    assert len(extra) == 2 * len(attentions)
    for node in extra:
        (heads_path, heads_rate), (out, rate) = node.rates.items()
        artefact = library.get(addresses[node.hash])
        leaf = library.get(addresses[node.children[0]])
        assert all(torch.equal(artefact.masks[name], mask) for name, mask in leaf.masks.items())
        keep = artefact.masks[f"{out}.weight"]
        assert int((~keep).sum()) == round(rate * keep.numel())
        query = base.layout.target(heads_path).projections[0].weight
        dead = ~leaf.masks[query].any(1)
        assert int(dead.sum()) == round(heads_rate * 4) * len(dead) // 4
        budget = round(rate * keep.numel())
        assert int((~keep[:, dead]).sum()) == min(budget, keep.shape[0] * int(dead.sum()))
        dense = model.state_dict()[f"{out}.weight"]
        live = dense[:, ~dead].abs()
        if (~keep[:, ~dead]).any():
            assert live[~keep[:, ~dead]].max() <= live[keep[:, ~dead]].min()
        assert torch.equal(artefact.weights[f"{out}.weight"], dense * keep)
