"""Write docs/commands.md from the commands' own help: `make docs`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
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
    names = re.findall(r"^│ ([a-z][a-z-]+) ", top, re.MULTILINE)
    parts = [HEAD, f"```\n{top}\n```\n"]
    parts += [f"## compose {name}\n\n```\n{help_of(name)}\n```\n" for name in names]
    return "\n".join(parts)


if __name__ == "__main__":
    (Path(__file__).parent / "commands.md").write_text(text(), encoding="utf-8")
