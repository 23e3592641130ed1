"""Criteria: one file and one row each."""

from __future__ import annotations

from ...registry import Registry
from .criterion import Criterion

CRITERIA: Registry[type[Criterion]] = Registry(
    "criterion",
    {
        "l1": "composer.pruning.criteria.l1:L1",
        "l2": "composer.pruning.criteria.l2:L2",
        "random": "composer.pruning.criteria.random:Random",
        "global_l1": "composer.pruning.criteria.global_l1:GlobalL1",
        "wanda": "composer.pruning.criteria.wanda:Wanda",
        "sparsegpt": "composer.pruning.criteria.sparsegpt:SparseGPT",
        "taylor": "composer.pruning.criteria.taylor:Taylor",
        "movement": "composer.pruning.criteria.movement:Movement",
        "obs": "composer.pruning.criteria.obs:Obs",
        "obs_loss": "composer.pruning.criteria.obs_loss:ObsLoss",
    },
    group="composer.criteria",
)
