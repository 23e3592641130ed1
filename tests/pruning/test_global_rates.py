"""One threshold over all targets: which names say it, and what each target gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import composer
from composer.errors import ConfigError
from composer.models.family import linear
from composer.pruning.criteria import CRITERIA
from composer.pruning.criteria.criterion import Stats
from composer.pruning.criteria.l1 import L1
from composer.pruning.global_rates import allocate, complete, default_granularity
from composer.scheme.configurations import Configurations, Spec
from composer.scheme.layout import Layout, Target
from composer.scheme.shapes import Shape


class Largest(L1):
    """The largest weights go; its scores are comparable over targets, and it knows other shapes too."""

    name = "largest"
    shapes = frozenset({"unstructured", "global"})

    def score(self, target: Target, weights: list[Tensor], stats: Stats, shape: Shape | None = None) -> Tensor:
        return -super().score(target, weights, stats, shape)


class Informed(Largest):
    """As comparable, but of what the inputs are."""

    name = "informed"
    needs = frozenset({"gram"})


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    for criterion in (Largest, Informed):
        monkeypatch.setitem(CRITERIA._table, criterion.name, f"{__name__}:{criterion.__name__}")


def completed(said: dict[str, Any], criterion: str = "l1") -> dict[str, Any]:
    (one,) = complete(Configurations(configurations=[{"*": said}]), criterion).configurations
    assert isinstance(one["*"], Spec)
    return one["*"].model_dump()


def test_one_threshold_has_one_criterion_and_the_other_way_round() -> None:
    wanted = {"rate": 0.5, "granularity": "global", "criterion": "global_l1"}
    for said in ({"granularity": "global"}, {"criterion": "global_l1"}, {**wanted}):
        assert completed({"rate": 0.5, **said}) == wanted
    assert default_granularity("global_l1") == "global"
    # What is named stays, and is refused when the scheme is made.
    other = {"rate": 0.5, "granularity": "unstructured", "criterion": "global_l1"}
    assert completed(other) == other


def test_other_criteria_and_plain_rates_are_left_as_they_are() -> None:
    for said in ({"criterion": "l1"}, {"criterion": "largest"}, {"criterion": "nothing"}, {"granularity": "row"}):
        assert completed({"rate": 0.5, **said}) == {"rate": 0.5, **said}
    plain = Configurations(configurations=[{"*": 0.5}])
    assert complete(plain, "global_l1") == plain
    assert default_granularity("l1") is default_granularity("nothing") is default_granularity("largest") is None


def test_the_runs_criterion_is_that_of_the_threshold_where_its_scores_are_comparable() -> None:
    assert completed({"rate": 0.5, "granularity": "global"}, "largest")["criterion"] == "largest"


def test_each_criterion_has_its_own_threshold() -> None:
    layout = Layout("test", tuple(linear(name, 2, 4, bias=False, stream="encoder") for name in "abc"), ())
    weights = {f"{name}.weight": torch.arange(8.0).reshape(2, 4) + 1 + 4 * i for i, name in enumerate("abc")}
    spec = Spec(rate=0.5, granularity="global", criterion="largest")
    alone = Spec(rate=0.5, granularity="global", criterion="global_l1")
    settled = allocate({"a": spec, "b": alone, "c": spec}, layout, weights)
    # Of 1 to 8 and 9 to 16 the eight largest are all of c.
    assert settled == {"b": alone, "c": spec.model_copy(update={"rate": 1.0})}


def test_rates_are_settled_from_the_weights_alone(distilbert_folder: Path, tmp_path: Path) -> None:
    recipe = composer.Recipe(model=str(distilbert_folder), folder=tmp_path)
    for name, problem in (
        ("informed", "criterion 'informed' needs gram; with granularity 'global' rates are settled from the weights"),
        ("l2", "criterion 'l2' makes no sense with granularity 'global'"),
        ("nothing", "unknown criterion 'nothing'"),
    ):
        said = f'[{{"*.lin1": {{"rate": 0.5, "granularity": "global", "criterion": "{name}"}}}}]'
        (tmp_path / "conf.json").write_text(said)
        with pytest.raises(ConfigError, match=problem):
            composer.generate_scheme(recipe)
