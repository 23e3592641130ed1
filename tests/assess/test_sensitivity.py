"""Sensitivities against pruning a fresh model by hand; exact counts; what is measured once stays measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from composer.assess.assess import assess
from composer.assess.measure.assessed_model import AssessedModel
from composer.assess.measure.proposal import assess_proposal
from composer.assess.measure.sensitivity import assess_sensitivity
from composer.assess.settings import Settings
from composer.errors import OutputError
from composer.files.journal import Journal
from composer.recipe import Recipe
from composer.scheme.configurations import read_configurations, resolve
from composer.tasks.loss import mean_loss

from .conftest import MakeSubject


def by_hand(subject: AssessedModel, path: str, count: int) -> float:
    """Loss of a fresh model, run whole, with the ``count`` smallest weights (or heads) of one target at zero."""
    model, target = subject.space.fresh_model(), subject.layout.target(path)
    modules: dict[str, Any] = dict(model.named_modules())
    with torch.no_grad():
        if target.kind == "linear":
            weight = modules[path].weight
            weight.view(-1)[weight.abs().view(-1).argsort(stable=True)[:count]] = 0
        else:
            parts = [modules[p.path] for p in target.projections]
            width = parts[0].out_features // target.heads
            sizes = sum(part.weight.abs().view(target.heads, -1).sum(1) for part in parts)
            for head in sizes.argsort(stable=True)[:count].tolist():
                for part in parts:
                    part.weight[head * width : (head + 1) * width] = 0
                    part.bias[head * width : (head + 1) * width] = 0
    return mean_loss(model, subject.space.task, subject.examples)


def test_each_row_is_the_loss_of_a_model_pruned_by_hand(make_subject: MakeSubject) -> None:
    subject = make_subject(rates=(0.25, 0.5), criteria=("l1",))
    told = assess_sensitivity(subject)
    expected = [(path, rate) for path in subject.paths for rate in (0.25, 0.5)]
    assert [(row["target"], row["rate"]) for row in told["rows"]] == expected
    for row in told["rows"]:
        target = subject.layout.target(row["target"])
        loss = by_hand(subject, row["target"], round(row["rate"] * target.units))
        assert row["loss"] == pytest.approx(loss, abs=1e-6)
        assert row["removed"] == round(row["rate"] * target.units) * (target.parameters // target.units)
        assert row["total"] == target.parameters
    dense = mean_loss(subject.model, subject.space.task, subject.examples)
    assert told["dense"]["loss"] == pytest.approx(dense, abs=1e-7)
    assert len(told["heads"]) == sum(subject.layout.target(path).heads for path in subject.paths if "attention" in path)


def test_a_second_run_measures_only_what_is_missing(make_subject: MakeSubject) -> None:
    first = make_subject(rates=(0.5,), criteria=("l1",), heads=False)
    one = assess_sensitivity(first)
    more = make_subject(rates=(0.25, 0.5), criteria=("l1",), heads=False)
    two = assess_sensitivity(more)
    assert [row for row in two["rows"] if row["rate"] == 0.5] == one["rows"]
    again = make_subject(rates=(0.25, 0.5), criteria=("l1",), heads=False)
    assert assess_sensitivity(again)["rows"] == two["rows"]
    assert "model" not in vars(again)  # nothing was missing: nothing was loaded
    (journal,) = (more.folder / ".journal").glob("sensitivity-*")
    journal.write_bytes(journal.read_bytes()[: journal.stat().st_size // 2])  # as a killed process leaves it
    assert assess_sensitivity(make_subject(rates=(0.25, 0.5), criteria=("l1",), heads=False)) == two


def test_a_line_that_was_cut_off_is_measured_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "rows", {"a": 1})
    journal.row(("x", 1), lambda: {"loss": 1.0})
    journal.row(("x", 2), lambda: {"loss": 2.0})
    journal.path.write_bytes(journal.path.read_bytes()[:-4])
    back = Journal(tmp_path, "rows", {"a": 1})
    assert (back.holds("x", 1), back.holds("x", 2)) == (True, False)
    assert back.row(("x", 2), lambda: {"loss": 3.0}) == {"loss": 3.0}
    assert len(Journal(tmp_path, "rows", {"a": 1})) == 2
    assert len(Journal(tmp_path, "rows", {"a": 2})) == 0


def test_a_proposal_is_not_made_from_sensitivities_of_other_data(
    distilbert_folder: Path, classification_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("composer.assess.pages.page.write_page", lambda *_, **__: None)
    recipe = Recipe(model=str(distilbert_folder), data=str(classification_data), targets=["*layer.0.ffn*"])
    given: dict[str, Any] = {"rates": (0.5,), "criteria": ("l1",), "sparsity": 0.3}
    assess(recipe, Settings(**given, parts=("sensitivity",)), tmp_path / "a")
    assess(recipe, Settings(**given, parts=("proposal",)), tmp_path / "a")
    held = (tmp_path / "a" / "proposal.json").read_bytes()
    other = recipe.model_copy(update={"valid_size": 4})
    with pytest.raises(OutputError, match=r"other circumstances \(examples: 8 then, 4 now; another valid\)"):
        assess(other, Settings(**given, parts=("proposal",)), tmp_path / "a")
    assert (tmp_path / "a" / "proposal.json").read_bytes() == held


@pytest.mark.parametrize("sparsity", [0.1, 0.6])
def test_the_proposal_is_exact_and_a_configuration(sparsity: float, make_subject: MakeSubject) -> None:
    subject = make_subject(rates=(0.25, 0.5, 0.75), criteria=("l1",), heads=False, sparsity=sparsity)
    told = assess_proposal(subject, assess_sensitivity(subject))
    total = subject.layout.parameters(subject.paths)
    read = resolve(read_configurations(subject.folder / "conf.json"), subject.layout)[0]
    removed = sum(subject.layout.target(path).removed_weights(said.rate) for path, said in read.items())  # type: ignore[union-attr]
    assert removed == round(sparsity * total)
    assert told["reached"] == removed / total
    assert {path: said.rate for path, said in read.items()} == told["rates"]  # type: ignore[union-attr]
    assert told["measured_loss"] == told["measured"]["repaired"]
