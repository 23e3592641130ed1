"""The scheme: one node per distinct piece, held to its digest."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from composer.errors import SchemeError
from composer.models.layouts import layout_of
from composer.scheme.building import build_scheme
from composer.scheme.configurations import Configurations as Given
from composer.scheme.configurations import Rates, Spec, resolve
from composer.scheme.graph import Scheme
from composer.scheme.layout import LEVELS, Level
from composer.scheme.stored import load_scheme
from tests.reference import schemes as reference

T5 = {
    "model_type": "t5",
    "architectures": ["T5ForConditionalGeneration"],
    "d_model": 6,
    "d_kv": 2,
    "d_ff": 10,
    "num_heads": 4,
    "num_layers": 2,
    "num_decoder_layers": 1,
}
LAYOUT = layout_of(T5)
GROUPS: dict[str, reference.Groups] = {  # encoder.block.0.layer.1.DenseReluDense.wi
    "module": [(path, frozenset([path])) for path in LAYOUT.paths],
    "sublayer": reference.by_prefix(LAYOUT.paths, 5),
    "layer": reference.by_prefix(LAYOUT.paths, 3),
    "model": [("", frozenset(LAYOUT.paths))],
}

Configuration = st.dictionaries(st.sampled_from(LAYOUT.paths), st.sampled_from([0.25, 0.5, 0.75]))
Configurations = st.lists(Configuration, min_size=1, max_size=6)
Levels = st.sets(st.sampled_from(LEVELS))


def build(configurations: list[Rates], levels: Any = ("module", "sublayer", "layer"), **changes: str) -> Scheme:
    return build_scheme(
        configurations, LAYOUT, **{"model": "base", "fingerprint": "f" * 64, **changes}, block_levels=levels
    )


def pieces(scheme: Scheme, level: str) -> set[tuple[str, frozenset[tuple[str, float]]]]:
    return {(node.path, frozenset(node.rates.items())) for node in scheme.at(level)}


@given(Configurations, Levels)
def test_nodes_are_the_distinct_pieces_that_brute_force_finds(configurations: list[Rates], levels: set[Level]) -> None:
    scheme = build(configurations, levels)

    assert pieces(scheme, "module") == reference.distinct(configurations, GROUPS["module"])
    assert len(scheme.at("module")) == len({pair for c in configurations for pair in c.items()})
    for level in ("sublayer", "layer"):
        wanted = reference.distinct(configurations, GROUPS[level]) if level in levels else set()
        assert pieces(scheme, level) == wanted
        assert len(scheme.at(level)) == len(wanted)
    assert len(scheme.at("model")) == len({frozenset(c.items()) for c in configurations})
    assert len(scheme.nodes) == sum(len(scheme.at(level)) for level in (*LEVELS, "model"))


@given(Configurations, Levels)
def test_children_partition_the_rates_of_their_parent(configurations: list[Rates], levels: set[Level]) -> None:
    scheme = build(configurations, levels)
    position = {path: i for i, path in enumerate(LAYOUT.paths)}
    for node in scheme.nodes.values():
        below = [scheme.nodes[child] for child in node.children]
        if node.level == "module":
            assert not below
            continue
        named = [target for child in below for target in child.rates]
        assert len(named) == len(set(named))
        assert {t: r for child in below for t, r in child.rates.items()} == dict(node.rates)
        firsts = [min(position[t] for t in child.rates) for child in below]
        assert firsts == sorted(firsts)


@given(Configurations, Levels)
def test_roots_hold_the_configurations_in_order(configurations: list[Rates], levels: set[Level]) -> None:
    scheme = build(configurations, levels)
    assert [dict(scheme.root(i).rates) for i in range(len(configurations))] == configurations
    for i, a in enumerate(configurations):
        for j, b in enumerate(configurations):
            assert (scheme.roots[i] == scheme.roots[j]) == (a == b)


@given(Configurations, Levels)
def test_waves_hold_every_block_once_and_children_first(configurations: list[Rates], levels: set[Level]) -> None:
    scheme = build(configurations, levels)
    waves = scheme.waves()

    tuned = [node.hash for wave in waves for node in wave]
    assert sorted(tuned) == sorted(n.hash for n in scheme.nodes.values() if n.level in levels)
    assert all(waves)
    number = {node.hash: i for i, wave in enumerate(waves) for node in wave}
    for wave in waves:
        for node in wave:
            below = {n.hash for n in scheme.below(node)} - {node.hash}
            assert all(number[name] < number[node.hash] for name in below & set(number))


@given(Configurations, Levels)
def test_sharing_is_what_brute_force_counts(configurations: list[Rates], levels: set[Level]) -> None:
    sizes = {target.path: target.parameters for target in LAYOUT.targets}
    rows = {row.level: row for row in build(configurations, levels).sharing(LAYOUT)}

    for level, groups in GROUPS.items():
        if level == "model":  # a configuration without a pruned target is a model all the same
            assert rows[level].blocks == len({frozenset(c.items()) for c in configurations})
            assert rows[level].uses == len(configurations)
            continue
        wanted = reference.distinct(configurations, groups) if level in {"module", *levels} else set()
        assert (level in rows) == bool(wanted)
        if wanted:
            row = rows[level]
            assert row.blocks == len(wanted)
            assert row.uses == reference.uses(configurations, groups)
            assert (row.work, row.work_unshared) == reference.work(configurations, groups, sizes)
            assert row.saved == pytest.approx(1 - row.work / row.work_unshared)


@given(Configurations)
def test_modules_list_the_rates_of_each_target(configurations: list[Rates]) -> None:
    wanted: dict[str, set[float]] = {}
    for configuration in configurations:
        for target, rate in configuration.items():
            wanted.setdefault(target, set()).add(rate)
    assert build(configurations).modules == {target: sorted(rates) for target, rates in wanted.items()}


@given(Configuration)
def test_sparsity_is_the_share_of_removed_target_weights(configuration: Rates) -> None:
    removed = 0.0
    for target in LAYOUT.targets:
        rate = configuration.get(target.path, 0.0)
        if target.kind == "attention":
            removed += int(4 * rate) * 3 * 2 * 6  # whole heads of 2 rows in q, k and v
        else:
            removed += round(rate * target.parameters)
    total = sum(p.out_features * p.in_features for t in LAYOUT.targets for p in t.projections)
    assert build([configuration]).sparsity(0, LAYOUT) == pytest.approx(removed / total)


@settings(max_examples=30)
@given(Configurations, Levels)
def test_a_scheme_survives_its_file(
    tmp_path_factory: pytest.TempPathFactory, configurations: list[Rates], levels: set[Level]
) -> None:
    folder = tmp_path_factory.mktemp("scheme")
    scheme = build(configurations, levels)
    scheme.save(folder / "a.json")
    again = load_scheme(folder / "a.json")

    assert again == scheme
    assert again.digest == scheme.digest
    assert list(again.nodes) == list(scheme.nodes)

    again.save(folder / "b.json")
    build(configurations, levels).save(folder / "c.json")
    assert (folder / "a.json").read_bytes() == (folder / "b.json").read_bytes() == (folder / "c.json").read_bytes()


@given(Configurations, Configurations)
def test_a_piece_has_the_same_hash_whatever_stands_beside_it(one: list[Rates], other: list[Rates]) -> None:
    alone, together = build(one), build([*other, *one])
    assert set(alone.nodes) <= set(together.nodes)
    assert together.roots[len(other) :] == alone.roots


A, B = LAYOUT.paths[0], LAYOUT.paths[1]


@pytest.mark.parametrize(
    "other",
    [
        lambda: build([{A: 0.25, B: 0.25}]),
        lambda: build([{A: 0.5}]),
        lambda: build([{A: 0.5, B: 0.25}, {A: 0.5, B: 0.25}]),
        lambda: build([{A: 0.5, B: 0.25}], ("module", "sublayer")),
        lambda: build([{A: 0.5, B: 0.25}], model="other"),
        lambda: build([{A: 0.5, B: 0.25}], fingerprint="e" * 64),
    ],
)
def test_the_digest_changes_with_any_content(other: Callable[[], Scheme]) -> None:
    assert other().digest != build([{A: 0.5, B: 0.25}]).digest


def test_the_order_of_configurations_is_part_of_the_digest() -> None:
    assert build([{A: 0.5}, {A: 0.25}]).digest != build([{A: 0.25}, {A: 0.5}]).digest


def test_blocks_without_a_pruned_target_have_no_node() -> None:
    scheme = build([{"decoder.block.0.layer.1.EncDecAttention": 0.5}, {}])
    assert [(n.level, n.path) for n in scheme.nodes.values()] == [
        ("module", "decoder.block.0.layer.1.EncDecAttention"),
        ("sublayer", "decoder.block.0.layer.1"),
        ("layer", "decoder.block.0"),
        ("model", ""),
        ("model", ""),
    ]
    assert scheme.root(1).children == ()
    assert scheme.sparsity(1, LAYOUT) == 0.0


def test_a_configuration_out_of_range_is_refused() -> None:
    scheme = build([{A: 0.5}, {}])
    for i in (-1, 2):
        with pytest.raises(SchemeError, match=rf"^-n/--configuration: got {i}; allowed: 0 to 1$"):
            scheme.root(i)


def _set(*keys: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def edit(content: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return edit


@pytest.mark.parametrize(
    "edit",
    [
        _set("model", value="other"),
        _set("fingerprint", value="0" * 64),
        _set("block_levels", value=["module"]),
        _set("modules", A, value=[0.25]),
        _set("modules", value={}),
        _set("nodes", 0, "rates", A, value=0.25),
        _set("nodes", 0, "rates", A, value=float("nan")),
        _set("nodes", 0, "path", value=B),
        _set("nodes", 0, "level", value="layer"),
        _set("nodes", 2, "children", value=[]),
        _set("nodes", 0, "hash", value="0" * 32),
        _set("configurations", value=[]),
        _set("digest", value="0" * 64),
        _set("note", value="mine"),
        _set("nodes", 0, "note", value="mine"),
        lambda content: content["nodes"].append(content["nodes"][0]),
        lambda content: content["nodes"].reverse(),
    ],
)
def test_a_file_edited_by_hand_is_refused(tmp_path: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    path = tmp_path / "conf_prune.json"
    build([{A: 0.5, B: 0.25}]).save(path)
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))

    with pytest.raises(SchemeError, match=r"digest does not hold.*run `compose generate-scheme` again") as caught:
        load_scheme(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "not a scheme"),
        ("3", "not a scheme"),
        ("null", "not a scheme"),
        ("{}", "not a scheme"),
        ('{"configurations": []}', "holds configurations; `compose generate-scheme -c"),
        ('{"format": 99}', "format is 99"),
        ('{"format": 1, "nodes": [3]}', "not a scheme"),
        ('{"format": 1, "nodes": 3}', "not a scheme"),
        ('{"format": 1', "line 1, column 13: not valid JSON"),
    ],
)
def test_what_is_no_scheme_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "conf_prune.json"
    path.write_text(content)
    with pytest.raises(SchemeError, match=message):
        load_scheme(path)


def test_a_missing_scheme_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SchemeError, match=r"conf_prune.json: no such file"):
        load_scheme(tmp_path / "conf_prune.json")


def test_a_file_reordered_by_a_formatter_still_holds(tmp_path: Path) -> None:
    path = tmp_path / "conf_prune.json"
    scheme = build([{A: 0.5, B: 0.25}])
    scheme.save(path)
    path.write_text(json.dumps(json.loads(path.read_text()), sort_keys=True, indent=4))
    assert load_scheme(path).digest == scheme.digest


def test_rates_alone_have_the_hashes_that_they_always_had() -> None:
    layout = layout_of({**T5, "d_model": 8, "d_ff": 16, "num_decoder_layers": 2})
    rates = resolve(Given(configurations=[{"*": 0.5, "encoder.*": 0.25}]), layout)
    scheme = build_scheme(rates, layout, model="base", fingerprint="f" * 8)
    assert scheme.digest == "84385567db498db64e14120da06ddaab592858c750f0c6c345d84e3a640ccbe8"


WO = "encoder.block.0.layer.1.DenseReluDense.wo"
WI = "encoder.block.0.layer.1.DenseReluDense.wi"


def test_granularity_and_criterion_take_part_in_the_hash_all_the_way_up() -> None:
    said = [0.5, Spec(rate=0.5, granularity="row"), Spec(rate=0.5, criterion="l2"), Spec(rate=0.5)]
    schemes = [build([{WO: one, WI: 0.5}]) for one in said]  # type: ignore[dict-item]
    for level in (*LEVELS, "model"):
        hashes = [{n.hash for n in scheme.at(level) if WO in n.rates} for scheme in schemes]
        assert hashes[0] == hashes[3]
        assert len(set.union(*hashes)) == 3
    assert len({next(n.hash for n in scheme.at("module") if n.path == WI) for scheme in schemes}) == 1


def test_what_is_said_in_full_is_saved_and_read_again(tmp_path: Path) -> None:
    scheme = build([{WO: Spec(rate=0.5, granularity="row", criterion="l2"), WI: 0.5}])  # type: ignore[dict-item]
    scheme.save(tmp_path / "scheme.json")
    read = load_scheme(tmp_path / "scheme.json")
    assert read == scheme
    leaf = next(n for n in read.at("module") if n.path == WO)
    assert leaf.choices == {WO: {"granularity": "row", "criterion": "l2"}}
    assert leaf.label == f"module {WO} at 0.5 (row l2)"
    assert "choices" not in json.loads((tmp_path / "scheme.json").read_text())["nodes"][0]


def test_sparsity_counts_what_a_shape_removes() -> None:
    total = LAYOUT.parameters(LAYOUT.paths)
    assert build([{WI: Spec(rate=0.5, granularity="neuron")}]).sparsity(0, LAYOUT) == 5 * 6 * 2 / total  # type: ignore[dict-item]
    assert build([{WO: Spec(rate=0.4, granularity="row")}]).sparsity(0, LAYOUT) == 2 * 10 / total  # type: ignore[dict-item]
