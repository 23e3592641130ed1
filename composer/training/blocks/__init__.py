"""Blocks learn to put out what the base model's do: by distillation, in closed form, or all together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...registry import Registry

if TYPE_CHECKING:
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
