"""Block trainers: one file and one row each."""

from __future__ import annotations

from ..registry import Registry
from .trainer import BlockTrainer

TRAINERS: Registry[type[BlockTrainer]] = Registry(
    "trainer",
    {
        "distill": "composer.trainers.distill:Distill",
        "joint": "composer.trainers.joint:Joint",
        "least_squares": "composer.trainers.least_squares:LeastSquares",
    },
    group="composer.trainers",
)
