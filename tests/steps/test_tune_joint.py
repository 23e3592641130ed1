"""The joint phase as a step: its library by hand, starts, resuming, a configuration that is added, its work."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import composer
from composer.composing.assemble import compose
from composer.errors import LibraryError, OutputError, RecipeError
from composer.files.stats import joint_rows
from composer.forecast.forecast import forecast
from composer.library.store import Artefact, Library
from composer.progress import SILENT, Bar, Progress
from composer.report.curves import read_stats
from composer.scheme.graph import SHARED, Scheme
from composer.steps import joint_network, joint_rates
from composer.steps.outcome import Outcome
from composer.steps.starting_model import starting_model
from composer.tasks.loss import mean_loss
from composer.workspace import Workspace

STEPS = 4
BLOCK: dict[str, Any] = {"steps": STEPS, "batch_size": 4, "evaluations": 2, "learning_rate": 0.01}
SMALL: dict[str, Any] = {
    "attention": [0.25, 0.5],
    "linear": [0.3, 0.5],
    "trainer": "joint",
    "block": BLOCK,
    "finetune": {"steps": 2, "batch_size": 4, "evaluations": 1, "learning_rate": 1e-3},
    "max_source_length": 32,
    "max_target_length": 12,
}
OWN: dict[str, Any] = {"finetune": {**SMALL["finetune"], "own": "lora", "own_rate": 0.05}}
"""Each configuration has low-rank updates of its own."""
LEARNT: dict[str, Any] = {"steps": STEPS, "made": STEPS, "configurations": 2, "from": None}
"""What is told of a joint phase that was run."""
HEADS, HEAD = 4, 3 * 4 * 12
"""Of the tests' T5: attention heads, and the weights of one in q, k and v."""


class Killed(Progress):
    """Presses Ctrl-C at a step of the joint phase."""

    def __init__(self, step: int) -> None:
        self.step = step

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Bar]:
        progress, done = self, [0]

        class Counting(Bar):
            def advance(self, detail: str = "") -> None:
                done[0] += 1
                if label.startswith("joint") and done[0] == progress.step:
                    raise KeyboardInterrupt

        yield Counting()


class Place:
    """A folder with a library, and what lies in it."""

    def __init__(self, folder: Path, model: Path, data: Path) -> None:
        self.folder, self.model, self.data = folder, model, data

    def copy(self, folder: Path) -> Place:
        return Place(Path(shutil.copytree(self.folder, folder)), self.model, self.data)

    def space(self, **changes: Any) -> Workspace:
        given = {"model": str(self.model), "data": str(self.data), "folder": str(self.folder)}
        return Workspace(composer.load_recipe(given=given | SMALL | changes, file=False))

    def prepare(self, **changes: Any) -> None:
        """Up to the pruned library."""
        space = self.space(**changes)
        composer.generate_config(space, force=True)
        composer.generate_scheme(space, force=True)
        composer.prune(space)

    def tune(self, *, progress: Progress = SILENT, force: bool = False, **changes: Any) -> Outcome:
        return composer.finetune_blocks(self.space(**changes), force=force, progress=progress)

    @property
    def library(self) -> Library:
        return Library(self.folder / "modules" / "finetuned")

    @property
    def scheme(self) -> Scheme:
        return self.space().scheme()

    @property
    def manifest(self) -> dict[str, Any]:
        found = self.library.manifest(self.scheme.digest)
        assert found is not None
        return found

    @property
    def addresses(self) -> dict[str, str]:
        return dict(self.manifest["addresses"])

    @property
    def shared(self) -> Artefact:
        return self.library.get(self.addresses[SHARED])

    def composed(self, i: int) -> tuple[nn.Module, dict[str, Tensor]]:
        base = self.space().base
        model = base.load()
        return model, compose(model, base.layout, self.scheme, i, self.library, self.addresses)

    def weights(self, i: int) -> dict[str, Tensor]:
        return dict(self.composed(i)[0].state_dict())

    def files(self) -> dict[str, str]:
        """Every artefact with its sha256."""
        return {path.name: sha(path) for path in sorted(self.library.folder.glob("*.safetensors"))}


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def nothing_is_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("learnt again")

    monkeypatch.setattr(joint_network, "tune_joint", fail)


@pytest.fixture(scope="module")
def pruned(t5_folder: Path, translation_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A folder with pruned variants; read only."""
    place = Place(tmp_path_factory.mktemp("joint") / "pruned", t5_folder, translation_data)
    place.prepare()
    return place


@pytest.fixture(scope="module")
def repaired(pruned: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A joint library that began from closed forms; read only."""
    place = pruned.copy(tmp_path_factory.mktemp("joint") / "repaired")
    assert place.tune().fresh
    return place


@pytest.fixture(scope="module")
def owned(pruned: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A joint library whose configurations own low-rank updates; read only."""
    place = pruned.copy(tmp_path_factory.mktemp("joint") / "owned")
    assert place.tune(**OWN).fresh
    return place


@pytest.fixture(scope="module")
def bare(pruned: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A joint library that began from pruned blocks; read only."""
    place = pruned.copy(tmp_path_factory.mktemp("joint") / "bare")
    assert place.tune(block={**BLOCK, "start": "pruned"}).fresh
    return place


@pytest.fixture(params=["repaired", "bare"])
def either(request: pytest.FixtureRequest) -> Place:
    place: Place = request.getfixturevalue(request.param)
    return place


@pytest.fixture
def here(repaired: Place, tmp_path: Path) -> Place:
    return repaired.copy(tmp_path / "here")


# What the library holds -------------------------------------------------------------------------------------


def test_blocks_are_the_shared_weights_with_their_offset_under_their_mask(either: Place, pruned: Place) -> None:
    base = {name: p.detach() for name, p in either.space().base.load().named_parameters()}
    shared = either.shared
    assert shared.masks == {}
    assert shared.weights.keys() == base.keys()
    source = pruned.folder / "modules" / "pruned" if "bare" in str(either.folder) else either.library.folder
    offsets, blocks = 0.0, {n: a for n, a in either.addresses.items() if n != SHARED}
    for address in blocks.values():
        block = either.library.get(address)
        assert block.lineage["shared"] == either.addresses[SHARED]
        (began,) = block.lineage["start"]
        before = load_file(source / f"{began}.safetensors")
        masks = {name[5:]: value for name, value in before.items() if name.startswith("mask:")}
        before = {name: value for name, value in before.items() if not name.startswith("mask:")}
        assert equal(block.masks, masks)
        assert block.weights.keys() == before.keys()
        for name, value in before.items():
            wanted = shared.weights[name] + (value - base[name])
            wanted = torch.where(masks[name], wanted, torch.zeros(())) if name in masks else wanted
            torch.testing.assert_close(block.weights[name], wanted, rtol=0, atol=1e-7)
            kept = masks.get(name, torch.ones_like(value, dtype=torch.bool))
            assert not block.weights[name][~kept].any()
            offsets += float((value - base[name])[kept].abs().sum())
            if "bare" in str(either.folder):
                assert torch.equal(block.weights[name], shared.weights[name] * kept)
    assert (offsets > 0) == ("repaired" in str(either.folder))
    moved = [name for name, value in shared.weights.items() if not torch.equal(value, base[name])]
    assert "shared.weight" in moved
    assert len(moved) > 0.9 * len(base)


@pytest.mark.parametrize("i", [0, 1])
def test_every_configuration_composes_with_exact_counts(either: Place, i: int) -> None:
    model, keep = either.composed(i)
    parameters, layout = dict(model.named_parameters()), either.space().base.layout
    for path, rate in either.scheme.root(i).rates.items():
        target = layout.target(path)
        values = torch.cat([parameters[p.weight].detach().flatten() for p in target.projections])
        wanted = round(rate * HEADS) * HEAD if target.kind == "attention" else round(rate * len(values))
        assert int((values == 0).sum()) == wanted, path
        assert int(sum((~keep[p.weight]).sum() for p in target.projections)) == wanted
    pruned_names = {p.weight for target in layout.targets for p in target.projections}
    for name, value in either.shared.weights.items():
        if name not in pruned_names and "layer_norm" not in name:
            assert torch.equal(parameters[name], value), name


def test_composed_models_have_the_losses_that_were_measured(either: Place) -> None:
    stats = either.library.stats(either.addresses[SHARED])
    assert [row["step"] for row in stats["mean"]] == [0, 2, 4]
    best = min(stats["mean"], key=lambda row: row["valid_loss"])
    assert best["step"] > 0  # it has learnt
    told = [row["valid_loss"] for row in joint_rows(stats, either.scheme.roots) if row["step"] == best["step"]]
    space = either.space()
    losses = [mean_loss(either.composed(i)[0], space.task, space.examples("valid")) for i in range(2)]
    assert losses == pytest.approx(told, rel=1e-6)
    assert best["valid_loss"] == pytest.approx(sum(losses) / 2)
    assert stats["steps"] == STEPS


def test_it_begins_from_what_pruning_or_the_closed_forms_left(
    pruned: Place, repaired: Place, bare: Place, tmp_path: Path
) -> None:
    closed = pruned.copy(tmp_path / "closed")
    assert closed.tune(trainer="least_squares").fresh
    space, variants = pruned.space(), Library(pruned.folder / "modules" / "pruned")
    found = (variants.manifest(pruned.scheme.digest) or {})["addresses"]
    for i in range(2):
        model = space.base.load()
        compose(model, space.base.layout, pruned.scheme, i, variants, found)
        for place, start in ((bare, model), (repaired, closed.composed(i)[0])):
            rows = joint_rows(place.library.stats(place.addresses[SHARED]), place.scheme.roots)
            (first,) = (row["valid_loss"] for row in rows if (row["step"], row["configuration"]) == (0, i))
            assert first == pytest.approx(mean_loss(start, space.task, space.examples("valid")), rel=1e-5)
    # Its closed forms are those of the trainer that makes nothing else: one library serves both.
    done = closed.tune(force=True)
    assert (done.summary["tuned"], done.summary["teacher_passes"]) == (0, 0)
    assert equal(closed.shared.weights, repaired.shared.weights)


def test_the_record_and_the_table(repaired: Place, bare: Place) -> None:
    assert repaired.manifest["summary"]["joint"] == LEARNT
    assert repaired.manifest["summary"]["tuned"] > 0
    assert repaired.manifest["summary"]["teacher_passes"] > 0
    assert (bare.manifest["summary"]["tuned"], bare.manifest["summary"]["teacher_passes"]) == (0, 0)
    with (repaired.folder / "stats" / "block.csv").open(newline="") as file:
        nodes = {row["node"] for row in csv.DictReader(file)}
    assert nodes
    assert nodes <= repaired.scheme.nodes.keys()


def test_the_work_adds_up(either: Place) -> None:
    manifest = either.manifest
    work = manifest["work"]
    assert manifest["summary"]["seconds"] == pytest.approx(sum(work.values()))
    assert work[SHARED] == either.library.stats(either.addresses[SHARED])["seconds"] > 0
    blocks = {name: seconds for name, seconds in work.items() if name != SHARED}
    assert len(blocks) == manifest["summary"]["blocks"]
    assert blocks.keys() <= either.scheme.nodes.keys()
    assert all(seconds >= 0 for seconds in blocks.values())
    assert any(blocks.values()) == ("repaired" in str(either.folder))


def test_the_table_of_the_joint_phase_has_every_configurations_losses(repaired: Place) -> None:
    stats = repaired.library.stats(repaired.addresses[SHARED])
    assert stats["configurations"] == sorted(repaired.scheme.roots)
    with (repaired.folder / "stats" / "joint.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    assert [(row["configuration"], row["step"]) for row in rows] == [(i, s) for i in "01" for s in "024"]
    for row in rows:
        own = [
            r
            for r in stats["joint"]
            if str(r["step"]) == row["step"]
            and stats["configurations"][r["configuration"]] == repaired.scheme.roots[int(row["configuration"])]
        ]
        assert float(row["valid_loss"]) == own[0]["valid_loss"]
        (mean,) = (r for r in stats["mean"] if str(r["step"]) == row["step"])
        assert float(row["train_seconds"]) == mean["train_seconds"]
        # Two steps are one for each configuration: together their losses are the mean's.
        assert (row["train_loss"] == "") == (row["step"] == "0")
    for mean in stats["mean"][1:]:
        losses = [float(row["train_loss"]) for row in rows if row["step"] == str(mean["step"])]
        assert sum(losses) / 2 == pytest.approx(mean["train_loss"], rel=1e-6)
    assert [
        (curve.kind, curve.configuration) for curve in read_stats(repaired.folder / "stats" / "joint.csv").curves
    ] == [
        ("joint", 0),
        ("joint", 1),
    ]


def test_another_trainers_library_has_no_table_of_a_joint_phase(here: Place) -> None:
    assert (here.folder / "stats" / "joint.csv").is_file()
    here.tune(trainer="least_squares", force=True)
    assert not (here.folder / "stats" / "joint.csv").exists()


# What each configuration owns ---------------------------------------------------------------------------------


def test_what_configurations_own_is_stored_as_differences_and_composed(
    owned: Place, pruned: Place, repaired: Place
) -> None:
    addresses, roots, scheme = owned.addresses, owned.scheme.roots, owned.scheme
    parts = [owned.library.get(addresses[root]).weights for root in roots]
    space = owned.space()
    base = {name: p.detach() for name, p in space.base.load().named_parameters()}
    assert all(torch.equal(owned.shared.weights[name], p) for name, p in base.items() if p.dim() == 1)
    assert not equal(parts[0], parts[1])
    stats = owned.library.stats(addresses[SHARED])
    best = min(stats["mean"], key=lambda row: row["valid_loss"])
    assert best["step"] > 0
    told = [row["valid_loss"] for row in joint_rows(stats, roots) if row["step"] == best["step"]]
    for i, (part, loss) in enumerate(zip(parts, told, strict=True)):
        model, masks = owned.composed(i)
        assert mean_loss(model, space.task, space.examples("valid")) == pytest.approx(loss, rel=1e-6)
        bare = space.base.load()
        shared = {name: address for name, address in addresses.items() if name not in roots}
        compose(bare, space.base.layout, scheme, i, owned.library, shared)
        for (name, value), without in zip(model.named_parameters(), bare.parameters(), strict=True):
            update = 2.0 * part[f"B:{name}"] @ part[f"A:{name}"] if f"A:{name}" in part else part.get(name)
            wanted = (without if update is None else without + update) * masks.get(name, 1.0)
            torch.testing.assert_close(value.detach(), wanted, rtol=0, atol=1e-6)
    assert starting_model(space, "composed", 0).inputs(space)["blocks"][roots[0]] == addresses[roots[0]]
    assert not any(root in repaired.addresses for root in roots)


def test_the_bytes_of_what_configurations_own_are_told_and_planned(owned: Place, pruned: Place) -> None:
    files = [owned.library.path(owned.addresses[root]) for root in owned.scheme.roots]
    told = owned.manifest["summary"]["joint"]["own"]
    assert (told["bytes"], told["models"]) == (sum(path.stat().st_size for path in files), 2)
    assert forecast(owned.space(**OWN))["disk"]["shared"] == 0
    with_own, without = (forecast(pruned.space(**given))["disk"]["shared"] for given in (OWN, {}))
    numbers = sum(value.numel() for path in files for value in load_file(path).values())
    assert 0 < with_own - without - 4 * numbers < 4000  # the rest is what lies beside the numbers
    with pytest.raises(RecipeError, match="--own: got 'lora' with --trainer least_squares; allowed: joint"):
        owned.tune(**OWN, trainer="least_squares", force=True)


# Done once, and anew when something has changed --------------------------------------------------------------


def test_another_seed_gives_other_bytes(pruned: Place, bare: Place, tmp_path: Path) -> None:
    other = pruned.copy(tmp_path / "other")
    other.tune(block={**BLOCK, "start": "pruned"}, seed=1)
    assert not equal(other.shared.weights, bare.shared.weights)


def test_the_order_of_the_configurations_plays_no_part(repaired: Place, pruned: Place, tmp_path: Path) -> None:
    turned: dict[str, Any] = {name: SMALL[name][::-1] for name in ("attention", "linear")}
    place = pruned.copy(tmp_path / "turned")
    place.prepare(**turned)
    torch.rand(3)  # whatever happened before in the process plays no part
    assert place.tune(**turned).summary["joint"] == LEARNT
    assert place.scheme.roots == repaired.scheme.roots[::-1]
    assert place.files() == repaired.files()
    tables = []
    for held in (place, repaired):
        rows = joint_rows(held.library.stats(held.addresses[SHARED]), held.scheme.roots)
        tables.append({(held.scheme.roots[r["configuration"]], r["step"]): r["valid_loss"] for r in rows})
    assert tables[0] == tables[1]
    assert len(tables[0]) == 2 * 3


def test_taken_again_it_does_nothing(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    before = here.files()
    nothing_is_learnt(monkeypatch)
    done = here.tune()
    assert not done.fresh
    assert {name: value for name, value in done.summary.items() if name != "stats"} == here.manifest["summary"]
    assert not here.tune(force=True).fresh
    stats = here.folder / "stats"
    tables = {name: (stats / name).read_bytes() for name in ("block.csv", "joint.csv")}
    for name in tables:
        (stats / name).unlink()  # a lost table is made again, and nothing else
        assert here.tune().summary["joint"] == {**LEARNT, "made": 0}
    assert here.files() == before
    assert {name: (stats / name).read_bytes() for name in tables} == tables


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"block": {**BLOCK, "start": "pruned"}}, "start: 'repaired' then, 'pruned' now"),
        ({"finetune": {**SMALL["finetune"], "distill": 0.5}}, "distill"),
        ({"precision": "bf16"}, "precision"),
    ],
)
def test_what_shapes_the_shared_weights_is_refused_when_it_changes_and_learnt_anew_by_force(
    here: Place, changes: dict[str, Any], message: str
) -> None:
    before, files = here.addresses[SHARED], here.files()
    with pytest.raises(OutputError, match=message):
        here.tune(**changes)
    assert here.files() == files
    done = here.tune(force=True, **changes)
    assert done.summary["joint"] == LEARNT
    assert here.addresses[SHARED] != before


@pytest.mark.parametrize("changed", [{"steps": 3}, {"batch_size": 3}, {"learning_rate": 0.02}])
def test_what_is_not_said_of_blocks_follows_from_one_models_settings(here: Place, changed: dict[str, Any]) -> None:
    (name,) = changed
    unsaid: dict[str, Any] = {"block": {"times": 1} | {key: value for key, value in BLOCK.items() if key != name}}
    finetune = {**SMALL["finetune"], name: BLOCK[name]}
    assert not here.tune(**unsaid, finetune=finetune).fresh, "the same, said elsewhere"
    with pytest.raises(OutputError, match=f"{name}: {BLOCK[name]} then, {changed[name]} now"):
        here.tune(**unsaid, finetune=finetune | changed)


def test_a_phase_that_lowers_no_loss_keeps_its_start_and_says_so(here: Place) -> None:
    class Noted(Progress):
        def note(self, text: str) -> None:
            notes.append(text)

    notes: list[str] = []
    before = {i: here.weights(i) for i in range(2)}
    here.tune(force=True, progress=Noted(), trainer="least_squares")
    repaired = {i: here.weights(i) for i in range(2)}
    assert not notes
    here.tune(force=True, progress=Noted(), block={**BLOCK, "learning_rate": 30.0})
    (note,) = notes
    assert note.startswith("joint tuning: none of 4 steps lowered the validation loss of any configuration")
    assert "--distill 1" in note, "nobody has taught them yet"
    for i in range(2):
        found = here.weights(i)
        assert not equal(found, before[i])
        assert all(torch.allclose(found[name], repaired[i][name], atol=1e-6) for name in repaired[i])


def test_a_configuration_that_is_better_as_it_began_stays_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trained model: steps at a high rate spoil what hardly lacks anything, and help what lacks nearly all."""
    place = Place(tmp_path / "place", Path("demo"), Path("demo"))
    sizes: dict[str, Any] = {"calibration_size": 16, "train_size": 32, "valid_size": 16}
    given = {**sizes, "block": {**BLOCK, "learning_rate": 0.03}, "attention": [0.25, 1.0], "linear": [0.1, 0.95]}
    place.prepare(**given)
    closed = place.copy(tmp_path / "closed")
    closed.tune(**given, trainer="least_squares")
    assert place.tune(**given).summary["joint"] == {**LEARNT, "stays": 1}
    assert equal(place.weights(0), closed.weights(0))
    space, blocks = place.space(**given), [starting_model(place.space(), "composed", i).inputs for i in range(2)]
    assert [SHARED in of(space)["blocks"] for of in blocks] == [False, True]
    losses = [mean_loss(one.composed(1)[0], space.task, space.examples("valid")) for one in (closed, place)]
    assert losses[1] < losses[0]
    # Configurations that are added later have taken no part; each takes what is better for it, too.
    added = {**given, "attention": [0.25, 1.0, 0.25, 1.0], "linear": [0.1, 0.95, 0.2, 0.9]}
    nothing_is_learnt(monkeypatch)
    for one in (place, closed):
        one.prepare(**added)
    closed.tune(**added, trainer="least_squares")
    assert place.tune(**added).summary["joint"]["stays"] == 2
    assert [equal(place.weights(i), closed.weights(i)) for i in range(4)] == [True, False, True, False]


def test_damping_is_part_of_a_swept_model(here: Place) -> None:
    found = [
        starting_model(space, "composed", 0, sweep=True).inputs(space)
        for space in (here.space(), here.space(), here.space(block={**BLOCK, "damping": 0.5}))
    ]
    assert found[0] == found[1] != found[2]


def test_a_deleted_block_is_made_again_without_a_step(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    before = here.files()
    address = next(address for name, address in here.addresses.items() if name != SHARED)
    here.library.path(address).unlink()
    nothing_is_learnt(monkeypatch)
    assert here.tune().fresh
    assert here.files() == before


def test_deleted_shared_weights_are_learnt_again_to_the_same_bytes(here: Place) -> None:
    before = here.files()
    here.library.path(here.addresses[SHARED]).unlink()
    with pytest.raises(LibraryError, match="no such block in this library"):
        here.composed(0)
    assert here.tune().summary["joint"]["steps"] == STEPS
    assert here.files() == before


def test_a_killed_phase_goes_on_to_the_same_bytes(pruned: Place, owned: Place, tmp_path: Path) -> None:
    place = pruned.copy(tmp_path / "killed")
    with pytest.raises(KeyboardInterrupt):
        place.tune(**OWN, progress=Killed(3))
    assert place.library.manifest(place.scheme.digest) is None
    kept = place.files()
    assert set() < kept.keys() < owned.files().keys()  # the closed forms are done
    (work,) = (place.folder / ".work").iterdir()
    assert [path.parent.name for path in work.glob("*/composer.json")] == ["checkpoint-2"]
    done = place.tune(**OWN)
    assert done.summary["tuned"] == 0
    assert place.files() == owned.files()
    assert not list((place.folder / ".work").iterdir())
    rows, wanted = (p.library.stats(p.addresses[SHARED])["joint"] for p in (place, owned))
    assert rows == wanted


@pytest.mark.parametrize(("rates", "grid"), [({"attention": [0.5], "linear": [0.5]}, False), ({}, True)])
def test_teacher_passes_do_not_grow_with_the_configurations(
    rates: dict[str, Any], grid: bool, repaired: Place, pruned: Place, tmp_path: Path
) -> None:
    place = pruned.copy(tmp_path / "other")
    given: dict[str, Any] = {**rates, "grid": grid, "block": {**BLOCK, "steps": 1}}
    place.prepare(**given)
    assert len(place.scheme.roots) == (4 if grid else 1)
    assert place.tune(**given).summary["teacher_passes"] == repaired.manifest["summary"]["teacher_passes"] > 0


# A configuration that is added later ------------------------------------------------------------------------

MORE: dict[str, Any] = {"attention": [0.25, 0.5, 0.75], "linear": [0.3, 0.5, 0.7]}


def test_an_added_configuration_takes_the_shared_weights_and_no_step(
    here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, weights = here.addresses, [here.weights(i) for i in range(2)]
    here.prepare(**MORE)
    assert len(here.scheme.roots) == 3
    with monkeypatch.context() as patch:
        nothing_is_learnt(patch)
        done = here.tune(**MORE)
    assert done.summary["joint"] == {**LEARNT, "made": 0, "from": before[SHARED]}
    assert here.addresses[SHARED] == before[SHARED]
    assert before.items() < here.addresses.items()
    assert all(equal(here.weights(i), weights[i]) for i in range(2))
    curves = read_stats(here.folder / "stats" / "joint.csv").curves
    assert [curve.configuration for curve in curves] == [0, 1]  # those that have learnt
    model, keep = here.composed(2)
    for name, mask in keep.items():
        assert not dict(model.named_parameters())[name][~mask].any()
    # And one more after it begins from the same weights again.
    most: dict[str, Any] = {"attention": [*MORE["attention"], 0.5], "linear": [*MORE["linear"], 0.3]}
    here.prepare(**most)
    assert here.tune(**most).summary["joint"] == {**LEARNT, "made": 0, "from": before[SHARED]}
    assert all(equal(here.weights(i), weights[i]) for i in range(2))
    assert here.manifest["work"][SHARED] > 0  # somebody has paid for it


def test_configurations_that_are_not_all_there_are_learnt_anew(bare: Place, tmp_path: Path) -> None:
    here, before = bare.copy(tmp_path / "here"), bare.addresses[SHARED]
    other: dict[str, Any] = {"attention": [0.25, 0.75], "linear": [0.3, 0.7], "block": {**BLOCK, "start": "pruned"}}
    here.prepare(**other)
    assert here.tune(**other).summary["joint"] == LEARNT
    assert here.addresses[SHARED] != before


def test_shared_weights_of_another_start_are_not_taken(here: Place) -> None:
    changes: dict[str, Any] = {**MORE, "block": {**BLOCK, "start": "pruned"}}
    before = here.addresses[SHARED]
    here.prepare(**changes)
    assert here.tune(**changes).summary["joint"] == {**LEARNT, "configurations": 3}
    assert here.addresses[SHARED] != before


# What starts from it ----------------------------------------------------------------------------------------


def test_models_are_built_and_fine_tuned_from_it(here: Place) -> None:
    space = here.space()
    built = composer.build_model(space, 1)
    wanted = here.weights(1)
    made = load_file(built.output / "model.safetensors")
    assert made
    assert all(torch.equal(value, wanted[name]) for name, value in made.items())
    assert (
        json.loads((built.output / "composer.json").read_text())["inputs"]["blocks"][SHARED] == here.addresses[SHARED]
    )

    model, keep = here.composed(1)
    tuned = composer.finetune_model(space, "composed", 1)
    assert tuned.summary["first_loss"] == pytest.approx(mean_loss(model, space.task, space.examples("valid")), rel=1e-6)
    made = load_file(tuned.output / "model.safetensors")
    assert all(not made[name][~mask].any() for name, mask in keep.items())

    # A baseline begins from the pruned variants of the base model: it has nothing of the joint phase.
    baseline = composer.finetune_model(space, "baseline", 1)
    assert SHARED not in json.loads((baseline.output / "composer.json").read_text())["inputs"]["blocks"]
    assert baseline.summary["first_loss"] != pytest.approx(tuned.summary["first_loss"], rel=1e-3)


def test_damaged_shared_weights_are_named(here: Place) -> None:
    path = here.library.path(here.addresses[SHARED])
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(LibraryError, match=f"{path.name}: damaged"):
        composer.build_model(here.space(), 0)


def test_learning_rates_are_tried_for_a_part_of_the_steps_and_the_better_one_taken(
    pruned: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No try is made twice, nor for a configuration that is added."""
    place = pruned.copy(tmp_path / "searched")
    open_rate = {name: value for name, value in BLOCK.items() if name != "learning_rate"}
    search: dict[str, Any] = {"block": {**open_rate, "start": "pruned"}, "learning_rates": [1e-5, 0.01]}
    tried = place.tune(**search).summary["joint"]["tried"]
    assert [(one["learning_rate"], one["steps"]) for one in tried] == [(1e-5, 1), (0.01, 1)]
    assert all(one["seconds"] > 0 for one in tried)
    better = min(tried, key=lambda one: one["loss"])["learning_rate"]
    assert place.shared.lineage["settings"]["learning_rate"] == better
    assert not place.tune(**search).fresh
    made = place.files()
    with monkeypatch.context() as patch:
        patch.setattr(joint_rates.RateSearch, "_try", None)
        place.tune(**search, force=True)
        assert place.files() == made
        place.prepare(**search, **MORE)
        assert place.tune(**search, **MORE).summary["joint"]["made"] == 0
    single = pruned.copy(tmp_path / "single")
    single.tune(block={**open_rate, "start": "pruned", "learning_rate": better})
    assert single.files().items() <= made.items(), "the same bytes as with this rate alone"
