"""`compose build-model`: one configuration, composed from the library into an ordinary folder."""

from __future__ import annotations

from pathlib import Path

from ..files.atomic import new_folder
from ..files.jsonfile import write_text
from ..files.records import is_current, record, write_record
from ..progress import SILENT, Progress
from ..workspace import Given, Workspace
from .outcome import Outcome


def build_model(
    recipe: Given,
    i: int,
    *,
    scheme: Path | None = None,
    modules: Path | None = None,
    output: Path | None = None,
    force: bool = False,
    progress: Progress = SILENT,
) -> Outcome:
    """Compose configuration ``i`` into an ordinary Hugging Face folder, ``models/i``."""
    from .starting_model import starting_model

    space = Workspace.of(recipe)
    start = starting_model(space, "composed", i, scheme, modules)
    folder, source = output or space.built_model(i), modules or space.finetuned
    space.check_output(folder, source)
    inputs, sparsity = start.inputs(space), start.sparsity(space)
    summary = {"configuration": i, "sparsity": sparsity, "from": str(source), "swept": start.sweep is not None}
    if is_current(folder, inputs, force=force):
        return Outcome(folder, False, summary)
    from ..composing.card import model_card

    model, _, _ = start.model(space, progress)
    with new_folder(folder) as temporary:
        space.base.save(model, temporary)
        how = f"composed from {len(inputs['blocks'])} blocks" + (", then swept" if start.sweep else "")
        write_text(temporary / "README.md", model_card(space.base, start.root, sparsity, how))
        write_record(temporary, record(inputs, configuration=i, rates=start.rates, recipe=space.resolved()))
    return Outcome(folder, True, summary)
