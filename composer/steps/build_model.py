"""`compose build-model`: one configuration, composed from the library into an ordinary folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files.atomic import new_folder
from ..files.records import is_current, record, recorded_result, write_record
from ..models.folder import BaseModel
from ..progress import SILENT, Progress
from ..workspace import Given, Workspace
from .outcome import Outcome
from .shrink import SUFFIX, check_form, shrink_folder

if TYPE_CHECKING:
    from torch import nn

    from ..composing.card import Making
    from ..shrinking.records import Report
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
    from ..composing.card import read_card_data

    data = read_card_data(space.recipe.card_data)
    model, _, _ = start.model(space, progress)
    composed = Composed(space, i, start, model, inputs, data)
    if shrink:
        report = _write_shrunk(composed, folder, shrink, progress)
        return Outcome(folder, True, summary | _disk(folder, source) | {"shrunk": report.as_json()})
    _write_masked(composed, folder, sparsity)
    return Outcome(folder, True, summary | _disk(folder, source))


@dataclass(frozen=True)
class Composed:
    """A configuration put together in memory, and what its card and record say of it."""

    space: Workspace
    i: int
    start: StartingModel
    model: nn.Module
    inputs: dict[str, Any]
    card_data: dict[str, Any]

    def making(self, how: str, flags: str = "") -> Making:
        """How it was made, for its card."""
        from ..composing.card import Making

        scheme = self.start.scheme
        command = f"compose build-model -n {self.i}{flags}"
        return Making(self.space.base, how, command, scheme.digest if scheme else None, self.card_data)


def _write_shrunk(composed: Composed, folder: Path, shrink: Asked, progress: Progress) -> Report:
    """The model without what is removed from it, and its report."""
    base, start = composed.space.base, composed.start

    def masked(place: Path) -> BaseModel:
        base.save(composed.model, place)
        return BaseModel(place)

    return shrink_folder(
        folder,
        masked,
        shrink,
        composed.inputs,
        name=f"{base.place.name}-{composed.i}",
        making=composed.making("", " --shrink"),
        progress=progress,
        configuration=composed.i,
        rates=start.rates,
        recipe=composed.space.resolved(),
    )


def _write_masked(composed: Composed, folder: Path, sparsity: float) -> None:
    """The model as an ordinary folder, zeros where weights are removed."""
    from ..composing.card import model_card, write_card
    from ..report.kept import said
    from ..shrinking.kept import kept_units

    base, start, model, i = composed.space.base, composed.start, composed.model, composed.i
    with new_folder(folder) as temporary:
        base.save(model, temporary)
        how = f"composed from {len(composed.inputs['blocks'])} blocks" + (", then swept" if start.sweep else "")
        stacks = kept_units(base, dict(model.named_parameters()))
        card = model_card(composed.making(how), start.root, sparsity, said(stacks))
        write_card(temporary, card, stacks, f"{base.title}, configuration {i}")
        asked = {"configuration": i, "rates": start.rates, "recipe": composed.space.resolved()}
        write_record(temporary, record(composed.inputs, **asked))


def _disk(folder: Path, library: Path) -> dict[str, int]:
    """Bytes of a model's folder, and of the library that all configurations share."""
    places = {"disk": folder, "library": library}
    return {name: sum(f.stat().st_size for f in place.rglob("*") if f.is_file()) for name, place in places.items()}
