"""A composed model is swept where that lowers its validation loss, and stays as it is where it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import composer
from composer.progress import Progress
from composer.tasks.loss import mean_loss


class Noted(Progress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.parametrize(("sample", "taken"), [(32, False), (128, True)])
def test_a_sweep_is_taken_where_it_lowers_the_validation_loss(sample: int, taken: bool, tmp_path: Path) -> None:
    """Of few examples it learns what does not hold for others."""
    sizes = {"calibration_size": sample, "train_size": sample, "valid_size": 32, "linear": [0.7]}
    given: dict[str, Any] = {"model": "demo", "data": "demo", "folder": str(tmp_path), **sizes}
    given |= {"criterion": "obs", "trainer": "least_squares"}
    recipe, swept = (composer.load_recipe(given={**given, "sweep": sweep}, file=False) for sweep in (False, True))
    composer.generate_config(recipe)
    composer.generate_scheme(recipe)
    composer.prune(recipe)
    composer.finetune_blocks(recipe)
    progress = Noted()
    folders = [composer.build_model(recipe, 0).output]
    folders += [composer.build_model(swept, 0, output=tmp_path / n, progress=progress).output for n in ("one", "two")]
    plain, first, again = (load_file(folder / "model.safetensors") for folder in folders)
    assert all(torch.equal(first[name], value) for name, value in again.items())  # kept like a block
    assert all(torch.equal(first[name], value) for name, value in plain.items()) != taken
    assert [note.partition(", as it raises")[0] for note in progress.notes] == (
        [] if taken else ["configuration 0, composed: the sweep is not taken"]
    )
    space = composer.open(recipe)
    losses = [mean_loss(composer.load(folder), space.task, space.examples("valid")) for folder in folders]
    assert (losses[1] < losses[0]) == taken
