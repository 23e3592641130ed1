"""`compose speed`: what models take to run, measured in turn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, get_args

from ..errors import InputError, RecipeError
from ..files.environment import machine, versions
from ..models.folder import BaseModel
from ..progress import SILENT, Progress
from ..recipe import Recipe
from ..workspace import Workspace

if TYPE_CHECKING:
    from ..models.exports import Export
    from ..timing.loaded import Loaded
    from ..timing.measure import Clock, Shapes
    from ..timing.records import LayerRow, Speed, Timed

Runtime = Literal["torch", "compile", "onnx", "onnx-int8", "openvino", "ct2", "ct2-int8"]
"""PyTorch as it is, or compiled; or a form that :func:`composer.export` writes."""
RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)

BATCH_SIZES = (1, 8, 32)
LENGTHS = (32, 128)
NEW_TOKENS = 32
ROUNDS = 15


def speed(
    models: Sequence[str | Path],
    *,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    lengths: Sequence[int] = LENGTHS,
    new_tokens: int = NEW_TOKENS,
    runtimes: Sequence[Runtime] = ("torch",),
    threads: int = 1,
    device: str = "auto",
    rounds: int = ROUNDS,
    layers: bool = False,
    memory: bool = True,
    output: Path | None = None,
    progress: Progress = SILENT,
) -> Speed:
    """Time models on random tokens, all of them in turn, and compare each with the first.

    Args:
        models: model folders, exported ones too, or 'demo'.
        batch_sizes: each is timed with each of ``lengths`` (tokens of a text, or of a prompt).
        new_tokens: of models that generate, timed apart from the prompt.
        runtimes: each model is run in each (exported for it into a temporary folder); an export in its own alone.
        threads: of PyTorch; more than the machine's cores are refused.
        rounds: times that each takes its turn; fewer (at least 7) where a round takes long.
        layers: also matrix by matrix: the last model's against the first's, or one model's against its dense self.
        memory: also the peak memory, in a process for each model.
        output: where to write the record as JSON, and a picture of the same name beside it.

    Raises:
        InputError: no such model, a length that one does not read, numbers below 1, too many threads.
    """
    from ..timing.measure import Shapes, clock_of
    from ..timing.records import Speed

    _check(batch_sizes, lengths, new_tokens, threads, rounds, runtimes)
    bases, where = [BaseModel(name) for name in models], Workspace(Recipe(device=device)).device
    shapes, clock = Shapes(batch_sizes, lengths, new_tokens, rounds), clock_of(where, threads)
    pairs: list[tuple[BaseModel, Runtime]] = [
        (base, runtime) for base in bases for runtime in ([_runtime_of(base.export)] if base.export else runtimes)
    ]
    for base, runtime in pairs:
        _check_runtime(base, runtime, where)
    timing = _Timing(pairs, shapes, clock, where, threads)
    result = Speed(
        device=where,
        threads=threads,
        clock=clock,
        rounds=rounds,
        new_tokens=new_tokens,
        **timing.measured(layers=layers, memory=memory, progress=progress),
        versions=versions(),
        machine=machine(),
    )
    if output:
        from ..timing.picture import draw

        result.write(output)
        draw(result, output.with_suffix(".png"))
    return result


@dataclass(frozen=True)
class _Timing:
    """What is timed: models, each in a runtime, and how."""

    pairs: Sequence[tuple[BaseModel, Runtime]]
    shapes: Shapes
    clock: Clock
    device: str
    threads: int

    def measured(self, *, layers: bool, memory: bool, progress: Progress) -> dict[str, Any]:
        """The fields of a :class:`~composer.timing.records.Speed` that a clock says."""
        from ..timing.measure import threads as computing_with
        from ..timing.measure import time_in_turn

        names = [runtime for _, runtime in self.pairs]
        short = _short([base.name for base, _ in self.pairs])
        labels = [short[base.name] for base, _ in self.pairs]
        with computing_with(self.threads), ExitStack() as stack:
            entries = [_loaded(base, runtime, self.device, stack, progress) for base, runtime in self.pairs]
            rows = time_in_turn(entries, self.shapes, self.clock, progress)
            matrices, note = _layers(entries, self.shapes, self.clock) if layers else ((), "")
            peaks = self._peaks(entries, names, progress) if memory else [None] * len(entries)
            timed = tuple(map(_timed, labels, entries, names, peaks))  # while what was exported is there
        return {"entries": timed, "rows": tuple(rows), "layers": matrices, "layers_note": note}

    def _peaks(self, entries: Sequence[Loaded], names: Sequence[Runtime], progress: Progress) -> list[int | None]:
        """The peak memory of each at the largest shape, one process after the other."""
        from ..timing.peak import peak_bytes

        shape = (max(self.shapes.batch_sizes), max(self.shapes.lengths), self.shapes.new_tokens)
        peaks: list[int | None] = []
        with progress.bar("memory", len(entries)) as bar:
            for entry, runtime in zip(entries, names, strict=True):
                how = {"compiled": runtime == "compile", "device": str(entry.device), "threads": self.threads}
                peaks.append(peak_bytes(entry.base.folder, shape=shape, **how))  # type: ignore[arg-type]
                bar.advance(entry.base.name)
        return peaks


def _check(
    batch_sizes: Sequence[int],
    lengths: Sequence[int],
    new_tokens: int,
    threads: int,
    rounds: int,
    runtimes: Sequence[str],
) -> None:
    """Refuse numbers that mean nothing, all of them at once."""
    import psutil

    flags = {"--batch-size": batch_sizes, "--length": lengths, "--new-tokens": [new_tokens], "--rounds": [rounds]}
    bad = [f"{flag}: got {n}; allowed: 1 or more" for flag, ns in flags.items() for n in ns if n < 1]
    cores = psutil.cpu_count() or 1
    if not 1 <= threads <= cores:
        bad.append(f"--threads: got {threads}; allowed: 1 to {cores} (this machine's)")
    bad += [f"--runtime: got {r!r}; allowed: {', '.join(RUNTIMES)}" for r in runtimes if r not in RUNTIMES]
    if bad:
        raise RecipeError(bad)


def _runtime_of(export: Export) -> Runtime:
    """What runs an export.

    Raises:
        InputError: nothing here does.
    """
    if export.form == "gguf":
        raise InputError(f"the export of {export.source} {export.can}, and nothing here does")
    return export.form


def _check_runtime(base: BaseModel, runtime: Runtime, device: str) -> None:
    """Refuse, before anything is loaded, what cannot run there."""
    if runtime in ("torch", "compile"):
        return
    if device != "cpu":
        raise RecipeError(f"--runtime: got {runtime}, which runs on the processor here, and --device {device}; use cpu")
    if not base.export:
        from ..exporting.convert import check_form

        check_form(base, runtime)  # type: ignore[arg-type]


def _loaded(base: BaseModel, runtime: Runtime, device: str, stack: ExitStack, progress: Progress) -> Loaded:
    """The model in a runtime; what is exported for it goes with ``stack``."""
    import torch

    from ..timing.loaded import Loaded

    if base.export:
        return Loaded.exported(base)
    if runtime in ("torch", "compile"):
        return Loaded.torch(base, torch.device(device), compiled=runtime == "compile")
    from ..exporting.convert import convert

    folder = Path(stack.enter_context(TemporaryDirectory()))
    with progress.bar(f"export {base.name} to {runtime}", 1) as bar:
        convert(base, runtime, folder)  # type: ignore[arg-type]
        bar.advance()
    return Loaded.exported(BaseModel(folder), base)


def _timed(name: str, entry: Loaded, runtime: Runtime, peak: int | None) -> Timed:
    from ..timing.records import Timed

    base = entry.base
    parameters = None if base.export else base.parameters
    return Timed(name, runtime, base.fingerprint, base.bytes, parameters, peak)


def _short(names: Sequence[str]) -> dict[str, str]:
    """Each model's folder by its own name, where no other has the same.

    >>> _short(["models/base", "models/2", "demo"]), _short(["a/0", "b/0"])
    ({'models/base': 'base', 'models/2': '2', 'demo': 'demo'}, {'a/0': 'a/0', 'b/0': 'b/0'})
    """
    last = {name: Path(name).resolve().name if "/" in name else name for name in dict.fromkeys(names)}
    uses = Counter(last.values())
    return {name: short if uses[short] == 1 else name for name, short in last.items()}


def _layers(entries: Sequence[Loaded], shapes: Shapes, clock: Clock) -> tuple[tuple[LayerRow, ...], str]:
    from ..timing.layers import time_layers

    models = [entry.counted for entry in entries if entry.counted is not None]
    if not models:
        raise InputError("--layers: none of these runs in PyTorch, where matrices can be timed one by one")
    tokens = max(shapes.batch_sizes) * max(shapes.lengths)
    return time_layers(models, tokens, shapes.rounds, entries[0].device, clock)
