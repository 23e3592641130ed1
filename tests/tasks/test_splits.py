from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from composer.errors import DataError
from composer.tasks import DataOptions
from composer.tasks.data.formats import Table
from composer.tasks.data.splits import Row, Rows, read_split
from composer.tasks.task import Split

from .conftest import Write


def pick(table: Table) -> list[Row]:
    return list(zip(table.columns["en"], table.columns["de"], strict=True))


def read(folder: Path | str, split: Split, **options: object) -> Rows:
    return read_split(DataOptions.model_validate({"data": str(folder), **options}), split, pick, parallel=True)


def numbered(language: str, count: int) -> str:
    return "".join(f"{language} {i}\n" for i in range(count))


def both(stem: str, count: int) -> dict[str, str]:
    return {f"{stem}.{language}": numbered(language, count) for language in ("en", "de")}


@pytest.mark.parametrize("valid", ["val", "valid", "validation"])
def test_parallel_folder(write: Write, valid: str) -> None:
    folder = write({**both("train", 4), **both(valid, 3), **both("test_b", 2), **both("test_a", 1)})
    assert read(folder, "train").rows == [(f"en {i}", f"de {i}") for i in range(4)]
    assert read(folder, "valid").source == f"{valid}.en + {valid}.de"
    assert read(folder, "test").source == "test_a.en + test_a.de"
    assert read(folder, "test", test_split="test_b").rows == [("en 0", "de 0"), ("en 1", "de 1")]


def test_languages_can_be_swapped(write: Write) -> None:
    folder = write(both("test", 1))
    options = DataOptions(data=str(folder), source_lang="de", target_lang="en")
    assert read_split(options, "test", pick, parallel=True).source == "test.de + test.en"


def test_table_folder_is_read_where_a_column_is_named(write: Write) -> None:
    folder = write({"test.tsv": "en\tde\na\tb\n", **both("test", 1)})
    assert read(folder, "test").rows == [("en 0", "de 0")]
    assert read(folder, "test", source_column="en").rows == [("a", "b")]


def test_sizes(write: Write) -> None:
    folder = write({**both("train", 50), **both("val", 9), **both("test", 9)})
    whole = read(folder, "train").rows
    ten, twenty = (read(folder, "train", train_size=n, seed=3).rows for n in (10, 20))
    assert len(ten) == 10
    assert set(ten) < set(twenty)
    assert ten == [row for row in whole if row in ten] != whole[:10]
    assert ten != read(folder, "train", train_size=10, seed=4).rows
    assert read(folder, "train", train_size=99).rows == whole
    assert read(folder, "valid", valid_size=2).rows == whole[:2]
    assert read(folder, "test", test_size=3).source == "test.en + test.de; first 3 of 9 rows"


def test_without_validation_some_of_train_is_held_out(write: Write) -> None:
    folder = write(both("train", 200))
    train, valid = read(folder, "train", seed=1), read(folder, "valid", seed=1)
    assert len(valid.rows) == 10
    assert sorted([*train.rows, *valid.rows]) == sorted((f"en {i}", f"de {i}") for i in range(200))
    assert valid.rows != read(folder, "valid", seed=2).rows
    assert "10 rows held out for validation with seed 1" in valid.source
    test = read(folder, "test", seed=1)
    assert test.rows == valid.rows
    assert test.source.endswith("no test split, validation is used")


def test_repeats_of_held_out_rows_leave_training(write: Write) -> None:
    folder = write({"train.en": "a\n" * 50, "train.de": "a\n" * 50})
    with pytest.raises(DataError, match="too few different rows to hold some out"):
        read(folder, "valid")
    folder = write({"train.en": "a\nb\n" * 10, "train.de": "a\nb\n" * 10})
    assert set(read(folder, "train").rows).isdisjoint(read(folder, "valid").rows)


def test_the_hold_out_is_at_most_two_thousand(write: Write) -> None:
    folder = write(both("train", 50_000))
    assert len(read(folder, "valid").rows) == 2000


def test_blank_rows_are_left_out_and_counted(write: Write) -> None:
    folder = write({"test.en": "a\n \nc\nd\n", "test.de": "a\nb\n\nd\n"})
    rows = read(folder, "test")
    assert rows.rows == [("a", "a"), ("d", "d")]
    assert rows.source == "test.en + test.de; 2 rows with an empty field left out"
    with pytest.raises(DataError, match="all 2 rows have an empty field"):
        read(write({"test.en": "a\n\n", "test.de": "\nb\n"}), "test")


def test_digest_is_over_the_rows_in_order() -> None:
    one = Rows([("a", "ü"), ("b", "c")], "x")
    assert one.digest == hashlib.sha256('["a", "ü"]\n["b", "c"]\n'.encode()).hexdigest()
    assert one.digest != Rows([("b", "c"), ("a", "ü")], "x").digest
    assert Rows([("a b",)], "").digest != Rows([("a", "b")], "").digest


@pytest.mark.parametrize(
    ("files", "split", "message"),
    [
        (
            {"a.md": "x"},
            "train",
            r"no training data; looked for train\.en with train\.de, train\{.*there: a\.md",
        ),
        ({"a.md": "x"}, "valid", r"no validation and no training data; looked for validation\.en with "),
        ({"a.md": "x"}, "test", r"no validation and no training data"),
        ({"train.en": "x"}, "train", r"train\.en is there, train\.de is missing"),
        ({**both("val", 1), **both("dev", 1)}, "valid", r"several splits for validation: dev, val; keep one"),
        (
            {"test.tsv": "x", "test.csv": "x"},
            "test",
            r"several files hold the split 'test': test\.tsv, test\.csv",
        ),
    ],
)
def test_missing_and_ambiguous_splits(write: Write, files: dict[str, str], split: Split, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(write(files), split)


def test_an_unknown_test_split_is_never_replaced(write: Write) -> None:
    folder = write(both("test_2016", 1))
    with pytest.raises(DataError, match=r"test_split 'test_2017' is not there; .* did you mean 'test_2016'\?"):
        read(folder, "test", test_split="test_2017")


def test_a_missing_folder_and_a_file(write: Write, tmp_path: Path) -> None:
    folder = write({"train.tsv": "x"})
    for missing in (tmp_path / "nowhere", "./nowhere", "a/b/c"):
        with pytest.raises(DataError, match=rf"data: there is no folder '{missing}'"):
            read(missing, "train")
    with pytest.raises(DataError, match=r"train\.tsv' is a file, expected is the folder"):
        read(folder / "train.tsv", "train")
