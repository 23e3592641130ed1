"""`compose merge`: somebody's adapter into a pruned model, with not one zero lost."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelError, OutputError
from ..files.atomic import new_folder
from ..files.jsonfile import read_json
from ..files.records import RECORD, is_current, record, recorded_result, write_record
from ..models.adapters import Adapter, hold_again
from ..models.folder import BaseModel
from ..progress import SILENT, Progress
from ..workspace import Given, Workspace
from .outcome import Outcome

if TYPE_CHECKING:
    from torch import nn

EXAMPLES = 256


def merge(
    recipe: Given,
    adapter: str | Path,
    into: str | Path,
    *,
    output: str | Path | None = None,
    force: bool = False,
    progress: Progress = SILENT,
) -> Outcome:
    """Merge an adapter of peft (LoRA, DoRA) into a masked, shrunk or dense model; a masked one keeps every zero.

    Args:
        recipe: names the data (``data``), on whose first validation examples the loss is measured: before, with the
            adapter as it is, and merged. Without any only zeros are counted.
        adapter: a folder that peft has saved.
        into: the model's folder.
        output: the new folder [the model's name with ``-merged`` behind it].
        force: replace an output that was made from something else; merge an adapter of another base model.

    Raises:
        ModelError: peft is not installed, the adapter is damaged, or of another base model.
        OutputError: the output exists and was made from other inputs.
    """
    space, base, source = Workspace.of(recipe), BaseModel(into), Adapter(Path(adapter).expanduser())
    folder = Path(output).expanduser() if output else base.beside("-merged")
    if folder.resolve() in (base.folder.resolve(), source.folder.resolve()):
        raise OutputError(f"-o/--output: {folder}: is read by this command; name another folder")
    source.check_shapes(base.layout, base.name)
    if not force:
        _check_base(source, base)
    space.assume_base(base)
    data = space.examples("valid").first(EXAMPLES) if space.recipe.data else None
    inputs: dict[str, Any] = {"model": base.fingerprint, "adapter": source.digest, "config": source.config}
    inputs["data"] = data and data.digest
    if is_current(folder, inputs, force=force):
        return Outcome(folder, False, recorded_result(folder) or {})
    model, result = _merged(space, base, source, data, progress)
    with new_folder(folder) as temporary:
        base.save(model, temporary)
        if (base.folder / "README.md").is_file():
            shutil.copyfile(base.folder / "README.md", temporary / "README.md")
        write_record(temporary, record(inputs, result=result, **_above(base)))
    return Outcome(folder, True, result)


def _check_base(adapter: Adapter, base: BaseModel) -> None:
    """The model that the adapter names, where it lies here, is this one or the one that this was made from."""
    named = adapter.base_folder
    if named and BaseModel(named).fingerprint not in {base.fingerprint, _above(base).get("base")}:
        raise ModelError(
            f"{adapter.folder}: was made for {named}, which is neither {base.name} nor what that was made from; "
            "--force merges it all the same"
        )


def _above(base: BaseModel) -> dict[str, Any]:
    """The fingerprint of the model that this one was made from, if its record has it."""
    path = base.folder / RECORD
    content = read_json(path, OutputError) if path.is_file() else {}
    found = content.get("base") or content.get("inputs", {}).get("base")
    return {"base": found} if found else {}


def _merged(
    space: Workspace, base: BaseModel, source: Adapter, data: Any, progress: Progress
) -> tuple[nn.Module, dict[str, Any]]:
    from ..tasks.loss import mean_loss
    from ..tensors.mask_holder import MaskHolder

    model = base.load()
    holder = MaskHolder.of_zeros(model, base.layout.targets)
    result: dict[str, Any] = {"zeros": {"before": holder.removed}, "loss": {}}

    def measured(when: str, one: nn.Module) -> None:
        if data is not None:
            result["loss"][when] = mean_loss(one.to(space.device), space.task, data)
        bar.advance(when)

    with progress.bar("merge", 3) as bar:
        measured("before", model)
        merged = source.merged(model, base.name)
        measured("adapter", merged)
        kept = hold_again(merged, holder)
        measured("merged", merged)
    lost = holder.removed - kept
    holder.check("merged")
    result["zeros"] |= {"adapter": kept, "merged": holder.removed, "filled": lost}
    return merged.to("cpu").eval(), result
