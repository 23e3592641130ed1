"""Block trainers: one file and one row each."""

from __future__ import annotations

from ...registry import Registry
from .trainer import BlockTrainer

TRAINERS: Registry[type[BlockTrainer]] = Registry(
    "trainer",
    {
        "distill": "composer.training.blocks.distill:Distill",
        "joint": "composer.training.blocks.joint:Joint",
        "least_squares": "composer.training.blocks.least_squares:LeastSquares",
    },
    group="composer.trainers",
)
