from __future__ import annotations

import datasets
import pytest

from composer.errors import DataError
from composer.tasks import DataOptions
from composer.tasks.data.sources import HubSource, open_source


def test_demo_has_three_splits_in_two_languages() -> None:
    source = open_source(DataOptions(data="demo"), parallel=True)
    tables = [source.read(name) for name in source.names()]
    assert [list(table.columns) for table in tables] == [["en", "de"]] * 3
    assert all(len(table) for table in tables)


def test_hub_dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load(name: str, configuration: str | None) -> datasets.DatasetDict:
        asked.append((name, configuration))
        features = datasets.Features(
            {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
        )
        rows = {"text": ["a", "b"], "label": [1, 0]}
        return datasets.DatasetDict({"train": datasets.Dataset.from_dict(rows, features=features)})

    monkeypatch.setattr(datasets, "load_dataset", load)
    source = open_source(DataOptions(data="someone/some-set:small"), parallel=True)
    assert isinstance(source, HubSource)
    table = source.read("train")
    assert table.columns == {"text": ["a", "b"], "label": [1, 0]}
    assert table.label_names == {"label": ["bad", "good"]}
    assert table.at(1) == "someone/some-set:small[train]:2"
    open_source(DataOptions(data="someone/some-set:small"), parallel=True)
    assert asked == [("someone/some-set", "small")]


def test_hub_errors_become_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str, configuration: str | None) -> None:
        raise ConnectionError(f"Couldn't reach '{name}' on the Hub\nRetry later")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(DataError, match=r"no folder 'unheard-of', .* could not be loaded: Couldn't reach") as caught:
        open_source(DataOptions(data="unheard-of"), parallel=False)
    assert len(caught.value.problems) == 1
    assert "Retry" not in caught.value.problems[0]
