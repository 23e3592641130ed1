"""Moments of every projection of a model, in the order of its layout."""

from __future__ import annotations

from typing import Any

from composer.calibration.gram import Gram
from composer.calibration.sample import Calibration
from composer.scheme.layout import Layout


def collect(model: Any, task: Any, data: Any, layout: Layout, **options: Any) -> dict[str, Gram]:
    """By the projection's path; ``options`` are those of :class:`composer.calibration.sample.Calibration`."""
    paths = dict.fromkeys(p.path for t in layout.targets for p in t.projections)
    found = Calibration(model, task, data, layout, **options).moments({path: [path] for path in paths})
    return {path: grams[path] for path, grams in found}
