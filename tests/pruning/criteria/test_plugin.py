"""A criterion of another package, found by its entry point, is as good as one of the table."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import composer
from composer.assess.assess import assess
from composer.assess.settings import Settings
from composer.errors import ConfigError, PluginError
from composer.files.jsonfile import read_json
from composer.library.store import Library
from composer.models.folder import BaseModel
from composer.pruning.criteria import CRITERIA
from tests.conftest import installed
from tests.reference.events import HANGING

SOURCE = '''
from composer.plugin import MovingCriterion, statistic


class Outer:
    """Weights far from the diagonal go first; it needs nothing and knows single weights only."""

    name = "outer"
    needs = frozenset()
    shapes = frozenset({"unstructured"})

    def score(self, target, weights, stats, shape=None):
        import torch

        rows, columns = weights[0].shape
        return -(torch.arange(rows)[:, None] - torch.arange(columns)).abs().float()


class Loud(Outer):
    """By the inputs' norms alone."""

    name = "loud"
    needs = frozenset({"gram"})

    def score(self, target, weights, stats, shape=None):
        return statistic("gram", target, self.name, stats)[0].norms.expand_as(weights[0])


class Doubling(MovingCriterion):
    """Keeps what outer keeps, twice as large."""

    name = "doubling"
    needs = frozenset()
    shapes = frozenset({"unstructured"})

    def prune(self, target, weights, stats, keep):
        kept = keep([Outer().score(target, weights, stats)])
        return [2 * weight for weight in weights], kept


class Rows(Outer):
    name = "rows"
    shapes = frozenset({"row"})


class Demanding(Outer):
    name = "demanding"
    needs = frozenset({"hessian"})
'''


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A package with these criteria, as if it were installed."""
    site = tmp_path / "site"
    names = ("Outer", "Loud", "Doubling", "Rows", "Demanding")
    points = {"composer.criteria": {name.lower(): f"toy_criteria:{name}" for name in names}}
    installed(site, "toy_criteria", "1.0", points)
    (site / "toy_criteria.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.syspath_prepend(site)
    yield
    sys.modules.pop("toy_criteria", None)


@pytest.fixture
def recipe(package: None, distilbert_folder: Path, classification_data: Path, tmp_path: Path) -> composer.Recipe:
    return composer.Recipe(
        model=str(distilbert_folder), data=str(classification_data), folder=tmp_path / "run", attention=[0.0]
    )


def pruned(recipe: composer.Recipe, criterion: str) -> tuple[Library, dict[str, torch.Tensor]]:
    """The library and, of the first variant, the weight that lost something."""
    chosen = recipe.model_copy(update={"criterion": criterion, "linear": [0.5], "targets": ["*.0.ffn.lin1"]})
    composer.generate_config(chosen, force=True)
    composer.generate_scheme(chosen, force=True)
    assert composer.prune(chosen).summary["made"] > 0
    library = Library(recipe.folder / "modules" / "pruned")
    stored = {library.header(address).lineage["stage"]: library.get(address) for address in library.addresses()}
    assert stored["pruned"].lineage["criterion"]["name"] == criterion
    return library, dict(stored["pruned"].weights)


def test_it_prunes_into_the_library(recipe: composer.Recipe) -> None:
    _, weights = pruned(recipe, "outer")
    (name,) = (name for name in weights if name.endswith("lin1.weight"))
    weight = weights[name]
    far = (torch.arange(len(weight))[:, None] - torch.arange(weight.shape[1])).abs()
    gone = weight == 0
    assert int(gone.sum()) == round(0.5 * weight.numel())
    assert far[gone].min() >= far[~gone].max()


def test_one_that_looks_at_data_has_its_sample_in_the_lineage_and_its_scores_kept(recipe: composer.Recipe) -> None:
    library, _ = pruned(recipe, "loud")
    lineages = [library.header(address).lineage for address in library.addresses()]
    assert {lineage["stage"] for lineage in lineages} == {"pruned", "scores"}
    assert all("calibration" in lineage["criterion"] for lineage in lineages)


def test_one_that_moves_weights_has_only_to_prune(recipe: composer.Recipe) -> None:
    _, weights = pruned(recipe, "doubling")
    (name,) = (name for name in weights if name.endswith("lin1.weight"))
    dense = BaseModel(recipe.model).load().get_parameter(name).detach()  # type: ignore[arg-type]
    kept = weights[name] != 0
    assert torch.equal(weights[name][kept], 2 * dense[kept])
    assert int(kept.sum()) == dense.numel() - round(0.5 * dense.numel())


def test_it_is_assessed(recipe: composer.Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("composer.assess.pages.page.write_page", lambda *_, **__: None)
    given = recipe.model_copy(update={"targets": ["*.0.*"]})
    parts = ("weights", "sensitivity", "curves", "proposal")
    settings = Settings(rates=(0.5,), criteria=("loud", "doubling"), heads=False, scored=4, sparsity=0.3, parts=parts)
    told = assess(given, settings, tmp_path / "assessment")
    assert told.summary["parts"] == list(parts)
    rows = read_json(tmp_path / "assessment" / "curves.json")["rows"]
    assert {(row["criterion"], row["repaired"]) for row in rows} == {
        (criterion, repaired) for criterion in ("loud", "doubling") for repaired in (False, True)
    }
    proposal = read_json(tmp_path / "assessment" / "conf.json")["configurations"][0]
    assert {said["criterion"] for said in proposal.values()} == {"loud", "l1"}  # heads are beyond it


def test_a_granularity_or_statistic_that_it_cannot_have_is_said_by_name(recipe: composer.Recipe) -> None:
    with pytest.raises(ConfigError, match="--criteria: the first one, 'rows', is that of the sensitivities"):
        Settings(criteria=("rows",), granularities=("row",))
    with pytest.raises(ConfigError, match="criterion 'rows' makes no sense with granularity 'unstructured'"):
        pruned(recipe, "rows")
    with pytest.raises(PluginError, match="criterion 'demanding' needs hessian; statistics that can be needed: gram"):
        pruned(recipe, "demanding")


def test_what_there_is_to_know_of_a_criterion_takes_no_torch() -> None:
    code = (
        "import sys; from composer.pruning.criteria import CRITERIA; "
        "print(*(sorted(one.shapes) for one in CRITERIA.all()), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=HANGING, check=True)
    assert done.stdout.split()[-1] == "False"
    assert len(CRITERIA.names()) >= 8
