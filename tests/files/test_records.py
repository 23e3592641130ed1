"""Records of how outputs were made, and when an output is current."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from composer.errors import OutputError
from composer.files.records import is_current, record, record_path, write_record

INPUTS: dict[str, Any] = {
    "base": "a" * 64,
    "settings": {"steps": 4, "seed": 0},
    "data": {"train": "b" * 64, "valid": "c" * 64},
    "blocks": {f"{i:032d}": f"{i:040d}" for i in range(6)},
}


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A folder with a record of :data:`INPUTS`."""
    folder = tmp_path / "models" / "0"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"old")
    write_record(folder, record(INPUTS))
    return folder


def test_a_record_holds_inputs_versions_machine_and_what_is_added() -> None:
    content = record(INPUTS, recipe={"seed": 3}, result={"loss": 1.5})
    assert content["inputs"] == INPUTS
    assert content["versions"]["torch"] == torch.__version__
    assert content["machine"]["cores"] == os.cpu_count()
    assert (content["recipe"], content["result"]) == ({"seed": 3}, {"loss": 1.5})


def test_a_record_lies_in_a_folder_and_beside_a_file(made: Path) -> None:
    assert record_path(made) == made / "composer.json"
    assert record_path(made.parent / "model-2.csv") == made.parent / "model-2.json"
    assert record_path(made.parent / "model-2-of-0.25.csv") == made.parent / "model-2-of-0.25.json"


def test_an_output_is_current_while_its_inputs_are_the_same(made: Path, tmp_path: Path) -> None:
    assert is_current(made, json.loads(json.dumps(INPUTS)))
    assert not is_current(made, INPUTS, force=True)
    assert not is_current(tmp_path / "nothing here", INPUTS)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"settings": {"steps": 5, "seed": 0}}, r"\(settings: steps: 4 then, 5 now\)"),
        ({"settings": {"steps": 5, "seed": 1}}, r"\(settings: seed: 0 then, 1 now, steps: 4 then, 5 now\)"),
        ({"data": {"train": "d" * 64, "valid": "c" * 64}}, r"\(data: another train\)"),
        ({"base": "d" * 64}, r"\(another base\)"),
        ({"kind": "dense"}, r"\(kind: None then, 'dense' now\)"),
        ({"blocks": {f"{i:032d}": "e" * 40 for i in range(6)}}, r"\(blocks: 6 differ\)"),
    ],
)
def test_an_output_of_other_inputs_is_refused_with_what_changed(
    made: Path, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(OutputError, match=message) as caught:
        is_current(made, INPUTS | changed)
    (line,) = caught.value.problems
    assert line.startswith(f"{made}: exists and was made from other inputs")
    assert line.endswith("--force replaces it")
    assert "\n" not in line


@pytest.mark.parametrize("content", ["[]", "{}", '{"inputs": null}', '{"inputs": [1]}'])
def test_a_record_without_inputs_is_no_record(made: Path, content: str) -> None:
    (made / "composer.json").write_text(content)
    with pytest.raises(OutputError, match="exists and has no record of how it was made; --force replaces it"):
        is_current(made, INPUTS)


def test_what_somebody_else_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    for name in ("file", "folder"):
        with pytest.raises(OutputError, match=f"{name}: exists and has no record of how it was made; --force"):
            is_current(tmp_path / name, INPUTS)


def test_a_damaged_record_is_reported_in_one_line(made: Path) -> None:
    (made / "composer.json").write_text('{"inputs": {')
    with pytest.raises(OutputError, match=r"composer\.json: line 1, column \d+: not valid JSON"):
        is_current(made, INPUTS)
