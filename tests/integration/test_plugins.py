"""A criterion and block trainers of another package, found by their entry points, go the whole way like any other."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import composer
from composer.errors import PluginError
from composer.forecast.forecast import forecast
from composer.library.store import Library
from composer.models.folder import BaseModel
from tests.conftest import installed

SOURCE = '''
from composer.plugin import BlockTrainer, Look, Stepping, Tuned, Work


class Distant:
    """Weights far from the diagonal go first."""

    name = "distant"
    needs = frozenset()
    shapes = frozenset({"unstructured"})

    def score(self, target, weights, stats, shape=None):
        import torch

        rows, columns = weights[0].shape
        return -(torch.arange(rows)[:, None] - torch.arange(columns)).abs().float()


class Halving(BlockTrainer):
    """Halves every weight; of its work it says nothing."""

    fields = ("damping",)

    @classmethod
    def tune(cls, jobs, teacher, settings, *, label, progress):
        for job in jobs:
            halves = {name: value / 2 for name, value in job.start.items()}
            yield job, Tuned(halves, [Look(0, 0.0, None, 1.0, 0.0, 0.0)])


class Together(Halving):
    """Halved blocks, then all configurations learn together."""

    fields = ("damping", "steps", "batch_size", "learning_rate", "patience", "evaluations")
    in_context = True

    @classmethod
    def starts_from(cls, settings):
        return "halving"


class AsPruned(Together):
    """Pruned blocks as they are learn together."""

    @classmethod
    def starts_from(cls, settings):
        return None


class Shrinking(Stepping):
    """Takes a hundredth off every weight in each step."""

    def __init__(self, parameters):
        self.parameters = dict(parameters)

    @classmethod
    def start(cls, parameters, masks, settings):
        return cls(parameters)

    def step(self, run, wanted):
        self.parameters = {name: 0.99 * value for name, value in self.parameters.items()}
        return 1.0

    def error(self, run, wanted):
        return float((run(self.parameters) - wanted).pow(2).sum())

    def finish(self):
        return {name: value.clone() for name, value in self.parameters.items()}


class Boasting(Halving):
    @classmethod
    def work(cls, blocks, settings):
        yield Work("miracle", 1)
'''
TRAINERS = {
    "halving": "Halving",
    "together": "Together",
    "as_pruned": "AsPruned",
    "shrinking": "Shrinking",
    "boasting": "Boasting",
}
TARGET = "distilbert.transformer.layer.0.ffn.lin1"


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A package with the criterion and the trainers, as if it were installed."""
    site = tmp_path / "site"
    trainers = {name: f"toy_trainers:{attribute}" for name, attribute in TRAINERS.items()}
    points = {"composer.criteria": {"distant": "toy_trainers:Distant"}, "composer.trainers": trainers}
    installed(site, "toy_trainers", "1.0", points)
    (site / "toy_trainers.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.syspath_prepend(site)
    yield
    sys.modules.pop("toy_trainers", None)


@pytest.fixture
def given(package: None, distilbert_folder: Path, classification_data: Path, tmp_path: Path) -> dict[str, Any]:
    options = {"model": str(distilbert_folder), "data": str(classification_data), "folder": str(tmp_path / "run")}
    sizes = {"train_size": 8, "valid_size": 4, "test_size": 4, "calibration_size": 4}
    steps = {
        "block": {"steps": 2, "batch_size": 4},
        "finetune": {"steps": 2, "batch_size": 4, "evaluations": 1, "learning_rate": 1e-3},
    }
    rates = {"targets": [TARGET], "attention": [0.0, 0.0], "linear": [0.25, 0.5]}
    more = {"criterion": "distant", "block_levels": ["module"], "learning_rates": [0.001], "budgets": [0.5, 1.0]}
    return {**options, **sizes, **steps, **rates, **more}


def recipe_of(given: dict[str, Any], trainer: str) -> composer.Recipe:
    return composer.load_recipe(given=given | {"trainer": trainer}, file=False)


def blocks_of(told: dict[str, Any], which: str) -> dict[str, float]:
    return next(row[which] for row in told["work"] if row["work"].startswith("block-level"))


def test_the_whole_way(given: dict[str, Any]) -> None:
    recipe = recipe_of(given, "halving")
    folder = recipe.folder
    before = forecast(recipe)
    assert before["by_block"]
    assert blocks_of(before, "to_do")["block"] == 2

    composer.generate_config(recipe)
    composer.generate_scheme(recipe)
    pruned, tuned = composer.prune(recipe), composer.finetune_blocks(recipe)
    assert (pruned.summary["made"], tuned.summary["tuned"]) == (2, 2)
    assert not composer.finetune_blocks(recipe).fresh
    lineages = [library.header(a).lineage for library in map(Library, _libraries(folder)) for a in library.addresses()]
    assert [one["criterion"] for one in lineages if one["stage"] == "pruned"] == [{"name": "distant"}] * 2
    assert [one["settings"] for one in lineages if one["stage"] == "tuned"] == [
        {"trainer": "halving", "seed": 0, "damping": 0.01}
    ] * 2

    timed = forecast(recipe, time=True)
    assert blocks_of(timed, "to_do") == {}
    assert {(row["library"], row["stored"], row["to_do"]) for row in timed["blocks"]} == {
        ("pruned", 2, 0),
        ("finetuned", 2, 0),
    }
    assert [one["seconds"] > 0 for one in timed["each"] if one["unit"] == "block"] == [True]
    assert timed["verdict"]["here"] == 2

    composer.build_model(recipe, 1)
    dense = BaseModel(str(recipe.model)).load().get_parameter(f"{TARGET}.weight").detach()
    small = BaseModel(folder / "models" / "1").load().get_parameter(f"{TARGET}.weight").detach()
    assert int((small == 0).sum()) == dense.numel() // 2
    assert torch.equal(small[small != 0], dense[small != 0] / 2)

    table = composer.compare(recipe).summary
    assert len(table["rows"]) == 2
    assert all(row["composed"]["loss"] is not None for row in table["rows"])
    assert (folder / "report.html").is_file()


@pytest.mark.parametrize(("trainer", "tuned", "block"), [("together", 2, 2), ("as_pruned", 0, None)])
def test_one_in_context_starts_from_the_blocks_that_it_names(
    trainer: str, tuned: int, block: int | None, given: dict[str, Any]
) -> None:
    recipe = recipe_of(given, trainer)
    work = blocks_of(forecast(recipe), "to_do")
    assert (work["joint"], work.get("block")) == (2, block)
    composer.generate_config(recipe)
    composer.generate_scheme(recipe)
    composer.prune(recipe)
    done = composer.finetune_blocks(recipe).summary
    assert (done["tuned"], done["joint"]["made"]) == (tuned, 2)
    pruned, finetuned = map(Library, _libraries(recipe.folder))
    lineages = [finetuned.header(address).lineage for address in finetuned.addresses()]
    trainers = [one["settings"]["trainer"] for one in lineages if one["stage"] == "tuned"]
    assert trainers == ["halving"] * tuned
    starts = {address for one in lineages if one["stage"] == "joint" for address in one["start"]}
    assert len(starts) == 2
    assert starts <= set((finetuned if tuned else pruned).addresses())
    assert blocks_of(forecast(recipe), "to_do") == {}
    assert forecast(recipe, time=True)["verdict"]["here"] == 2


def test_one_that_takes_steps_is_counted_and_compared_by_them(given: dict[str, Any]) -> None:
    recipe = recipe_of(given, "shrinking")
    told = forecast(recipe, time=True)
    assert not told["by_block"]
    assert blocks_of(told, "to_do")["learn"] == 2 * 2
    composer.generate_config(recipe)
    composer.generate_scheme(recipe)
    composer.prune(recipe)
    composer.finetune_blocks(recipe)
    trained = {row["work"]: row["trained"] for row in composer.compare(recipe).summary["ledger"]["rows"]}
    assert trained["block-level fine-tuning, once for all"] == 2 * 2


def test_work_that_nobody_knows_is_refused_by_name(given: dict[str, Any]) -> None:
    with pytest.raises(PluginError, match="trainer 'boasting': unknown work 'miracle'; allowed: gather"):
        forecast(recipe_of(given, "boasting"))


def _libraries(folder: Path) -> list[Path]:
    return [folder / "modules" / name for name in ("pruned", "finetuned")]
