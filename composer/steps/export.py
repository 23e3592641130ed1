"""`compose export`: a model in another form, verified."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import OutputError
from ..files.atomic import new_folder
from ..files.jsonfile import read_json, write_json
from ..files.records import RECORD, is_current
from ..models.exports import Form
from ..models.folder import BaseModel
from ..progress import SILENT, Progress
from ..workspace import Given, Workspace
from .outcome import Outcome

EXAMPLES = 100


def export(
    recipe: Given,
    model: str | Path,
    to: Form,
    *,
    output: str | Path | None = None,
    examples: int = EXAMPLES,
    force: bool = False,
    progress: Progress = SILENT,
) -> Outcome:
    """Write a model in another form, and compare it with the original.

    Args:
        recipe: names the data (``data``), on whose first test examples the metric of both is measured; without any only
            answers, milliseconds and bytes are compared.
        to: onnx, onnx-int8, openvino, ct2, ct2-int8, gguf. Nothing here runs the last one: it is read back instead.
        output: the new folder [the model's name with the form behind it].
        examples: test examples, at most.
        force: replace an output that was made from something else.

    Raises:
        ModelError: packages are missing (it says what to install), the exporter cannot do this model, or an export in
            32 bits gives other answers.
        OutputError: the form is not for this kind of model, or the output exists and was made from other inputs.
    """
    from ..exporting.convert import check_form, convert
    from ..exporting.llama_cpp import FILE, ReadBack, read_back
    from ..exporting.verify import Verified, verify
    from ..timing.measure import threads

    space, base = Workspace.of(recipe), BaseModel(model)
    check_form(base, to)
    folder = base.made_into(output, f"-{to}")
    space.assume_base(base)
    task = space.task if space.recipe.data or base.name == "demo" else None
    data = space.examples("test").first(examples) if task else None
    inputs: dict[str, Any] = {"model": base.fingerprint, "to": to}
    if is_current(folder, inputs, force=force):
        return Outcome(folder, False, _said(folder))
    with new_folder(folder) as temporary, progress.bar(f"export to {to}", 2) as bar, threads(1):
        loaded = convert(base, to, temporary)
        bar.advance("written")
        verified: ReadBack | Verified
        if to == "gguf":
            verified = read_back(temporary / FILE, base, loaded)
        else:
            verified = verify(base, loaded, BaseModel(temporary), to, task, data)
        bar.advance("verified")
        record = read_json(temporary / RECORD, OutputError)
        write_json(temporary / RECORD, record | {"result": {"form": to, **verified.plain()}})
    return Outcome(folder, True, _said(folder))


def _said(folder: Path) -> dict[str, Any]:
    return dict(read_json(folder / RECORD, OutputError).get("result") or {})
