"""Nobody's library is lost: addresses of a small scheme and bytes of its pruned variants are as they were first made.

An address may change for one reason only: the same inputs give other bytes than before. Then the pin changes in the
same commit, and CHANGELOG.md says which blocks are made anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

import composer
from composer.library.store import Library
from composer.pruning.addresses import variant_addresses
from composer.pruning.criteria import CRITERIA
from composer.pruning.criteria.choice import criteria_of
from composer.steps.block_phase import BlockPhase
from composer.steps.settings import criterion_settings

GIVEN: dict[str, Any] = {
    "model": "demo",
    "data": "demo",
    "targets": ["encoder.block.0.*"],
    "attention": [0.25, 0.5],
    "linear": [0.5],
    "calibration_size": 16,
    "train_size": 32,
    "valid_size": 8,
    "block": {"steps": 2, "batch_size": 4},
    "finetune": {"steps": 2, "batch_size": 4, "learning_rate": 1e-3},
}
PINS: dict[tuple[str, str], tuple[str, str]] = {
    ("l1", "distill"): ("01f8d724cae97306", "593530bbd5c21307"),
    ("obs", "joint"): ("b7ac6c4327ee1204", "fc1070af4553ce64"),
    ("wanda", "least_squares"): ("8f153be5244a9c98", "cf3cf6e03bfb949a"),
    ("movement", "least_squares"): ("9de2a59a0e0eba37", "783638e3e9a58c63"),
}
"""Criterion and trainer -> digest of the addresses of variants, and of blocks."""
BYTES = "d96ce10771b3dce5"
"""Digest of the files of the variants pruned by l1, which take no arithmetic but comparisons."""


def digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()[:16]


def recipe(folder: Path, criterion: str, trainer: str) -> composer.Recipe:
    single = {"attention_granularity": "unstructured"} if criterion == "wanda" else {}
    # Movement names the targets that are pruned where they are not all.
    everywhere = {"targets": ["*"]} if criterion == "movement" else {}
    chosen = {"folder": str(folder), "criterion": criterion, "trainer": trainer}
    made = composer.load_recipe(given=GIVEN | single | everywhere | chosen, file=False)
    composer.generate_config(made)
    composer.generate_scheme(made)
    return made


@pytest.mark.parametrize(("criterion", "trainer"), PINS)
def test_addresses_are_those_of_every_version_so_far(tmp_path: Path, criterion: str, trainer: str) -> None:
    space = composer.open(recipe(tmp_path, criterion, trainer))
    scheme, made = space.scheme(), CRITERIA.get(criterion)()
    settings = criterion_settings(space, scheme, criteria_of(scheme, made))
    variants = variant_addresses(scheme, space.base.layout, made, settings, dead_columns=True)
    phase = BlockPhase(space, scheme, Library(space.pruned), Library(space.finetuned), variants)
    assert (digest(variants.values()), digest(phase.addresses.values())) == PINS[criterion, trainer]


def test_bytes_are_those_of_every_version_so_far(tmp_path: Path) -> None:
    library = composer.prune(recipe(tmp_path, "l1", "distill")).output
    files = {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in library.glob("*.safetensors")}
    assert digest(f"{address} {files[address]}" for address in files) == BYTES
