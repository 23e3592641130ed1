"""Strict reading, whole writing, digests."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composer.errors import ConfigError, InputError
from composer.files.jsonfile import canonical, digest_of, read_json, read_text, write_json

Plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=10,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def turned(value: Any) -> Any:
    """The same value with the keys of every object in the opposite order."""
    if isinstance(value, dict):
        return {key: turned(value[key]) for key in reversed(value)}
    return [turned(item) for item in value] if isinstance(value, list) else value


@given(Plain)
def test_equal_values_have_one_canonical_text(value: Any) -> None:
    assert canonical(turned(value)) == canonical(value)
    assert json.loads(canonical(value)) == value
    assert digest_of(value) == hashlib.sha256(canonical(value).encode()).hexdigest()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": [1, 0.1], "a": None}, '{"a":null,"b":[1,0.1]}'),
        ("ä", '"ä"'),
        ({}, "{}"),
    ],
)
def test_canonical_text_has_sorted_keys_and_no_blanks(value: Any, text: str) -> None:
    assert canonical(value) == text


@pytest.mark.parametrize("value", [float("nan"), {"a": [float("inf")]}])
def test_what_json_cannot_say_has_no_canonical_text(value: Any) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical(value)


@given(Plain)
def test_what_is_written_is_read_again(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    path = tmp_path_factory.mktemp("json") / "deep" / "a.json"
    write_json(path, value)
    assert read_json(path) == value
    assert names(path.parent) == ["a.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1', "line 1, column 8: not valid JSON"),
        (b"\xff", "byte 0 is not UTF-8"),
        (b'{"a": {"b": 1, "b": 1}}', "key 'b' is given twice in one object; give it once"),
        (b"[" * 200_000, "not valid JSON: nested too deeply"),
        (b"1" * 5000, "not valid JSON: Exceeds the limit"),
        (b"", "line 1, column 1: not valid JSON"),
    ],
)
def test_broken_files_are_one_line_of_the_callers_error(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        read_json(path, ConfigError)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_keys_given_twice_are_all_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"a": 1, "a": 2}, {"b": 1, "b": 2}]')
    with pytest.raises(InputError) as caught:
        read_json(path)
    assert [problem.split("'")[1] for problem in caught.value.problems] == ["a", "b"]


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_text(tmp_path / "none", ConfigError)
    with pytest.raises(ConfigError, match="is a folder; a file is needed here"):
        read_text(tmp_path, ConfigError)


def test_nan_is_never_written_and_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert read_json(path) == {"a": 1}
    assert names(tmp_path) == ["a.json"]
