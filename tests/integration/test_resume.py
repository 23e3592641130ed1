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
    """Presses Ctrl-C where a work goes on after ``blocks`` more files of weights were kept, or one checkpoint."""

    def __init__(self, place: Place, blocks: int) -> None:
        self.place, self.blocks, self.before = place, blocks, place.kept()

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Bar]:
        progress = self

        class Watching(Bar):
            def advance(self, detail: str = "") -> None:
                new = progress.place.kept() - progress.before
                if len(new) >= progress.blocks or any(".work" in path.parts for path in new):
                    raise KeyboardInterrupt

        yield Watching()


class Place:
    """A folder in which the pipeline runs."""

    def __init__(self, folder: Path, model: Path, data: Path) -> None:
        self.folder = folder
        self.given = {"model": str(model), "data": str(data), "folder": str(folder), **GIVEN}

    def run(self, progress: Progress | None = None) -> Any:
        recipe = composer.load_recipe(given=self.given, file=False)
        return composer.run(recipe, progress=progress or Progress())

    def kept(self) -> set[Path]:
        """Files of weights, checkpoints of unfinished work (in ``.work``) among them."""
        return {path.relative_to(self.folder) for path in self.folder.rglob("*.safetensors")}

    def weights(self) -> dict[str, str]:
        return {
            path.as_posix(): hashlib.sha256((self.folder / path).read_bytes()).hexdigest()
            for path in self.kept()
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


def test_a_run_that_is_killed_again_and_again_ends_in_the_same_bytes(
    undisturbed: Place, t5_folder: Path, translation_data: Path, tmp_path: Path
) -> None:
    """Something is kept between any two kills, so that the end comes however often it is killed."""
    place = Place(tmp_path / "run", t5_folder, translation_data)
    kills = checkpoints = 0
    while True:
        kept = place.weights()
        try:
            outcome = place.run(Impatient(place, 50))
            break
        except KeyboardInterrupt:
            kills += 1
            checkpoints += any(".work" in path.parts for path in place.kept())
            now = place.weights()
            assert {name: now.get(name) for name in kept} == kept
            assert not [*place.folder.rglob("*.tmp")]
    assert kills > checkpoints > 3
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
        composer.finetune_blocks(recipe, progress=Impatient(place, 1))
    kept = {name for name in place.weights() if name.startswith("modules/finetuned/")}
    every = {name for name in undisturbed.weights() if name.startswith("modules/finetuned/")}
    assert set() < kept < every
    done = composer.finetune_blocks(recipe)
    assert 0 < done.summary["tuned"] < len(every)
    assert {n: digest for n, digest in place.weights().items() if n in every} == {
        n: digest for n, digest in undisturbed.weights().items() if n in every
    }
    assert place.losses()["block"] == undisturbed.losses()["block"]
