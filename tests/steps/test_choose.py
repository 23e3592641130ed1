"""From wishes to conf.json: within the wish as a really smaller model is, resumable, refused where nobody can."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

import composer
from composer.choosing import times
from composer.composing.candidates import Candidates
from composer.errors import ConfigError, InputError
from composer.models.folder import BaseModel
from composer.pruning.criteria.obs import Obs
from composer.recipe import ModelOptions, Recipe, TimeOptions
from composer.scheme.configurations import Assignment, Spec, read_configurations, resolve
from composer.scheme.layout import Target
from composer.shrinking import verify
from composer.shrinking.units import Units
from composer.shrinking.verify import Answers, answers, compared
from composer.steps import chooser, part_times
from composer.steps.choose import choose
from composer.steps.configure import generate_scheme
from composer.steps.outcome import Outcome
from composer.steps.prune import prune
from composer.timing import clock, parts
from composer.training.joint import JointHooks
from composer.workspace import Workspace
from tests.reference.work_clock import WorkClock
from tests.reference.zeroed import masked_folder


@pytest.fixture
def recipe(distilbert_folder: Path, classification_data: Path, tmp_path: Path) -> Recipe:
    return Recipe(
        model=str(distilbert_folder), data=str(classification_data), folder=tmp_path, calibration_size=16, valid_size=16
    )


def test_each_wish_becomes_a_configuration_of_that_size(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "verify", lambda masked, small: compared(_answers(masked), _answers(small)))
    base = Workspace(recipe).base
    whole = sum(p.numel() for p in base.load().parameters())
    done = choose(recipe.model_copy(update={"keep_parameters": [0.97, 0.93]}), measure=False)
    named = resolve(read_configurations(done.output), base.layout, where="conf.json")
    assert [row["wish"] for row in done.summary["choices"]] == [{"keep_parameters": 0.97}, {"keep_parameters": 0.93}]
    for i, row in enumerate(done.summary["choices"]):
        kept = row["kept"]

        def gone(_: int, units: Units, kept: Any = kept) -> range:
            return range(units.count - kept[units.path])

        assert set(named[i]) == {path for path in kept if kept[path] < _count(base, path)}
        small = masked_folder(Path(base.folder), tmp_path / f"masked{i}", gone)
        model = composer.load(composer.shrink(small.folder, tmp_path / f"small{i}", "exact").output)
        left = sum(p.numel() for p in model.parameters()) / whole
        assert left == pytest.approx(row["left"]["parameters"], abs=0.002)
        assert left <= row["wish"]["keep_parameters"] + 0.002


def _answers(folder: Path) -> Answers:
    return answers(BaseModel(folder).load())


def _count(base: BaseModel, path: str) -> int:
    target = base.layout.feed_forward(path) or base.layout.target(path)
    return target.heads


@pytest.fixture
def work_clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Seconds by what torch computes, and a cache of the test's own."""
    with WorkClock() as counting:
        monkeypatch.setattr(time, "perf_counter", counting.now)
        monkeypatch.setattr(time, "process_time", counting.now)
        monkeypatch.setattr(parts, "perf_counter", counting.now)
        monkeypatch.setattr(clock, "SHORT", 0.0)
        monkeypatch.setattr(times, "GRID", (0.0, 0.5, 1.0))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        yield


@pytest.mark.usefixtures("work_clock")
def test_a_model_is_as_fast_as_was_wished_and_what_was_measured_is_kept(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wishes = {"speedup": [1.2, 1.5], "keep_bytes": [0.99], "time": TimeOptions(length=16, repeat=7)}
    recipe = recipe.model_copy(update=wishes)
    first = choose(recipe)
    for row in first.summary["choices"]:
        assert row["wish"]["keep_bytes"] == 0.99 >= row["left"]["bytes"]
        assert 1 / row["left"]["seconds"] >= row["wish"]["speedup"] * (1 - 1e-9)
        assert row["faster"]["value"] == pytest.approx(1 / row["left"]["seconds"], rel=0.05)
        assert row["faster"]["high"] >= row["wish"]["speedup"]
        if row["uniform"]["faster"]["high"] >= row["wish"]["speedup"]:
            assert row["measured"]["loss"] <= row["uniform"]["measured"]["loss"]
    assert first.summary["times"]["fit"] < 0.01
    assert "choices have a lower loss" in (tmp_path / "choice.html").read_text("utf-8")
    assert (tmp_path / "choice.png").read_bytes().startswith(b"\x89PNG")

    def never(_: BaseModel, **__: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(BaseModel, "load", never)
    again = choose(recipe)
    assert (again.fresh, again.summary) == (False, first.summary)
    with pytest.raises(ConfigError, match=r"--speedup 900: nobody can meet it: at most .* times as fast .*embeddings"):
        choose(recipe.model_copy(update={"speedup": [900.0]}))
    with pytest.raises(ConfigError, match=r"--loss-at-most: got 0\.01; allowed: a loss of at least .*its? own|base"):
        choose(recipe.model_copy(update={"loss_at_most": [0.01]}))


@pytest.mark.usefixtures("work_clock")
def test_a_noisy_machine_is_told_with_its_spread(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_times, "NOISE", -1.0)
    recipe = recipe.model_copy(update={"latency_ms": [5.0], "time": TimeOptions(length=8, repeat=7)})
    with pytest.raises(InputError, match=r"too noisy to measure time: .* median reaches [\d.]+ % .* --repeat 7"):
        choose(recipe)


def test_what_cannot_be_timed_is_refused_before_anything_is_read(recipe: Recipe) -> None:
    for time_options, said in (
        ({"length": 9999}, "--length: got 9999; .* reads at most"),
        ({"threads": 999}, "--threads"),
    ):
        with pytest.raises(InputError, match=said):
            choose(recipe.model_copy(update={"speedup": [2.0], "time": TimeOptions(**time_options)}))


def test_a_wish_below_what_no_unit_holds_is_refused_before_any_pass(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Workspace, "calibrated", lambda *_, **__: pytest.fail("it was calibrated"))
    monkeypatch.setattr(part_times, "timer", lambda *_: pytest.fail("it was timed"))
    with pytest.raises(ConfigError, match=r"--keep-bytes 0\.1: nobody can meet it: .* bytes .* are in no head"):
        choose(recipe.model_copy(update={"keep_bytes": [0.9, 0.1], "speedup": [1.1]}))
    with pytest.raises(ConfigError, match=r"--keep-parameters 0\.1: nobody can meet it: .* are in no head"):
        choose(recipe.model_copy(update={"keep_parameters": [0.1]}), measure=False)


@pytest.fixture
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """All models are equally fast, where no wish is about time."""
    monkeypatch.setattr(parts.PartTimer, "measure", lambda _, models, *__: [[1.0] * 7 for _ in models])


@pytest.mark.usefixtures("untimed")
def test_what_is_chosen_beside_other_wishes_need_not_share_parts_and_every_kind_of_costs_loses_what_is_nearly_empty(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, liked = list[str](), dict[str, float]()

    def loss(_: Candidates, assigned: Assignment, __: Any) -> dict[str, float]:
        if (said := str(assigned)) not in seen:
            seen.append(said)
        return {"loss": liked.get(said, 1.0 + seen.index(said)), "accuracy": 1.0}

    monkeypatch.setattr(Candidates, "loss", loss)
    recipe = recipe.model_copy(update={"time": TimeOptions(length=8, repeat=7)})
    one = recipe.model_copy(update={"keep_macs": [0.5]})
    steps = choose(one, output=tmp_path / "alone" / "conf.json").summary["choices"][0]["steps"]
    said = {name: seen[round(value) - 1] for name, value in steps.items()}
    liked |= {said["Fisher of masks"]: 0.5, said["program, without 1"]: 0.1}
    row = choose(one, output=tmp_path / "emptied" / "conf.json").summary["choices"][0]
    assert (row["taken"], row["measured"]["loss"]) == ("program, without 1", 0.1)
    liked[seen[round(row["steps"]["program, without 1, masks by loss"]) - 1]] = 0.05
    done = choose(one, output=tmp_path / "masked" / "conf.json")
    assert done.summary["choices"][0]["taken"] == "program, without 1, masks by loss"
    (named,) = read_configurations(done.output).configurations
    assert {said.criterion for said in named.values() if isinstance(said, Spec)} == {"obs_loss"}
    liked.clear()
    liked[said["Fisher of masks"]] = 0.1
    row = choose(recipe.model_copy(update={"keep_macs": [0.7, 0.5]})).summary["choices"][1]
    assert row["taken"] == "Fisher of masks, apart"
    assert row["steps"]["Fisher of masks"] > row["steps"]["Fisher of masks, apart"] == 0.1


def test_single_weights_are_refused_where_they_bring_nothing(recipe: Recipe) -> None:
    for option, value in {"speedup": 2.0, "keep_bytes": 0.9, "keep_macs": 0.5}.items():
        wish = f"--{option.replace('_', '-')} {value:g}"
        with pytest.raises(ConfigError, match=f"--unstructured: .* bring nothing to {wish}; allowed with --keep-param"):
            choose(recipe.model_copy(update={"unstructured": True, option: [value]}))


def test_a_loss_alone_asks_for_the_fewest_parameters_where_single_weights_may_go(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def far(_: Candidates, assigned: Assignment, __: Any) -> float:
        """Heads and neurons are dear."""
        said = {path: Spec.model_validate(one) for path, one in assigned.items()}
        dear = {"neuron": 9, None: 1, "unstructured": 1}
        return sum(
            one.rate * (9 if path.endswith("attention") and not one.granularity else dear[one.granularity])
            for path, one in said.items()
        )

    monkeypatch.setattr(Candidates, "divergence", far)
    monkeypatch.setattr(Candidates, "loss", lambda *given: {"loss": 1 + far(*given), "accuracy": 1.0})
    monkeypatch.setattr(chooser, "part_times", lambda *_, **__: pytest.fail("it was timed"))
    wished = recipe.model_copy(update={"unstructured": True})
    done = choose(wished.model_copy(update={"loss_at_most": ["+1.2"]}), measure=False)
    (row,) = done.summary["choices"]
    assert row["weights"]
    named = read_configurations(done.output).configurations[0]
    assert far(None, named, None) <= 1.2  # type: ignore[arg-type]
    smaller = {"keep_parameters": [row["left"]["parameters"] - 0.02], "folder": recipe.folder / "smaller"}
    less = choose(wished.model_copy(update=smaller), measure=False)
    assert far(None, read_configurations(less.output).configurations[0], None) > 1.2  # type: ignore[arg-type]


def test_a_killed_search_goes_on_and_ends_with_the_same_choice(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []

    def badness(assigned: Assignment) -> float:
        return sum(said.rate**2 for said in assigned.values() if isinstance(said, Spec))

    def divergence(_: Candidates, assigned: Assignment, count: int) -> float:
        measured.append(f"{assigned} {count}")
        if len(measured) == 10:
            raise KeyboardInterrupt
        return badness(assigned)

    monkeypatch.setattr(Candidates, "divergence", divergence)
    monkeypatch.setattr(Candidates, "loss", lambda _, assigned, __: {"loss": badness(assigned), "accuracy": 1.0})
    wished = recipe.model_copy(update={"keep_macs": [0.6, 0.4], "search": 20})
    with pytest.raises(KeyboardInterrupt):
        choose(wished, measure=False)
    assert not (tmp_path / "conf.json").exists()
    resumed = choose(wished, measure=False)
    assert len(set(measured)) == len(measured) - 1  # the one that was killed was measured again
    whole = choose(wished.model_copy(update={"folder": tmp_path / "other"}), measure=False)
    before = choose(wished.model_copy(update={"search": 0}), measure=False, output=tmp_path / "before.json")
    assert [row["kept"] for row in before.summary["choices"]] != [row["kept"] for row in resumed.summary["choices"]]
    assert [row["kept"] for row in whole.summary["choices"]] == [row["kept"] for row in resumed.summary["choices"]]


def test_a_killed_choice_goes_on_without_scoring_again_and_pruning_finds_its_scores(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored, measured = list[str](), list[str]()
    score, divergence = Obs.score, Candidates.divergence

    def counted(self: Obs, target: Target, *given: Any) -> Tensor:
        scored.append(target.path)
        return score(self, target, *given)

    def killed(self: Candidates, assigned: Assignment, count: int) -> float:
        measured.append(str(assigned))
        if len(measured) == 2:
            raise KeyboardInterrupt
        return divergence(self, assigned, count)

    monkeypatch.setattr(Obs, "score", counted)
    monkeypatch.setattr(Candidates, "divergence", killed)
    wished = recipe.model_copy(update={"keep_macs": [0.5], "search": 4})
    with pytest.raises(KeyboardInterrupt):
        choose(wished, measure=False)
    assert not (tmp_path / "conf.json").exists()
    choose(wished, measure=False)
    generate_scheme(wished)
    prune(wished)
    assert len(scored) == len(set(scored)) > 0


@pytest.mark.usefixtures("untimed")
def test_the_best_candidates_learn_together_before_one_of_each_is_taken(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def learning(rate: float, name: str) -> Recipe:
        how = {"rerank": 4, "finetune": ModelOptions(learning_rate=rate, batch_size=8), "folder": tmp_path / name}
        quick = {"train_size": 16, "valid_size": 8, "time": TimeOptions(length=8, repeat=7)}
        return recipe.model_copy(update={"keep_macs": [0.5], "beside": ["owl", "block-influence"], **quick, **how})

    def decided(done: Outcome) -> list[Any]:
        return [[row[name] for name in ("kept", "taken", "steps", "learnt")] for row in done.summary["choices"]]

    still = choose(learning(1e-12, "killed"), output=tmp_path / "killed" / "still.json")
    for row in still.summary["choices"]:  # what learnt nothing is as good as it was
        assert {"uniform", "Fisher of masks", "owl", "block-influence", *row["learnt"]} <= set(row["steps"])
        assert len(row["learnt"]) > 1
        assert all(
            score["loss"] == pytest.approx(row["steps"][name], rel=1e-4) for name, score in row["learnt"].items()
        )
    measure, calls = JointHooks.measure, list[int]()

    def killed(*given: Any) -> float:
        calls.append(given[-1])
        if len(calls) == 4:
            raise KeyboardInterrupt
        return measure(*given)

    monkeypatch.setattr(JointHooks, "measure", killed)
    with pytest.raises(KeyboardInterrupt):
        choose(learning(0.01, "killed"))
    resumed, whole = choose(learning(0.01, "killed")), choose(learning(0.01, "whole"))
    assert calls == [0, 1, 2, 3, 3, 4, 0, 1, 2, 3, 4]  # it went on from its checkpoint
    assert decided(resumed) == decided(whole)
    assert not list((tmp_path / "killed" / ".journal").glob("learning-*"))
    for row in whole.summary["choices"]:
        least = min(score["loss"] for score in row["learnt"].values())
        assert row["learnt"][row["taken"]]["loss"] <= 1.01 * least
    with pytest.raises(ConfigError, match="--rerank: the validation split decides, so not together with --no-measure"):
        choose(learning(0.01, "whole"), measure=False)
