"""`compose merge`: somebody's adapter into a pruned model, with not one zero lost."""

from __future__ import annotations

import hashlib
import re
import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelError, OutputError
from ..files.atomic import new_folder
from ..files.jsonfile import read_json
from ..files.records import RECORD, is_current, record, recorded_result, write_record
from ..files.safetensors import file_entries
from ..models.folder import BaseModel
from ..progress import SILENT, Progress
from ..workspace import Given, Workspace
from .outcome import Outcome

if TYPE_CHECKING:
    from torch import nn

    from ..tensors.mask_holder import MaskHolder

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
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
    space, base, source = Workspace.of(recipe), BaseModel(into), Path(adapter).expanduser()
    folder = Path(output).expanduser() if output else base.beside("-merged")
    if folder.resolve() in (base.folder.resolve(), source.resolve()):
        raise OutputError(f"-o/--output: {folder}: is read by this command; name another folder")
    described = _described(source)
    _check_fits(source, described, base, force=force)
    space.assume_base(base)
    data = space.examples("valid").first(EXAMPLES) if space.recipe.data else None
    with (source / WEIGHTS).open("rb") as file:
        identity = hashlib.file_digest(file, "sha256").hexdigest()
    inputs = {"model": base.fingerprint, "adapter": identity, "config": described, "data": data and data.digest}
    if is_current(folder, inputs, force=force):
        return Outcome(folder, False, recorded_result(folder) or {})
    model, result = _merged(space, base, source, data, progress)
    with new_folder(folder) as temporary:
        base.save(model, temporary)
        if (base.folder / "README.md").is_file():
            shutil.copyfile(base.folder / "README.md", temporary / "README.md")
        write_record(temporary, record(inputs, result=result, **_above(base)))
    return Outcome(folder, True, result)


def _described(source: Path) -> dict[str, Any]:
    """What peft has written about the adapter."""
    if not source.is_dir():
        raise ModelError(f"{source}: no such folder; allowed: one that peft has saved")
    for name in (CONFIG, WEIGHTS):
        if not (source / name).is_file():
            raise ModelError(f"{source}: has no {name}; allowed: a folder that peft has saved (safetensors)")
    described = read_json(source / CONFIG, ModelError)
    if not isinstance(described, dict) or described.get("peft_type") != "LORA":
        got = described.get("peft_type") if isinstance(described, dict) else described
        raise ModelError(f"{source / CONFIG}: peft_type: got {got!r}; allowed: LORA (also DoRA)")
    return described


def _check_fits(source: Path, described: dict[str, Any], base: BaseModel, *, force: bool) -> None:
    """The adapter's matrices have the shapes of this model, and the model that it names, where it lies here, is this
    one or the one that this was made from."""
    shapes = {q.path: (q.rows, q.in_features) for t in base.layout.targets for q in t.projections}
    problems = []
    for entry in file_entries(source / WEIGHTS):
        found = re.fullmatch(r"base_model\.model\.(.+)\.lora_([AB])(?:\.\w+)?\.weight", entry.name)
        if not found or found[1] not in shapes:
            continue  # embeddings and heads: peft itself says what does not fit
        rows, columns = shapes[found[1]]
        has, wanted = (entry.shape[1], columns) if found[2] == "A" else (entry.shape[0], rows)
        if has != wanted:
            problems.append(f"{source}: {found[1]}: adapter of {has} features, {base.name} has {wanted}")
    if problems:
        raise ModelError([*problems[:3], f"{source}: made for another base model, or before it was shrunk"])
    named = str(described.get("base_model_name_or_path") or "")
    if not force and (Path(named) / "config.json").is_file():
        own = BaseModel(named).fingerprint
        if own not in {base.fingerprint, _above(base).get("base")}:
            raise ModelError(
                f"{source}: was made for {named}, which is neither {base.name} nor what that was made from; "
                "--force merges it all the same"
            )


def _above(base: BaseModel) -> dict[str, Any]:
    """The fingerprint of the model that this one was made from, if its record has it."""
    path = base.folder / RECORD
    content = read_json(path, OutputError) if path.is_file() else {}
    found = content.get("base") or content.get("inputs", {}).get("base")
    return {"base": found} if found else {}


def _merged(
    space: Workspace, base: BaseModel, source: Path, data: Any, progress: Progress
) -> tuple[nn.Module, dict[str, Any]]:
    from ..tasks.loss import mean_loss
    from ..tensors.mask_holder import MaskHolder
    from ..tensors.masks import zeros_as_masks
    from ..training.adapters import import_peft

    peft = import_peft("compose merge")
    model = base.load()
    holder = MaskHolder(
        dict(model.named_parameters()), zeros_as_masks(dict(model.named_parameters()), base.layout.targets)
    )
    result: dict[str, Any] = {"zeros": {"before": holder.removed}, "loss": {}}

    def measured(when: str, one: nn.Module) -> None:
        if data is not None:
            result["loss"][when] = mean_loss(one.to(space.device), space.task, data)
        bar.advance(when)

    with progress.bar("merge", 3) as bar:
        measured("before", model)
        try:
            with warnings.catch_warnings():  # peft asks transformers by an older name
                warnings.simplefilter("ignore", FutureWarning)
                adapted = peft.PeftModel.from_pretrained(model, str(source))
        except (RuntimeError, ValueError, KeyError) as bad:
            raise ModelError(f"{source}: does not fit {base.name}: {str(bad).splitlines()[0]}") from bad
        merged = adapted.merge_and_unload()
        measured("adapter", merged)
        kept = _hold_again(merged, holder)
        measured("merged", merged)
    lost = holder.removed - kept
    holder.check("merged")
    result["zeros"] |= {"adapter": kept, "merged": holder.removed, "filled": lost}
    return merged.to("cpu").eval(), result


def _hold_again(model: nn.Module, holder: MaskHolder) -> int:
    """Set what the adapter has filled to 0 again; returns how many zeros it had left."""
    parameters = dict(model.named_parameters())
    holder.parameters = {name: parameters[name] for name in holder.masks}
    left = sum(int((p.detach()[~holder.masks[name].to(p.device)] == 0).sum()) for name, p in holder.parameters.items())
    holder.apply()
    return left
