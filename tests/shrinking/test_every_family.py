"""A shrunk model of every family is the masked one: the same logits and tokens, and parameters gone as counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from composer.models.folder import BaseModel
from composer.shrinking.shrink import make_plan, write
from composer.shrinking.units import Units
from composer.shrinking.verify import answers, compared
from tests.reference.zeroed import Choose, masked_folder
from tests.zoo import ZOO

Folder = Callable[[str], Path]

TABLES = ("t5", "gated", "mt5", "distilbert", "bert", *ZOO)


def some(i: int, units: Units) -> Sequence[int]:
    """Another number of units of each."""
    return range(i % 3, i % 3 + max(1, units.count // 2 - i % 2))


def wholes(i: int, units: Units) -> Sequence[int]:
    """All of the first attention, of the second feed-forward, and of the last layer."""
    last = units.layer.endswith(".1") and not units.layer.startswith("encoder.block")
    return range(units.count) if i in (0, 3) or last else ()


CASES: dict[str, Choose] = {"heads and neurons": some, "sublayers and layers": wholes}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", TABLES)
def test_an_exact_model_is_the_masked_one(model_folder: Folder, tmp_path: Path, name: str, case: str) -> None:
    masked = masked_folder(model_folder(name), tmp_path / "masked", CASES[case], biases=name != "bart")
    (tmp_path / "small").mkdir()
    report = write(make_plan(masked), "exact", "", tmp_path / "small")
    small = BaseModel(tmp_path / "small")
    loaded = small.load()
    assert compared(answers(masked.load()), answers(loaded)).relative <= 1e-4
    assert small.parameters == report.parameters.after < report.parameters.before == masked.parameters
    (tmp_path / "again").mkdir()
    small.save(loaded, tmp_path / "again")
    assert BaseModel(tmp_path / "again").fingerprint == small.fingerprint
