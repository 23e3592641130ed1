"""The scheme that a run of a workspace would have, made without writing anything into it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from ..scheme.graph import Scheme
from ..scheme.stored import load_scheme
from ..steps.configure import generate_config, generate_scheme
from ..steps.run import RATE_FIELDS
from ..workspace import Workspace


def planned_scheme(space: Workspace) -> Scheme:
    """Of the recipe's configurations, else those that lie there, else those of the recipe's rates.

    A scheme that lies there without its configurations is taken as it is.
    """
    own = bool(RATE_FIELDS & space.recipe.model_fields_set)
    if not (space.recipe.config or own or space.conf.is_file()) and space.conf_prune.is_file():
        return space.scheme()
    with TemporaryDirectory() as folder:
        config, path = Path(folder) / "conf.json", Path(folder) / "conf_prune.json"
        if space.recipe.config:
            config = space.recipe.config
        elif space.conf.is_file() and not own:
            config = space.conf
        else:
            generate_config(space, output=config)
        generate_scheme(space, config=config, output=path)
        return replace(load_scheme(path), model=space.stored_name(space.folder))
