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
import inspect
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module

from cyclopts import App, CycloptsError, Parameter

import composer
from composer.errors import InputError

ABOUT = "Make many pruned versions of one Transformer, for less work than making each one separately."

COMMANDS: dict[str, tuple[str, str]] = {
    "download": ("runs:download", "Bring a base model from the hub into a folder."),
    "generate-config": ("scheme:generate_config", "Write pruning configurations from lists of rates."),
    "choose": ("choose:choose", "Choose what each layer keeps, for a wished speed or size."),
    "generate-scheme": ("scheme:generate_scheme", "Plan which pieces the configurations share."),
    "show": ("scheme:show", "Show a scheme or a model as a table and a picture."),
    "plan": ("plan:plan", "Tell beforehand what a run takes and whether it pays."),
    "prune": ("blocks:prune", "Prune every variant once, into a library."),
    "finetune": ("blocks:finetune", "Fine-tune the shared blocks, or whole models."),
    "build-model": ("blocks:build_model", "Compose a configuration's model from the library."),
    "shrink": ("shrink:shrink", "Take out of a model what is removed from it."),
    "simplify": ("simplify:simplify", "Give a model simpler parts, and measure what that brings."),
    "merge": ("merge:merge", "Merge an adapter of peft into a model."),
    "evaluate": ("measure:evaluate", "Measure models on test data, or on suites of benchmarks."),
    "export": ("export:export", "Write a model for another runtime, and compare both."),
    "speed": ("speed:speed", "Measure what models take to run."),
    "predict": ("measure:predict", "Try a model on a text, or on lines of standard input."),
    "plot": ("measure:plot", "Draw the loss curves of any number of runs."),
    "assess": ("assess:assess", "Show what can go from a model, and what it costs."),
    "masks": ("masks:masks", "Compare what two or more pruned models removed."),
    "compare": ("measure:compare", "Compare composed models with baselines; write the report."),
    "run": ("runs:run", "Do all of it from one recipe, skipping what is done."),
    "demo": ("runs:demo", "Do all of it on the embedded model and corpus."),
    "library": ("library", "Look after the stored blocks."),
}
"""Name -> (where it is, one line), in the order of the work. A command's file is imported when it is used."""

PARTS: dict[str, dict[str, tuple[str, str]]] = {
    "library": {
        "list": ("library:list_blocks", "List the blocks: level, path, rates, bytes, seconds, users."),
        "show": ("library:show", "Show one block: what it was made from, its masks, its tensors."),
        "size": ("library:size", "Tell what takes the space, by library and by scheme."),
        "verify": ("library:verify", "Check every block against its checksum and its address."),
        "prune-unused": ("library:prune_unused", "Remove blocks that no scheme uses, and what killed runs left."),
    },
}
"""The commands that consist of commands; the docstring of their file is their help."""

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


def build_app(*words: str) -> App:
    """The cyclopts application. The commands that ``words`` name keep their own docstrings as help; the others
    have one line."""
    app = App(
        name="compose",
        help=ABOUT,
        help_format="plaintext",
        version=composer.__version__,
        default_parameter=Parameter(show_default=False, negative=""),
        suppress_keyboard_interrupt=False,
    )
    _add(app, COMMANDS, words)
    app["--help"].help = "Show this and exit."
    app["--version"].help = "Show the version and exit."
    return app


def _add(app: App, commands: Mapping[str, tuple[str, str]], words: Sequence[str]) -> None:
    """Add commands to an application, with their parts."""
    for i, (name, (target, line)) in enumerate(commands.items()):
        where, chosen = f"composer.cli.{target}", name in words[:1]
        if name in PARTS:
            told = inspect.getdoc(import_module(where)) if chosen else line
            family = App(name=name, help=told, version_flags=(), sort_key=i)
            _add(family, PARTS[name], words[1:])
            app.command(family)
        else:
            app.command(where, name=name, help=None if chosen else line, sort_key=i)


def call(argv: Sequence[str]) -> int:
    """Run one command line and return its exit status."""
    from .console import error_lines, help_console, plain_line

    words = [word for word in argv if not word.startswith("-")]
    if not _is_somewhere():
        error_lines(["the current folder does not exist any more; go to one that does"])
        return 2
    if words[:1] != ["predict"]:  # its words may be texts
        argv = [_at_home(word) for word in argv]
    try:
        build_app(*words)(
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

        error_lines([parse_problem(bad, *_asked(words))])
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


def _is_somewhere() -> bool:
    try:
        return bool(os.getcwd())
    except FileNotFoundError:
        return False


def _at_home(word: str) -> str:
    """A path with ``~`` as a shell would have read it: shells leave it alone in quotes and behind ``=``.

    >>> _at_home("--recipe=~/a.yaml").startswith("--recipe=~"), _at_home("a~b")
    (False, 'a~b')
    """
    option, is_given, value = word.partition("=")
    if option.startswith("-") and is_given:
        return f"{option}={os.path.expanduser(value)}"
    return os.path.expanduser(word)


def _asked(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """The command that was called, and the names that may have been meant by it."""
    name = next(iter(words), None)
    if name not in PARTS:
        return name, [*COMMANDS]
    parts = PARTS[name]
    return (
        (f"{name} {words[1]}", [f"{name} {words[1]}"]) if words[1:2] and words[1] in parts else (name, [name, *parts])
    )


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
