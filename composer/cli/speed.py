"""The command that measures what models take to run: speed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from .format import NONE, number, percent, plural, size
from .options import TALK, Talk
from .parameters import Device, Whole
from .session import talking
from .tables import Sheet, Shown

if TYPE_CHECKING:
    from composer.timing.records import Row, Speed

DEFAULT = Path("results") / "speed.json"

Numbers = Annotated[list[Whole], Parameter(consume_multiple=(1, 1_000_000), metavar="N...")]
Runtimes = Annotated[
    list[Literal["torch", "compile", "onnx", "onnx-int8", "openvino", "ct2", "ct2-int8"]],
    Parameter(consume_multiple=(1, 100)),
]


def speed(
    models: Annotated[list[str], Parameter("MODEL", help="Model folders, or 'demo'; compared with the first.")],
    /,
    *,
    batch_size: Annotated[Numbers | None, Parameter(help="Texts at once [1 8 32].")] = None,
    length: Annotated[Numbers | None, Parameter(help="Tokens of a text, or of a prompt [32 128].")] = None,
    new_tokens: Annotated[Whole, Parameter(help="That models make, where they generate [32].")] = 32,
    runtime: Annotated[Runtimes | None, Parameter(help="What runs them [torch].")] = None,
    threads: Annotated[Whole, Parameter(help="Of the processor [1].")] = 1,
    rounds: Annotated[Whole, Parameter(help="Times that each takes its turn [15].")] = 15,
    layers: Annotated[bool, Parameter(help="Also matrix by matrix, dense and as in the model.")] = False,
    memory: Annotated[bool, Parameter(negative="--no-memory", help="Also peak memory [yes].")] = True,
    device: Device = None,
    output: Annotated[
        Path, Parameter(["-o", "--output"], help="Record; a picture beside it [results/speed.json].")
    ] = DEFAULT,
    talk: Talk = TALK,
) -> None:
    """Measure what models take to run.

    Each model runs on random tokens, all of them in turn, round by round;
    shown are medians with quartiles, and how many times as fast as the first
    model each one is, in pairs, with an interval that holds the true ratio in
    95 of 100 cases. Where the spread is larger than the difference it says
    so. With one thread the ratio is of processor time, which other programs
    do not disturb. Models that generate: the prompt and each new token apart.

    Example

        compose speed models/base models/2-finetuned
        compose speed models/base models/2-shrunk --batch-size 1 16 --length 128
        compose speed models/base models/2-shrunk --layers --device cuda --json
    """
    from composer.steps.speed import BATCH_SIZES, LENGTHS
    from composer.steps.speed import speed as work

    with talking(talk) as console:
        measured = work(
            models,
            batch_sizes=batch_size or BATCH_SIZES,
            lengths=length or LENGTHS,
            new_tokens=new_tokens,
            runtimes=runtime or ("torch",),
            threads=threads,
            device=device or "auto",
            rounds=rounds,
            layers=layers,
            memory=memory,
            output=output,
            progress=console.progress,
        )
        console.show(measured.plain(), [*shown(measured), f"record: {output}; picture: {output.with_suffix('.png')}"])


def shown(speed: Speed) -> Shown:
    """Tables of a record: what was timed, then a table for each part."""
    what = Sheet("Models", ["model", "runtime"], ["parameters", "on disk", "peak memory"])
    for entry in speed.entries:
        parameters = NONE if entry.parameters is None else f"{entry.parameters:,}"
        what.add_row(entry.name, entry.runtime, parameters, size(entry.bytes), size(entry.peak_bytes))
    yield what
    for part in dict.fromkeys(row.part for row in speed.rows):
        yield _times(speed, [row for row in speed.rows if row.part == part])
    yield from dict.fromkeys(f"{speed.entries[r.entry].label}: {r.why}" for r in _largest(speed) if r.why)
    if speed.layers:
        yield _layers(speed)


def timed(record: Mapping[str, Any]) -> Shown:
    """The tables of a record that is plain data."""
    from composer.timing.records import Speed

    yield from shown(Speed.of_plain(record))


def _times(speed: Speed, rows: list[Row]) -> Sheet:
    part = {"forward": "A pass", "prompt": "Prompt and first new token", "new tokens": "Each further new token"}
    clock = "processor time" if speed.clock == "processor" else "time on the wall"
    caption = (
        f"{speed.device}, {plural(speed.threads, 'thread')}, {plural(speed.rounds, 'round')} in turn (fewer where one "
        f"takes long); ± half of the quartiles' distance; times as fast: {clock}, in pairs, [95 % interval]."
    )
    names = ["batch", "length", "model"]
    figures = ["ms", "±", "processor ms", "tokens/s", "times as fast", "by MACs"]
    sheet = Sheet(part[rows[0].part], names, figures, caption)
    before = None
    for row in rows:
        if before not in (None, (row.batch_size, row.length)):
            sheet.add_section()
        before = (row.batch_size, row.length)
        spread = (row.wall.high - row.wall.low) / 2
        times = [_ms(row.wall.median), _ms(spread), _ms(row.processor.median), f"{row.tokens_per_second:,.0f}"]
        macs = NONE if row.macs_ratio is None else f"{row.macs_ratio:.2f}"
        sheet.add_row(*map(str, before), speed.entries[row.entry].label, *times, _faster(row), macs)
    return sheet


def _faster(row: Row) -> str:
    if row.faster is None:
        return NONE
    if row.faster.noisy:
        return f"too noisy to say (± {row.faster.resolution:.0%})".replace("%", " %")
    return f"{row.faster.value:.2f} [{row.faster.low:.2f}, {row.faster.high:.2f}]"


def _largest(speed: Speed) -> list[Row]:
    """Of each entry and part the row with the most work, to say a sentence about."""
    rows = {(row.entry, row.part): row for row in sorted(speed.rows, key=lambda r: r.batch_size * r.length)}
    return [rows[key] for key in sorted(rows)]


def _layers(speed: Speed) -> Sheet:
    sheet = Sheet(
        "Matrix by matrix",
        ["layer", "shape", "in the model"],
        ["of these", "zeros", "dense ms", "own ms", "times as fast"],
        speed.layers_note,
    )
    for row in speed.layers:
        dense, own = ("x".join(map(str, shape)) for shape in (row.dense_shape, row.shape))
        kind = own if row.kind == "smaller" else row.kind
        faster = "too noisy to say" if row.faster.noisy else number(row.faster.value, 2)
        times = [_ms(row.dense.median), _ms(row.own.median), faster]
        sheet.add_row(row.path, dense, kind, str(row.count), percent(row.sparsity), *times)
    return sheet


def _ms(seconds: float) -> str:
    """Milliseconds with three figures.

    >>> _ms(0.0123456), _ms(0.123456), _ms(1.23456)
    ('12.3', '123', '1,235')
    """
    value = 1e3 * seconds
    if abs(value) >= 99.5:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 9.95 else f"{value:.3g}"
