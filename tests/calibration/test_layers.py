"""Figures of layers, against what the papers say, computed anew from what a model's modules read and give."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from composer.calibration.layers import block_influences, outlier_ratios
from composer.progress import SILENT
from composer.recipe import Recipe
from composer.shrinking.units import units_of
from composer.workspace import Workspace


def test_outliers_and_influence_of_layers(t5_folder: Path, translation_data: Path, tmp_path: Path) -> None:
    space = Workspace(Recipe(model=str(t5_folder), data=str(translation_data), folder=tmp_path, calibration_size=6))
    model = space.fresh_model()
    calibration = space.calibrated(model, space.base.layout, progress=SILENT)
    units = list(units_of(space.base.layout))
    outliers = outlier_ratios(model, space.task, calibration, units)
    influence = block_influences(model, space.task, calibration, units)

    read: dict[str, list[Tensor]] = defaultdict(list)
    cosines: dict[str, list[Tensor]] = defaultdict(list)
    tokens: dict[str, Tensor] = {}
    streams = {p.path: p.stream for part in units for p in part.projections}

    def reads(path: str) -> Any:
        return lambda _, args: read[path].append(args[0][tokens[streams[path]]])

    def turns(layer: str) -> Any:
        def listen(_: Any, args: Any, output: Any) -> None:
            x, y = args[0], output[0]
            cosine = (x * y).sum(-1) / (x.norm(dim=-1) * y.norm(dim=-1))
            cosines[layer].append(cosine[tokens["decoder" if "decoder" in layer else "encoder"]])

        return listen

    for path in streams:
        model.get_submodule(path).register_forward_pre_hook(reads(path))
    for stack in ("encoder", "decoder"):
        for i in range(2):
            model.get_submodule(f"{stack}.block.{i}").register_forward_hook(turns(f"{stack}.block.{i}"))
    with torch.no_grad():
        for batch in calibration.batches():
            tokens.update(space.task.real_tokens(batch))
            model.eval()(**batch)
    assert set(influence) == set(outliers) == set(cosines)
    for layer, found in cosines.items():
        assert influence[layer] == pytest.approx(1 - float(torch.cat(found).mean()), abs=1e-5)
        scores = torch.cat(
            [
                (model.get_submodule(path).weight.abs() * torch.cat(read[path]).norm(dim=0)).flatten()
                for path in streams
                if path.startswith(f"{layer}.")
            ]
        )
        above = int((scores > 5 * scores.mean()).sum())
        assert outliers[layer] == pytest.approx(above / len(scores), abs=1.01 / len(scores))
    assert max(outliers.values()) > 0
