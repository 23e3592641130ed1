"""Criteria: one file and one row each."""

from __future__ import annotations

from ..registry import Registry
from .criterion import Criterion

CRITERIA: Registry[type[Criterion]] = Registry(
    "criterion",
    {
        "l1": "composer.criteria.l1:L1",
        "l2": "composer.criteria.l2:L2",
        "random": "composer.criteria.random:Random",
        "global_l1": "composer.criteria.global_l1:GlobalL1",
        "wanda": "composer.criteria.wanda:Wanda",
        "sparsegpt": "composer.criteria.sparsegpt:SparseGPT",
        "taylor": "composer.criteria.taylor:Taylor",
        "obs": "composer.criteria.obs:Obs",
    },
    group="composer.criteria",
)
