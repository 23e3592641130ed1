"""The page: made from the files alone, self-contained, well-formed, whatever is missing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from composer.assess.pages import grids, plots
from composer.assess.pages.page import NAMES, write_page
from composer.errors import OutputError
from composer.timing.by_rate import runtime_note
from tests.reference.pages import Page

RATES = [0.25, 0.5, 0.9]
LAYERS = [f"{stack}.block.{i}" for stack in ("encoder", "decoder") for i in range(2)]
TARGETS = [f"{layer}.layer.0.SelfAttention{end}" for layer in LAYERS for end in ("", ".o")]
HEAD = {"model": "models/base", "provenance": {"versions": {"torch": "2.0"}, "machine": {"cores": 2}}}
UNIT = "nats per token"


def weights(targets: list[str] = TARGETS) -> dict[str, Any]:
    rows = [
        {
            "target": path,
            "kind": "linear" if path.endswith("o") else "attention",
            "layer": path.partition(".layer.")[0],
            "part": path.partition(".")[0],
            "shape": [4, 5],
            "count": 20,
            "zeros": 1,
            "mean": 0.0,
            "std": 0.5,
            "max_abs": 3.25,
            "quantiles": {"0.01": 0.001, "0.5": 0.1, "0.99": 2.0},
            "outliers": 1,
            "counts": [2, 10, 8],
        }
        for path in targets
    ]
    share = {"all": 0.1, "attention": 0.1, "linear": 0.1}
    cutoffs = [
        {"cutoff": edge, "share_below": {k: v * 3 * i for k, v in share.items()}}
        for i, edge in enumerate((0.01, 0.1, 4))
    ]
    norms = {"min": 1.0, "median": 2.0, "max": 8.0, "top_share": 0.25}
    columns = [{"target": path, "norms": norms} for path in targets]
    return {
        "what": "weights",
        **HEAD,
        "edges": [0, 0.01, 0.1, 4.0],
        "targets": rows,
        "cutoffs": cutoffs,
        "columns": columns,
    }


def sensitivity(targets: list[str] = TARGETS) -> dict[str, Any]:
    rows = [
        {
            "target": path,
            "kind": "linear",
            "layer": path.partition(".layer.")[0],
            "rate": rate,
            "loss": 1.5 + rate * (i + 1),
            "loss_repaired": 1.5 + rate * i / 2 - 0.001,
            "removed": 10,
            "total": 20,
        }
        for i, path in enumerate(targets)
        for rate in RATES
    ]
    heads = [
        {"target": path, "layer": "x", "head": head, "loss": 1.5 + head / 10}
        for path in targets[::2]
        for head in range(4)
    ]
    told = {"dense": {"loss": 1.5}, "rates": RATES, "criterion": "obs", "examples": 96, "unit": UNIT, "repair": True}
    return {"what": "sensitivity", **HEAD, **told, "rows": rows, "heads": heads, "method": "Measured one by one."}


def curves() -> dict[str, Any]:
    rows = [
        {
            "criterion": criterion,
            "granularity": "unstructured",
            "rate": rate,
            "repaired": repaired,
            "removed_share": rate,
            "loss": 1.5 + rate,
            "metric": 36 - 9 * rate,
            "seconds": 6.25,
            "seconds_per_example": 0.125,
        }
        for criterion in ("l1", "obs")
        for repaired in (False, True)
        for rate in RATES
    ]
    metric = {"name": "bleu", "value": 36.5, "higher_is_better": True}
    dense = {"loss": 1.5, "metric": metric, "seconds": 6.5}
    return {"what": "curves", **HEAD, "dense": dense, "rows": rows, "speed_note": "Masks bring no speed.", "unit": UNIT}


def calibration() -> dict[str, Any]:
    rows = [
        {"calibration": c, "task": t, "loss": 1.75 + i / 4, "metric": 33.5, "metric_name": "bleu"}
        for i, c in enumerate(("a.jsonl", "b.jsonl"))
        for t in ("multi30k", "flickr")
    ]
    return {"what": "calibration", **HEAD, "criterion": "wanda", "rate": 0.5, "rows": rows, "unit": UNIT}


def proposal() -> dict[str, Any]:
    losses = {"dense_loss": 1.5, "measured_loss": 1.625, "uniform_loss": 1.875, "predicted_rise": 0.0625}
    rates = dict.fromkeys(TARGETS[1:], 0.75)
    told = {"wished": 0.5, "reached": 0.501, "rates": rates, "measured": {"pruned": 1.7}, "repair": True, "unit": UNIT}
    return {"what": "proposal", **HEAD, **losses, **told, "conf": "conf.json"}


def runtime() -> dict[str, Any]:
    shape = {"part": "forward", "batch_size": 8, "length": 20, "parameters": 9000, "bytes": 36000}
    rows = [
        {"rate": rate, "removed_share": rate * 0.9, "form": form, **shape}
        | {"milliseconds": 10 / faster, "milliseconds_dense": 10.0, "macs": 1 / (1 - rate) if form == "shrunk" else 1.0}
        | {"faster": {"value": faster, "low": faster * 0.9, "high": faster * 1.1, "noisy": form == "masked"}}
        for rate in (0.25, 0.5)
        for form, faster in (("masked", 1.01), ("shrunk", 1 + 1.7 * rate))
    ]
    note = runtime_note(rows)  # type: ignore[arg-type]
    how = {"clock": "processor", "threads": 1, "new_tokens": 8, "note": note}
    times = {"dense": {"median": 2e-5}, "own": {"median": 1.25e-5}, "faster": {"value": 1.6, "low": 1.5, "high": 1.7}}
    times["faster"]["noisy"] = False
    pattern = {"path": "encoder.q", "count": 3, "shape": (64, 64), "sparsity": 0.5, **times}
    return {"what": "runtime", **HEAD, "rows": rows, **how, "two_of_four": {"rows": [pattern], "note": "On a GPU."}}


ALL = {f.__name__: f for f in (weights, sensitivity, curves, runtime, calibration, proposal)}


def put(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / f"{name}.json").write_text(json.dumps(ALL[name]()), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(write_page(put(tmp_path_factory.mktemp("full"), *ALL), pictures=False))


def test_every_part_has_its_section(full: Page) -> None:
    assert {*NAMES, "again", "main"} <= {*full.found["id"]}
    assert "more" not in full.found["id"]
    for text in (
        "50% of the target weights can go for +0.12 nats per token of loss (1.50 to 1.62)",
        "one rate for all targets would take +0.38",
        "Pruned alone at 50%",
        "Masks bring no speed.",
        "Measured one by one.",
        "rate 90%",
        "conf.json",
        "of the squared norm",
        "1.750",
        "36.5",
        "125.0",
        "Masked models were 1.01 times as fast as the dense one: no gain",
        "Shrunk at 50%: 1.85 times as fast, 2.00 times by multiplications.",
        "1.85 (1.67 to 2.04)",
        "times by multiplications. On a GPU.",
        "1.60 (1.50 to 1.70)",
    ):
        assert text in full.html, text


def test_it_is_one_whole_and_loads_nothing(full: Page) -> None:
    ids = full.found["id"]
    assert len(ids) == len(set(ids))
    assert {*full.found["aria-labelledby"], *full.found["aria-describedby"]} <= set(ids)
    links = full.loads
    assert all(link.startswith(("#", "data:")) for link in links)
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    assert "script" not in full.tags
    assert not re.search(r"@import|url\((?!#)", full.html)
    assert full.tags.count("svg") == len([label for label in full.found["role"] if label == "img"])
    assert full.tags.count("details") >= 6
    assert "nan" not in re.sub(r"<style>.*?</style>", "", full.html, flags=re.DOTALL).lower().split()


@pytest.mark.parametrize("name", ["weights", "proposal", "calibration"])
def test_a_part_alone_is_shown_and_the_others_are_hinted_at(name: str, tmp_path: Path) -> None:
    page = Page(write_page(put(tmp_path, name), pictures=False))
    assert [other for other in NAMES if other in page.found["id"]] == [name]
    assert page.html.count("<code>compose assess models/base") == len(NAMES) - 1
    for other in NAMES:
        assert (f"--parts {other}" in page.html) == (other != name) or other in ("sensitivity", "proposal")


def test_a_part_that_was_measured_on_other_data_says_so(tmp_path: Path) -> None:
    inputs = {"examples": 64, "valid": "a" * 64}
    for name, more in (("sensitivity", {}), ("curves", {"examples": 32, "valid": "b" * 64}), ("proposal", {})):
        content = ALL[name]()
        content["provenance"] = content["provenance"] | {"inputs": {**inputs, **more, "rates": [name]}}
        (tmp_path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    html = write_page(tmp_path, pictures=False).read_text("utf-8")
    assert html.count("Not measured as the first part") == 1
    assert "Not measured as the first part of this page was (examples: 64 then, 32 now; another valid)." in html


def test_text_is_escaped(tmp_path: Path) -> None:
    evil = "<script>alert('x')</script>"
    content = calibration() | {"model": evil, "criterion": evil}
    content["rows"][0]["calibration"] = evil
    (tmp_path / "calibration.json").write_text(json.dumps(content), encoding="utf-8")
    assert "script" not in Page(write_page(tmp_path, pictures=False)).tags


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"nothing to show; needed: at least one of proposal\.json, sensitivity\.json"),
        ("[]", r"weights\.json: is no result of an assessment"),
        (
            '{"what": "curves"}',
            r'weights\.json: is no result of an assessment; needed: an object with "what": "weights"',
        ),
        (
            '{"what": "weights"}',
            r"weights\.json: cannot be shown, what it holds is not complete: KeyError\('targets'\)",
        ),
        ("{", r"weights\.json: line 1, column 2: not valid JSON"),
    ],
)
def test_what_cannot_be_shown(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "weights.json").write_text(text, encoding="utf-8")
    with pytest.raises(OutputError, match=message):
        write_page(tmp_path, pictures=False)
    assert not (tmp_path / "assess.html").exists()


def test_pictures_become_files_once(tmp_path: Path) -> None:
    put(tmp_path, "proposal")
    write_page(tmp_path)
    made = {path: path.stat().st_mtime_ns for path in tmp_path.glob("proposal.*") if path.suffix != ".json"}
    assert {path.suffix for path in made} == {".png", ".svg"}
    write_page(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in made} == made


def boxes_of(figure: Figure) -> list[tuple[str, Bbox]]:
    """The texts of a picture, with the room that they take."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    return [(t.get_text(), t.get_window_extent(renderer)) for t in figure.axes[0].texts if t.get_text()]


def overlapping(figure: Figure) -> list[tuple[str, str]]:
    """Texts of a picture that lie on each other."""
    boxes = boxes_of(figure)
    return [
        (a, b)
        for i, (a, box) in enumerate(boxes)
        for b, other in boxes[i + 1 :]
        if min(box.x1, other.x1) - max(box.x0, other.x0) > 0.5 and min(box.y1, other.y1) - max(box.y0, other.y0) > 0.5
    ]


@pytest.mark.parametrize("layers", [1, 12, 48])
def test_labels_of_a_grid_lie_apart(layers: int) -> None:
    roles = ("self_attn.out_proj", "fc1")
    paths = [f"model.{s}.layers.{i}.{r}" for s in ("encoder", "decoder") for i in range(layers) for r in roles]
    scale = grids.rises([0.0, 12.3], "rise of the loss (nats per token)")
    one = grids.by_layer("rate 50%, pruned", dict.fromkeys(paths, -0.25))
    figure = grids.grid_figure([one, one], scale)
    assert overlapping(figure) == []
    width = 72 * figure.get_figwidth()
    assert all(box.x0 >= 0 for _, box in boxes_of(figure))
    assert width < 360 or layers == 48


def test_a_grid_of_few_names_shows_them_all() -> None:
    names = ["a long name of a data set.jsonl", "multi30k"]
    grid = grids.Grid("", names, names, [[0.0, 1.0], [None, 0.5]], [("evaluated on", 2)])
    figure = grids.grid_figure([grid], grids.percents("share (%)"))
    assert overlapping(figure) == []
    assert sum(text.get_text() == "multi30k" for text in figure.axes[0].texts) == 2


def test_a_grid_puts_each_target_where_it_stands() -> None:
    grid = grids.by_layer("", {path: float(i) for i, path in enumerate(TARGETS)})
    assert grid.columns == ["0", "1", "0", "1"]
    assert grid.groups == [("encoder", 2), ("decoder", 2)]
    assert grid.rows == ["self-attn", "self-attn out"]
    assert grid.values == [[0.0, 2.0, 4.0, 6.0], [1.0, 3.0, 5.0, 7.0]]


def test_the_dense_control_is_drawn() -> None:
    figure = plots.curve_figure(curves(), "loss", "loss (nats)", dense=1.5, show=None)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[-1] == "dense"
    assert len(labels) == 5
