"""Write docs/commands.md from the commands' own help: `make docs`."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from composer.cli.app import call

HEAD = """# Commands

The output of `compose COMMAND --help`, in the order of the work (written by `make docs`, held by a test).
Every option can also stand in `compose.yaml`; flags win.
"""


def help_of(*words: str) -> str:
    """What `compose WORDS --help` prints, 100 columns wide, without colours."""
    printed = io.StringIO()
    with mock.patch.dict(os.environ, COLUMNS="100", NO_COLOR="1", TERM="dumb"), contextlib.redirect_stdout(printed):
        status = call([*words, "--help"])
    if status:
        raise SystemExit(status)
    return "\n".join(line.rstrip() for line in printed.getvalue().splitlines()).strip()


def text() -> str:
    """The whole page."""
    top = help_of()
    return "\n".join([HEAD, f"```\n{top}\n```\n", *sections(top)])


def sections(shown: str, *words: str) -> Iterator[str]:
    """A section for each command that the help of ``words`` lists, and for the commands that it consists of."""
    for name in re.findall(r"^│ ([a-z][a-z-]+) ", shown, re.MULTILINE):
        own = help_of(*words, name)
        yield f"##{'#' * len(words)} compose {' '.join([*words, name])}\n\n```\n{own}\n```\n"
        yield from sections(own, *words, name)


if __name__ == "__main__":
    (Path(__file__).parent / "commands.md").write_text(text(), encoding="utf-8")
