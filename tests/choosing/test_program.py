"""The program against trying everything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from composer.choosing.program import Part, best_widths
from composer.choosing.whole import without
from composer.choosing.wishes import Wish, WishOptions, read_wishes
from composer.errors import ConfigError, RecipeError
from composer.recipe import load_recipe

numbers = st.lists(st.integers(0, 30), min_size=3, max_size=3)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(numbers, numbers, numbers), min_size=1, max_size=4), st.integers(0, 60), st.integers(0, 60))
def test_no_other_widths_within_both_budgets_cost_less(
    given_parts: list[tuple[list[int], list[int], list[int]]], first: int, second: int
) -> None:
    parts = [Part(str(m), rises, {"a": a, "b": b}) for m, (rises, a, b) in enumerate(given_parts)]
    fitting = [
        sum(part.rises[k] for part, k in zip(parts, widths, strict=True))
        for widths in product(range(3), repeat=len(parts))
        if all(
            sum(part.costs[name][k] for part, k in zip(parts, widths, strict=True)) <= budget
            for name, budget in (("a", first), ("b", second))
        )
    ]
    chosen = best_widths(parts, {"a": first, "b": second})
    if chosen is None:
        assert not fitting
        return
    assert sum(part.costs["a"][k] for part, k in zip(parts, chosen, strict=True)) <= first
    assert sum(part.costs["b"][k] for part, k in zip(parts, chosen, strict=True)) <= second
    assert sum(part.rises[k] for part, k in zip(parts, chosen, strict=True)) == min(fitting)


def test_a_part_that_is_to_go_whole_goes_and_what_it_took_is_free_for_others() -> None:
    rises = {"a": [0.0, 1.0, 9.0], "b": [0.0, 2.0, 9.0], "c": [0.0, 4.0, 9.0]}

    def chosen(by: Mapping[str, Sequence[float]]) -> list[int] | None:
        return best_widths([Part(name, own, {"macs": [2.0, 1.0, 0.0]}) for name, own in by.items()], {"macs": 4.0})

    assert chosen(rises) == [1, 1, 0]
    assert chosen(without(rises, {"a"})) == [2, 0, 0]


def test_lists_of_wishes_go_in_parallel_and_one_value_is_repeated() -> None:
    wishes = read_wishes(WishOptions(keep_macs=[0.7, 0.5], speedup=[2.0], latency_ms=[12.0], loss_at_most=["+0.05"]))
    both = {"speedup": 2.0, "latency_ms": 12.0}
    assert wishes == [Wish({"keep_macs": 0.7, **both}, "+0.05"), Wish({"keep_macs": 0.5, **both}, "+0.05")]
    assert wishes[0].parts(seconds=0.04) == {"macs": 0.7, "seconds": 0.3}
    assert wishes[0].loss_limit(0.3) == pytest.approx(0.35)
    assert read_wishes(load_recipe(given={"speedup": 2, "loss-at-most": 0.4}, file=False)) == [
        Wish({"speedup": 2.0}, "0.4")
    ]


def test_the_demos_wishes_are_a_list_of_models() -> None:
    wished = load_recipe(Path(str(files("composer.demo"))) / "wishes.yaml")
    assert [str(wish) for wish in read_wishes(wished)] == [f"--keep-macs {part}" for part in (0.8, 0.6, 0.4)]


def test_wishes_that_say_nothing_or_contradict_are_refused() -> None:
    with pytest.raises(ConfigError, match="nothing is wished; give one of --keep-macs, --keep-parameters"):
        read_wishes(WishOptions())
    with pytest.raises(ConfigError, match="--keep-parameters: got 2 values; allowed: 1 or 3"):
        read_wishes(WishOptions(keep_macs=[0.7, 0.5, 0.3], keep_parameters=[0.5, 0.6]))
    with pytest.raises(ConfigError, match=r"--loss-at-most: got 0\.2; allowed: a loss of at least 0\.3"):
        Wish({}, "0.2").loss_limit(0.3)
    for wrong, said in (
        ({"speedup": [0.5]}, r"speedup.*0: got 0\.5; .* 1"),
        ({"speedup": "fast"}, r"speedup.*0: got 'fast'; .* number"),
        ({"keep-macs": [1.5]}, "keep-macs"),
        ({"loss-at-most": ["often"]}, r"loss-at-most.0: got 'often'; allowed: a loss, or a rise"),
        ({"loss-at-most": "+-1"}, r"loss-at-most.0: got '\+-1'; allowed: a loss, or a rise"),
    ):
        with pytest.raises(RecipeError, match=said):
            load_recipe(given=wrong, file=False)
