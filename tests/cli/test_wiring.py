"""Every command calls the right step with the recipe that its flags describe."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from composer.models.hub import DownloadResult
from composer.recipe import Recipe
from composer.steps import run as pipeline
from composer.workspace import Workspace

from .conftest import Compose, Recorder


def ran(recorder: Recorder, compose: Compose, *words: str) -> tuple[str, Recipe, tuple[Any, ...], dict[str, Any]]:
    """The one step that a command line calls: name, recipe, further arguments, options."""
    result = compose(*words)
    assert (result.status, result.err) == (0, "")
    name, (given_to, *args), given = recorder.only
    recipe = given_to.recipe if isinstance(given_to, Workspace) else given_to
    assert isinstance(recipe, Recipe)
    given.pop("progress", None)
    return name, recipe, tuple(args), given


def test_generate_config(recorder: Recorder, compose: Compose) -> None:
    words = "generate-config -m demo --attention 0.25 0.5 --linear 0.3 -n 2 --grid --random 4 --seed 7 --targets a.* b"
    name, recipe, _, given = ran(recorder, compose, *words.split(), "-o", "x.json", "--force")
    assert name == "generate_config"
    assert given == {"output": Path("x.json"), "force": True}
    expected = {"model": "demo", "attention": [0.25, 0.5], "linear": [0.3], "count": 2, "grid": True, "random": 4}
    assert recipe == Recipe(**expected, seed=7, targets=["a.*", "b"])


def test_granularity_and_calibration(recorder: Recorder, compose: Compose) -> None:
    words = ["generate-config", "-m", "demo", "--linear", "0.5", "--granularity", "2:4"]
    assert ran(recorder, compose, *words)[1] == Recipe(model="demo", linear=[0.5], granularity="2:4")
    recorder.calls.clear()
    words = ["generate-config", "--attention-granularity", "per-row"]
    assert ran(recorder, compose, *words)[1] == Recipe(attention_granularity="per-row")
    recorder.calls.clear()
    words = ["prune", "--criterion", "wanda", "--calibration", "sequential"]
    assert ran(recorder, compose, *words)[1] == Recipe(criterion="wanda", calibration="sequential")


def test_a_flag_that_is_not_given_leaves_the_recipe_alone(recorder: Recorder, compose: Compose) -> None:
    Path("compose.yaml").write_text("attention: [0.1]\nfinetune: {steps: 9, batch-size: 4}\nseed: 3\n")
    _, recipe, _, given = ran(recorder, compose, "generate-config", "--linear", "0.9")
    assert (recipe.attention, recipe.linear, recipe.seed) == ([0.1], [0.9], 3)
    assert (recipe.finetune.steps, recipe.finetune.batch_size) == (9, 4)
    assert given == {"output": None, "force": False}


def test_another_recipe(recorder: Recorder, compose: Compose) -> None:
    Path("compose.yaml").write_text("seed: 3\n")
    Path("other.yaml").write_text("seed: 4\n")
    assert ran(recorder, compose, "prune", "--recipe", "other.yaml")[1].seed == 4


@pytest.mark.parametrize("levels", [["module,layer"], ["module", "layer"], ["module,", "layer"]])
def test_generate_scheme(levels: list[str], recorder: Recorder, compose: Compose) -> None:
    words = ["generate-scheme", "-c", "c.json", "-o", "s.json", "-m", "base", "--block-levels", *levels]
    name, recipe, _, given = ran(recorder, compose, *words)
    assert name == "generate_scheme"
    assert given == {"config": Path("c.json"), "output": Path("s.json"), "force": False}
    assert (recipe.model, recipe.block_levels) == ("base", ["module", "layer"])


def test_show_a_scheme(recorder: Recorder, compose: Compose) -> None:
    name, _, args, given = ran(recorder, compose, "show")
    assert (name, args, given) == ("show_scheme", (Path("conf_prune.json"),), {"picture": Path("scheme.png")})
    recorder.calls.clear()
    _, _, args, given = ran(recorder, compose, "show", "a/s.json")
    assert (args, given) == ((Path("a/s.json"),), {"picture": Path("a/scheme.png")})
    recorder.calls.clear()
    assert ran(recorder, compose, "show", "a/s.json", "-o", "x.svg")[3] == {"picture": Path("x.svg")}


def test_show_a_model(recorder: Recorder, compose: Compose) -> None:
    Path("base").mkdir()
    name, _, args, _ = ran(recorder, compose, "show", "base")
    assert (name, args) == ("show_model", (Path("base"),))
    recorder.calls.clear()
    assert ran(recorder, compose, "show", "demo")[0] == "show_model"


def test_prune(recorder: Recorder, compose: Compose) -> None:
    name, recipe, _, given = ran(recorder, compose, "prune", "-s", "s.json", "-o", "lib", "--criterion", "l1")
    assert (name, recipe.criterion) == ("prune", "l1")
    assert given == {"scheme": Path("s.json"), "output": Path("lib"), "force": False}


def test_finetune_blocks(recorder: Recorder, compose: Compose) -> None:
    words = "finetune --level block --steps 7 --batch-size 3 --learning-rate 0.5 --trainer distill -p lib --data demo"
    name, recipe, _, given = ran(recorder, compose, *words.split(), "--prefix", "- ", "--precision", "bf16")
    assert name == "finetune_blocks"
    assert given == {"scheme": None, "pruned": Path("lib"), "output": None, "force": False}
    assert (recipe.block.steps, recipe.block.batch_size, recipe.block.learning_rate) == (7, 3, 0.5)
    assert recipe.finetune == Recipe().finetune
    assert (recipe.data, recipe.prefix, recipe.precision) == ("demo", "- ", "bf16")


@pytest.mark.parametrize(
    ("flags", "kind", "i"),
    [(["-n", "2"], "composed", 2), (["-n", "0", "--baseline"], "baseline", 0), (["--dense"], "dense", None)],
)
def test_finetune_model(flags: list[str], kind: str, i: int | None, recorder: Recorder, compose: Compose) -> None:
    words = ["finetune", "--level", "model", *flags, "--steps", "7", "--device", "cpu", "-p", "lib", "--force"]
    name, recipe, args, given = ran(recorder, compose, *words)
    assert (name, args) == ("finetune_model", (kind, i))
    assert given == {"scheme": None, "modules": Path("lib"), "output": None, "force": True}
    assert (recipe.finetune.steps, recipe.block, recipe.device) == (7, Recipe().block, "cpu")


def test_epochs_win_over_the_steps_of_a_recipe(recorder: Recorder, compose: Compose) -> None:
    Path("compose.yaml").write_text("finetune: {steps: 300}\n")
    _, recipe, _, _ = ran(recorder, compose, "finetune", "--level", "model", "-n", "0", "--epochs", "2.5")
    assert (recipe.finetune.steps, recipe.finetune.epochs) == (None, 2.5)


@pytest.mark.parametrize(
    ("words", "step"), [("build-model", "build_model"), ("finetune --level model", "finetune_model")]
)
def test_all_configurations(words: str, step: str, recorder: Recorder, compose: Compose) -> None:
    result = compose(*words.split(), "--all", "-s", "s.json")
    assert result.status == 0
    (size, args, _), *calls = recorder.calls
    assert (size, args) == ("scheme_size", (Path("s.json"),))
    assert [(name, args[-1]) for name, args, _ in calls] == [(step, 0), (step, 1)]
    first, second = (args[0] for _, args, _ in calls)
    assert isinstance(first, Workspace)
    assert first is second, "what is loaded for one configuration serves all"


def test_build_model(recorder: Recorder, compose: Compose) -> None:
    name, _, args, given = ran(recorder, compose, "build-model", "-n", "0", "-p", "lib", "-o", "out")
    assert (name, args) == ("build_model", (0,))
    shared = {"scheme": None, "modules": Path("lib"), "output": Path("out"), "force": False}
    assert given == {**shared, "shrink": None}


def test_evaluate(recorder: Recorder, compose: Compose) -> None:
    words = ["evaluate", "a", "b", "--test-size", "5", "--test-split", "test_2016", "--text-column", "review"]
    name, recipe, args, given = ran(recorder, compose, *words)
    assert (name, args, given) == ("evaluate", (["a", "b"],), {"output": None, "force": False, "speed": False})
    assert (recipe.test_size, recipe.test_split, recipe.text_column) == (5, "test_2016", "review")


def test_predict(recorder: Recorder, compose: Compose) -> None:
    name, recipe, args, _ = ran(recorder, compose, "predict", "m", "A man.", "Two dogs.", "--num-beams", "4")
    assert (name, args, recipe.num_beams) == ("predict", ("m", ["A man.", "Two dogs."]), 4)


def test_predict_lines_of_standard_input(recorder: Recorder, compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("A man.\r\nTwo dogs."))
    assert ran(recorder, compose, "predict", "m")[2] == ("m", ["A man.", "Two dogs."])


def test_plot(recorder: Recorder, compose: Compose) -> None:
    Path("stats").mkdir()
    for name in ("model-2.csv", "block.csv"):
        Path("stats", name).touch()
    assert compose("plot").status == 0
    assert compose("plot", "x.csv", "-o", "y.svg").status == 0
    assert [args for _, args, _ in recorder.calls] == [
        ([Path("stats/block.csv"), Path("stats/model-2.csv")], Path("loss.png")),
        ([Path("x.csv")], Path("y.svg")),
    ]


def test_compare(recorder: Recorder, compose: Compose) -> None:
    words = "compare --no-train --steps 5 --block-steps 6 --trainer distill --learning-rates 0.1 0.2 --budgets 0.5 1"
    name, recipe, _, given = ran(recorder, compose, *words.split(), "--joint-times", "2")
    assert (name, given) == ("compare", {"train": False, "force": False})
    assert (recipe.finetune.steps, recipe.block.steps, recipe.block.times) == (5, 6, 2.0)
    assert (recipe.learning_rates, recipe.budgets) == ([0.1, 0.2], [0.5, 1.0])


def test_run_takes_its_folder_from_the_recipe_s_name(recorder: Recorder, compose: Compose) -> None:
    Path("compose.yaml").write_text("seed: 1\n")
    Path("t5.yaml").write_text("seed: 2\n")
    Path("own.yaml").write_text("folder: here\n")
    lines = (
        ["run"],
        ["run", "t5.yaml"],
        ["run", "t5.yaml", "-o", "x"],
        ["run", "own.yaml"],
        ["run", "--recipe", "t5.yaml"],
    )
    for words in lines:
        assert compose(*words).status == 0
    recipes = [args[0] for _, args, _ in recorder.calls]
    assert [str(recipe.folder) for recipe in recipes] == ["compose", "t5", "x", "here", "t5"]
    assert [recipe.seed for recipe in recipes] == [1, 2, 2, 0, 2]


def test_run_with_configurations_of_one_s_own(recorder: Recorder, compose: Compose) -> None:
    Path("t5.yaml").write_text("seed: 2\n")
    assert compose("run", "t5.yaml", "-c", "mine.json").status == 0
    assert recorder.only[1][0].config == Path("mine.json")


def test_generate_scheme_takes_the_configurations_of_the_recipe(recorder: Recorder, compose: Compose) -> None:
    Path("compose.yaml").write_text("config: mine.json\n")
    assert ran(recorder, compose, "generate-scheme")[3]["config"] == Path("mine.json")
    recorder.calls.clear()
    assert ran(recorder, compose, "generate-scheme", "-c", "other.json")[3]["config"] == Path("other.json")


def test_dry_run(recorder: Recorder, compose: Compose) -> None:
    Path("t5.yaml").write_text("seed: 2\n")
    result = compose("run", "t5.yaml", "--dry-run", "--attention", "0.5")
    name, (recipe,), _ = recorder.only
    assert (name, recipe.attention) == ("plan", [0.5])
    assert "every variant once" in result.out


def test_demo(recorder: Recorder, compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Path, dict[str, Any]]] = []

    def recipe(folder: Path, given: dict[str, Any]) -> Recipe:
        asked.append((folder, given))
        return Recipe(folder=folder, finetune={"steps": 160})  # type: ignore[arg-type]

    monkeypatch.setattr(pipeline, "demo_recipe", recipe)
    Path("compose.yaml").write_text("this is no recipe of the demo's\n")
    _, made, _, _ = ran(recorder, compose, "demo", "--epochs", "2", "--block-levels", "layer")
    ((folder, given),) = asked
    assert (folder, given["block_levels"]) == (Path("demo-run"), ["layer"])
    assert given["finetune"]["epochs"] == 2
    assert made.finetune.steps is None


def test_download(compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def download(model: str, output: Path, **options: Any) -> DownloadResult:
        asked.append((model, output, options))
        return DownloadResult("google-t5/t5-small", "c0ffee" * 7, output, ("config.json",), 242_000_000, True)

    monkeypatch.setattr("composer.models.hub.download", download)
    result = compose("download", "t5", "--revision", "main")
    assert asked == [("t5", Path("models/base"), {"revision": "main", "force": False, "quiet": False})]
    assert result.out == "models/base: google-t5/t5-small at c0ffeec0ffee, 242 MB in 1 file\n"


def test_run_takes_what_measured_best_and_the_original_recipe_is_one_flag_away(
    recorder: Recorder, compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text("model: demo\ndata: demo\n")
    Path("s.yaml").write_text("model: demo\ndata: demo\ncriterion: l1\n")
    taken = []
    for words in ("r.yaml", "s.yaml", "r.yaml --classic", "r.yaml --classic --trainer least_squares"):
        taken.append(ran(recorder, compose, "run", *words.split())[1])
        recorder.calls.clear()
    best, said, classic, mixed = taken
    assert (best.criterion, best.trainer) == ("obs", pipeline.BEST["trainer"])
    assert (said.criterion, said.trainer) == ("l1", pipeline.BEST["trainer"])
    assert (classic.criterion, classic.trainer, classic.dead_columns) == ("l1", "distill", False)
    assert classic.block_levels == ["module"]
    assert (mixed.criterion, mixed.trainer) == ("l1", "least_squares")
