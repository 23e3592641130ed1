"""Criteria: one file and one row each."""

from __future__ import annotations

from ..registry import Registry
from .criterion import Criterion

CRITERIA: Registry[type[Criterion]] = Registry(
    "criterion",
    {
        "l1": "composer.criteria.l1:L1",
        "obs": "composer.criteria.obs:Obs",
    },
)
