"""Fisher information of masks, against masks that are really there: one example and one unit at a time."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch

from composer.calibration.mask_fisher import fisher_by_width
from composer.choosing.widths import widths
from composer.progress import SILENT
from composer.recipe import Recipe
from composer.shrinking.units import units_of
from composer.workspace import Workspace


def test_a_rise_is_half_the_squared_gradient_of_a_mask(t5_folder: Path, translation_data: Path, tmp_path: Path) -> None:
    fields = {"model": t5_folder, "data": translation_data, "folder": tmp_path, "calibration_size": 6}
    space = Workspace(Recipe(**{name: str(v) if isinstance(v, Path) else v for name, v in fields.items()}))
    model = space.fresh_model()
    calibration = space.calibrated(model, space.base.layout, progress=SILENT)
    units = list(units_of(space.base.layout))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = fisher_by_width(model, space.task, calibration, units)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())

    part = next(u for u in units if u.kind == "attention")
    squares, answers = torch.zeros(part.count, dtype=torch.float64), 0
    for batch in calibration.batches():
        for i in range(len(batch["input_ids"])):
            mask = torch.ones(part.count, requires_grad=True)
            gate = model.get_submodule(part.last.path).register_forward_pre_hook(
                lambda _, args, mask=mask: (args[0] * mask.repeat_interleave(part.columns),)
            )
            loss, count = space.task.loss(model.eval(), {name: value[i : i + 1] for name, value in batch.items()})
            (slope,) = torch.autograd.grad(loss * count, mask)
            gate.remove()
            squares, answers = squares + slope.double().square(), answers + count
    order = squares.sort().values
    wanted = [float(order[: part.count - kept].sum()) / (2 * answers) for kept in widths(part)]
    assert found[part.path] == pytest.approx(wanted, rel=1e-4)
    assert all(one <= more for rises in found.values() for one, more in pairwise(rises))
