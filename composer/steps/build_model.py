"""`compose build-model`: one configuration, composed from the library into an ordinary folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..files.atomic import new_folder
from ..files.records import is_current, record, recorded_result, write_record
from ..models.folder import BaseModel
from ..progress import SILENT, Progress
from ..workspace import Given, Workspace
from .outcome import Outcome
from .shrink import SUFFIX, check_form, shrink_folder

if TYPE_CHECKING:
    from ..shrinking.shrink import Asked
    from .starting_model import StartingModel


def build_model(
    recipe: Given,
    i: int,
    *,
    scheme: Path | None = None,
    modules: Path | None = None,
    output: Path | None = None,
    shrink: Asked | None = None,
    force: bool = False,
    progress: Progress = SILENT,
) -> Outcome:
    """Compose configuration ``i`` into an ordinary Hugging Face folder, ``models/i``.

    Args:
        shrink: the form of a model without what is removed from it (:func:`composer.shrink`), which is written then,
            to ``models/i-shrunk``; None writes the masked model.
    """
    from .starting_model import starting_model

    space = Workspace.of(recipe)
    start = starting_model(space, "composed", i, scheme, modules)
    built = space.built_model(i)
    folder = output or (built.with_name(built.name + SUFFIX) if shrink else built)
    source = modules or space.finetuned
    space.check_output(folder, source)
    inputs, sparsity = start.inputs(space), start.sparsity(space)
    summary = {"configuration": i, "sparsity": sparsity, "from": str(source), "swept": start.sweep is not None}
    summary["no_targets"] = space.base.no_targets
    if shrink:
        check_form(shrink)
        inputs["shrink"] = shrink
    if is_current(folder, inputs, force=force):
        more = {"shrunk": recorded_result(folder)} if shrink else {}
        return Outcome(folder, False, summary | _disk(folder, source) | more)
    from ..composing.card import Making, model_card, read_card_data, write_card
    from ..report.kept import said
    from ..shrinking.kept import kept_units

    data = read_card_data(space.recipe.card_data)
    model, _, _ = start.model(space, progress)
    if shrink:

        def masked(place: Path) -> BaseModel:
            space.base.save(model, place)
            return BaseModel(place)

        report = shrink_folder(
            folder,
            masked,
            shrink,
            inputs,
            name=f"{space.base.place.name}-{i}",
            making=Making(space.base, "", f"compose build-model -n {i} --shrink", _digest(start), data),
            progress=progress,
            configuration=i,
            rates=start.rates,
            recipe=space.resolved(),
        )
        return Outcome(folder, True, summary | _disk(folder, source) | {"shrunk": report.as_json()})
    with new_folder(folder) as temporary:
        space.base.save(model, temporary)
        how = f"composed from {len(inputs['blocks'])} blocks" + (", then swept" if start.sweep else "")
        stacks = kept_units(space.base, dict(model.named_parameters()))
        making = Making(space.base, how, f"compose build-model -n {i}", _digest(start), data)
        card = model_card(making, start.root, sparsity, said(stacks))
        write_card(temporary, card, stacks, f"{space.base.title}, configuration {i}")
        write_record(temporary, record(inputs, configuration=i, rates=start.rates, recipe=space.resolved()))
    return Outcome(folder, True, summary | _disk(folder, source))


def _disk(folder: Path, library: Path) -> dict[str, int]:
    """Bytes of a model's folder, and of the library that all configurations share."""
    places = {"disk": folder, "library": library}
    return {name: sum(f.stat().st_size for f in place.rglob("*") if f.is_file()) for name, place in places.items()}


def _digest(start: StartingModel) -> str | None:
    """Of the scheme that a model stands in."""
    return start.scheme.digest if start.scheme else None
