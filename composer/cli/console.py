"""The only place that prints: results on standard output, all else on standard error.

Nothing here knows what a step does: tables are built in ``tables``, errors come as plain lines.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from time import perf_counter
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from rich.console import Console as Rich
from rich.console import RenderableType

from composer.progress import SILENT, Bar, Progress, log_level
from composer.steps.outcome import Outcome

from .format import duration

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

PIPE_WIDTH = 120
"""Columns when the output is no terminal: tables keep all their figures."""
LOG_SECONDS = 30.0
"""At least so long between two lines of a log about one piece of work."""


class _Stream(Rich):
    """A rich console that leaves a broken pipe to `composer.cli.app`."""

    def on_broken_pipe(self) -> NoReturn:
        raise BrokenPipeError


def _rich(file: TextIO) -> Rich:
    """A console that prints texts as they are: no markup, no emoji, no highlighting."""
    wide = None if file.isatty() else max(PIPE_WIDTH, _columns())
    return _Stream(file=file, width=wide, markup=False, emoji=False, highlight=False)


def help_console() -> Rich:
    """What help is printed with: as wide as the terminal; in a pipe as $COLUMNS says, else 80 columns."""
    return _Stream(width=None if sys.stdout.isatty() else _columns() or 80, highlight=False)


def _columns() -> int:
    given = os.environ.get("COLUMNS", "")
    return int(given) if given.isdecimal() else 0


def error_lines(problems: Iterable[str]) -> None:
    """Print each problem as one line ``error: …`` on standard error."""
    stream = _rich(sys.stderr)
    for problem in problems:
        stream.print("error: ", style="bold red", end="")
        stream.print(" ".join(problem.split()), soft_wrap=True)


def plain_line(text: str) -> None:
    """Print one line on standard error."""
    _rich(sys.stderr).print(text, soft_wrap=True)


class Console:
    """What one command prints with.

    Args:
        quiet: nothing but errors.
        as_json: results as JSON, and nothing else on standard output.
        speaks: False keeps results back: another process of the same command shows them.
    """

    def __init__(self, *, quiet: bool = False, as_json: bool = False, speaks: bool = True) -> None:
        self.quiet, self.speaks = quiet, speaks
        self.as_json = as_json
        self._out = sys.stdout
        self._err = _rich(sys.stderr)
        self.progress: Progress = SILENT if quiet else _Notes(self._err)
        if not quiet and not as_json:
            self.progress = _Bars(self._err) if self._err.is_terminal else _Log(self._err)

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Print what Composer's own log says as notes, each line once.

        What libraries print goes to standard error while JSON is promised on standard output.
        """
        with self._logged():
            if not self.as_json:
                yield
                return
            with redirect_stdout(sys.stderr):
                yield

    @contextmanager
    def _logged(self) -> Iterator[None]:
        handler = _LogNotes(self.progress)
        with log_level("composer", logging.INFO) as log:
            log.addHandler(handler)
            try:
                yield
            finally:
                log.removeHandler(handler)

    def show(self, value: Any, shown: Iterable[RenderableType]) -> None:
        """Print a result: ``value`` as JSON, or the lines and tables of ``shown``."""
        if not self.speaks:
            return
        if self.as_json:
            text = json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False)
            print(text, file=self._out)
        elif not self.quiet:
            self._print(shown)

    def lines(self, value: Any, texts: Sequence[str]) -> None:
        """Print an answer that is text itself, one line each, even when quiet; or ``value`` as JSON."""
        if self.as_json:
            self.show(value, ())
            return
        for text in texts if self.speaks else ():
            print(text, file=self._out)

    def _print(self, shown: Iterable[RenderableType]) -> None:
        """Print lines, and tables with a blank line around each."""
        out, before = _rich(self._out), None
        for item in shown:
            if before is not None and not (isinstance(item, str) and isinstance(before, str)):
                out.print()
            # Lines are for pipes as they are; on a terminal they wrap between words.
            out.print(item, soft_wrap=isinstance(item, str) and not out.is_terminal, crop=False)
            before = item


def _plain(value: Any) -> Any:
    """JSON data: outcomes as one object, paths as text, numbers that are not finite as null."""
    if isinstance(value, Outcome):
        return {"output": str(value.output), "fresh": value.fresh, **_plain(value.summary)}
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (str, int)) else str(value)


class _Notes(Progress):
    """Notes only, on standard error."""

    def __init__(self, stream: Rich) -> None:
        self._stream = stream

    def note(self, text: str) -> None:
        self._stream.print(text, soft_wrap=True)


class _LogNotes(logging.Handler):
    """Log records as notes; a model that is opened several times is spoken of once."""

    def __init__(self, progress: Progress) -> None:
        super().__init__(logging.INFO)
        self._progress, self._said = progress, set[str]()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text not in self._said:
            self._said.add(text)
            self._progress.note(text)


class _LogBar(Bar):
    """Keeps the last detail, for the line at the end; a line now and then, when the work takes long."""

    def __init__(self, log: _Log, label: str, total: int) -> None:
        self.log, self.label, self.total = log, label, total
        self.done, self.detail = 0, ""
        self.began = self.told = perf_counter()

    def advance(self, detail: str = "") -> None:
        self.done, self.detail = self.done + 1, detail or self.detail
        now = perf_counter()
        if now - self.told >= LOG_SECONDS and self.done < self.total:
            left = (now - self.began) * (self.total / self.done - 1)
            self.log.note(f"{self.label} … {self.done}/{self.total}, {duration(left)} left{self.where()}")
            self.told = now

    def where(self) -> str:
        return f", {self.detail}" if self.detail else ""


class _Log(_Notes):
    """Without a terminal: a line when a piece of work starts, one when it is done, and some between."""

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Bar]:
        self.note(f"{label} …")
        bar = _LogBar(self, label, total)
        yield bar
        self.note(f"{label} … done in {duration(perf_counter() - bar.began)}{bar.where()}")


class _LiveBar(Bar):
    """One row of the live display."""

    def __init__(self, bars: Bars, task: TaskID) -> None:
        self._bars, self._task = bars, task

    def advance(self, detail: str = "") -> None:
        if detail:
            self._bars.update(self._task, advance=1, detail=detail)
        else:
            self._bars.advance(self._task)


class _Bars(_Notes):
    """On a terminal: a live bar with count, detail and time left; inner bars vanish when done."""

    def __init__(self, stream: Rich) -> None:
        super().__init__(stream)
        self._bars: Bars | None = None

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Bar]:
        outermost = self._bars is None
        bars = self._bars or self._new()
        self._bars = bars
        if outermost:
            bars.start()
        task = bars.add_task(label, total=total, detail="")
        try:
            yield _LiveBar(bars, task)
        finally:
            if outermost:
                bars.stop()
                self._bars = None
            else:
                bars.remove_task(task)

    def _new(self) -> Bars:
        from rich import progress
        from rich.table import Column

        # Where the terminal is narrow the label wraps; figures stay whole.
        return progress.Progress(
            progress.TextColumn("{task.description}", markup=False, table_column=Column(min_width=16)),
            progress.BarColumn(bar_width=10),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[detail]}", markup=False),
            progress.TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            console=self._stream,
            refresh_per_second=4,
        )
