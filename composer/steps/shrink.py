"""`compose shrink`: a masked model without what is removed from it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelError, OutputError, RecipeError, did_you_mean
from ..files.atomic import new_folder
from ..files.records import RECORD, is_current, record, recorded_inputs, recorded_result, write_record
from ..models.folder import BaseModel
from ..progress import SILENT, Progress
from .outcome import Outcome

if TYPE_CHECKING:
    from torch import nn

    from ..composing.card import Making
    from ..shrinking.records import Report
    from ..shrinking.shrink import Asked

FORMS = ("auto", "plain", "padded", "exact")


def shrink(
    model: str | Path | nn.Module,
    output: str | Path | None = None,
    form: Asked = "auto",
    *,
    targets: Sequence[str] = (),
    force: bool = False,
    progress: Progress = SILENT,
) -> Outcome:
    """Take out of a masked model what is removed from it, and verify that the result is the same model.

    Heads, neurons, sublayers and layers go that are wholly zero; single zeros among what stays remain. The result is
    loaded by :func:`composer.load`, by every command that takes a model, and by transformers: as any model in the
    ``plain`` and ``padded`` forms, with ``trust_remote_code=True`` in the ``exact`` one.

    Args:
        model: a folder whose removed weights are 0, made by Composer or not; or a model of transformers in memory.
        output: the new folder [the model's name with ``-shrunk``].
        form: ``plain`` if the configuration of the architecture can state the result; ``exact`` gives every layer its
            own shape; ``padded`` is plain with zero units up to the largest layer; ``auto`` is plain if possible, else
            exact.
        targets: of a model of no known family, globs of projections that belong together in a layer: first those whose
            rows are units, then the one that reads them.
        force: replace an output that was made from something else.

    Raises:
        ModelError: nothing can be taken out, the form cannot state the result, or the result is not the same model.
        OutputError: the output exists and was made from other inputs.
    """
    check_form(form)
    if not isinstance(model, (str, Path)):
        return _shrink_loaded(model, output, form, targets, force=force, progress=progress)
    base = BaseModel(model)
    folder = base.made_into(output, SUFFIX)
    inputs = {"stage": "shrunk", "model": base.fingerprint, "form": form, "targets": list(targets)}
    if is_current(folder, inputs, force=force):
        return Outcome(folder, False, recorded_result(folder) or {})
    report = shrink_folder(folder, lambda _: base, form, inputs, targets=targets, progress=progress)
    return Outcome(folder, True, report.as_json())


SUFFIX = "-shrunk"
"""What a shrunk model's folder is called by default: the masked one's name with this."""


def check_form(form: str) -> None:
    """Refuse a form that is none.

    Raises:
        RecipeError: naming those that are.
    """
    if form not in FORMS:
        raise RecipeError(f"--form: got {form!r}; allowed: {', '.join(FORMS)}{did_you_mean(form, FORMS)}")


def _shrink_loaded(
    model: nn.Module,
    output: str | Path | None,
    form: Asked,
    targets: Sequence[str],
    *,
    force: bool,
    progress: Progress,
) -> Outcome:
    """Shrink a model of transformers that is in memory; its folder is written first."""
    if output is None:
        raise OutputError("output: nothing given; a model in memory has no folder to be named after")
    anyhow: Any = model
    if not hasattr(anyhow, "save_pretrained"):
        raise ModelError(f"model: got a {type(model).__name__}; allowed: a folder, or a model of transformers")
    folder = Path(output).expanduser()
    if folder.exists() and not force:
        raise OutputError(f"{folder}: exists, and models in memory cannot be told apart; force=True replaces it")

    def saved(place: Path) -> BaseModel:
        anyhow.save_pretrained(place)
        return BaseModel(place)

    inputs = {"stage": "shrunk", "form": form, "targets": list(targets)}
    report = shrink_folder(folder, saved, form, inputs, targets=targets, progress=progress)
    return Outcome(folder, True, report.as_json())


def shrink_folder(
    folder: Path,
    masked: Callable[[Path], BaseModel],
    form: Asked,
    inputs: Mapping[str, Any],
    *,
    targets: Sequence[str] = (),
    name: str | None = None,
    making: Making | None = None,
    progress: Progress = SILENT,
    **more: Any,
) -> Report:
    """Shrink a masked model into ``folder``, verify it, and keep a card and a record of it.

    Args:
        masked: gives the masked model; one that has to be written first goes into the empty folder that it is given.
        inputs: decide whether the folder is current.
        targets: as in :func:`shrink`.
        name: what the card calls the model [its folder].
        making: what the card says of how it was made [of the masked model, by `compose shrink`].
        more: further entries of the record.
    """
    from ..composing.card import Making, card_data, shrunk_card, write_card
    from ..report.kept import said
    from ..shrinking.kept import stacks_of
    from ..shrinking.shrink import shrink_into
    from ..shrinking.verify import verify

    with new_folder(folder) as temporary:
        source = temporary / MASKED
        source.mkdir()
        base = masked(source)
        with progress.bar("shrink", 2) as bar:
            written = shrink_into(temporary, base, form, progress, targets)
            bar.advance("written")
            report = replace(written, verification=verify(base.folder, temporary))
            bar.advance("verified")
        small = BaseModel(temporary)
        stacks, name = stacks_of(report, small.config), name or base.title
        above = card_data(base.folder / "README.md")
        kept = {key: value for key, value in above.items() if key not in ("tags", "model-index", "library_name")}
        making = making or Making(base, "", f"compose shrink {name}", data=kept)
        card = shrunk_card(name, small, report, making, said(stacks))
        write_card(temporary, card, stacks, f"{name}, shrunk")
        # The base model of what was shrunk, which its figures are compared with.
        made = recorded_inputs(base.folder / RECORD) if (base.folder / RECORD).is_file() else None
        above_all = {"base": made["base"]} if made and "base" in made else {}
        shutil.rmtree(source)
        write_record(temporary, record(inputs, result=report.as_json(), **above_all, **more))
    return report


MASKED = "masked"
"""Where a masked model lies that is not kept, while the shrunk one is made of it."""


def load(folder: str | Path) -> nn.Module:
    """The model in ``folder``, ready for use: of the class that it has in transformers, in float32, its cache as saved.

    For folders of :func:`shrink` in any form, for checkpoints of transformers 4 with pruned heads, for ordinary ones.

    Raises:
        ModelError: no such folder, or what is in it is no whole model.
    """
    return BaseModel(folder).load(cache=True)
