"""The recipe: a file's options below, given ones above, checked all at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from composer.errors import RecipeError
from composer.recipe import Recipe, as_for_one_model, load_recipe


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(content: str | bytes, name: str = "compose.yaml") -> Path:
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return Path(name)


def problems_of(path: Path | None = None, given: dict[str, Any] | None = None) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, given)
    assert all("\n" not in problem for problem in caught.value.problems)
    return list(caught.value.problems)


def test_without_a_file_and_options_there_are_the_documented_defaults() -> None:
    recipe = load_recipe()
    assert recipe == Recipe()
    assert (recipe.attention, recipe.linear) == ([0.25, 0.5, 0.25], [0.3, 0.3, 0.5])
    assert (recipe.criterion, recipe.trainer, recipe.seed) == ("l1", "distill", 0)
    assert recipe.budgets == [1 / 16, 1 / 8, 1 / 4, 1 / 2, 1]


def test_the_file_of_the_current_folder_is_read() -> None:
    write("seed: 7\n")
    assert load_recipe().seed == 7
    write("seed: 8\n", "other.yaml")
    assert load_recipe(Path("other.yaml")).seed == 8
    assert load_recipe(file=False).seed == 0


def test_what_is_given_wins_over_the_file_field_by_field() -> None:
    write("seed: 7\ncriterion: l1\nblock: {steps: 5, batch-size: 4}\nfinetune:\n  learning-rate: 0.5\n")

    recipe = load_recipe(given={"seed": 9, "block": {"steps": 6}, "model": None})

    assert (recipe.seed, recipe.block.steps, recipe.block.batch_size) == (9, 6, 4)
    assert recipe.finetune.learning_rate == 0.5
    assert recipe.finetune.batch_size == Recipe().finetune.batch_size
    assert recipe.model is None


@pytest.mark.parametrize(("train", "rate"), [("all", 1e-4), ("biases-norms", 1e-2), ("lora", 3e-3)])
def test_what_learns_says_the_rate_where_nobody_does(train: str, rate: float) -> None:
    recipe = load_recipe(given={"finetune": {"train": train}})
    assert recipe.finetune.learning_rate == as_for_one_model(recipe.block, recipe.finetune, None).learning_rate == rate
    assert load_recipe(given={"finetune": {"train": train, "learning_rate": 5e-4}}).finetune.learning_rate == 5e-4


def test_keys_are_written_as_flags_or_with_underscores() -> None:
    flags = load_recipe(write("train-size: 5\nblock: {learning-rate: 0.1}\n"))
    fields = load_recipe(write("train_size: 5\nblock: {learning_rate: 0.1}\n"))
    assert flags == fields
    assert (flags.train_size, flags.block.learning_rate) == (5, 0.1)


def test_none_is_not_given() -> None:
    write("seed: 7\nmodel:\n")
    recipe = load_recipe(given={"seed": None, "block": {"steps": None}})
    assert (recipe.seed, recipe.model, recipe.block.steps) == (7, None, Recipe().block.steps)


@pytest.mark.parametrize("content", ["seed: 1\n", "finetune: 300\n", "finetune: {steps: 5}\n"])
def test_a_part_that_is_no_mapping_is_a_problem_like_any_other(content: str) -> None:
    write(content)
    with pytest.raises(RecipeError, match=r"^options: finetune: got 300; input should be a valid dictionary"):
        load_recipe(given={"finetune": 300})


@pytest.mark.parametrize("content", ["", "# nothing\n", "---\n"])
def test_an_empty_file_says_nothing(content: str) -> None:
    assert load_recipe(write(content)) == Recipe()


@pytest.mark.parametrize(
    ("content", "place", "near"),
    [
        ("learning-rats: [1]\n", "learning-rats", "learning-rates"),
        ("block: {learning-rat: 1}\n", "block.learning-rat", "learning-rate"),
        ("finetune: {warmpu: 0.1}\n", "finetune.warmpu", "warmup"),
        ("crit_erion: l1\n", "crit-erion", "criterion"),
        ("block: {warmupp: 1}\n", "block.warmupp", None),
        ("zzzzzz: 1\n", "zzzzzz", None),
        ("1: 2\n", "1", None),
    ],
)
def test_an_unknown_key_names_the_near_miss(content: str, place: str, near: str | None) -> None:
    hint = f"; did you mean {near!r}?" if near else ""
    assert problems_of(write(content)) == [f"compose.yaml: unknown key {place!r}{hint}"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("seed: x\n", "compose.yaml: seed: got 'x'; "),
        ("seed: 1.5\n", "compose.yaml: seed: got 1.5; "),
        ("count: 0\n", "compose.yaml: count: got 0; input should be greater than or equal to 1"),
        (
            "block: {steps: 0}\n",
            "compose.yaml: block.steps: got 0; input should be greater than or equal to 1",
        ),
        ("finetune: {batch-size: 0}\n", "compose.yaml: finetune.batch-size: got 0; "),
        ("finetune: {batch-size: -3}\n", "compose.yaml: finetune.batch-size: got -3; "),
        ("finetune: {epochs: 0}\n", "compose.yaml: finetune.epochs: got 0; "),
        ("finetune: {learning-rate: .nan}\n", "compose.yaml: finetune.learning-rate: got nan; "),
        ("finetune: {learning-rate: .inf}\n", "compose.yaml: finetune.learning-rate: got inf; "),
        ("finetune: {train: x}\n", "compose.yaml: finetune.train: got 'x'; "),
        ("finetune: {warmup: 1}\n", "compose.yaml: finetune.warmup: got 1; "),
        ("finetune: {warmup: .nan}\n", "compose.yaml: finetune.warmup: got nan; "),
        ("finetune: {weight-decay: .nan}\n", "compose.yaml: finetune.weight-decay: got nan; "),
        ("finetune: {weight-decay: .inf}\n", "compose.yaml: finetune.weight-decay: got inf; "),
        ("budgets: [0]\n", "compose.yaml: budgets.0: got 0; "),
        ("budgets: [0.5, 2]\n", "compose.yaml: budgets.1: got 2; "),
        ("budgets: [.nan]\n", "compose.yaml: budgets.0: got nan; "),
        ("attention: half\n", "compose.yaml: attention: got 'half'; "),
        ("precision: fp8\n", "compose.yaml: precision: got 'fp8'; input should be 'fp32' or 'bf16'"),
        ("block-levels: [modul]\n", "compose.yaml: block-levels.0: got 'modul'; "),
        ("block: 3\n", "compose.yaml: block: got 3; "),
        ("targets: '*.o'\n", "compose.yaml: targets: got '*.o'; "),
    ],
)
def test_a_value_that_is_not_allowed_is_refused_with_its_place(content: str, problem: str) -> None:
    (found,) = problems_of(write(content))
    assert found.startswith(problem)


@pytest.mark.parametrize("content", ["seed: true\n", "block: {steps: true}\n", "attention: [false]\n", "count: 2.5\n"])
def test_booleans_and_fractions_are_no_counts_or_rates(content: str) -> None:
    (found,) = problems_of(write(content))
    assert found.startswith("compose.yaml: ")


def test_all_mistakes_are_reported_at_once() -> None:
    write("seed: x\nfoo: 1\nblock: {steps: 0, patiens: 1}\nbudgets: [2, 0.5, 3]\n")
    assert [problem.removeprefix("compose.yaml: ").split(";")[0] for problem in sorted(problems_of())] == [
        "block.steps: got 0",
        "budgets.0: got 2",
        "budgets.2: got 3",
        "seed: got 'x'",
        "unknown key 'block.patiens'",
        "unknown key 'foo'",
    ]


def test_mistakes_among_options_are_no_fault_of_a_file() -> None:
    assert problems_of(None, {"sede": 1}) == ["options: unknown key 'sede'; did you mean 'seed'?"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("seed: [1\n", "compose.yaml: line 2, column 1: not valid YAML"),
        ("a: b: c\n", "compose.yaml: line 1, column 5: not valid YAML"),
        ("\tseed: 1\n", "compose.yaml: line 1, column 1: not valid YAML"),
        (b"seed: \xff\n", "compose.yaml: byte 6 is not UTF-8"),
        ("- seed\n", "compose.yaml: got list; allowed: a mapping of options to values"),
        ("seed\n", "compose.yaml: got str; allowed: a mapping of options to values"),
        ("!!python/object/apply:os.system ['true']\n", "compose.yaml: line 1, column 1: not valid YAML"),
        ("a: \x01\n", "compose.yaml: not valid YAML"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(content: str | bytes, message: str) -> None:
    (problem,) = problems_of(write(content))
    assert problem.startswith(message)


def test_keys_given_twice_are_refused() -> None:
    assert problems_of(write("seed: 1\nseed: 2\n")) == ["compose.yaml: line 2: key 'seed' is given twice; give it once"]
    assert problems_of(write("batch: 1\nblock: {steps: 1, steps: 2}\n"))[0] == (
        "compose.yaml: line 2: key 'steps' is given twice; give it once"
    )
    assert "train-size" in problems_of(write("train-size: 1\ntrain_size: 2\n"))[0]


def test_a_missing_recipe_and_a_folder_are_refused() -> None:
    assert problems_of(Path("none.yaml")) == ["none.yaml: no such file"]
    Path("folder").mkdir()
    assert problems_of(Path("folder")) == ["folder: is a folder; a file is needed here"]


def test_anything_that_a_recipe_says_can_be_written_and_read_again() -> None:
    given = {"seed": 3, "block": {"steps": 7}, "targets": ["*.o"], "grid": True, "folder": "runs/a"}
    recipe = load_recipe(given=given)
    write(yaml.safe_dump(recipe.model_dump(mode="json", by_alias=True)))
    assert load_recipe() == recipe


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_recipe().seed = 3  # type: ignore[misc]


def test_data_options_are_part_of_the_recipe() -> None:
    options = load_recipe(given={"data": "demo", "train_size": 5, "seed": 4}).data_options
    assert (options.data, options.train_size, options.seed) == ("demo", 5, 4)
    with pytest.raises(RecipeError, match="--data: nothing given"):
        _ = load_recipe().data_options


@pytest.mark.parametrize(
    ("block", "one", "together"),
    [
        ({}, 60, 60),
        ({}, 900, 1350),
        ({"times": 1}, 900, 900),
        ({"times": 0.1}, 3, 1),
        ({"steps": 7, "times": 3}, 900, 7),
    ],
)
def test_joint_steps_are_so_many_times_those_of_one_model(block: dict[str, float], one: int, together: int) -> None:
    recipe = load_recipe(given={"block": block, "finetune": {"batch_size": 5}})
    joint = as_for_one_model(recipe.block, recipe.finetune, one)
    assert (joint.steps, joint.batch_size) == (together, 5)


def test_joint_steps_that_cannot_be_counted_yet_stay_as_they_are() -> None:
    recipe = load_recipe()
    assert as_for_one_model(recipe.block, recipe.finetune, None).steps == recipe.block.steps
