"""Where the files of one run are, and how files name the base model; nothing is read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from .models.folder import DEMO
from .models.hub import names_a_repository

Kind = Literal["composed", "baseline", "dense"]
"""How a model-level run begins: from tuned blocks, from pruned variants, or from the base model."""


class RunFolder:
    """The folder in which everything of one recipe is written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def conf(self) -> Path:
        """The configurations, ``conf.json``."""
        return self.folder / "conf.json"

    @property
    def conf_prune(self) -> Path:
        """The scheme, ``conf_prune.json``."""
        return self.folder / "conf_prune.json"

    @property
    def pruned(self) -> Path:
        """The library of pruned variants."""
        return self.folder / "modules" / "pruned"

    @property
    def finetuned(self) -> Path:
        """The library of tuned blocks."""
        return self.folder / "modules" / "finetuned"

    @property
    def swept(self) -> Path:
        """The library of what refitting composed models has moved."""
        return self.folder / "modules" / "swept"

    def built_model(self, i: int) -> Path:
        """Where a composed configuration goes that no training has touched: ``models/2``."""
        return self.folder / "models" / str(i)

    def model_folder(self, kind: Kind, i: int | None) -> Path:
        """Where a model-level result goes: ``models/2-finetuned``, ``models/2-baseline``, ``models/dense``."""
        name = {"composed": f"{i}-finetuned", "baseline": f"{i}-baseline", "dense": "dense"}[kind]
        return self.folder / "models" / name

    def stats_file(self, kind: Kind, i: int | None) -> Path:
        """Its curve: ``stats/model-2.csv``, ``stats/baseline-2.csv``, ``stats/dense.csv``."""
        return self.stats_named({"composed": f"model-{i}", "baseline": f"baseline-{i}", "dense": "dense"}[kind])

    def stats_named(self, name: str) -> Path:
        """``stats/<name>.csv``."""
        return self.folder / "stats" / f"{name}.csv"

    def result_named(self, name: str) -> Path:
        """``results/<name>.json``."""
        return self.folder / "results" / f"{name}.json"


def stored_name(name: str, folder: Path) -> str:
    """How a file in ``folder`` names the base model that the user calls ``name``.

    Relative to the file, so that a run can be moved together with its model; as it is where it was given absolute, or
    is an id of the hub.
    """
    if name == DEMO or Path(name).is_absolute() or (not Path(name).exists() and names_a_repository(name)):
        return name
    # Through the real folders: `..` of a folder that is a link leads out of what it points to.
    return os.path.relpath(os.path.realpath(name), os.path.realpath(folder))


def located(name: str, folder: Path) -> str:
    """The base model that a file in ``folder`` names: beside the file where such a folder is, else as it is named."""
    beside = folder / name
    return name if name == DEMO or not beside.is_dir() else str(beside)
