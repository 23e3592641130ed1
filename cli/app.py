"""The command line: the table of commands, and how an exception becomes an exit status.

============================  ===========================================================
exit status                   when
============================  ===========================================================
0                             done, or nothing to do
1                             a bug: the traceback is shown
2                             something given cannot be used, or the disk is full
130                           interrupted
141                           nobody reads standard output any more
============================  ===========================================================
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator, Sequence

from cyclopts import App, CycloptsError, Parameter

import composer
from composer.errors import InputError

ABOUT = "Prune and fine-tune one Transformer into many versions for far less than the price of each alone."

COMMANDS: dict[str, tuple[str, str]] = {
    "download": ("runs:download", "Bring a base model from the hub into a folder."),
    "generate-config": ("scheme:generate_config", "Write pruning configurations from lists of rates."),
    "generate-scheme": ("scheme:generate_scheme", "Plan which pieces the configurations share."),
    "show": ("scheme:show", "Show a scheme or a model as a table and a picture."),
    "prune": ("blocks:prune", "Prune every variant once, into a library."),
    "finetune": ("blocks:finetune", "Fine-tune the shared blocks, or whole models."),
    "build-model": ("blocks:build_model", "Compose a configuration's model from the library."),
    "evaluate": ("measure:evaluate", "Measure models on the task's test data."),
    "predict": ("measure:predict", "Try a model on a text, or on lines of standard input."),
    "plot": ("measure:plot", "Draw the loss curves of any number of runs."),
    "compare": ("measure:compare", "Compare composed models with baselines; write the report."),
    "run": ("runs:run", "Do all of it from one recipe, skipping what is done."),
    "demo": ("runs:demo", "Do all of it on the embedded model and corpus."),
}
"""Name -> (where it is, one line), in the order of the work. A command's file is imported when it is used."""

INTERRUPTED = 130
BROKEN_PIPE = 141
USERS_ERRNOS = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.ENAMETOOLONG,
)


def build_app(chosen: str | None = None) -> App:
    """The cyclopts application. ``chosen`` keeps its own docstring as help; the others have one line."""
    app = App(
        name="compose",
        help=ABOUT,
        help_format="plaintext",
        version=composer.__version__,
        default_parameter=Parameter(show_default=False, negative=""),
        suppress_keyboard_interrupt=False,
    )
    for i, (name, (target, line)) in enumerate(COMMANDS.items()):
        app.command(f"composer.cli.{target}", name=name, help=None if name == chosen else line, sort_key=i)
    app["--help"].help = "Show this and exit."
    app["--version"].help = "Show the version and exit."
    return app


def call(argv: Sequence[str]) -> int:
    """Run one command line and return its exit status."""
    from .console import error_lines, help_console, plain_line

    chosen = next((word for word in argv if not word.startswith("-")), None)
    try:
        build_app(chosen)(
            list(argv),
            console=help_console(),
            print_error=False,
            exit_on_error=False,
            result_action="return_value",
        )
        sys.stdout.flush()
        return 0
    except InputError as bad:
        error_lines(bad.problems)
        return 2
    except CycloptsError as bad:
        from .parsing import parse_problem

        error_lines([parse_problem(bad, chosen, COMMANDS)])
        return 2
    except KeyboardInterrupt:
        plain_line("interrupted; finished work is kept")
        return INTERRUPTED
    except BrokenPipeError:
        _drop_output()
        return BROKEN_PIPE
    except Exception as bad:
        problem = _users_problem(bad)
        if problem is None:
            raise
        _drop_output()
        error_lines([problem])
        return 2


def main() -> None:
    """Entry point of ``compose`` and of ``python -m composer``."""
    sys.exit(call(sys.argv[1:]))


def _drop_output() -> None:
    """Send what is still buffered nowhere: the interpreter flushes standard output once more when it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _users_problem(bad: Exception) -> str | None:
    """One line for failures of the file system that the user can mend; None for anything else."""
    for error in _chain(bad):
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or "No space left on device" in str(error):
            place = getattr(error, "filename", None)
            return f"{place or 'output'}: cannot be written: the disk is full; finished work is kept"
    if isinstance(bad, OSError) and bad.errno in USERS_ERRNOS and bad.filename is not None:
        return f"{bad.filename}: {(bad.strerror or str(bad)).lower()}"
    return None


def _chain(bad: BaseException | None) -> Iterator[BaseException]:
    while bad is not None:
        yield bad
        bad = bad.__cause__ or bad.__context__
