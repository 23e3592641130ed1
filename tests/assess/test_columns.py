"""Column norms of the calibration sample, against hooks on the model itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from composer.assess.assess import assess
from composer.assess.measure.assessed_model import AssessedModel
from composer.assess.measure.columns import add_columns
from composer.assess.measure.weights import assess_weights
from composer.assess.settings import Settings
from composer.files.jsonfile import read_json
from composer.recipe import Recipe

from .conftest import MakeSubject


def lengths(subject: AssessedModel, path: str, size: int) -> torch.Tensor:
    """Of the columns of what the module at ``path`` reads, over the real tokens of the ``size`` examples drawn."""
    sample = subject.calibration_on(subject.space.examples("train"))
    assert len(sample) == size
    rows = []
    model, task = subject.space.fresh_model().eval(), subject.space.task
    for chosen in sample.indices:
        for i in chosen:  # one by one: nothing is padded
            seen: list[torch.Tensor] = []
            hook = model.get_submodule(path).register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))
            with torch.no_grad():
                task.loss(model, task.collate([subject.space.examples("train").features[i]]))
            hook.remove()
            rows.append(seen[0].reshape(-1, seen[0].shape[-1]))
    return torch.cat(rows).double().norm(dim=0)


def test_they_are_the_lengths_of_the_columns_that_the_model_reads(make_subject: MakeSubject) -> None:
    subject = make_subject(parts=("weights",))
    told = add_columns(subject, assess_weights(subject.space.base, subject.folder))
    assert told is not None
    assert [row["target"] for row in told["columns"]] == list(subject.paths)
    for row in told["columns"][:4]:
        target = subject.layout.target(row["target"])
        found = lengths(subject, target.projections[0].path, told["sample"]["examples"])
        norms = row["norms"]
        assert norms["max"] == pytest.approx(found.max().item(), rel=1e-4)
        assert norms["min"] == pytest.approx(found.min().item(), rel=1e-4)
        assert norms["median"] == pytest.approx(np.median(found.numpy()), rel=1e-4)
        top = max(1, round(0.01 * len(found)))
        share = found.square().sort(descending=True).values[:top].sum() / found.square().sum()
        assert norms["top_share"] == pytest.approx(share.item(), rel=1e-4)
    again = make_subject(parts=("weights",))
    assert add_columns(again, assess_weights(again.space.base, again.folder)) == told
    assert "model" not in vars(again)


def test_without_data_no_model_is_loaded_and_a_calibration_set_is_data(
    distilbert_folder: Path, classification_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("composer.assess.pages.page.write_page", lambda *_, **__: None)
    recipe, folder = Recipe(model=str(distilbert_folder), task="classification"), tmp_path / "a"
    with monkeypatch.context() as patched:
        patched.setattr(AssessedModel, "model", property(lambda _: pytest.fail("a model was loaded")))
        assess(recipe, Settings(parts=("weights",)), folder)
    assert read_json(folder / "weights.json")["columns"] is None
    given = str(classification_data / "train.tsv")
    assess(recipe, Settings(parts=("weights",), calibrations=(given,)), folder)
    held = read_json(folder / "weights.json")
    assert held["sample"] == {"data": given, "examples": len(held["columns"]) and held["sample"]["examples"]}
    assert len(held["columns"]) == len(held["targets"])
    assert (folder / "columns.csv").read_text(encoding="utf-8").count("\n") == len(held["columns"]) + 1
