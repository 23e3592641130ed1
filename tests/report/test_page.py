"""The report: self-contained, escaped, well-formed, and never stopped by what is not known yet."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from composer.errors import DataError
from composer.models.layouts import layout_of
from composer.report import costs as plots
from composer.report.kit.components import Cell, Column, Section, Table, pair, write_page
from composer.report.page import write_report
from composer.report.records import Comparison
from composer.report.tables import result_table
from composer.scheme.building import build_scheme
from composer.scheme.configurations import Configurations, resolve
from composer.scheme.generate import generate
from tests.reference.pages import Page

HEADER = "step,epoch,train_loss,valid_loss,train_seconds,valid_seconds\n"
T5 = {
    "model_type": "t5",
    "architectures": ["T5ForConditionalGeneration"],
    "d_model": 64,
    "d_kv": 8,
    "d_ff": 128,
    "num_heads": 8,
    "num_layers": 2,
}


def run(loss: float, metric: float, seconds: float = 100.0) -> dict[str, Any]:
    return {"loss": loss, "metric": metric, "steps": 400, "seconds": seconds}


def trial(rate: float, loss: float) -> dict[str, Any]:
    return {"learning_rate": rate, "loss": loss, "steps": 400, "seconds": 100.0}


def row(i: int) -> dict[str, Any]:
    return {
        "configuration": i,
        "sparsity": 0.3 + 0.1 * i,
        "pruned": {"loss": 5.125 + i},
        "composed": {"loss": 2.25 + i},
        "baseline": run(1.875 + i, 30.5 + i),
        "finetuned": run(1.75 + i, 31.5 + i, 101.0),
        "budgets": [
            {"share": 0.25, "steps": 100, "loss": 1.9 + i, "reached": False, "seconds": 25.0},
            {"share": 0.5, "steps": 200, "loss": 1.8 + i, "reached": True, "seconds": 50.0},
        ],
        "share": 0.5 if i else None,
    }


def costs(baseline: float, composed: float) -> dict[str, Any]:
    sides = {"baseline": baseline, "composed": composed}
    return {side: {"seconds": seconds, "steps": 4 * seconds} for side, seconds in sides.items()}


def comparison(count: int = 3) -> dict[str, Any]:
    work = [{"work": "pruning", "side": "both", "seconds": 1.5, "steps": 5}]
    return {
        "metric": "bleu",
        "rows": [row(i) for i in range(count)],
        "dense": {"untouched": {"loss": 1.5, "metric": 35.0}, "finetuned": run(1.25, 36.0)},
        "search": {
            "baseline": [trial(0.001, 2.0), trial(0.003, 2.5)],
            "composed": [trial(0.001, 1.5)],
            "chosen": {"baseline": 0.001, "composed": 0.001},
        },
        "sharing": [{"level": "module", "blocks": 60, "uses": 90, "saved": 0.333}],
        "ledger": {
            "step_seconds": 0.25,
            "rows": work,
            "baseline": {"seconds": 300.0, "steps": 1200},
            "composed": {"seconds": 200.0, "steps": 800},
            "pays_from": 2,
            "here": count,
            "growth": [
                {"configurations": k, "blocks": 80.0, **costs(100.0 * k, 80 + 40.0 * k)} for k in range(1, count + 1)
            ],
            "lines": [
                {
                    "configurations": k,
                    "baseline": [
                        {"seconds": 0.0, "steps": 0, "loss": 3.0},
                        {"seconds": 9.0 * k, "steps": 9, "loss": 2.0},
                    ],
                    "composed": [{"seconds": 1.0, "steps": 0, "loss": 3.0}, {"seconds": 5.0, "steps": 9, "loss": 1.9}],
                }
                for k in range(1, count + 1)
            ],
            "masks": {"criterion": "obs", "same": True},
        },
        "verdict": "Composed models win.",
        "provenance": {
            "versions": {"torch": "2.0"},
            "machine": {"cores": 2},
            "seed": 7,
            "data": {"name": "pairs", "digest": "abc"},
            "recipe": {"model": "base", "criterion": "l1", "block-levels": ["module"]},
            "command": "compose run && compose compare",
        },
    }


def read(count: int = 3) -> Comparison:
    return Comparison.read(comparison(count))


def stats(folder: Path, count: int = 3) -> dict[str, Path]:
    found = {}
    for name in [f"{side}-{i}" for i in range(count) for side in ("model", "baseline")] + ["dense"]:
        found[name] = folder / f"{name}.csv"
        found[name].write_text(HEADER + "0,0,,3.5,0,0\n10,1,2.5,2.0,4,1\n", encoding="utf-8")
    found["block"] = folder / "block.csv"
    found["block"].write_text(f"level,path,rates,node,{HEADER}module,a,0.5,n,0,0,,0.5,0,0\n", encoding="utf-8")
    found["joint"] = folder / "joint.csv"
    found["joint"].write_text(f"configuration,{HEADER}0,0,0,,3.5,0,0\n0,9,0,2,2.5,9,0\n", encoding="utf-8")
    found["model-9"] = folder / "not-there.csv"
    return found


def test_a_full_report(tmp_path: Path) -> None:
    layout = layout_of(T5)
    rates = resolve(Configurations(configurations=generate(layout)), layout)
    scheme = build_scheme(rates, layout, model="base", fingerprint="f")
    output = tmp_path / "report.html"
    write_report(read(), stats(tmp_path), scheme, output, layout=layout)
    page = Page(output)
    assert len(page.found["id"]) == len(set(page.found["id"]))
    assert set(page.found["aria-labelledby"]) <= set(page.found["id"])
    assert {"main", "nav", "table", "caption", "figcaption", "svg", "details"} <= set(page.tags)
    assert "script" not in page.tags
    for i in range(3):
        for value in (5.125 + i, 2.25 + i, 1.875 + i, 1.75 + i):
            assert f"{value:.3f}" in page.html
        assert f"{31.5 + i:.1f}" in page.html
        assert f"Configuration {i}, validation loss in nats. Composed: from 3.500 to 2.000." in page.html
    assert "Validation loss by configuration against joint steps. 0: from 3.500 to 2.500." in page.html
    assert "Composed models win." in page.html
    assert "compose run &amp;&amp; compose compare" in page.html
    assert "Composing pays from 2 configurations on; here there are 3." in page.html
    assert "Masks: obs, the same on both sides." in page.html
    assert "2: baseline 3.3 min, composed 2.7 min." in page.html


def test_the_ledger_as_a_picture(tmp_path: Path) -> None:
    ledger = read(5).ledger
    figure = plots.growth_figure(ledger)
    both, pays = figure.axes[0].lines[:2], figure.axes[0].lines[2]
    assert [list(line.get_xdata()) for line in both] == [[1, 2, 3, 4, 5]] * 2
    assert [list(line.get_ydata()) for line in both] == [[100, 200, 300, 400, 500], [120, 160, 200, 240, 280]]
    assert (pays.get_label(), list(pays.get_xdata())) == ("pays from 2", [2, 2])
    lines = plots.quality_figure(ledger).axes[0].lines
    labels = [line.get_label() for line in lines]
    assert labels == [f"{k} {side}" for k in (1, 2, 4, 5) for side in ("baselines", "composed")]
    assert list(lines[4].get_xdata()) == [0, 36]
    plots.draw(ledger.model_copy(update={"lines": ()}), tmp_path / "a.png")
    plots.draw(ledger.model_copy(update={"pays_from": 9}), tmp_path / "b.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_nothing_is_loaded_from_elsewhere(tmp_path: Path) -> None:
    output = tmp_path / "report.html"
    write_report(read(), stats(tmp_path), None, output)
    page = Page(output)
    assert all(link.startswith(("#", "data:")) for link in page.loads)
    assert not re.search(r"@import|url\((?!#)", page.html)
    targets = {link[1:] for link in page.loads if link.startswith("#") and len(link) > 1}
    assert targets <= set(page.found["id"])


def test_the_same_bytes_every_time(tmp_path: Path) -> None:
    for name in ("a.html", "b.html"):
        write_report(read(), stats(tmp_path), None, tmp_path / name)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_text_is_escaped(tmp_path: Path) -> None:
    evil = "<script>alert('x')</script>"
    data = comparison(1) | {"verdict": evil, "metric": evil}
    data["provenance"] = {
        "recipe": {"model": evil, evil: evil},
        "machine": {evil: evil},
        "command": evil,
        "data": evil,
    }
    data["ledger"]["rows"] = [{"work": evil, "side": evil, "seconds": 1.0, "steps": 2.0}]
    data["sharing"][0]["level"] = evil
    output = tmp_path / "report.html"
    write_report(Comparison.read(data), {}, None, output, title=evil)
    page = Page(output)
    assert "script" not in page.tags
    assert "&lt;script&gt;" in page.html


def nothing(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: nothing(item) for key, item in value.items()}
    return [nothing(item) for item in value] if isinstance(value, list) else None


@pytest.mark.parametrize(
    "data",
    [
        {},
        nothing(comparison()),
        dict.fromkeys(comparison()),
        {"rows": [{}]},
        {"rows": [{"configuration": 0, "budgets": None, "pruned": {}}], "ledger": {}, "search": {}, "dense": {}},
    ],
)
def test_what_is_not_known_is_a_dash(tmp_path: Path, data: dict[str, Any]) -> None:
    output = tmp_path / "report.html"
    write_report(Comparison.read(data), {}, None, output)
    page = Page(output)
    assert "–" in page.html
    assert "None" not in page.html
    assert "nan" not in re.sub(r"<style>.*?</style>", "", page.html, flags=re.DOTALL).lower()


def test_only_the_better_side_is_marked() -> None:
    assert pair(1.0, 2.0, str, lower=True) == (Cell("1.0", better=True), Cell("2.0"))
    assert pair(1.0, 2.0, str, lower=False) == (Cell("1.0"), Cell("2.0", better=True))
    assert pair(None, 2.0, str, lower=True) == (Cell("None"), Cell("2.0"))
    for metric, better in (("perplexity", [True, False]), ("bleu", [False, True])):
        table = result_table(Comparison.read(comparison(1) | {"metric": metric}))
        assert [bool(cell.better) for cell in table.rows[0][6:8]] == better
    assert pair(1.01, 1.02, lambda v: f"{v:.1f}", lower=True) == (Cell("1.0"), Cell("1.0"))


def test_shares_that_were_not_reached_are_told_from_those_not_tried(tmp_path: Path) -> None:
    output = tmp_path / "report.html"
    write_report(read(2), {}, None, output)
    html = output.read_text("utf-8")
    assert "not reached" in html
    assert "1/2 (50%)" in html


def test_composing_that_never_pays_is_said(tmp_path: Path) -> None:
    data = comparison()
    data["ledger"]["pays_from"] = None
    output = tmp_path / "report.html"
    write_report(Comparison.read(data), {}, None, output)
    assert "Composing does not pay at these settings, however many configurations" in output.read_text("utf-8")


def test_a_malformed_stats_file_writes_nothing(tmp_path: Path) -> None:
    bad = tmp_path / "model-0.csv"
    bad.write_text("step\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"model-0\.csv: line 1"):
        write_report(Comparison(), {"model-0": bad}, None, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_a_composed_model_that_was_not_trained_stands_in_its_panel(tmp_path: Path) -> None:
    given = comparison(2)
    given["rows"][0]["finetuned"] |= {"steps": 0, "seconds": 0.0, "loss": 1.625}
    found = stats(tmp_path, 2)
    del found["model-0"]
    page = tmp_path / "report.html"
    write_report(Comparison.read(given), found, None, page)
    text = page.read_text("utf-8")
    assert "Configuration 0, validation loss in nats. Composed: from 1.625 to 1.625. Baseline: from" in text


def test_another_page_can_use_the_base_and_its_parts(tmp_path: Path) -> None:
    table = Table("t", "A caption", [Column("a", numeric=False), Column("b", "s")], [[Cell("x"), Cell("1", bar=0.5)]])
    sections = [Section("one", "One", "Lead", [table])]
    write_page(tmp_path / "p.html", "base.html", title="Other", sections=sections, links=[("one", "One")])
    page = Page(tmp_path / "p.html")
    assert "A caption" in page.html
    assert "width: 50.0%" in page.html
