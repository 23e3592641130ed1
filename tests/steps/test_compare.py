"""The comparison: the same search and steps for both sides, budgets in order, found again when run twice."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import composer
from composer.library.store import Library
from composer.report.records import Comparison
from composer.steps import compared_runs
from composer.steps.compared_runs import ComparedRuns
from composer.steps.outcome import Outcome
from composer.steps.start_loss import Composed
from composer.training import model as stage
from composer.workspace import Workspace

GIVEN: dict[str, Any] = {
    "attention": [0.25, 0.5],
    "linear": [0.3, 0.5],
    "block": {"steps": 2, "batch_size": 4},
    "finetune": {"steps": 4, "batch_size": 4, "evaluations": 2, "learning_rate": 1e-3},
    "learning_rates": [0.001, 0.01],
    "budgets": [0.5, 0.25],
    "max_source_length": 32,
    "max_target_length": 12,
}


def space_of(folder: Path, model: Path, data: Path, **changes: Any) -> Workspace:
    given = {"model": str(model), "data": str(data), "folder": str(folder)}
    return Workspace(composer.load_recipe(given=given | GIVEN | changes, file=False))


def prepare(space: Workspace) -> Workspace:
    """All up to the blocks."""
    composer.generate_config(space)
    composer.generate_scheme(space)
    composer.prune(space)
    composer.finetune_blocks(space)
    return space


@pytest.fixture(scope="module")
def prepared(t5_folder: Path, translation_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Everything but model-level work; read only."""
    return prepare(space_of(tmp_path_factory.mktemp("comparison") / "run", t5_folder, translation_data))


@pytest.fixture
def space(prepared: Workspace, t5_folder: Path, translation_data: Path, tmp_path: Path) -> Workspace:
    """A copy of it."""
    return space_of(Path(shutil.copytree(prepared.folder, tmp_path / "run")), t5_folder, translation_data)


@pytest.fixture(scope="module")
def labels() -> list[str]:
    """Names of the runs that were trained for :func:`compared`."""
    return []


@pytest.fixture(scope="module")
def compared(
    prepared: Workspace,
    t5_folder: Path,
    translation_data: Path,
    tmp_path_factory: pytest.TempPathFactory,
    labels: list[str],
) -> Iterator[tuple[Workspace, dict[str, Any]]]:
    """A folder in which everything was compared, and the table; read only."""
    folder = Path(shutil.copytree(prepared.folder, tmp_path_factory.mktemp("compared") / "run"))
    space = space_of(folder, t5_folder, translation_data)
    work = stage.tune_model

    def counted(*args: Any, **kwargs: Any) -> Any:
        labels.append(kwargs["label"])
        return work(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "tune_model", counted)
        outcome = composer.compare(space)
    assert outcome.fresh
    return space, outcome.summary


def last_seconds(space: Workspace, name: str) -> float:
    with (space.folder / "stats" / f"{name}.csv").open(newline="") as file:
        return float([*csv.DictReader(file)][-1]["train_seconds"])


def test_the_table_is_complete(compared: tuple[Workspace, dict[str, Any]]) -> None:
    space, table = compared
    assert table["metric"] == "bleu"
    assert [row["configuration"] for row in table["rows"]] == [0, 1]
    for row in table["rows"]:
        assert row["sparsity"] == pytest.approx(space.scheme().sparsity(row["configuration"], space.base.layout))
        assert row["pruned"]["loss"] == row["baseline"]["first_loss"]
        assert row["composed"]["loss"] == row["finetuned"]["first_loss"]
        for side in ("baseline", "finetuned"):
            assert row[side]["steps"] == 4
            assert row[side]["loss"] <= row[side]["first_loss"]
            assert row[side]["metrics"].keys() == {"bleu", "chrf"}
            assert row[side]["metric"] == row[side]["metrics"]["bleu"]
    assert table["dense"]["finetuned"]["steps"] == 4
    assert " of 2 composed models reach their baseline's loss" in table["verdict"]
    assert {row["level"] for row in table["sharing"]} == {"module", "sublayer", "model"}
    assert json.loads(json.dumps(table)) == table


def test_the_dense_rows_loss_is_the_base_models_validation_loss(compared: tuple[Workspace, dict[str, Any]]) -> None:
    from composer.tasks.loss import mean_loss

    space, table = compared
    loss = mean_loss(space.base.load(), space.task, space.examples("valid"))
    assert table["dense"]["untouched"]["loss"] == pytest.approx(loss, rel=1e-6)


def test_both_sides_search_the_same_rates_on_the_middle_configuration(
    compared: tuple[Workspace, dict[str, Any]],
) -> None:
    _, table = compared
    search = table["search"]
    assert search["configuration"] == 1
    for side, name in (("baseline", "baseline"), ("composed", "finetuned")):
        tried = search[side]
        assert [t["learning_rate"] for t in tried] == [0.001, 0.01]
        assert {t["steps"] for t in tried} == {4}
        best = min(tried, key=lambda t: t["loss"])
        assert search["chosen"][side] == best["learning_rate"]
        assert {row[name]["learning_rate"] for row in table["rows"]} == {best["learning_rate"]}
        assert table["rows"][1][name]["loss"] == best["loss"]
        assert table["rows"][1][name]["seconds"] == best["seconds"]


def test_budgets_ascend_and_stop_at_the_first_that_reached(compared: tuple[Workspace, dict[str, Any]]) -> None:
    _, table = compared
    for row in table["rows"]:
        budgets = row["budgets"]
        shares = [b["share"] for b in budgets]
        assert shares == [0.25, 0.5, 1.0][: len(shares)]
        assert [b["steps"] for b in budgets] == [1, 2, 4][: len(shares)]
        assert [b["reached"] for b in budgets] == [b["loss"] <= row["baseline"]["loss"] for b in budgets]
        assert not any(b["reached"] for b in budgets[:-1])
        assert row["share"] == (shares[-1] if budgets[-1]["reached"] else None)
        assert budgets[-1]["reached"] or shares[-1] == 1


def test_each_run_is_trained_once_the_searchs_winners_too(
    compared: tuple[Workspace, dict[str, Any]], labels: list[str]
) -> None:
    _, table = compared
    shorter = sum(b["share"] < 1 for row in table["rows"] for b in row["budgets"])
    assert len(labels) == len(set(labels))
    # Dense; two rates for each side; the other configuration on each side; and the shorter budgets.
    assert len(labels) == 1 + 2 * 2 + 2 + shorter


def test_the_ledger_adds_up_the_tables_of_the_runs(compared: tuple[Workspace, dict[str, Any]]) -> None:
    space, table = compared
    ledger, rows = table["ledger"], table["rows"]
    seconds = {(row["work"].split()[0], row["side"]): row["seconds"] for row in ledger["rows"]}
    wanted = last_seconds(space, "baseline-0") + last_seconds(space, "baseline-1")
    assert seconds["fine-tune", "baseline"] == pytest.approx(wanted)
    assert ledger["step_seconds"] == pytest.approx(last_seconds(space, "dense") / 4)
    loser = {0.001: 0.01, 0.01: 0.001}[table["search"]["chosen"]["baseline"]]
    assert seconds["learning-rate", "baseline"] == pytest.approx(last_seconds(space, f"search-baseline-{loser:g}"))
    charged = 0.0
    for row in rows:
        i, share = row["configuration"], row["share"]
        charged += last_seconds(space, f"model-{i}" if share in (None, 1.0) else f"model-{i}-of-{share:g}")
    assert seconds["fine-tune", "composed"] == pytest.approx(charged)
    blocks = [json.loads(p.read_text())["seconds"] for p in (space.finetuned).glob("*.stats.json")]
    assert seconds["block-level", "composed"] == pytest.approx(sum(blocks))


def test_a_reader_of_the_json_comes_to_the_same_sums(compared: tuple[Workspace, dict[str, Any]]) -> None:
    """The table, anew and in another way: run by run, from nothing but ``results/comparison.json``."""
    space, _ = compared
    told = json.loads((space.folder / "results" / "comparison.json").read_text())["result"]
    ledger, rows, search = told["ledger"], told["rows"], told["search"]
    dense = told["dense"]["finetuned"]
    lines = {(line["work"], line["side"]): line for line in ledger["rows"]}
    prune = lines["prune every variant", "both"]["seconds"]
    for k in range(1, len(rows) + 1):
        total = {"baseline": prune, "composed": prune + ledger["growth"][k - 1]["blocks"]}
        end: dict[str, list[float]] = {"baseline": [], "composed": []}
        for row in rows[:k]:
            runs = {budget["share"]: budget for budget in row["budgets"]}
            run = row["finetuned"] if row["share"] is None else runs[row["share"]]
            total["baseline"] += row["baseline"]["seconds"]
            total["composed"] += row["finetuned"]["compose_seconds"] + run["seconds"]
            end["baseline"].append(row["baseline"]["loss"])
            end["composed"].append(run["loss"])
        for side in total:
            for tried in search[side]:
                own = tried["learning_rate"] == search["chosen"][side]
                middle = rows[search["configuration"]]
                if not own or (side == "composed" and middle["share"] not in (None, 1.0)):
                    total[side] += tried["seconds"]
            wanted = ledger["growth"][k - 1][side]
            assert wanted["seconds"] == pytest.approx(total[side])
            assert wanted["steps"] == pytest.approx(total[side] * dense["steps"] / dense["seconds"])
            last = ledger["lines"][k - 1][side][-1]
            assert last["seconds"] == pytest.approx(total[side])
            assert last["loss"] == pytest.approx(sum(end[side]) / k)
    for side in ("baseline", "composed"):
        assert ledger[side] == ledger["growth"][-1][side]
        own = [line for (_, owner), line in lines.items() if owner in (side, "both")]
        assert sum(line["seconds"] for line in own) == pytest.approx(ledger[side]["seconds"])
    ahead = [k["composed"]["seconds"] <= k["baseline"]["seconds"] for k in ledger["growth"]]
    assert (ledger["pays_from"] in (1, 2)) == ahead[-1]
    assert lines["fine-tune every configuration whole", "baseline"]["trained"] == 2 * 4
    blocks = lines["block-level fine-tuning, once for all", "composed"]
    kept = [json.loads(p.read_text())["rows"] for p in space.finetuned.glob("*.stats.json")]
    assert blocks["trained"] == sum(some[-1]["step"] for some in kept if some) > 0
    assert blocks["of"] == sum(len(space.scheme().at(level)) for level in ("module", "sublayer"))
    assert ledger["masks"] == {"criterion": "l1", "same": True}


def test_files_that_it_leaves(compared: tuple[Workspace, dict[str, Any]]) -> None:
    space, table = compared
    assert not (space.folder / ".work").exists()
    kept = json.loads((space.folder / "results" / "comparison.json").read_text())
    assert kept["result"] == table
    assert Comparison.read(table).plain() == table
    assert "<html" in (space.folder / "report.html").read_text()
    assert (space.folder / "ledger.png").read_bytes()[:4] == b"\x89PNG"
    models = sorted(path.name for path in (space.folder / "models").iterdir())
    assert models == ["0-baseline", "0-finetuned", "1-baseline", "1-finetuned", "dense"]
    results = {path.stem for path in (space.folder / "results").iterdir()}
    assert results == {*models, "base", "comparison"}


def test_compared_again_nothing_is_trained(
    compared: tuple[Workspace, dict[str, Any]], t5_folder: Path, translation_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space, table = compared

    def fail(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(stage, "tune_model", fail)
    before = {path: path.stat().st_mtime_ns for path in space.folder.rglob("*") if path.is_file()}
    again = composer.compare(space_of(space.folder, t5_folder, translation_data))
    assert not again.fresh
    assert again.summary == table
    only = composer.compare(space_of(space.folder, t5_folder, translation_data), train=False)
    assert {k: v for k, v in only.summary.items() if k != "provenance"} == {
        k: v for k, v in table.items() if k != "provenance"
    }
    assert {path: path.stat().st_mtime_ns for path in space.folder.rglob("*") if path.is_file()} == before


def test_on_a_fresh_folder_nothing_is_trained_and_the_table_is_empty(
    space: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("trained")

    monkeypatch.setattr(stage, "tune_model", fail)
    table = composer.compare(space, train=False).summary
    for row in table["rows"]:
        assert (row["baseline"], row["finetuned"], row["budgets"], row["share"]) == (None, None, [], None)
        assert (row["pruned"]["loss"], row["composed"]["loss"]) == (None, None)
    assert table["dense"] == {"untouched": None, "finetuned": None}
    assert table["ledger"]["rows"] == []
    assert table["verdict"].startswith("Not everything is trained yet")
    assert not (space.folder / "models").exists()
    assert (space.folder / "report.html").is_file()


def test_tabulating_keeps_the_work_of_a_killed_run(space: Workspace) -> None:
    work = space.folder / ".work" / "model-0-abc" / "checkpoint-2"
    work.mkdir(parents=True)
    composer.compare(space, train=False)
    assert work.is_dir()


def test_a_killed_comparison_keeps_what_it_has_and_trains_the_rest(
    space: Workspace, compared: tuple[Workspace, dict[str, Any]], labels: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    work, done = stage.tune_model, []

    def killed(*args: Any, **kwargs: Any) -> Any:
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(kwargs["label"])
        return work(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(stage, "tune_model", killed)
        with pytest.raises(KeyboardInterrupt):
            composer.compare(space)
    rest = []

    def counted(*args: Any, **kwargs: Any) -> Any:
        rest.append(kwargs["label"])
        return work(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(stage, "tune_model", counted)
        table = composer.compare(space).summary
    assert sorted(done + rest) == sorted(labels)
    wanted = compared[1]
    for row, other in zip(table["rows"], wanted["rows"], strict=True):
        assert [b["loss"] for b in row["budgets"]] == [b["loss"] for b in other["budgets"]]
        for side in ("baseline", "finetuned"):
            assert (row[side]["loss"], row[side]["metric"]) == (other[side]["loss"], other[side]["metric"])


class Scripted:
    """Stands for the runs: losses as they are told, and a list of what was asked for."""

    def __init__(self, baseline: float, composed: float, shorter: dict[int, float]) -> None:
        self.losses = {"baseline": baseline, "composed": composed, "dense": 1.0}
        self.shorter = shorter
        self.asked: list[tuple[str, int, float]] = []

    def finetune_model(self, space: Workspace, kind: str, i: int | None, **options: Any) -> Outcome:
        rate = options["learning_rate"] or 0.0
        loss = self.losses[kind]
        result = {"final_loss": loss, "first_loss": 9.0, "steps": 100, "seconds": 50.0, "compose_seconds": 1.0}
        return Outcome(space.folder, True, {**result, "learning_rate": rate})

    def trial(self, space: Workspace, start: Any, settings: Any, name: str, **options: Any) -> dict[str, Any]:
        self.asked.append((name, settings.steps, settings.learning_rate))
        return {"final_loss": self.shorter[settings.steps], "seconds": settings.steps / 2, "steps": settings.steps}

    def start_loss(self, space: Workspace, i: int, **options: Any) -> Composed:
        return Composed(9.0, 1.0)

    def evaluate(self, space: Workspace, models: Any, **options: Any) -> Outcome:
        return Outcome(space.folder, True, {"results": [{"metrics": {"bleu": 1.0}}]})


@pytest.mark.parametrize(
    ("baseline", "composed", "shorter", "steps", "share"),
    [
        (2.0, 1.0, {6: 1.9}, [6], 0.0625),
        (2.0, 1.0, {6: 2.0}, [6], 0.0625),  # as good counts
        (2.0, 1.0, {6: 3.0, 12: 2.1, 25: 1.9}, [6, 12, 25], 0.25),
        (2.0, 1.5, {6: 3.0, 12: 3.0, 25: 3.0, 50: 3.0}, [6, 12, 25, 50], 1.0),
        (2.0, 2.5, {6: 3.0, 12: 3.0, 25: 3.0, 50: 3.0}, [6, 12, 25, 50], None),
    ],
)
def test_the_share_is_the_smallest_budget_that_reached(
    baseline: float,
    composed: float,
    shorter: dict[int, float],
    steps: list[int],
    share: float | None,
    prepared: Workspace,
    t5_folder: Path,
    translation_data: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scripted = Scripted(baseline, composed, shorter)
    for name in ("finetune_model", "trial", "evaluate", "start_loss"):
        monkeypatch.setattr(compared_runs, name, getattr(scripted, name))
    changes = {
        "learning_rates": [],
        "budgets": [0.0625, 0.125, 0.25, 0.5, 1.0],
        "finetune": {"steps": 100, "learning_rate": 0.007},
    }
    space = space_of(prepared.folder, t5_folder, translation_data, **changes)
    runs = ComparedRuns(space)
    chosen = runs.search().chosen
    for i in range(2):
        assert runs.row(i, chosen).share == share
        asked = [(s, rate) for name, s, rate in scripted.asked if name.startswith(f"model-{i}-of-")]
        assert asked == [(s, 0.007) for s in steps]


@pytest.mark.parametrize(("finish", "steps"), [("needed", 0), ("all", 100)])
def test_a_model_that_is_there_already_is_not_trained_unless_asked(
    finish: str, steps: int, space: Workspace, t5_folder: Path, translation_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted = Scripted(9.0, 1.0, {})
    for name in ("finetune_model", "trial", "evaluate", "start_loss"):
        monkeypatch.setattr(compared_runs, name, getattr(scripted, name))
    changes = {"learning_rates": [], "finish": finish, "finetune": {"steps": 100}}
    runs = ComparedRuns(space_of(space.folder, t5_folder, translation_data, **changes))
    row = runs.row(0, runs.search().chosen)
    assert (row.finetuned.steps if row.finetuned else None, row.share) == (steps, 0.0)
    assert (space.built_model(0) / "model.safetensors").is_file() == (finish == "needed")


def test_the_start_of_a_composed_model_is_measured_once(space: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    from composer.composing.assemble import compose
    from composer.steps.start_loss import start_loss
    from composer.tasks.loss import mean_loss

    assert start_loss(space, 1, measure=False) is None
    found = start_loss(space, 1)
    model, library = space.base.load(), Library(space.finetuned)
    compose(model, space.base.layout, space.scheme(), 1, library, space.addresses(library, space.scheme()))
    assert found
    assert found.loss == pytest.approx(mean_loss(model, space.task, space.examples("valid")))
    monkeypatch.setattr("composer.tasks.loss.mean_loss", None)
    assert start_loss(space, 1) == start_loss(space, 1, measure=False) == found


def test_the_report_names_model_data_versions_and_seed(compared: tuple[Workspace, dict[str, Any]]) -> None:
    space, table = compared
    provenance = table["provenance"]
    assert provenance["fingerprint"] == space.base.fingerprint
    assert provenance["scheme"] == space.scheme().digest
    assert provenance["seed"] == 0
    assert provenance["data"]["train"] == space.examples("train").digest
    assert provenance["recipe"]["learning_rates"] == [0.001, 0.01]
    assert "torch" in provenance["versions"]
