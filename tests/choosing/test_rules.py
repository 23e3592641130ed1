"""Published ways to spread a budget over layers, against the papers' formulas."""

from __future__ import annotations

import pytest

from composer.choosing.rules import RULES, by_influence, by_outliers


def test_layers_with_more_outliers_keep_more_around_the_mean_share() -> None:
    ratios = {"a": 0.01, "b": 0.03, "c": 0.02, "d": 0.05}
    ways = [by_outliers(ratios)(size / 50) for size in range(51)]
    shares = [[way(layer) for layer in ratios] for way in ways]
    for row in shares[20:30]:  # where no share ends at 0 or 1
        mean = sum(row) / 4
        lifts = [0.16 * (d - 0.01) / 0.04 for d in ratios.values()]
        assert row == pytest.approx([mean + lift - sum(lifts) / 4 for lift in lifts])
        assert max(row) - min(row) == pytest.approx(2 * 0.08)
    assert (shares[0], shares[-1]) == (pytest.approx([0.0] * 4), pytest.approx([1.0] * 4))
    assert [by_outliers(dict.fromkeys("ab", 0.1))(0.4)(x) for x in "ab"] == pytest.approx([0.4, 0.4])


def test_whole_layers_of_least_influence_go_first() -> None:
    rule = by_influence({"a": 0.3, "b": 0.1, "c": 0.2})
    assert [[round(rule(n / 6)(layer), 3) for layer in "abc"] for n in range(7)] == [
        [0, 0, 0],
        [0.5, 0, 0],
        [1, 0, 0],
        [1, 0, 0.5],
        [1, 0, 1],
        [1, 0.5, 1],
        [1, 1, 1],
    ]


@pytest.mark.parametrize("name", RULES)
def test_no_layer_shrinks_while_the_model_grows(name: str) -> None:
    rule = RULES[name]({"a": 0.3, "b": 0.1, "c": 0.2})  # type: ignore[index]
    for layer in "abc":
        shares = [rule(n / 40)(layer) for n in range(41)]
        assert shares == sorted(shares)
        assert (shares[0], shares[-1]) == (pytest.approx(0), pytest.approx(1))
