"""What all tests of steps share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.reference.pictures import blank_pictures


@pytest.fixture(scope="module", autouse=True)
def _blank_pictures() -> Iterator[None]:
    with blank_pictures():
        yield
