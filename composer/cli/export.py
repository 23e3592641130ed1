"""The command that writes models in other forms: export."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from cyclopts import Parameter

from .format import number, plural, size
from .options import COMMON, DATA, Common, Data
from .parameters import Force, Output, Whole
from .session import session
from .tables import Sheet, Shown, finished

To = Literal["onnx", "onnx-int8", "openvino", "ct2", "ct2-int8", "gguf"]


def export(
    model: Annotated[str, Parameter("MODEL", help="Model folder, hub id, or 'demo'.")],
    /,
    *,
    to: Annotated[To, Parameter(help="ct2 (CTranslate2) is for translation, gguf (llama.cpp) for Llama, Qwen, Gemma.")],
    output: Output = None,
    examples: Annotated[Whole, Parameter(help="Test examples of --data that both are measured on [100].")] = 100,
    data: Data = DATA,
    force: Force = False,
    common: Common = COMMON,
) -> None:
    """Write a model for another runtime, and compare both.

    ONNX, OpenVINO or CTranslate2, in 32 or 8 bits. The result is run beside
    the original: the largest difference of their answers, the metric (with
    --data), milliseconds and megabytes. evaluate, predict and speed take the
    folder like any model. A gguf file is for llama.cpp: all of it is read back
    and compared. Needs the extras onnx, openvino, translate or gguf.

    Example

        compose export models/2-shrunk --to onnx --data sst2
        compose export models/2-shrunk --to ct2-int8 --data multi30k -o small
    """
    from composer.steps.export import export

    with session(common, data) as (recipe, console):
        outcome = export(recipe, model, to, output=output, examples=examples, force=force, progress=console.progress)
        console.show(outcome, shown(outcome.summary, finished(outcome, f"{to} of {model}")))


def shown(made: dict[str, Any], line: str) -> Shown:
    """What was compared, and where the folder is."""
    if "tensors" in made:
        before, after = made["bytes"]
        yield (
            f"architecture {made['architecture']}, {plural(made['tensors'], 'tensor')} read back, largest difference "
            f"{made['difference']:.1g}; {size(before)} to {size(after)}; not run: llama.cpp does that"
        )
        yield line
        return
    said = f"on random texts: largest relative difference of {made['of']} {made['difference']:.1g}"
    sheet = Sheet("Compared", [""], ["original", made["form"]], said)
    for name, (before, after) in made["metrics"].items():
        sheet.add_row(f"{name} ({made['examples']} examples)", number(before), number(after))
    if made["loss"]:
        sheet.add_row("loss", *(number(value) for value in made["loss"]))
    before, after = made["milliseconds"]
    faster = made["faster"]
    ratio = "too noisy to say" if faster["noisy"] else f"{faster['value']:.2f} times as fast"
    sheet.add_row(f"ms, batch 1 ({ratio})", number(before, 1), number(after, 1))
    sheet.add_row("weights", *(size(count) for count in made["bytes"]))
    yield sheet
    if not made["examples"]:
        yield "no metric was measured: name data with --data"
    yield line
