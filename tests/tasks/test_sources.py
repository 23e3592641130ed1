from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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


def shards(folder: Path, split: str, count: int, rows: list[dict[str, Any]], leave_out: int | None = None) -> None:
    """Write ``rows`` as parquet files the way the hub does."""
    import pyarrow
    import pyarrow.parquet

    folder.mkdir(exist_ok=True)
    for i in range(count):
        if i != leave_out:
            part = pyarrow.Table.from_pylist(rows[i::count])
            pyarrow.parquet.write_table(part, folder / f"{split}-{i:05}-of-{count:05}.parquet")


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_shards_of_a_split_are_one_split(tmp_path: Path, count: int) -> None:
    rows = [{"sentence": f"text {i}", "label": i % 2} for i in range(7)]
    shards(tmp_path / "d", "test", count, rows)
    source = open_source(DataOptions(data=str(tmp_path / "d")))
    assert source.names() == ["test"]
    table = source.read("test")
    assert sorted(table.columns["sentence"]) == sorted(row["sentence"] for row in rows)
    assert len(table) == 7


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_missing_shard_is_named(tmp_path: Path, missing: int) -> None:
    shards(tmp_path / "d", "train", 3, [{"sentence": "a", "label": 0}] * 9, leave_out=missing)
    lost = rf"'train' has 3 shards, and train-0000{missing}-of-00003\.parquet is missing"
    with pytest.raises(DataError, match=lost):
        open_source(DataOptions(data=str(tmp_path / "d"))).read("train")


def test_shards_beside_a_whole_file_are_ambiguous(tmp_path: Path) -> None:
    shards(tmp_path / "d", "train", 2, [{"sentence": "a", "label": 0}] * 4)
    (tmp_path / "d" / "train.tsv").write_text("sentence\tlabel\na\t0\n")
    with pytest.raises(DataError, match=r"several files hold the split 'train': its shards, train\.tsv; keep one"):
        open_source(DataOptions(data=str(tmp_path / "d"))).read("train")


def test_json_by_columns_says_what_it_is(tmp_path: Path) -> None:
    columns = {"sentence": {str(i): f"text {i}" for i in range(500)}, "label": {str(i): 0 for i in range(500)}}
    (tmp_path / "train.json").write_text(json.dumps(columns))
    with pytest.raises(DataError, match=r"an object of columns \(sentence, label\).*orient='records'") as error:
        open_source(DataOptions(data=str(tmp_path))).read("train")
    assert len(str(error.value)) < 300
