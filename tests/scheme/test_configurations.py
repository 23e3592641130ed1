"""``conf.json``: what is read, what is refused, and how keys become rates of targets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import composer
from composer.errors import ConfigError, ModelError
from composer.models.layouts import layout_of
from composer.scheme.configurations import (
    Configurations,
    Spec,
    check_rates,
    read_configurations,
    resolve,
    write_configurations,
)
from composer.scheme.globs import match_targets
from composer.scheme.layout import Layout

T5 = {
    "model_type": "t5",
    "architectures": ["T5ForConditionalGeneration"],
    "d_model": 8,
    "d_kv": 2,
    "d_ff": 16,
    "num_heads": 4,
    "num_layers": 2,
}
ENCODER = "encoder.block.{}.layer.0.SelfAttention"


@pytest.fixture(scope="module")
def layout() -> Layout:
    return layout_of(T5)


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "conf.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def problems_of(path: Path) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        read_configurations(path)
    assert all("\n" not in problem for problem in caught.value.problems)
    assert all(problem.startswith(f"{path}: ") for problem in caught.value.problems)
    return tuple(problem.removeprefix(f"{path}: ") for problem in caught.value.problems)


def test_an_object_and_a_bare_list_read_alike(tmp_path: Path) -> None:
    listed = read_configurations(write(tmp_path, '[{"a": 0.5}, {}]'))
    named = read_configurations(write(tmp_path, '{"model": "base", "configurations": [{"a": 0.5}, {}]}'))

    assert listed.configurations == named.configurations == [{"a": 0.5}, {}]
    assert (listed.model, named.model) == (None, "base")


@pytest.mark.parametrize("rate", ["0", "0.0", "0.5", "0.999999", "1e-9"])
def test_rates_from_zero_to_below_one_are_read(tmp_path: Path, rate: str) -> None:
    assert read_configurations(write(tmp_path, f'[{{"a": {rate}}}]')).configurations == [{"a": float(rate)}]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("1.01", "1.01"),
        ("2", "2"),
        ("-0.1", "-0.1"),
        ("30", "30"),
        ("NaN", "nan"),
        ("Infinity", "inf"),
        ("1e999", "inf"),
        ("true", "True"),
        ("false", "False"),
        ("null", "null"),
        ('"0.5"', "'0.5'"),
        ("[0.5]", r"[0.5]"),
        ("{}", "{}"),
    ],
)
def test_a_rate_that_is_none_is_refused_with_its_place(tmp_path: Path, value: str, shown: str) -> None:
    path = write(tmp_path, f'[{{"a": 0.1}}, {{"encoder.x": {value}}}]')

    (problem,) = problems_of(path)

    assert problem == f"configurations[1]['encoder.x']: got {shown}; allowed: a number with 0 <= rate <= 1"


def test_numbers_too_long_to_read_are_refused(tmp_path: Path) -> None:
    assert "0 <= rate <= 1" in problems_of(write(tmp_path, f'[{{"a": {"1" * 400}}}]'))[0]
    assert "not valid JSON" in problems_of(write(tmp_path, f'[{{"a": {"1" * 5000}}}]'))[0]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("[]", "configurations: got []; allowed: a list with at least one configuration"),
        ('{"configurations": []}', "configurations: got []; allowed: a list with at least one configuration"),
        ('{"configurations": {}}', "configurations: got {}; allowed: a list with at least one configuration"),
        (
            '{"configurations": null}',
            "configurations: got null; allowed: a list with at least one configuration",
        ),
        ("{}", "configurations: got {}; allowed: the list 'configurations' must be given"),
        ("[3]", "configurations[0]: got 3; allowed: an object of target paths and rates"),
        ("[[0.5]]", "configurations[0]: got [0.5]; allowed: an object of target paths and rates"),
        (
            '{"model": 3, "configurations": [{}]}',
            "model: got 3; allowed: the path of a model folder, as text",
        ),
        (
            '{"model": "", "configurations": [{}]}',
            "model: got ''; allowed: the path of a model folder, as text",
        ),
        (
            '{"modle": "base", "configurations": [{}]}',
            "modle: got 'base'; allowed: only 'model' and 'configurations'; did you mean 'model'?",
        ),
        (
            '{"a\\nb": 1, "configurations": [{}]}',
            r"'a\nb': got 1; allowed: only 'model' and 'configurations'",
        ),
        (
            "7",
            "got 7; allowed: an object with 'configurations', or a list of configurations",
        ),
        (
            "null",
            "got null; allowed: an object with 'configurations', or a list of configurations",
        ),
        ('[{"a": 0.1}', "line 1, column 12: not valid JSON: Expecting ',' delimiter"),
        ('[{"a": 0.1},\n {"b"', "line 2, column 6: not valid JSON: Expecting ':' delimiter"),
        ("", "line 1, column 1: not valid JSON: Expecting value"),
        ("[" * 200_000, "not valid JSON: nested too deeply"),
        (b'[{"a\xff": 0.1}]', "byte 4 is not UTF-8; the file must be UTF-8 text"),
        ("[{}]".encode("utf-16"), "byte 0 is not UTF-8; the file must be UTF-8 text"),
        ('[{"a": 0.1, "a": 0.2}]', "key 'a' is given twice in one object; give it once"),
    ],
)
def test_a_file_of_the_wrong_shape_is_refused(tmp_path: Path, content: str | bytes, problem: str) -> None:
    assert problems_of(write(tmp_path, content)) == (problem,)


def test_every_mistake_of_a_file_is_reported_at_once(tmp_path: Path) -> None:
    content = '{"modell": "x", "configurations": [{"a": 2, "b": "c", "d": 0.5}, 5, {"e": null, "a": 0, "a": 0.1}]}'

    problems = problems_of(write(tmp_path, content))

    places = [problem.split(": got")[0] for problem in problems]
    assert sorted(places) == [
        "configurations[0]['a']",
        "configurations[0]['b']",
        "configurations[1]",
        "configurations[2]['e']",
        "key 'a' is given twice in one object; give it once",
        "modell",
    ]


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    assert problems_of(tmp_path / "conf.json") == ("no such file",)
    (tmp_path / "conf.json").mkdir()
    assert problems_of(tmp_path / "conf.json") == ("is a folder; a file is needed here",)
    (tmp_path / "text").write_text("[]")
    assert problems_of(tmp_path / "text" / "conf.json") == ("no such file",)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    for name in ("base", None):
        given = Configurations(model=name, configurations=[{"a": 0.1, "b": 0.0}, {}])
        write_configurations(tmp_path / "conf.json", given)
        assert read_configurations(tmp_path / "conf.json") == given


@pytest.mark.parametrize(
    ("rates", "problems"),
    [
        ([], ["--linear: got an empty list; allowed: one or more rates, each a number with 0 <= rate <= 1"]),
        (
            [0.5, 1.1, True, "0.1", None, float("nan"), -0.1],
            [
                f"--linear[{i}]: got {shown}; allowed: a number with 0 <= rate <= 1"
                for i, shown in enumerate(["1.1", "True", "'0.1'", "null", "nan", "-0.1"], start=1)
            ],
        ),
    ],
)
def test_a_list_of_rates_given_as_option_is_checked(rates: list[Any], problems: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        check_rates("--linear", rates)
    assert list(caught.value.problems) == problems


def one(layout: Layout, **keys: Any) -> dict[str, Any]:
    return dict(resolve(Configurations(configurations=[keys]), layout)[0])


def test_targets_without_a_key_stay_dense(layout: Layout) -> None:
    assert one(layout, **{ENCODER.format(1): 0.5}) == {ENCODER.format(1): 0.5}
    assert one(layout) == {}


def test_a_glob_names_every_target_it_matches(layout: Layout) -> None:
    assert one(layout, **{"encoder.block.*.layer.0.SelfAttention": 0.5}) == {
        ENCODER.format(0): 0.5,
        ENCODER.format(1): 0.5,
    }
    assert set(one(layout, **{"*": 0.5})) == set(layout.paths)


@pytest.mark.parametrize("turned", [False, True])
def test_the_more_specific_key_wins_in_any_order(layout: Layout, turned: bool) -> None:
    keys = {"*": 0.1, "encoder.*": 0.2, "encoder.block.1.*": 0.3, f"{ENCODER.format(1)}.o": 0.4}
    rates = one(layout, **dict(reversed(keys.items())) if turned else keys)

    assert rates["decoder.block.0.layer.2.DenseReluDense.wi"] == 0.1
    assert rates[f"{ENCODER.format(0)}.o"] == 0.2
    assert rates["encoder.block.1.layer.1.DenseReluDense.wi"] == 0.3
    assert rates[f"{ENCODER.format(1)}.o"] == 0.4


def test_equally_specific_keys_that_disagree_are_refused(layout: Layout) -> None:
    keys = {"encoder.block.0.*.o": 0.3, "encoder.block.*0.*.o": 0.4}
    with pytest.raises(ConfigError, match=r"configurations\[0\]: keys 'encoder.block.0.\*.o' \(0.3\) and .* disagree"):
        one(layout, **keys)


def test_equally_specific_keys_that_agree_are_fine(layout: Layout) -> None:
    assert one(layout, **{"encoder.block.0.*.o": 0.3, "encoder.block.*0.*.o": 0.3})[f"{ENCODER.format(0)}.o"] == 0.3


@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize("winner", [f"{ENCODER.format(0)}.o", "encoder.block.0.layer.0.*.o"])
def test_a_more_specific_key_settles_a_disagreement_wherever_it_stands(
    layout: Layout, position: int, winner: str
) -> None:
    keys = [("encoder.block.0.*.o", 0.3), ("encoder.block.*0.*.o", 0.4)]
    keys.insert(position, (winner, 0.5))

    assert one(layout, **dict(keys))[f"{ENCODER.format(0)}.o"] == 0.5


def test_a_rate_that_removes_no_unit_counts_as_zero(layout: Layout) -> None:
    # 4 heads: 0.1 of them is none (0.4), 0.13 is one (0.52)
    assert one(layout, **{ENCODER.format(0): 0.1, ENCODER.format(1): 0.13}) == {ENCODER.format(1): 0.13}
    assert one(layout, **{"*": 0.0}) == {}


def test_a_zero_that_is_more_specific_keeps_a_target_dense(layout: Layout) -> None:
    assert one(layout, **{"encoder.block.*.layer.0.SelfAttention": 0.5, ENCODER.format(0): 0}) == {
        ENCODER.format(1): 0.5
    }


def test_unknown_keys_of_all_configurations_are_reported_with_the_nearest_names(layout: Layout) -> None:
    given = Configurations(
        configurations=[
            {"encoder.block.0.layer.0.SelfAttentoin": 0.5},
            {"*": 0.1, "pooler.*": 0.2, "lm_head": 0},
        ]
    )
    with pytest.raises(ConfigError) as caught:
        resolve(given, layout, where="my.json")

    first, second, third = caught.value.problems
    assert first.startswith("my.json: configurations[0]: ")
    assert "'encoder.block.0.layer.0.SelfAttentoin' matches no target of this T5 model" in first
    assert "did you mean 'encoder.block.0.layer.0.SelfAttention'" in first
    assert second.startswith("my.json: configurations[1]: ")
    assert "'pooler.*'" in second
    assert "'lm_head'" in third


def test_unknown_keys_are_reported_with_other_mistakes(tmp_path: Path, layout: Layout) -> None:
    path = write(
        tmp_path, '{"model": "base", "configurations": [{"lm_head": 2, "*.o": -1}, {"*.wo": 0.5, "x": 0.5}, 3]}'
    )
    asked: list[str | None] = []

    def layout_of(model: str | None) -> Layout:
        asked.append(model)
        return layout

    expected = (
        r"(?s)configurations\[0\]\['lm_head'\]: got 2; .*\['\*\.o'\]: got -1; .*configurations\[2\]: got 3; .*"
        r"configurations\[0\]: key: 'lm_head' matches no target.*configurations\[1\]: key: 'x' matches no target"
    )
    with pytest.raises(ConfigError, match=expected) as caught:
        read_configurations(path, layout_of)
    assert len(caught.value.problems) == 5
    assert all(problem.startswith(f"{path}: ") for problem in caught.value.problems)
    assert asked == ["base"]
    with pytest.raises(ConfigError, match="got 2") as caught:
        read_configurations(path)
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize("named", [True, False])
def test_the_scheme_is_refused_for_all_of_them_at_once(named: bool, tmp_path: Path, t5_folder: Path) -> None:
    model = {"model": str(t5_folder)}
    write(tmp_path, json.dumps({**(model if named else {}), "configurations": [{"nothing": 0.5, "*.o": 7}]}))
    recipe = composer.load_recipe(given={"folder": str(tmp_path), **({} if named else model)}, file=False)
    with pytest.raises(ConfigError, match=r"(?s)\['\*\.o'\]: got 7; .*key: 'nothing' matches no target of this T5"):
        composer.generate_scheme(recipe)


def test_a_model_that_cannot_be_read_is_one_more_mistake(tmp_path: Path) -> None:
    def layout_of(model: str | None) -> Layout:
        raise ModelError(f"{model}: no such folder")

    path = write(tmp_path, '{"model": "gone", "configurations": [{"a": 2}]}')
    with pytest.raises(ConfigError, match=r"(?s)got 2;.*\ngone: no such folder$"):
        read_configurations(path, layout_of)
    nameless = write(tmp_path, '{"model": 3, "configurations": [{"a": 2}]}')
    with pytest.raises(ConfigError, match="model: got 3") as caught:
        read_configurations(nameless, layout_of)
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize(
    "key", ["lm_head", "shared", "encoder.block.0.layer.0.SelfAttention.q", "encoder.final_layer_norm"]
)
def test_what_is_no_target_is_unknown(layout: Layout, key: str) -> None:
    with pytest.raises(ConfigError, match="matches no target"):
        one(layout, **{key: 0.5})


def test_targets_are_matched_in_execution_order(layout: Layout) -> None:
    found = match_targets(["decoder.*.o", "encoder.block.1.*SelfAttention", "*.o"], layout, where="--targets")
    assert found == [p for p in layout.paths if p.endswith(".o") or p == ENCODER.format(1)]
    with pytest.raises(ConfigError, match=r"--targets: 'x\*' matches no target"):
        match_targets(["*", "x*"], layout, where="--targets")


@given(st.data())
def test_exact_keys_beat_any_globs(data: st.DataObject) -> None:
    layout = layout_of(T5)
    rate = st.floats(0.2, 0.9)
    exact = data.draw(st.dictionaries(st.sampled_from(layout.paths), rate, min_size=1))
    globs = data.draw(st.dictionaries(st.sampled_from(["*", "encoder.*", "decoder.*", "*.o"]), rate))
    items = data.draw(st.permutations([*exact.items(), *globs.items()]))

    rates = one(layout, **dict(items))

    for target, value in exact.items():
        assert rates[target] == value


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=12,
    )
)
def test_any_json_is_read_or_refused_by_lines(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    path = write(tmp_path_factory.mktemp("any"), json.dumps(value))
    try:
        given_rates = read_configurations(path).configurations
    except ConfigError:
        assert problems_of(path)
    else:
        said = [entry for entries in given_rates for entry in entries.values()]
        assert all(0 <= (entry.rate if isinstance(entry, Spec) else entry) < 1 for entry in said)


FORWARD = "encoder.block.0.layer.1.DenseReluDense"
FULL = {"rate": 0.5, "granularity": "2:4", "criterion": "wanda"}


def test_a_rate_said_in_full_is_read_and_written_as_it_was_given(tmp_path: Path) -> None:
    given = {"configurations": [{"a": FULL, "b": {"rate": 0.3}, "c": {"rate": 0.1, "criterion": "l2"}, "d": 0.2}]}
    read = read_configurations(write(tmp_path, json.dumps(given)))
    assert read.configurations[0]["a"] == Spec(**FULL)
    write_configurations(tmp_path / "conf.json", read)
    assert json.loads((tmp_path / "conf.json").read_text()) == given


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"granularity": "2:4"}, "['a']: got {'granularity': '2:4'}; allowed: a number with 0 <= rate <= 1"),
        ({"rate": 2}, "['a']['rate']: got 2; allowed: a number with 0 <= rate <= 1"),
        ({"rate": 0.5, "granularity": "2;4"}, "['a']['granularity']: got '2;4'; allowed: unstructured, per-row"),
        ({"rate": 0.5, "granularity": 4}, "['a']['granularity']: got 4; allowed: unstructured, per-row"),
        ({"rate": 0.5, "granularity": "4:2"}, "['a']['granularity']: got '4:2'; allowed: N:M with N < M"),
        ({"rate": 0.5, "criterion": ""}, "['a']['criterion']: got ''; allowed: the name of a criterion"),
        (
            {"rate": 0.5, "granularty": "row"},
            "['a']['granularty']: got 'row'; allowed: only 'rate', 'granularity' and 'criterion'; "
            "did you mean 'granularity'?",
        ),
    ],
)
def test_what_is_wrong_in_full_is_said_with_its_field(tmp_path: Path, value: Any, problem: str) -> None:
    (said,) = problems_of(write(tmp_path, json.dumps([{"a": value}])))
    assert said.startswith(f"configurations[0]{problem}")


def test_what_says_nothing_but_defaults_is_a_rate(layout: Layout) -> None:
    attention, out = ENCODER.format(0), f"{ENCODER.format(0)}.o"
    assert one(layout, **{attention: {"rate": 0.5, "granularity": "head"}}) == {attention: 0.5}
    assert one(layout, **{out: {"rate": 0.5, "granularity": "unstructured"}}) == {out: 0.5}
    assert one(layout, **{out: {"rate": 0.5}, attention: {"rate": 0}}) == {out: 0.5}
    other = {"rate": 0.5, "granularity": "unstructured"}
    assert one(layout, **{attention: other}) == {attention: Spec(**other)}


def test_the_rate_of_n_of_m_is_made_exact(layout: Layout) -> None:
    path = f"{FORWARD}.wo"
    assert one(layout, **{path: {"rate": 0.873, "granularity": "1:8"}})[path].rate == 0.875


def test_shapes_that_do_not_fit_are_refused_with_the_dimension(layout: Layout) -> None:
    with pytest.raises(ConfigError) as caught:
        one(
            layout,
            **{f"{FORWARD}.wo": {"rate": 0.5, "granularity": "3x6"}, "*.wi": {"rate": 0.5, "granularity": "head"}},
        )
    problems = caught.value.problems
    assert f"{FORWARD}.wo: granularity '3x6': 3 does not divide the output dimension of {FORWARD}.wo, 8" in problems[1]
    assert "granularity 'head' is for attention targets" in problems[0]


def test_what_follows_neurons_takes_no_rate_of_its_own(layout: Layout) -> None:
    neurons = {"rate": 0.5, "granularity": "neuron"}
    assert one(layout, **{f"{FORWARD}.*": neurons}) == {f"{FORWARD}.wi": Spec(**neurons)}
    assert one(layout, **{f"{FORWARD}.wi": neurons, f"{FORWARD}.wo": 0}) == {f"{FORWARD}.wi": Spec(**neurons)}
    with pytest.raises(ConfigError, match=rf"{FORWARD}.wo: follows the neurons of {FORWARD}.wi .*; got 0.3"):
        one(layout, **{f"{FORWARD}.wi": neurons, f"{FORWARD}.wo": 0.3})
