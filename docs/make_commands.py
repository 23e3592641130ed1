"""Write docs/commands.md from the commands' own help: `make docs`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

HEAD = """# Commands

The output of `compose COMMAND --help`, in the order of the work (written by `make docs`, held by a test).
Every option can also stand in `compose.yaml`; flags win.
"""


def help_of(*words: str) -> str:
    """What `compose WORDS --help` prints, 100 columns wide, without colours."""
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    done = subprocess.run(
        [sys.executable, "-m", "composer", *words, "--help"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return "\n".join(line.rstrip() for line in done.stdout.splitlines()).strip()


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
