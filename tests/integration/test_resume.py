"""Ctrl-C anywhere, as often as you like: finished work is kept, and the end is the same bytes."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import composer
from composer.progress import Bar, Progress

GIVEN: dict[str, Any] = {
    "attention": [0.25, 0.5],
    "linear": [0.3, 0.5],
    "block": {"steps": 3, "batch_size": 4},
    "finetune": {"steps": 4, "batch_size": 4, "evaluations": 2},
    "learning_rates": [0.01],
    "budgets": [1.0],
    "max_source_length": 32,
    "max_target_length": 12,
}


class Impatient(Progress):
    """Presses Ctrl-C when so many steps of pruning or training are done."""

    def __init__(self, patience: int) -> None:
        self.left = patience

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Bar]:
        progress = self

        class Counting(Bar):
            def advance(self, detail: str = "") -> None:
                if label != "evaluate" and detail != "resumed":  # both count what was there already
                    progress.left -= 1
                if progress.left == 0:
                    raise KeyboardInterrupt

        yield Counting()


class Place:
    """A folder in which the pipeline runs."""

    def __init__(self, folder: Path, model: Path, data: Path) -> None:
        self.folder = folder
        self.given = {"model": str(model), "data": str(data), "folder": str(folder), **GIVEN}

    def run(self, progress: Progress | None = None) -> Any:
        recipe = composer.load_recipe(given=self.given, file=False)
        return composer.run(recipe, progress=progress or Progress())

    def weights(self) -> dict[str, str]:
        return {
            path.relative_to(self.folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in self.folder.rglob("*.safetensors")
            if ".work" not in path.parts
        }

    def losses(self) -> dict[str, list[list[str]]]:
        """Rows of every table, times left out."""
        found = {}
        for path in sorted((self.folder / "stats").glob("*.csv")):
            with path.open(newline="") as file:
                table = list(csv.DictReader(file))
            found[path.stem] = [[v for name, v in row.items() if "seconds" not in name] for row in table]
        return found


@pytest.fixture(scope="module")
def undisturbed(t5_folder: Path, translation_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(tmp_path_factory.mktemp("resume") / "whole", t5_folder, translation_data)
    place.run()
    return place


@pytest.mark.parametrize("patience", [10])
def test_a_run_that_is_killed_again_and_again_ends_in_the_same_bytes(
    patience: int, undisturbed: Place, t5_folder: Path, translation_data: Path, tmp_path: Path
) -> None:
    place = Place(tmp_path / "run", t5_folder, translation_data)
    kills = 0
    while True:
        kept = place.weights()
        try:
            outcome = place.run(Impatient(patience))
            break
        except KeyboardInterrupt:
            kills += 1
            assert kills < 60
            now = place.weights()
            assert {name: now.get(name) for name in kept} == kept
            assert not [*place.folder.rglob("*.tmp")]
    assert kills >= 3
    assert outcome.fresh
    assert place.weights() == undisturbed.weights()
    assert place.losses() == undisturbed.losses()
    assert not (place.folder / ".work").exists()


def test_finished_blocks_are_kept_when_the_block_phase_is_killed(
    undisturbed: Place, t5_folder: Path, translation_data: Path, tmp_path: Path
) -> None:
    place = Place(tmp_path / "run", t5_folder, translation_data)
    recipe = composer.load_recipe(given=place.given, file=False)
    composer.generate_config(recipe)
    composer.generate_scheme(recipe)
    composer.prune(recipe)
    with pytest.raises(KeyboardInterrupt):
        composer.finetune_blocks(recipe, progress=Impatient(4))  # in the second wave
    kept = {name for name in place.weights() if name.startswith("modules/finetuned/")}
    every = {name for name in undisturbed.weights() if name.startswith("modules/finetuned/")}
    assert set() < kept < every
    done = composer.finetune_blocks(recipe)
    assert 0 < done.summary["tuned"] < len(every)
    assert {n: digest for n, digest in place.weights().items() if n in every} == {
        n: digest for n, digest in undisturbed.weights().items() if n in every
    }
    assert place.losses()["block"] == undisturbed.losses()["block"]
