"""A bench on a tiny T5 and on a tiny DistilBERT."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from composer.assess.measure.bench import Bench
from composer.assess.settings import Settings
from composer.recipe import Recipe

MakeBench = Callable[..., Bench]


@pytest.fixture
def make_bench(distilbert_folder: Path, classification_data: Path, tmp_path: Path) -> MakeBench:
    """A bench on the DistilBERT with these settings, in the test's folder."""

    def make(folder: Path = tmp_path / "assessment", **given: Any) -> Bench:
        recipe = Recipe(model=str(distilbert_folder), data=str(classification_data))
        return Bench(recipe, Settings(**given), folder)

    return make
