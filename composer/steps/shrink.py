"""`compose shrink`: a masked model without what is removed from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import OutputError, RecipeError, did_you_mean
from ..files.atomic import new_folder
from ..files.records import is_current, record, recorded_result, write_record
from ..models.folder import BaseModel
from ..progress import SILENT, Progress
from .outcome import Outcome

if TYPE_CHECKING:
    from torch import nn

    from ..shrinking.shrink import Asked

FORMS = ("auto", "plain", "padded", "exact")


def shrink(
    model: str | Path,
    output: str | Path | None = None,
    form: Asked = "auto",
    *,
    force: bool = False,
    progress: Progress = SILENT,
) -> Outcome:
    """Take out of a masked model what is removed from it, and verify that the result is the same model.

    Heads, neurons, sublayers and layers go that are wholly zero; single zeros among what stays remain. The result is
    loaded by :func:`composer.load`, by every command that takes a model, and by transformers: as any model in the
    ``plain`` and ``padded`` forms, with ``trust_remote_code=True`` in the ``exact`` one.

    Args:
        model: a folder whose removed weights are 0, made by Composer or not.
        output: the new folder [the model's name with ``-shrunk``].
        form: ``plain`` if the configuration of the architecture can state the result; ``exact`` gives every layer its
            own shape; ``padded`` is plain with zero units up to the largest layer; ``auto`` is plain if possible, else
            exact.
        force: replace an output that was made from something else.

    Raises:
        ModelError: nothing can be taken out, the form cannot state the result, or the result is not the same model.
        OutputError: the output exists and was made from other inputs.
    """
    if form not in FORMS:
        raise RecipeError(f"--form: got {form!r}; allowed: {', '.join(FORMS)}{did_you_mean(form, FORMS)}")
    base = BaseModel(model)
    folder = Path(output).expanduser() if output else base.folder.with_name(f"{base.folder.name}-shrunk")
    if folder.resolve() == base.folder.resolve() or folder.resolve() in base.folder.resolve().parents:
        raise OutputError(f"-o/--output: {folder}: the model is read from there; name another folder")
    inputs = {"stage": "shrunk", "model": base.fingerprint, "form": form}
    if is_current(folder, inputs, force=force):
        return Outcome(folder, False, recorded_result(folder) or {})
    return Outcome(folder, True, shrink_folder(base, folder, form, inputs, progress=progress))


def shrink_folder(
    base: BaseModel, folder: Path, form: Asked, inputs: dict[str, Any], *, progress: Progress = SILENT
) -> dict[str, Any]:
    """Shrink ``base`` into ``folder``, verify it, and keep the record of it; returns the report as plain data."""
    from ..shrinking.shrink import shrink_into
    from ..shrinking.verify import verify

    with new_folder(folder) as temporary, progress.bar("shrink", 2) as bar:
        report = shrink_into(temporary, base, form, progress)
        bar.advance("written")
        report = replace(report, verification=verify(base.folder, temporary))
        bar.advance("verified")
        result = report.as_json()
        write_record(temporary, record(inputs, result=result))
    return result


def load(folder: str | Path) -> nn.Module:
    """The model in ``folder``, ready for use: of the class that it has in transformers, in float32, its cache as saved.

    For folders of :func:`shrink` in any form, for checkpoints of transformers 4 with pruned heads, for ordinary ones.

    Raises:
        ModelError: no such folder, or what is in it is no whole model.
    """
    return BaseModel(folder).load(cache=True)
