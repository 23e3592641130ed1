from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from composer.errors import DataError
from composer.tasks.data.formats import (
    MISSING,
    READERS,
    TEXT_READERS,
    read_csv,
    read_json,
    read_jsonl,
    read_lines,
    read_parallel,
    read_tsv,
)

from .conftest import Write

ODD = 'say "hi", and\u2028go\x85on\x0c'
"""Text with quotes, a comma and characters at which str.splitlines breaks."""


def test_lines_end_at_newlines_only(write: Write) -> None:
    folder = write({"a.txt": f"\ufeff{ODD}\r\nb\n\nc"})
    assert read_lines(folder / "a.txt") == [ODD, "b", "", "c"]


def test_tsv_has_no_quoting_and_tolerates_carriage_returns(write: Write) -> None:
    folder = write({"t.tsv": f'text\tlabel\r\n"{ODD}\t1\r\n\ttwo\n\na\rb\t3'})
    table = read_tsv(folder / "t.tsv")
    assert table.columns == {"text": [f'"{ODD}', "", "a\rb"], "label": ["1", "two", "3"]}
    assert table.at(2) == f"{folder / 't.tsv'}:5"


def test_csv_quotes_and_keeps_the_callers_field_limit(write: Write) -> None:
    folder = write({"t.csv": f'text,label\n"{ODD.replace(chr(34), chr(34) * 2)}\nnext",1\n{"x" * 200_000},0\n'})
    limit = csv.field_size_limit()
    table = read_csv(folder / "t.csv")
    assert table.columns == {"text": [f"{ODD}\nnext", "x" * 200_000], "label": ["1", "0"]}
    assert csv.field_size_limit() == limit


def test_long_tsv_fields_are_read(write: Write) -> None:
    folder = write({"t.tsv": f"text\tlabel\n{'x' * 200_000}\t0\n"})
    assert len(read_tsv(folder / "t.tsv").columns["text"][0]) == 200_000


def test_jsonl_marks_keys_that_are_absent(write: Write) -> None:
    rows = [{"text": ODD, "label": 1}, {"text": None}]
    folder = write({"t.jsonl": "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows)})
    table = read_jsonl(folder / "t.jsonl")
    assert table.columns == {"text": [ODD, None], "label": [1, MISSING]}
    assert list(table.lines) == [1, 3]


def test_all_formats_agree(write: Write) -> None:
    folder = write(
        {
            "t.tsv": "text\tlabel\nein Hund\tgood\n",
            "t.csv": "text,label\nein Hund,good\n",
            "t.jsonl": '{"text": "ein Hund", "label": "good"}\n',
            "t.json": '{"text": "ein Hund", "label": "good"}',
        }
    )
    pyarrow.parquet.write_table(pyarrow.table({"text": ["ein Hund"], "label": ["good"]}), folder / "t.parquet")
    for suffix, read in READERS.items():
        assert read(folder / f"t{suffix}").columns == {"text": ["ein Hund"], "label": ["good"]}, suffix


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.tsv", "", r"t\.tsv: the file is empty"),
        ("t.tsv", "text\tlabel\n", r"t\.tsv: a header and no rows"),
        ("t.csv", "text,label\n", r"t\.csv: a header and no rows"),
        ("t.tsv", "text\ttext\na\tb\n", r"t\.tsv:1: a column is named twice: text, text"),
        ("t.tsv", "text\tlabel\na\t1\nb\n", r"t\.tsv:3: got 1 columns, want 2 \(text, label\)"),
        ("t.csv", "text,label\na,1,2\n", r"t\.csv:2: got 3 columns, want 2 \(text, label\)"),
        ("t.csv", 'text,label\n"a,1\n', r"t\.csv:2: not valid CSV \(unexpected end of data\)"),
        ("t.jsonl", '{"a": 1}\n{"a": \n', r"t\.jsonl:2: does not parse as JSON .* one object per line"),
        ("t.jsonl", '[{"a": 1}]', r"t\.jsonl:1: is a JSON list; one object per line is expected"),
        ("t.json", '[{"a": 1}, 2]', r"t\.json: got row 2 is int; a list of objects, or one object per line"),
        ("t.json", "[]", r"t\.json: got an empty list; a list of objects"),
        ("t.json", '{"a": \n', r"t\.json:1: does not parse as JSON"),
        ("t.parquet", "PAR1?", r"t\.parquet: not a readable parquet file"),
    ],
)
def test_what_is_wrong_names_file_and_line(write: Write, name: str, text: str, message: str) -> None:
    path = write({name: text}) / name
    with pytest.raises(DataError, match=message) as caught:
        READERS[path.suffix](path)
    assert all("\n" not in problem for problem in caught.value.problems)


def test_many_ragged_rows_are_counted(write: Write) -> None:
    folder = write({"t.tsv": "a\tb\n" + "x\n" * 9})
    with pytest.raises(DataError, match=r"\(4 more like these\)") as caught:
        read_tsv(folder / "t.tsv")
    assert len(caught.value.problems) == 6


def test_other_encodings_name_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "train.de"
    path.write_bytes("eins\nfünf\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"train\.de:2: byte 0xfc at offset 6 is not UTF-8"):
        read_lines(path)


def test_parallel_files_need_as_many_lines(write: Write) -> None:
    folder = write({"train.en": "a\nb\n", "train.de": "a\nb\nc\n"})
    with pytest.raises(DataError, match=r"train\.en has 2, .*train\.de has 3"):
        read_parallel({"en": folder / "train.en", "de": folder / "train.de"})


@pytest.mark.parametrize("text", ['[{"a": 1},\n {"b": 2}]', '{"a": 1}\n{"b": 2}'])
def test_json_is_a_list_or_lines(write: Write, text: str) -> None:
    table = read_json(write({"t.json": text}) / "t.json")
    assert table.columns == {"a": [1, MISSING], "b": [MISSING, 2]}


def test_one_json_object_is_one_row(write: Write) -> None:
    table = read_json(write({"t.json": '{\n"version": "v2.0", "data": []}\n'}) / "t.json")
    assert table.columns == {"version": ["v2.0"], "data": [[]]}


@pytest.mark.parametrize("suffix", [".txt", ".raw", ".tokens"])
def test_running_text_keeps_its_line_ends(write: Write, suffix: str) -> None:
    path = write({f"t{suffix}": " = A = \n \n\n text \n"}) / f"t{suffix}"
    assert TEXT_READERS[suffix](path).columns == {"text": [" = A = \n", "", "", " text \n"]}
