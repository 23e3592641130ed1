"""The forecast against what the steps then do: what is made, how much of it, its bytes, its time."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

import composer
from composer.errors import RecipeError
from composer.forecast.block_workload import tuning
from composer.forecast.footprint import BESIDE, Footprint
from composer.forecast.forecast import forecast
from composer.forecast.timing import pieces as timing
from composer.forecast.timing.pieces import Seconds
from composer.forecast.timing.timed_model import SAMPLE
from composer.forecast.verdict import ASSUMED
from composer.forecast.workload import Blocks, Setting
from composer.library.store import Library
from composer.models.folder import BaseModel
from composer.progress import SILENT
from composer.recipe import Recipe
from composer.scheme.stored import load_scheme
from composer.steps.outcome import Outcome
from composer.training.distillation import Answers
from composer.training.work import Work
from tests.reference.work_clock import WorkClock

FACTOR = 1.25
"""Predicted seconds lie within so many times of those that were spent."""

Folder = Callable[[str], Path]
RATES: dict[str, Any] = {"attention": [0.25, 0.5], "linear": [0.3, 0.5], "grid": True}
CLOSED = {"criterion": "obs", "trainer": "least_squares", "calibration_size": 12}
CLASSIC = {"criterion": "l1", "trainer": "distill", "block": {"steps": 5, "batch_size": 4, "patience": 99}}
RECIPES = {
    "t5, closed forms": ("t5", CLOSED),
    "t5, layers too": ("t5", CLOSED | {"block_levels": ["module", "sublayer", "layer"], "criterion": "l1"}),
    "t5, gradients": ("t5", CLASSIC),
    "gated, in passes": ("gated", CLOSED | {"memory": 12_000}),
    "distilbert, closed forms": ("distilbert", CLOSED | {"dead_columns": False, "metric": "loss"}),
    "gated, by chance": ("gated", CLOSED | {"criterion": "random", "granularity": "neuron"}),
    "distilbert, gradients": ("distilbert", CLASSIC | {"block_levels": ["layer"]}),
}


class Case:
    """A recipe, the forecast before, what prune and block-level fine-tuning then did, and the forecast after."""

    def __init__(self, folder: Path, model: Path, data: Path, options: dict[str, Any]) -> None:
        self.folder = folder
        self.start = {"model": str(model), "data": str(data), "folder": str(folder), "finetune": {"steps": 6}}
        shape = {name: value for name, value in options.items() if name == "granularity"}  # goes with the rates
        self.start |= {"max_source_length": 32, "max_target_length": 12, "valid_size": 8}
        self.start |= {name: value for name, value in options.items() if name not in shape}
        self.before = forecast(self.recipe(**RATES, **shape))
        self.pruned, self.tuned = self.work(**RATES, **shape)
        self.after = forecast(self.recipe())

    def recipe(self, **more: Any) -> Recipe:
        return composer.load_recipe(given=self.start | more, file=False)

    def work(self, **rates: Any) -> tuple[Outcome, Outcome]:
        """Each step by itself, as the commands do it."""
        composer.generate_config(self.recipe(**rates), force=True)
        composer.generate_scheme(self.recipe(), force=True)
        return composer.prune(self.recipe()), composer.finetune_blocks(self.recipe())


@pytest.fixture(scope="module")
def cases(
    model_folder: Folder, translation_data: Path, classification_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Case]:
    made = {}
    for name, (model, options) in RECIPES.items():
        data = classification_data if model == "distilbert" else translation_data
        made[name] = Case(tmp_path_factory.mktemp("forecast") / "run", model_folder(model), data, options)
    return made


@pytest.fixture(params=RECIPES)
def case(request: pytest.FixtureRequest, cases: dict[str, Case]) -> Case:
    return cases[request.param]


def pieces(told: dict[str, Any], work: str, which: str = "to_do") -> dict[str, float]:
    return next(row[which] for row in told["work"] if row["work"].startswith(work))


def tensors(library: Library, addresses: Iterable[str]) -> int:
    """Bytes of all tensors of these blocks, by their files' heads."""
    heads = [library.header(address).tensors.values() for address in addresses]
    return sum(tensor.stop - tensor.start for head in heads for tensor in head)


def test_before_nothing_is_stored_and_afterwards_everything(case: Case) -> None:
    held = {"pruned": Library(case.folder / "modules/pruned"), "finetuned": Library(case.folder / "modules/finetuned")}
    for name, library in held.items():
        before = [row for row in case.before["blocks"] if row["library"] == name]
        after = [row for row in case.after["blocks"] if row["library"] == name]
        (manifest,) = library.manifests().values()
        assert sum(row["needed"] for row in before) == len(manifest["addresses"])
        assert [row["stored"] for row in before] == [0] * len(before)
        assert [row["to_do"] for row in before] == [row["needed"] for row in before] == [r["stored"] for r in after]
        assert not any(row["to_do"] or row["bytes"] for row in after)
    assert pieces(case.after, "prune") == pieces(case.after, "block-level") == {}
    assert pieces(case.after, "prune", "pieces") == pieces(case.before, "prune")


def test_bytes_are_those_of_the_files(case: Case) -> None:
    for name in ("pruned", "finetuned"):
        library = Library(case.folder / "modules" / name)
        rows = [row for row in case.before["blocks"] if row["library"] == name]
        files = sum(row["to_do"] for row in rows)
        (manifest,) = library.manifests().values()
        assert sum(row["bytes"] for row in rows) - files * BESIDE == tensors(library, manifest["addresses"].values())
        beside = [sum(f.stat().st_size for f in library.files(a)) - tensors(library, [a]) for a in library.addresses()]
        assert BESIDE / 4 < sum(beside) / len(beside) < 4 * BESIDE
    stored = Library(case.folder / "modules" / "pruned")
    scores = [a for a in stored.addresses() if stored.header(a).lineage["stage"] == "scores"]
    assert case.before["disk"]["scores"] - len(scores) * BESIDE == tensors(stored, scores)
    assert case.after["disk"]["scores"] == case.after["disk"]["blocks"] == 0


def test_pieces_are_those_that_the_trainer_then_needs(case: Case) -> None:
    work, recipe = pieces(case.before, "block-level"), case.recipe()
    if recipe.trainer == "distill":
        assert work["teach"] == case.tuned.summary["teacher_passes"]
        assert work["learn"] == recipe.block.steps * case.tuned.summary["tuned"]
        return
    ends = 2 if "layer" in recipe.block_levels else 1
    assert 0 < work["prepare"] <= work["solve"]
    assert work["solve"] >= case.tuned.summary["tuned"]
    assert (work["solve"] == case.tuned.summary["tuned"]) == (ends == 1)
    if recipe.memory is None:  # one batch is the whole sample; a command of its own gathers for itself
        back = int(recipe.metric == "loss")  # for the weights of tokens
        # Behind neurons alone nothing is shown.
        own = work.get("show", 0) + (work.get("gather", 0) - back or 1) + back
        assert own == case.tuned.summary["teacher_passes"]


@pytest.mark.parametrize("way", ["named", "sequential", "no heads"])
def test_what_was_pruned_otherwise_is_found_again(
    way: str, distilbert_folder: Path, classification_data: Path, tmp_path: Path
) -> None:
    given = {"model": str(distilbert_folder), "data": str(classification_data), "folder": str(tmp_path)}
    given |= {"calibration_size": 12, "criterion": "l1"}
    rates = {"attention": [0.5 if way == "no heads" else 0.0], "linear": [0.5]}
    if way == "sequential":
        given |= {"criterion": "wanda", "calibration": "sequential"}
    if way == "no heads":
        rates |= {"attention_granularity": "unstructured"}
    composer.generate_config(composer.load_recipe(given=given | rates, file=False))
    recipe = composer.load_recipe(given=given, file=False)
    if way == "named":
        conf = json.loads((tmp_path / "conf.json").read_text())
        (said,) = conf["configurations"]
        conf["configurations"] = [{path: {"rate": rate, "criterion": "wanda"} for path, rate in said.items() if rate}]
        (tmp_path / "conf.json").write_text(json.dumps(conf))
    composer.generate_scheme(recipe)
    made = composer.prune(recipe).summary["made"]
    rows = [row for row in forecast(recipe)["blocks"] if row["library"] == "pruned"]
    assert sum(row["stored"] for row in rows) == made > 0
    assert sum(row["to_do"] for row in rows) == 0


def test_scores_are_counted_of_the_criteria_that_keep_them(
    distilbert_folder: Path, classification_data: Path, tmp_path: Path
) -> None:
    given = {"model": str(distilbert_folder), "data": str(classification_data), "folder": str(tmp_path)}
    recipe = composer.load_recipe(given=given | {"calibration_size": 12, "criterion": "sparsegpt"}, file=False)
    configuration = {"*.lin1": 0.5, "*.lin2": {"rate": 0.5, "criterion": "wanda"}, "*.out_lin": {"rate": 0.5}}
    configuration["*.attention"] = {"rate": 0.5, "criterion": "l1"}
    (tmp_path / "conf.json").write_text(json.dumps([configuration]))
    composer.generate_scheme(recipe)
    before = forecast(recipe)["disk"]["scores"]
    composer.prune(recipe)
    library = Library(tmp_path / "modules" / "pruned")
    scores = [a for a in library.addresses() if library.header(a).lineage["stage"] == "scores"]
    assert {library.header(a).lineage["criterion"]["name"] for a in scores} == {"wanda"}
    assert before - len(scores) * BESIDE == tensors(library, scores) > 0
    assert forecast(recipe)["disk"]["scores"] == 0
    learnt = forecast(recipe.model_copy(update={"criterion": "movement"}))
    assert pieces(learnt, "prune")["step"] == recipe.movement.steps


def test_another_configuration_is_only_its_own_blocks(cases: dict[str, Case]) -> None:
    case = cases["t5, closed forms"]
    more = {"attention": [0.25, 0.5, 0.25], "linear": [0.3, 0.5, 0.6], "grid": False}
    told = forecast(case.recipe(**more))
    pruned, tuned = case.work(**more)
    left = {name: [row for row in told["blocks"] if row["library"] == name] for name in ("pruned", "finetuned")}
    assert 0 < sum(row["to_do"] for row in left["pruned"]) == pruned.summary["made"]
    assert "select" not in pieces(told, "prune"), "the scores are there"
    assert pieces(told, "block-level")["solve"] == tuned.summary["tuned"]


def test_without_data_only_what_they_decide_stays_open(cases: dict[str, Case]) -> None:
    for name, known in (("t5, layers too", True), ("distilbert, closed forms", False)):
        case = cases[name]
        recipe = case.recipe().model_copy(update={"data": None})
        stored = {row["library"]: row["stored"] for row in forecast(recipe)["blocks"]}
        assert (stored["pruned"] is not None, stored["finetuned"] is None) == (known, True)


def test_nothing_is_written_and_no_model_is_loaded(
    tmp_path: Path, t5_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(_: BaseModel) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr(BaseModel, "load", load)
    recipe = Recipe(model=str(t5_folder), folder=tmp_path / "x", criterion="obs", trainer="least_squares")
    told = forecast(recipe)
    assert (told["configurations"], told["steps"], told["verdict"]) == (3, None, None)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RecipeError, match="--data: nothing given"):
        forecast(recipe, time=True)


def test_a_scheme_without_its_configurations_is_planned_for(cases: dict[str, Case], tmp_path: Path) -> None:
    case = cases["t5, gradients"]
    scheme = (case.folder / "conf_prune.json").read_text()
    (tmp_path / "conf_prune.json").write_text(scheme)
    assert forecast(case.recipe(folder=str(tmp_path)))["blocks"] == case.before["blocks"]


def test_moments_that_know_the_loss_are_one_for_each_reader_and_counted_so(
    cases: dict[str, Case], tmp_path: Path
) -> None:
    case, told, real = cases["distilbert, closed forms"], dict[str, int](), dict[str, int]()
    for name in ("plain", "loss"):
        told[name] = forecast(case.recipe(metric=name, folder=str(tmp_path), **RATES))["memory"]["prune"]
        with composer.open(case.recipe(metric=name)) as space:
            real[name] = sum(source.bytes for source in space.calibration(space.scheme(), SILENT).inputs)
    assert told["loss"] - told["plain"] == real["loss"] - real["plain"] > 0


def test_a_trainer_that_there_is_not(t5_folder: Path) -> None:
    with pytest.raises(composer.InputError, match="unknown trainer 'nothing'"):
        forecast(Recipe(model=str(t5_folder), trainer="nothing"))


def test_joint_tuning_takes_its_steps_once_whatever_the_number_of_configurations(cases: dict[str, Case]) -> None:
    case = cases["t5, closed forms"]
    recipe = case.recipe(trainer="joint", block={"steps": 40, "batch_size": 8})
    scheme, base = load_scheme(case.folder / "conf_prune.json"), BaseModel(case.start["model"])
    setting = Setting(scheme, base.layout, recipe, Footprint(base, scheme), frozenset({"gram"}), 4)
    for n in (1, 2):
        work = list(tuning(Blocks(setting.tuned_nodes(), n, True), setting))
        assert [w.count for w in work if w.unit == "joint"] == [40]
        assert sum(w.count for w in work if w.unit == "solve") == len([w for w in work if w.unit == "solve"])
    assert Work("joint", 40, (8,), least=30.0) in work


EACH = {"gather": 3.0, "select": 0.5, "solve": 0.25, "prepare": 0.125, "show": 2.0, "probe": 0.75}
EACH |= {"file": 1 / 64, "byte": 0.0, "compose": 0.5}
"""Seconds of a piece, of each unit but steps."""


def spent(case: Case, k: int, steps: int, joint_steps: int, each: dict[str, float]) -> tuple[float, float]:
    """Seconds of the baselines and of the composed side for the first ``k`` configurations, added up one by one.

    Pruning is on both sides; there is no search.
    """
    base, scheme = BaseModel(case.start["model"]), load_scheme(case.folder / "conf_prune.json")
    setting = Setting(scheme, base.layout, case.recipe(), Footprint(base, scheme), frozenset({"gram"}), 4)
    below = {node.hash for i in range(k) for node in scheme.below(scheme.root(i))}
    nodes = [node for node in setting.tuned_nodes() if node.hash in below]
    assert case.recipe().trainer == "least_squares"
    forms = sum(w.count * each[w.unit] for w in tuning(Blocks(nodes, k, True), setting))  # with the files of all nodes
    tops = {name for i in range(k) for name in scheme.nodes[scheme.roots[i]].children}
    files = 1 + len(tops)  # what is shared, blocks of the joint library
    composed = forms + files * each["file"] + joint_steps * each["joint"] + k * each["compose"]
    return k * steps * each["step"], composed


@pytest.mark.parametrize("steps", [4, 60, 120])
@pytest.mark.parametrize("joint_steps", [None, 30, 200])
def test_the_verdict_of_joint_tuning_is_the_sum_of_both_sides(
    steps: int, joint_steps: int | None, cases: dict[str, Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With pieces that take known times, for all numbers of configurations and of steps."""
    case, each = cases["t5, closed forms"], {**EACH, "step": 1.0, "joint": 1.25}

    def measured(_: Any, works: Iterable[Work], progress: Any) -> dict[Any, Seconds]:
        return {(w.unit, w.of): Seconds(0.5, 1.0, 3.0).times(each[w.unit]) for w in works}

    monkeypatch.setattr("composer.forecast.timing.pieces.measure", measured)
    block = {"steps": joint_steps} if joint_steps else {}
    told = forecast(case.recipe(trainer="joint", block=block, finetune={"steps": steps}), time=True)
    learnt = joint_steps or steps
    share = 0.0 if learnt >= steps else ASSUMED
    assert told["share"]["value"] == share

    n = len(load_scheme(case.folder / "conf_prune.json").roots)
    gaps = []
    for k in range(1, n + 1):
        alone, ours = spent(case, k, steps, learnt, each)
        gaps.append(ours + k * round(share * steps) * each["step"] - alone)
    behind = [k for k, gap in enumerate(gaps, 1) if gap > 1e-9]
    verdict = told["verdict"]
    if not behind or behind[-1] < n:
        assert verdict["pays_from"] == (behind[-1] + 1 if behind else 1)
    else:
        assert verdict["pays_from"] is None or verdict["pays_from"] > n
    seconds = told["seconds"]
    assert seconds["composed"] - seconds["baseline"] == pytest.approx(gaps[-1])
    # From all pieces at their quickest (where steps may end early) to all at their slowest.
    for row in told["work"]:
        least, about, most = row["seconds"]
        assert 0 < least <= about / 2
        assert most == pytest.approx(3 * about)
    blocks = next(row for row in told["work"] if row["work"].startswith("block-level"))
    assert blocks["pieces"]["joint"] == learnt
    assert told["length"].startswith(f"Joint tuning: {learnt:,} steps")
    assert "validate" not in blocks["pieces"]


@pytest.mark.parametrize("start", ["repaired", "pruned"])
def test_one_more_configuration_on_a_joint_library_takes_no_joint_step(
    start: str, cases: dict[str, Case], tmp_path: Path
) -> None:
    case = cases["t5, closed forms"]
    folder = Path(shutil.copytree(case.folder, tmp_path / "run"))
    options = {"trainer": "joint", "block": {"steps": 2, "batch_size": 4, "start": start}, "folder": str(folder)}
    rates: dict[str, Any] = {"attention": [0.25, 0.5], "linear": [0.3, 0.5]}
    more: dict[str, Any] = {"attention": [0.25, 0.5, 0.5], "linear": [0.3, 0.5, 0.6]}

    def planned(given: dict[str, Any]) -> tuple[dict[str, float], int]:
        told = forecast(case.recipe(**options, **given))
        return pieces(told, "block-level"), told["disk"]["shared"]

    def done(given: dict[str, Any]) -> tuple[Outcome, list[str]]:
        composer.generate_config(case.recipe(**options, **given), force=True)
        composer.generate_scheme(case.recipe(**options), force=True)
        composer.prune(case.recipe(**options))
        library = Library(folder / "modules" / "finetuned")
        before = set(library.addresses())
        tuned = composer.finetune_blocks(case.recipe(**options), force=True)
        new = [a for a in library.addresses() if a not in before]
        return tuned, [a for a in new if library.header(a).lineage["stage"] in ("shared", "joint")]

    for given, steps in ((rates, 2), (more, 0)):
        work, disk = planned(given)
        tuned, new = done(given)
        assert work.get("joint", 0) == tuned.summary["joint"]["made"] == steps
        assert work.get("solve", 0) == tuned.summary["tuned"]
        library = Library(folder / "modules" / "finetuned")
        assert 0.9 < disk / sum(f.stat().st_size for a in new for f in library.files(a)) < 1.5
        assert planned(given) == ({}, 0)


def test_what_is_distilled_or_swept_is_timed_so(
    cases: dict[str, Case], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A teacher's passes are counted and timed by themselves; sweeps really sweep."""
    case, passes, swept_over = cases["t5, closed forms"], list[int](), list[int]()
    ask, refit = Answers.ask, timing.sweep

    def asked(answers: Answers, batch: Any) -> Any:
        passes.append(len(batch["input_ids"]))
        return ask(answers, batch)

    def swept(*given: Any, **options: Any) -> Any:
        swept_over.append(options["size"])
        return refit(*given, **options)

    monkeypatch.setattr(Answers, "ask", asked)
    monkeypatch.setattr(timing, "sweep", swept)
    options = {"trainer": "joint", "block": {"steps": 6}, "folder": str(tmp_path / "x"), **RATES}
    told = forecast(case.recipe(**options, sweep=True, finetune={"steps": 6, "distill": 0.5}), time=True)
    n, each = told["configurations"], {(row["unit"], *row["of"]) for row in told["each"]}
    assert ("answer", 32) in each  # the batches of one model and of all together are as large
    assert passes == [24] * (SAMPLE + 1)  # all that there is
    # Answers of a vocabulary so small are kept: one pass, over all 24 examples, for all models; hidden states are not.
    assert pieces(told, "fine-tune every configuration whole", "pieces") == {"step": 6 * n, "answer": 1}
    assert pieces(told, "block-level fine-tuning, once for all", "pieces")["answer"] == 1
    every = forecast(case.recipe(**options, finetune={"steps": 6, "hidden": 1.0}))
    assert pieces(every, "fine-tune every configuration whole", "pieces") == {"step": 6 * n, "answer": 6 * n}
    assert pieces(every, "block-level fine-tuning, once for all", "pieces")["answer"] == 6
    assert set(swept_over) == {3, 6}
    composing = pieces(told, "compose the models", "pieces")
    assert composing == {"compose": told["configurations"], "sweep": told["configurations"]}


@pytest.mark.parametrize("name", ["t5, layers too", "gated, in passes", "distilbert, gradients"])
def test_every_piece_can_be_timed_and_all_of_them_add_up(name: str, cases: dict[str, Case]) -> None:
    case = cases[name]
    before = sorted(case.folder.rglob("*"))
    told = forecast(case.recipe(sweep=True, learning_rates=[0.1, 0.2]), time=True, share=0.5)
    assert all(piece["seconds"] >= 0 for piece in told["each"])
    for row in told["work"]:
        least, about, most = row["seconds"]
        assert 0 < least <= about <= most
    for piece in told["each"]:
        assert piece["range"][0] <= piece["seconds"] <= piece["range"][1]
    for side, seconds in told["seconds"].items():
        own = [row["seconds"][1] for row in told["work"] if row["side"] in (side, "both")]
        assert seconds == pytest.approx(sum(own))
    gap = told["seconds"]["composed"] - told["seconds"]["baseline"]
    whole = next(row["seconds"][1] for row in told["work"] if row["work"].startswith("fine-tune every"))
    assert told["verdict"]["break_even_share"] == pytest.approx(0.5 - gap / whole)
    assert sorted(case.folder.rglob("*")) == before


def test_predicted_seconds_are_near_those_that_were_spent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pruning, blocks and steps of the embedded model, by a clock that counts the work: every machine is as quick."""
    clock = WorkClock()
    monkeypatch.setattr(time, "perf_counter", clock.now)
    options: dict[str, Any] = {"model": "demo", "data": "demo", "folder": str(tmp_path), "train_size": 80}
    options |= {"criterion": "obs", "trainer": "least_squares", "calibration_size": 64, "valid_size": 8}
    options |= {"targets": ["*coder.block.0.*"], "attention": [0.25, 0.5], "linear": [0.5, 0.7]}
    options |= {"finetune": {"steps": 6, "evaluations": 1}}
    recipe = composer.load_recipe(given=options, file=False)
    with clock:
        before = forecast(recipe, time=True)
        composer.generate_config(recipe)
        composer.generate_scheme(recipe)
        pruned, tuned = composer.prune(recipe).summary, composer.finetune_blocks(recipe).summary
        whole = composer.finetune_model(recipe, "baseline", 1).summary
    json.dumps(before, allow_nan=False)
    spent = {"prune": pruned["seconds"], "block-level": tuned["seconds"], "fine-tune every": 2 * whole["seconds"]}

    assert near(before, spent), [row["seconds"] for row in before["work"]]
    assert before["verdict"]["here"] == 2


def near(told: dict[str, Any], spent: dict[str, float]) -> bool:
    about = {name: row["seconds"][1] for name in spent for row in told["work"] if row["work"].startswith(name)}
    return all(1 / FACTOR < about[name] / seconds < FACTOR for name, seconds in spent.items())
