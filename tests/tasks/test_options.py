from __future__ import annotations

import pytest
from pydantic import ValidationError

from composer.errors import DataError
from composer.tasks import DataOptions
from composer.tasks.data.languages import resolve_prefix


@pytest.mark.parametrize(
    "field", ["max_source_length", "max_target_length", "train_size", "valid_size", "test_size", "num_beams"]
)
def test_sizes_below_one_are_refused(field: str) -> None:
    with pytest.raises(ValidationError, match=rf"{field}\n.*greater than or equal to 1"):
        DataOptions.model_validate({"data": "demo", field: 0})


def test_unknown_fields_and_changes_are_refused() -> None:
    with pytest.raises(ValidationError, match="trainsize"):
        DataOptions.model_validate({"data": "demo", "trainsize": 3})
    with pytest.raises(ValidationError, match="frozen"):
        DataOptions(data="demo").seed = 3  # type: ignore[misc]


def test_every_field_says_what_it_is() -> None:
    assert [name for name, field in DataOptions.model_fields.items() if not field.description] == []


def test_prefix_comes_from_the_option_then_the_config_then_the_languages() -> None:
    stated = {"model_type": "t5", "task_specific_params": {"translation_en_to_de": {"prefix": "en>de "}}}
    assert resolve_prefix(DataOptions(data="demo", prefix=""), stated) == ""
    assert resolve_prefix(DataOptions(data="demo"), stated) == "en>de "
    other = DataOptions(data="demo", target_lang="fr")
    assert resolve_prefix(other, stated) == "translate English to French: "
    assert resolve_prefix(other, {"model_type": "marian", "task_specific_params": None}) == ""


def test_prefix_of_an_unnamed_language_is_asked_for() -> None:
    options = DataOptions(data="demo", source_lang="xx", target_lang="yy")
    with pytest.raises(DataError, match=r"source_lang: no name is known for the language 'xx'") as caught:
        resolve_prefix(options, {"model_type": "t5"})
    assert len(caught.value.problems) == 2
