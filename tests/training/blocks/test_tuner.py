"""Block-level fine-tuning: each block once, by its own address alone, held to its masks."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from composer.calibration.sample import Calibration
from composer.calibration.teacher import Teacher
from composer.composing.assemble import compose
from composer.errors import LibraryError
from composer.library.store import Library
from composer.models.folder import BaseModel
from composer.pruning.criteria.l1 import L1
from composer.pruning.variants import prune
from composer.scheme.building import build_scheme
from composer.scheme.configurations import Configurations, resolve
from composer.scheme.graph import Node, Scheme
from composer.scheme.layout import LEVELS, Level
from composer.tasks import DataOptions, Examples, Task, open_task
from composer.tensors import masks
from composer.tensors.capture import recording, run_block
from composer.tensors.masks import violations
from composer.training.blocks.addresses import BlockAddresses
from composer.training.blocks.distill import Distill
from composer.training.blocks.least_squares import LeastSquares
from composer.training.blocks.trainer import BlockTrainer, Run
from composer.training.blocks.tuner import BlockSettings, BlockTuner, BlockTuning
from composer.training.blocks.waves import Waves
from tests.conftest import VOCABULARY, make_folder
from tests.reference import modules
from tests.zoo import COUSINS, make_config

Folder = Callable[[str], Path]

SETTINGS = BlockSettings(trainer="distill", steps=8, batch_size=6, learning_rate=0.01, patience=99, seed=3)
A = {"encoder.block.0.*": 0.5, "decoder.block.1.layer.2.*": 0.5}
B = {"encoder.block.0.layer.0.*": 0.5, "encoder.block.0.layer.1.*": 0.25, "decoder.block.0.layer.1.*": 0.5}


class Counting(Distill):
    """The gradient trainer, remembering how often one was made and stepped."""

    made: list[list[str]]
    steps = 0

    def __init__(self, parameters: Mapping[str, Tensor], masks: Mapping[str, Tensor], **settings: Any) -> None:
        super().__init__(parameters, masks, **settings)
        type(self).made.append(sorted(masks))

    def step(self, run: Run, wanted: Tensor) -> float:
        type(self).steps += 1
        return super().step(run, wanted)


def counting() -> type[Counting]:
    return type("Counting", (Counting,), {"made": [], "steps": 0})


@dataclass(frozen=True)
class Place:
    """A base model with its data."""

    base: BaseModel
    model: nn.Module
    task: Task
    train: Examples
    valid: Examples

    def scheme(self, *configurations: dict[str, Any], levels: tuple[Level, ...] = LEVELS) -> Scheme:
        rates = resolve(Configurations(configurations=list(configurations)), self.base.layout)
        base = self.base
        return build_scheme(rates, base.layout, model=base.name, fingerprint=base.fingerprint, block_levels=levels)

    def tune(
        self,
        scheme: Scheme,
        folder: Path,
        *,
        settings: BlockSettings = SETTINGS,
        trainer: type[BlockTrainer] = Distill,
        valid: Examples | None = None,
    ) -> tuple[BlockTuning, Library, dict[str, str]]:
        pruned, tuned = Library(folder / "pruned"), Library(folder / "tuned")
        addresses = prune(self.model, self.base.layout, scheme, L1(), pruned)
        layout, size, seed = self.base.layout, settings.calibration_size, settings.seed
        sample = Calibration(self.model, self.task, self.train, layout, size=size, seed=seed)
        teacher = Teacher(self.model, layout, self.task, self.train, valid or self.valid, sample)
        data = {name: split.digest for name, split in teacher.examples.items()}
        told = settings.lineage(trainer.fields)
        waves = Waves(scheme, layout, (pruned, tuned), addresses, settings=told, data=data)
        result = BlockTuner(teacher, waves, trainer, settings).run()
        return result, tuned, addresses

    def error(self, node: Node, weights: Mapping[str, Tensor]) -> float:
        """Relative error of a block on the validation split, one example at a time, without padding."""
        block = node.block(self.base.layout)
        modules, wrong, scale = dict(self.model.named_modules()), 0.0, 0.0
        with recording(self.model, [block]) as record, torch.no_grad():
            for feature in self.valid.features:
                with record.listening():
                    self.task.loss(self.model, self.task.collate([feature]))
                arguments, wanted = record.of(block)
                wrong += float((run_block(modules, block, weights, arguments) - wanted).pow(2).sum())
                scale += float(wanted.pow(2).sum())
        return wrong / scale

    def start_of(self, node: Node, pruned: Library, addresses: Mapping[str, str], scheme: Scheme) -> dict[str, Tensor]:
        """The base's weights in a block with the pruned leaves below it in their place."""
        block = node.block(self.base.layout)
        weights = {
            name: p.detach()
            for name, p in self.model.named_parameters()
            if any(name.startswith(f"{path}.") for path in block.owns)
        }
        for leaf in scheme.below(node):
            if leaf.level == "module":
                weights |= pruned.get(addresses[leaf.hash]).weights
        return weights


@pytest.fixture(scope="module")
def t5(t5_folder: Path, translation_data: Path) -> Place:
    return place(t5_folder, DataOptions(data=str(translation_data), prefix=""))


@pytest.fixture(scope="module")
def distilbert(distilbert_folder: Path, classification_data: Path) -> Place:
    return place(distilbert_folder, DataOptions(data=str(classification_data)))


@pytest.fixture(scope="module")
def bert(bert_folder: Path, classification_data: Path) -> Place:
    return place(bert_folder, DataOptions(data=str(classification_data)))


def place(folder: Path, options: DataOptions) -> Place:
    base = BaseModel(folder)
    task = open_task(options, base.folder, base.config)
    return Place(base, base.load(), task, task.load("train"), task.load("valid"))


def blocks(library: Library) -> dict[str, bytes]:
    return {address: library.path(address).read_bytes() for address in library.addresses()}


def trained(scheme: Scheme, place: Place) -> list[Node]:
    """Nodes that have something to learn: all of the tuned levels but attention leaves."""
    return [
        node
        for node in scheme.nodes.values()
        if node.level in scheme.block_levels
        and not (node.level == "module" and place.base.layout.target(node.path).kind == "attention")
    ]


def test_each_blocks_work_is_done_once_however_many_configurations_use_it(t5: Place, tmp_path: Path) -> None:
    once, often = t5.scheme(A, B), t5.scheme(A, B, A, B, A)
    assert set(once.nodes) == set(often.nodes)
    trainer = counting()

    result, tuned, _ = t5.tune(often, tmp_path, trainer=trainer)

    wanted = trained(often, t5)
    assert len(trainer.made) == len(wanted) == result.tuned
    assert trainer.steps == len(wanted) * SETTINGS.steps
    expected = sorted(
        sorted(p.weight for t in node.rates for p in t5.base.layout.target(t).projections) for node in wanted
    )
    assert sorted(trainer.made) == expected
    tuned_nodes = [node for node in often.nodes.values() if node.level != "model"]
    assert set(result.addresses) == {node.hash for node in tuned_nodes}
    assert sorted(result.addresses.values()) == list(tuned.addresses())


def test_teacher_passes_do_not_depend_on_the_number_of_configurations(t5: Place, tmp_path: Path) -> None:
    passes = {
        t5.tune(t5.scheme(*configurations), tmp_path / str(i))[0].teacher_passes
        for i, configurations in enumerate([[A], [A, B], [A, B, {"*": 0.25}]])
    }
    # three waves, each 8 steps and 9 looks (before the first step too) at 8 validation examples in sixes
    assert passes == {3 * (8 + 9 * 2)}


def test_a_blocks_bytes_do_not_depend_on_what_runs_beside_it(t5: Place, tmp_path: Path) -> None:
    alone = blocks(t5.tune(t5.scheme(A), tmp_path / "alone")[1])
    together = blocks(t5.tune(t5.scheme(B, A), tmp_path / "together")[1])
    assert set(alone) < set(together)
    assert all(together[address] == data for address, data in alone.items())


def test_a_blocks_bytes_do_not_depend_on_when_its_neighbours_stop(t5: Place, tmp_path: Path) -> None:
    impatient = replace(SETTINGS, patience=1, learning_rate=0.5)
    alone = blocks(t5.tune(t5.scheme(A), tmp_path / "alone", settings=impatient)[1])
    together = blocks(t5.tune(t5.scheme(B, A), tmp_path / "together", settings=impatient)[1])
    assert all(together[address] == data for address, data in alone.items())


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(t5: Place, tmp_path: Path) -> None:
    scheme = t5.scheme(A, levels=("module", "sublayer"))
    first, again = (blocks(t5.tune(scheme, tmp_path / name)[1]) for name in ("first", "again"))
    other = blocks(t5.tune(scheme, tmp_path / "other", settings=replace(SETTINGS, seed=4))[1])
    assert first == again
    leaves = {node.hash for node in trained(scheme, t5)}
    assert len(set(other) - set(first)) == len(leaves)
    assert not set(other.values()) & {first[address] for address in set(first) - set(other)}


@pytest.mark.parametrize("levels", [("module",), ("sublayer",), LEVELS])
def test_addresses_are_known_before_there_is_a_library(t5: Place, tmp_path: Path, levels: tuple[Level, ...]) -> None:
    scheme = t5.scheme(A, B, levels=levels)
    result, tuned, pruned = t5.tune(scheme, tmp_path, settings=replace(SETTINGS, steps=1))
    data = {name: split.digest for name, split in (("train", t5.train), ("valid", t5.valid))}
    settings = replace(SETTINGS, steps=1).lineage(Distill.fields)
    places = BlockAddresses(scheme, t5.base.layout, pruned, settings=settings, data=data)
    assert places.addresses == result.addresses
    assert places.lineages.keys() == {node.hash for node in trained(scheme, t5)}
    for name, lineage in places.lineages.items():
        assert tuned.header(result.addresses[name]).lineage == lineage


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 9},
        {"batch_size": 5},
        {"learning_rate": 0.02},
        {"patience": 98},
        {"seed": 4},
    ],
)
def test_every_setting_is_part_of_the_address(t5: Place, tmp_path: Path, change: dict[str, Any]) -> None:
    scheme = t5.scheme({"encoder.block.0.layer.1.DenseReluDense.wi": 0.5}, levels=("module",))
    first = t5.tune(scheme, tmp_path)[0].addresses
    other = t5.tune(scheme, tmp_path, settings=replace(SETTINGS, **change))[0].addresses
    assert set(first) == set(other)
    assert not set(first.values()) & set(other.values())


def test_the_data_is_part_of_the_address(t5: Place, tmp_path: Path) -> None:
    scheme = t5.scheme({"encoder.block.0.layer.1.DenseReluDense.wi": 0.5}, levels=("module",))
    first = t5.tune(scheme, tmp_path)[0].addresses
    other = t5.tune(scheme, tmp_path, valid=t5.valid.first(4))[0].addresses
    assert not set(first.values()) & set(other.values())


def test_the_start_is_part_of_the_address(t5: Place, tmp_path: Path) -> None:
    one = t5.tune(t5.scheme(A, levels=("sublayer",)), tmp_path)[0].addresses
    other = t5.tune(t5.scheme(A, levels=("module", "sublayer")), tmp_path)[0].addresses
    assert set(one) < set(other)
    assert all(one[name] != other[name] for name in one)


def test_a_rerun_does_nothing(t5: Place, tmp_path: Path) -> None:
    first, tuned, _ = t5.tune(t5.scheme(A, B), tmp_path)
    before, trainer = blocks(tuned), counting()
    second, _, _ = t5.tune(t5.scheme(A, B), tmp_path, trainer=trainer)
    assert (trainer.made, second.teacher_passes, second.tuned) == ([], 0, 0)
    assert second.addresses == first.addresses
    assert blocks(tuned) == before


def test_another_configuration_costs_only_its_new_blocks(t5: Place, tmp_path: Path) -> None:
    before = blocks(t5.tune(t5.scheme(A), tmp_path)[1])
    trainer = counting()
    result, tuned, _ = t5.tune(t5.scheme(A, B), tmp_path, trainer=trainer)

    new = {n.hash for n in trained(t5.scheme(A, B), t5)} - {n.hash for n in trained(t5.scheme(A), t5)}
    assert 0 < len(new) < len(trained(t5.scheme(B), t5))
    assert len(trainer.made) == result.tuned == len(new)
    assert {address: blocks(tuned)[address] for address in before} == before
    assert blocks(tuned) == blocks(t5.tune(t5.scheme(B, A), tmp_path / "fresh")[1])


def test_a_killed_run_goes_on_where_it_was(t5: Place, tmp_path: Path) -> None:
    whole = blocks(t5.tune(t5.scheme(A, B), tmp_path / "whole")[1])

    class Killed(Counting):
        made: list[list[str]] = []  # noqa: RUF012

        def step(self, run: Run, wanted: Tensor) -> float:
            if len(self.made) > 8:  # in the second wave
                raise KeyboardInterrupt
            return super().step(run, wanted)

    with pytest.raises(KeyboardInterrupt):
        t5.tune(t5.scheme(A, B), tmp_path, trainer=Killed)
    left = blocks(Library(tmp_path / "tuned"))
    assert left
    assert set(left) < set(whole)
    trainer = counting()
    result, tuned, _ = t5.tune(t5.scheme(A, B), tmp_path, trainer=trainer)
    assert blocks(tuned) == whole
    assert result.tuned == len(whole) - len(left)


def test_a_damaged_tuned_block_is_refused_by_name(t5: Place, tmp_path: Path) -> None:
    scheme = t5.scheme(A, levels=("module",))
    _, tuned, _ = t5.tune(scheme, tmp_path)
    for address in list(tuned.addresses()):
        file = tuned.path(address)
        whole = file.read_bytes()
        file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(LibraryError, match=rf"{address}.safetensors: damaged"):
            t5.tune(scheme, tmp_path)
        file.write_bytes(whole)


@pytest.mark.parametrize("name", ["t5", "distilbert", "bert"])
@pytest.mark.parametrize("levels", [("module",), ("module", "sublayer"), LEVELS, ("layer",)])
def test_composed_tuned_models_have_exactly_the_schemes_zeros(
    request: pytest.FixtureRequest, tmp_path: Path, name: str, levels: tuple[Level, ...]
) -> None:
    place: Place = request.getfixturevalue(name)
    rates = {path: (0.25, 0.5, 0.0)[i % 3] for i, path in enumerate(place.base.layout.paths)}
    scheme = place.scheme(rates, levels=levels)
    result, tuned, addresses = place.tune(scheme, tmp_path, settings=replace(SETTINGS, steps=3))
    model = place.base.load()
    library = tuned
    if "module" not in levels:  # every pruned target lies below a tuned layer
        assert set(addresses) & set(result.addresses) == set()

    keep = compose(model, place.base.layout, scheme, 0, library, result.addresses)

    assert not masks.violations(dict(model.named_parameters()), keep)
    sizes = modules.discover(model)
    for path, (zeros, size) in masks.zeros_per_target(model, place.base.layout).items():
        units = 4 if len(sizes[path]) == 3 else size
        assert zeros == round(rates[path] * units) * (size // units), path


@pytest.mark.parametrize("name", ["t5", "distilbert", "bert"])
def test_tuned_blocks_are_nearer_to_the_base_than_pruned_ones(
    request: pytest.FixtureRequest, tmp_path: Path, name: str
) -> None:
    place: Place = request.getfixturevalue(name)
    scheme = place.scheme({"*": 0.5})
    settings = replace(SETTINGS, steps=24)
    result, tuned, addresses = place.tune(scheme, tmp_path, settings=settings)
    better = 0
    for node in trained(scheme, place):
        before = place.error(node, place.start_of(node, Library(tmp_path / "pruned"), addresses, scheme))
        after = place.error(node, tuned.get(result.addresses[node.hash]).weights)
        assert after <= before * 1.02, node.label
        better += after < before
        if node.level == "sublayer":
            assert after < before, node.label
    assert better > 0.9 * len(trained(scheme, place))


@pytest.mark.parametrize("name", ["t5", "distilbert", "bert"])
def test_closed_forms_bring_every_block_nearer_to_the_base(
    request: pytest.FixtureRequest, tmp_path: Path, name: str
) -> None:
    place: Place = request.getfixturevalue(name)
    scheme = place.scheme({"*": 0.5})
    settings = replace(SETTINGS, trainer="least_squares", calibration_size=len(place.train))
    result, tuned, addresses = place.tune(scheme, tmp_path, settings=settings, trainer=LeastSquares)
    for node in trained(scheme, place):
        before = place.error(node, place.start_of(node, Library(tmp_path / "pruned"), addresses, scheme))
        artefact = tuned.get(result.addresses[node.hash])
        assert place.error(node, artefact.weights) < before, node.label
        assert not violations(artefact.weights, artefact.masks)


@pytest.mark.parametrize("name", ["t5", "distilbert"])
def test_behind_neurons_closed_forms_need_no_pass_of_their_own_and_are_exact(
    request: pytest.FixtureRequest, tmp_path: Path, name: str
) -> None:
    place: Place = request.getfixturevalue(name)
    layout = place.base.layout
    first = next(t.path for t in layout.targets if layout.feed_forward(t.path))
    scheme = place.scheme({first: {"rate": 0.5, "granularity": "neuron"}}, levels=("sublayer",))
    settings = replace(SETTINGS, trainer="least_squares", calibration_size=len(place.train))
    result, tuned, addresses = place.tune(scheme, tmp_path, settings=settings, trainer=LeastSquares)
    (node,) = scheme.at("sublayer")
    block, artefact = node.block(layout), tuned.get(result.addresses[node.hash])
    (end,) = layout.ends(block)
    kept = artefact.masks[end.last.weight].any(0).nonzero().flatten()
    start = place.start_of(node, Library(tmp_path / "pruned"), addresses, scheme)
    read, missing = [], []
    modules = dict(place.model.named_modules())

    def keep(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        read.append(given[0].flatten(0, -2))

    with recording(place.model, [block]) as record, torch.no_grad():
        for feature in place.train.features:  # one by one, so that all tokens are real
            with record.listening():
                place.task.loss(place.model, place.task.collate([feature]))
            arguments, wanted = record.of(block)
            hook = modules[end.last.path].register_forward_pre_hook(keep)
            missing.append((wanted - run_block(modules, block, start, arguments)).flatten(0, -2))
            hook.remove()
    X, D = torch.cat(read).double()[:, kept], torch.cat(missing).double()
    if end.last.bias:
        X = torch.cat([X, torch.ones(len(X), 1)], 1)
    A, diagonal = X.T @ X, (X * X).sum(0)
    A += settings.damping * diagonal[diagonal > 0].mean() * torch.eye(len(A))
    step = torch.linalg.solve(A, X.T @ D).T
    moved = artefact.weights[end.last.weight] - start[end.last.weight]
    torch.testing.assert_close(moved[:, kept].double(), step[:, : len(kept)], rtol=1e-3, atol=1e-5)
    if end.last.bias_name:
        bias = artefact.weights[end.last.bias_name] - start[end.last.bias_name]
        torch.testing.assert_close(bias.double(), step[:, -1], rtol=1e-3, atol=1e-5)
    sample = Calibration(place.model, place.task, place.train, layout, size=len(place.train), seed=settings.seed)
    assert result.teacher_passes == len(sample.indices)


def test_a_factor_on_what_sublayers_add_is_as_good_as_one_in_their_last_projections(
    tmp_path: Path, running_text: Path
) -> None:
    architecture, given = COUSINS["granite"]
    settings = replace(SETTINGS, trainer="least_squares", calibration_size=9)
    made = []
    for factor in (0.3, 1.0):
        config = make_config(architecture, given | {"residual_multiplier": factor}, VOCABULARY)
        folder = make_folder(tmp_path / f"base {factor}", architecture, config, "$A </s>")
        at = place(folder, DataOptions(data=str(running_text), max_source_length=8))
        layout = at.base.layout
        lasts = [layout.target(block.targets[-1]).projections[0] for block in layout.at("sublayer")]
        parameters = {name: at.model.get_parameter(name) for last in lasts for name in last.parameters}
        with torch.no_grad():
            for parameter in parameters.values():
                parameter.mul_(0.3 / factor)
        scheme = at.scheme({"*": 0.5}, levels=("layer",))
        done, tuned, _ = at.tune(scheme, tmp_path / f"{factor}", settings=settings, trainer=LeastSquares)
        addresses = [done.addresses[node.hash] for node in scheme.at("layer")]
        weights = {name: value for address in addresses for name, value in tuned.get(address).weights.items()}
        errors = [tuned.stats(address)["rows"][-1]["train_loss"] for address in addresses]
        made.append(({name: factor * weights[name] for name in parameters}, errors))
    (scaled, errors), (plain, others) = made
    for name, value in scaled.items():
        torch.testing.assert_close(value, plain[name], rtol=1e-2, atol=1e-3)
    assert errors == pytest.approx(others, rel=1e-3)


def test_closed_forms_hold_as_many_blocks_at_a_time_however_many_configurations_there_are(
    t5: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, most, get = 0, 0, Library.get

    def let_go(size: int) -> None:
        nonlocal held
        held -= size

    def watched(library: Library, address: str) -> Any:
        nonlocal held, most
        artefact = get(library, address)
        for value in artefact.weights.values():
            held += value.nbytes
            weakref.finalize(value, let_go, value.nbytes)
        most = max(most, held)
        return artefact

    monkeypatch.setattr(Library, "get", watched)
    settings = replace(SETTINGS, trainer="least_squares", calibration_size=4)
    peaks = []
    for rates in ((0.25, 0.5), (0.25, 0.5, 0.6, 0.7, 0.8, 0.9)):
        scheme = t5.scheme(*({"encoder.*": rate} for rate in rates), levels=("module", "sublayer"))
        held = most = 0
        result, _, _ = t5.tune(scheme, tmp_path / f"{len(rates)}", settings=settings, trainer=LeastSquares)
        assert result.tuned > 4 * len(rates)
        peaks.append(most)
    assert 0 < peaks[1] <= peaks[0]


def test_a_repaired_block_has_the_same_bytes_in_any_company(t5: Place, tmp_path: Path) -> None:
    """Both second projections read the same inputs, which are shown by whichever of the two comes first."""
    settings = replace(SETTINGS, trainer="least_squares", calibration_size=len(t5.train))
    one, other = ({"*.wi": 0.5, "*.wo": rate} for rate in (0.3, 0.6))
    made = {}
    for name, configurations in {"both": (one, other), "first": (one,), "second": (other,)}.items():
        scheme = t5.scheme(*configurations)
        made[name] = blocks(t5.tune(scheme, tmp_path / name, settings=settings, trainer=LeastSquares)[1])
    assert made["both"] == made["first"] | made["second"]
    assert len(made["both"]) > max(len(made["first"]), len(made["second"]))


def test_an_interrupted_wave_keeps_the_blocks_that_have_finished(t5: Place, tmp_path: Path) -> None:
    class Stops(Distill):
        """Gets worse at once, but for one block that goes on learning until the user loses patience."""

        made = 0

        def step(self, run: Any, wanted: Tensor) -> float:
            if not hasattr(self, "number"):
                Stops.made += 1
                self.number, self.steps = Stops.made, 0
            self.steps += 1
            if self.number == 1 and self.steps == 8:
                raise KeyboardInterrupt
            return super().step(run, wanted)

        def error(self, run: Any, wanted: Tensor) -> float:
            return 1.0 if getattr(self, "number", 0) != 1 else 1.0 / (1 + self.steps)

    scheme = t5.scheme({"*": 0.5}, levels=("module",))
    with pytest.raises(KeyboardInterrupt):
        t5.tune(scheme, tmp_path, settings=replace(SETTINGS, steps=8, patience=1), trainer=Stops)
    finished = list(Library(tmp_path / "tuned").addresses())
    attention = sum(t5.base.layout.target(n.path).kind == "attention" for n in scheme.at("module"))
    assert len(finished) == len(scheme.at("module")) - 1 > attention


def test_the_last_look_at_a_block_is_kept_beside_it_and_the_best_is_stored(t5: Place, tmp_path: Path) -> None:
    scheme = t5.scheme(A)
    result, tuned, _ = t5.tune(scheme, tmp_path, settings=replace(SETTINGS, batch_size=1))
    for node in trained(scheme, t5):
        rows = tuned.stats(result.addresses[node.hash])["rows"]
        assert [row["step"] for row in rows] == list(range(9))
        assert rows[0]["train_loss"] is None
        assert all(row["train_loss"] > 0 for row in rows[1:])
        assert {(row["level"], row["path"], row["node"]) for row in rows} == {(node.level, node.path, node.hash)}
        assert [row["train_seconds"] for row in rows] == sorted(row["train_seconds"] for row in rows)
        assert [row["epoch"] for row in rows] == pytest.approx([step / 24 for step in range(9)])
        # The file holds the weights of the best look. One example a batch: the mean of relative errors.
        weights = tuned.get(result.addresses[node.hash]).weights
        best = min(row["valid_loss"] for row in rows)
        assert mean_error(t5, node, weights) == pytest.approx(best, rel=1e-3)


def mean_error(place: Place, node: Node, weights: Mapping[str, Tensor]) -> float:
    errors = [
        replace(place, valid=replace(place.valid, features=[feature])).error(node, weights)
        for feature in place.valid.features
    ]
    return sum(errors) / len(errors)


def test_a_block_that_gets_worse_stays_as_it_was_and_stops_early(t5: Place, tmp_path: Path) -> None:
    scheme = t5.scheme({"encoder.block.0.layer.1.*": 0.01}, levels=("sublayer",))
    wild = replace(SETTINGS, learning_rate=100.0, patience=2, steps=80)
    trainer = counting()
    result, tuned, addresses = t5.tune(scheme, tmp_path, settings=wild, trainer=trainer)
    (node,) = trained(scheme, t5)

    rows = tuned.stats(result.addresses[node.hash])["rows"]
    assert [row["step"] for row in rows] == [0, 10, 20]
    assert trainer.steps == 20
    start = t5.start_of(node, Library(tmp_path / "pruned"), addresses, scheme)
    weights = tuned.get(result.addresses[node.hash]).weights
    assert all(torch.equal(weights[name], start[name]) for name in weights)


def test_a_block_that_diverges_stays_as_it_was_and_its_loss_is_empty(t5: Place, tmp_path: Path) -> None:
    scheme = t5.scheme({"encoder.block.0.layer.1.*": 0.01}, levels=("sublayer",))
    result, tuned, _ = t5.tune(scheme, tmp_path, settings=replace(SETTINGS, learning_rate=1e30, steps=8))
    (node,) = trained(scheme, t5)
    rows = tuned.stats(result.addresses[node.hash])["rows"]
    assert rows[0]["valid_loss"] is not None
    assert rows[-1]["valid_loss"] is None


def test_an_attention_leaf_is_stored_as_it_was_pruned(t5: Place, tmp_path: Path) -> None:
    scheme = t5.scheme(A)
    result, tuned, addresses = t5.tune(scheme, tmp_path)
    pruned = Library(tmp_path / "pruned")
    leaves = [n for n in scheme.at("module") if t5.base.layout.target(n.path).kind == "attention"]
    assert leaves
    for leaf in leaves:
        address = result.addresses[leaf.hash]
        assert address == addresses[leaf.hash]
        assert tuned.path(address).read_bytes() == pruned.path(address).read_bytes()


def test_a_block_tunes_norms_and_dense_projections_but_not_the_position_bias(t5: Place, tmp_path: Path) -> None:
    scheme = t5.scheme({"encoder.block.0.layer.0.SelfAttention": 0.5})
    result, tuned, _ = t5.tune(scheme, tmp_path)
    base = dict(t5.model.named_parameters())
    for node in scheme.nodes.values():
        if node.level not in ("sublayer", "layer"):
            continue
        weights = tuned.get(result.addresses[node.hash]).weights
        assert not any("relative_attention_bias" in name for name in weights)
        moved = {name for name, value in weights.items() if not torch.equal(value, base[name])}
        assert moved == set(weights)
        assert "encoder.block.0.layer.0.layer_norm.weight" in moved
        assert ("encoder.block.0.layer.1.DenseReluDense.wi.weight" in moved) == (node.level == "layer")

    model = t5.base.load()
    compose(model, t5.base.layout, scheme, 0, tuned, result.addresses)
    for name, value in model.named_parameters():
        if "relative_attention_bias" in name or name.startswith(("shared", "decoder", "encoder.block.1")):
            assert torch.equal(value, base[name])


def test_an_inner_block_starts_from_its_tuned_children(t5: Place, tmp_path: Path) -> None:
    scheme = t5.scheme({"encoder.block.0.layer.1.DenseReluDense.wi": 0.5}, levels=("module", "sublayer"))
    wild = replace(SETTINGS, learning_rate=1e-30)  # nothing moves: the sublayer must be what its child is
    first, tuned, _ = t5.tune(
        t5.scheme(*[{"encoder.block.0.layer.1.DenseReluDense.wi": 0.5}], levels=("module",)), tmp_path
    )
    (leaf,) = first.addresses.values()
    result, tuned, _ = t5.tune(scheme, tmp_path, settings=SETTINGS)
    leaf_node, inner = scheme.at("module")[0], scheme.at("sublayer")[0]
    assert result.addresses[leaf_node.hash] == leaf
    lineage = tuned.get(result.addresses[inner.hash]).lineage
    assert lineage["start"] == [leaf]
    still, held, _ = t5.tune(scheme, tmp_path / "still", settings=wild)
    name = "encoder.block.0.layer.1.DenseReluDense.wi.weight"
    child = held.get(still.addresses[leaf_node.hash]).weights[name]
    assert torch.equal(held.get(still.addresses[inner.hash]).weights[name], child)


def test_the_base_model_is_not_changed(t5: Place, tmp_path: Path) -> None:
    model = t5.base.load()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    training = {name: p.requires_grad for name, p in model.named_parameters()}
    replace(t5, model=model).tune(t5.scheme(A), tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert {name: p.requires_grad for name, p in model.named_parameters()} == training
    assert not model.training
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_padding_never_counts(t5: Place, tmp_path: Path) -> None:
    class Padded:
        """The task with three more columns of padding in every batch."""

        def __getattr__(self, name: str) -> Any:
            return getattr(t5.task, name)

        def collate(self, features: Any) -> dict[str, Tensor]:
            fill = {"labels": -100}
            batch = t5.task.collate(features)
            return {k: nn.functional.pad(v, (0, 3), value=fill.get(k, 0)) for k, v in batch.items()}

    scheme = t5.scheme(A, levels=("sublayer",))
    plain, one, _ = t5.tune(scheme, tmp_path / "plain")
    padded, other, _ = replace(t5, task=Padded()).tune(scheme, tmp_path / "padded")  # type: ignore[arg-type]
    for node in scheme.at("sublayer"):
        for a, b in zip(
            one.stats(plain.addresses[node.hash])["rows"],
            other.stats(padded.addresses[node.hash])["rows"],
            strict=True,
        ):
            assert a["valid_loss"] == pytest.approx(b["valid_loss"], rel=1e-3)


def test_the_first_examples_have_a_digest_of_their_own(t5: Place) -> None:
    few = t5.valid.first(3)
    assert (len(few), few.features, few.references) == (3, t5.valid.features[:3], t5.valid.references[:3])
    assert few.digest != t5.valid.digest
    assert t5.valid.first(2).digest != few.digest
    assert t5.valid.first(8) == t5.valid.first(99) == t5.valid
