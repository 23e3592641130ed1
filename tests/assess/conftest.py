"""A subject on a tiny T5 and on a tiny DistilBERT."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from composer.assess.measure.assessed_model import AssessedModel
from composer.assess.settings import Settings
from composer.recipe import Recipe

MakeSubject = Callable[..., AssessedModel]


@pytest.fixture
def make_subject(distilbert_folder: Path, classification_data: Path, tmp_path: Path) -> MakeSubject:
    """A subject on the DistilBERT with these settings, in the test's folder."""

    def make(folder: Path = tmp_path / "assessment", **given: Any) -> AssessedModel:
        recipe = Recipe(model=str(distilbert_folder), data=str(classification_data))
        return AssessedModel(recipe, Settings(**given), folder)

    return make
