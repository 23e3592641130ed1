"""Tables and folders as people have them: read, or refused in one line."""

from __future__ import annotations

import pytest

from composer.errors import DataError
from composer.tasks.architectures import check_task
from composer.tasks.data.formats import Table, read_csv
from composer.tasks.data.labels import Labels
from composer.tasks.data.options import DataOptions
from composer.tasks.data.sources import FolderSource, open_source

from .conftest import Write


def test_tables_of_a_repository_lie_in_its_folder_data(write: Write) -> None:
    folder = write({"README.md": "a data set"})
    (folder / "data").mkdir()
    (folder / "data" / "test.tsv").write_text("text\tlabel\na\t1\n")
    assert open_source(DataOptions(data=str(folder))).read("test").columns == {"text": ["a"], "label": ["1"]}


def test_what_is_packed_is_said_to_be(write: Write) -> None:
    folder = write({"test.tsv.gz": "x"})
    assert FolderSource(folder, None).listing() == "files there: test.tsv.gz; unpack what is packed"


def test_another_separator_is_named(write: Write) -> None:
    folder = write({"test.csv": "text;label\na;1\n"})
    with pytest.raises(DataError, match=r"test\.csv:1: columns are parted by commas, and here by ';': 'text;label'"):
        read_csv(folder / "test.csv")


def test_ids_with_a_decimal_point_are_ids() -> None:
    labels = Labels(("bad", "good"))
    assert labels.resolve(Table("a", "a", {"label": ["0.0", "1.0", 1.0, "1"]}, range(1, 5)), "label") == (
        ["bad", "good", "good", "good"],
        [],
    )


def test_a_model_that_hears_or_sees_is_not_asked_about_texts() -> None:
    config = {"architectures": ["WhisperForConditionalGeneration"], "num_mel_bins": 80}
    with pytest.raises(DataError, match=r"Whisper\w+ does not read texts alone \(num_mel_bins\), and all tasks are of"):
        check_task("translation", config, "m")
