"""Pictures with nothing on them, for tests in which their drawing is not looked at.

What is on a picture is tested in ``tests/report`` and ``tests/assess``, and the tour of the README draws real ones; a
step draws one with every model, which took a third of the seconds of the tests of steps.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1" width="1pt" height="1pt"></svg>\n'


def _png() -> bytes:
    """One grey pixel."""
    chunks = {b"IHDR": struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0), b"IDAT": zlib.compress(b"\0\x80"), b"IEND": b""}
    parts = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks.items())
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _blank(figure: Figure, file: Any, *, format: str, **_: Any) -> None:
    if not isinstance(file, Path):
        file.write(SVG)
    elif format == "svg":
        file.write_text(SVG, encoding="utf-8")
    else:
        file.write_bytes(_png())


@contextmanager
def blank_pictures() -> Iterator[None]:
    """Within the body every picture is a file of its kind, and blank."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", _blank)
        yield
