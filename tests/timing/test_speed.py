"""`compose speed` and `composer.speed`: turns, counts, shapes, records; a clock that counts work instead of waiting."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import composer
from composer.errors import InputError
from composer.models.folder import BaseModel
from composer.timing import clock
from composer.timing.layers import time_layers
from composer.timing.loaded import Loaded
from composer.timing.macs import macs
from composer.timing.peak import peak_bytes
from composer.timing.records import Speed
from tests.cli.conftest import Compose, compose  # noqa: F401  (a fixture)
from tests.conftest import Folder
from tests.reference.work_clock import WorkClock

CPU = torch.device("cpu")
SMALL: Any = {"batch_sizes": (1, 2), "lengths": (8,), "new_tokens": 3, "rounds": 7, "memory": False, "device": "cpu"}


@pytest.fixture
def work_clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Seconds by what torch computes: no machine is too slow or too busy for these tests."""
    with WorkClock() as counting:
        monkeypatch.setattr(time, "perf_counter", counting.now)
        monkeypatch.setattr(time, "process_time", counting.now)
        monkeypatch.setattr(clock, "SHORT", 0.0)
        yield


@pytest.fixture(scope="module")
def halved(tmp_path_factory: pytest.TempPathFactory, distilbert_folder: Path) -> Path:
    """The tiny DistilBERT with half of its neurons, as an ordinary folder."""
    from transformers import AutoModelForSequenceClassification as Auto
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("halved") / "half"
    config = Auto.from_pretrained(distilbert_folder).config
    config.hidden_dim //= 2
    Auto.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(distilbert_folder).save_pretrained(folder)
    return folder


def test_works_take_turns() -> None:
    order: list[str] = []
    spent = clock.in_turn([lambda: order.append("a"), lambda: order.append("b")], rounds=7)
    assert [len(own) for own in spent] == [7, 7]
    for name in "ab":  # each turn is as many calls as make it long enough, and then it is the other's
        assert order[: 2 * clock.WARM_UP : 2] == ["a"] * clock.WARM_UP
        assert order.count(name) > 7


def test_rounds_that_take_long_are_fewer_unless_they_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "took", lambda work, device=None: clock.Took(1.5, 0.0))
    works = [lambda: None] * 2  # seconds of a round: 3
    rounds = {longest: len(clock.in_turn(works, 30, None, longest)[0]) for longest in (9.0, 60.0, 90.0)}
    assert rounds == {9.0: clock.FEWEST, 60.0: 20, 90.0: 30}
    assert len(clock.in_turn(works, 5, None, 9.0)[0]) == 5


def test_multiply_accumulates_of_a_known_model(distilbert_folder: Path) -> None:
    """Two layers, width 16, inner 24, batch 3, length 8, two labels; attention's scores and sums too."""
    entry = Loaded.torch(BaseModel(distilbert_folder), CPU)
    tokens, width, inner, length = 3 * 8, 16, 24, 8
    layer = tokens * (4 * width * width + 2 * width * inner) + 2 * tokens * length * width
    head = 3 * (width * width + width * 2)
    assert macs(entry.forward(entry.batch(3, 8, 0))) == 2 * layer + head


def test_a_parameter_that_is_an_input_does_not_end_the_counting(model_folder: Folder) -> None:
    """DeBERTa's relative positions go through a norm of their own; its biases and these make it more than BERT's."""
    entries = [Loaded.torch(BaseModel(model_folder(name)), CPU) for name in ("deberta", "bert")]
    deberta, bert = (macs(entry.forward(entry.batch(1, 8, 0))) for entry in entries)
    assert deberta > bert / 2 > 0


@pytest.mark.usefixtures("work_clock")
def test_a_smaller_model_is_faster_by_less_than_its_macs_and_it_says_why(distilbert_folder: Path, halved: Path) -> None:
    speed = composer.speed([distilbert_folder, halved], **SMALL)
    assert [(row.entry, row.part, row.batch_size, row.length) for row in speed.rows] == [
        (0, "forward", 1, 8),
        (1, "forward", 1, 8),
        (0, "forward", 2, 8),
        (1, "forward", 2, 8),
    ]
    first, half = speed.rows[2:]
    assert first.macs
    assert half.macs
    assert half.macs_ratio == first.macs / half.macs
    assert half.faster
    assert not half.faster.noisy
    assert 1 < half.faster.value < half.macs_ratio
    assert half.why.startswith(f"{half.faster.value / half.macs_ratio:.0%}".replace("%", " %"))
    assert first.tokens_per_second == pytest.approx(16 / first.processor.median)
    assert [entry.name for entry in speed.entries] == ["distilbert", "half"]
    assert speed.entries[1].parameters == BaseModel(halved).parameters
    assert speed.entries[1].bytes == (halved / "model.safetensors").stat().st_size


@pytest.mark.usefixtures("work_clock")
@pytest.mark.parametrize("name", ["t5", "gpt2"])
def test_prompt_and_new_tokens_are_apart(name: str, model_folder: Folder) -> None:
    speed = composer.speed([model_folder(name)], **{**SMALL, "batch_sizes": (2,), "lengths": (8, 16)})
    rows = {(row.part, row.length): row for row in speed.rows}
    assert list(rows) == [("prompt", 8), ("new tokens", 8), ("prompt", 16), ("new tokens", 16)]
    assert rows["prompt", 8].wall.median < rows["prompt", 16].wall.median
    assert (rows["prompt", 8].macs or 0) < (rows["prompt", 16].macs or 0)
    assert rows["new tokens", 8].tokens_per_second == pytest.approx(2 / rows["new tokens", 8].processor.median)


def test_a_record_is_read_as_it_was_written(compose: Compose, halved: Path, distilbert_folder: Path) -> None:  # noqa: F811
    shape = ("--batch-size", "1", "--length", "8", "--rounds", "7", "--device", "cpu")
    more = ("--layers", "--no-memory", "--json", "-o", "out/speed.json")
    result = compose("speed", str(distilbert_folder), str(halved), *shape, *more)
    assert result.status == 0, result.err
    speed = Speed.read(Path("out/speed.json"))
    assert json.loads(json.dumps(speed.plain())) == json.loads(result.out)
    assert Path("out/speed.png").stat().st_size > 1000
    assert [entry.peak_bytes for entry in speed.entries] == [None, None]
    assert {row.kind for row in speed.layers} == {"masked", "smaller"}
    own = speed.of(BaseModel(halved).fingerprint)
    assert own
    assert {row.entry for row in own.rows} == {0, 1}
    assert speed.of("another") is None


def test_the_peak_memory_is_that_of_a_process_of_its_own(distilbert_folder: Path) -> None:
    peak = peak_bytes(distilbert_folder, compiled=False, device="cpu", threads=1, shape=(2, 8, 0))
    assert (distilbert_folder / "model.safetensors").stat().st_size < peak < 2**30


@pytest.mark.usefixtures("work_clock")
def test_one_models_matrices_are_compared_with_themselves_without_zeros() -> None:
    model = nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    with torch.no_grad():
        model[1].weight[::2] = 0
    rows, note = time_layers([model], 16, 7, CPU, "processor")
    assert [(row.path, row.count, row.shape, row.sparsity) for row in rows] == [
        ("1", 2, (4, 4), 0.25),
        ("0", 1, (4, 8), 0),
    ]
    assert all(row.faster.value == 1 for row in rows)
    assert "No kernel of this processor skips zeros" in note


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_a_2_4_pattern_runs_in_the_sparse_kernel_and_other_shapes_do_not() -> None:
    model = nn.Sequential(nn.Linear(128, 128), nn.Linear(128, 40)).cuda()
    with torch.no_grad():
        for layer in model:
            layer.weight.view(-1, 4)[:, :2] = 0
    rows, note = time_layers([model], 64, 7, torch.device("cuda"), "wall")
    assert {row.path: row.kind for row in rows} == {"0": "2:4", "1": "masked"}
    assert all(row.sparsity == 0.5 and row.own.median > 0 for row in rows)
    assert "sparse kernel" in note


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--batch-size", "0"], "--batch-size: got 0; allowed: 1 or more"),
        (["--threads", "1000"], "--threads: got 1000; allowed: 1 to"),
        (["--length", "128"], "--length: got 128; .* reads at most 126"),
        (["--runtime", "tensorrt"], "--runtime: got 'tensorrt'; allowed: torch, compile"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(
    words: list[str],
    problem: str,
    compose: Compose,  # noqa: F811
    distilbert_folder: Path,
) -> None:
    import re

    result = compose("speed", str(distilbert_folder), *words)
    assert result.status == 2
    assert re.search(problem, result.err)
    assert result.err.count("\n") == 1 + result.err.count("…")


def test_a_record_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"rows": []}')
    with pytest.raises(InputError, match=r"x\.json: not written by `compose speed`"):
        Speed.read(tmp_path / "x.json")


@pytest.mark.usefixtures("work_clock")
def test_evaluate_shows_speed_beside_quality(
    compose: Compose,  # noqa: F811
    halved: Path,
    distilbert_folder: Path,
    classification_data: Path,
) -> None:
    given = ("--data", str(classification_data), "--device", "cpu", "--speed")
    result = compose("evaluate", str(distilbert_folder), str(halved), *given)
    assert result.status == 0, result.err
    assert "accuracy" in result.out.partition("A pass")[0]
    assert "times as fast" in result.out.partition("A pass")[2]
    speed = Speed.read(Path("results/speed.json"))
    lengths = sorted(
        2 + len(line.split("\t")[0].split()) for line in (classification_data / "test.tsv").read_text().splitlines()[1:]
    )
    assert {row.length for row in speed.rows} <= set(range(lengths[0], lengths[-1] + 1))
    assert {row.batch_size for row in speed.rows} == {1, 16}
