"""What a step gives back: where its output is, whether it had anything to do, and figures to show."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """Result of one step.

    ``fresh`` is False when the output was there already and made from the same inputs, so that nothing was
    done. ``summary`` is plain JSON data.
    """

    output: Path
    fresh: bool = True
    summary: dict[str, Any] = field(default_factory=dict)
