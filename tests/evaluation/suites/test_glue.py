"""GLUE: every task's own metric, against scikit-learn and scipy; labels by name and number; who is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from composer.errors import DataError, OutputError, RecipeError
from composer.evaluation.suites.glue import F1, MATTHEWS, PEARSON, SPEARMAN, TASKS, GlueTask
from composer.files.jsonfile import read_json
from tests.conftest import WORDS, distilbert_config, make_folder

from .conftest import Evaluate

DRAW = np.random.default_rng(0)
CLASSES = [{"gold": int(a), "answer": int(b)} for a, b in DRAW.integers(2, size=(50, 2))]
SCORES = [{"gold": round(float(a), 1), "answer": float(b)} for a, b in DRAW.random((50, 2))]


def pairs(samples: list[dict[str, Any]]) -> tuple[list[Any], list[Any]]:
    return [s["gold"] for s in samples], [s["answer"] for s in samples]


@pytest.mark.parametrize(
    ("measure", "samples", "oracle"),
    [
        (F1, CLASSES, metrics.f1_score),
        (MATTHEWS, CLASSES, metrics.matthews_corrcoef),
        (PEARSON, SCORES, lambda a, b: stats.pearsonr(a, b).statistic),
        (SPEARMAN, SCORES, lambda a, b: stats.spearmanr(a, b).statistic),
    ],
    ids=["f1", "matthews", "pearson", "spearman"],
)
def test_metrics_are_those_of_scikit_learn_and_scipy(measure: Any, samples: Any, oracle: Callable[..., float]) -> None:
    assert measure.of(samples) == pytest.approx(float(oracle(*pairs(samples))), abs=1e-12)


def test_a_model_that_always_says_the_same_has_no_correlation() -> None:
    same = [{**sample, "answer": 1} for sample in CLASSES]
    assert (MATTHEWS.of(same), PEARSON.of(same), SPEARMAN.of(same)) == (0.0, 0.0, 0.0)
    assert F1.of([{**sample, "answer": 0} for sample in CLASSES]) == 0.0


def classifier(folder: Path, *labels: str) -> Path:
    names: dict[str, Any] = {"id2label": dict(enumerate(labels)), "label2id": {n: i for i, n in enumerate(labels)}}
    config = distilbert_config(**names, num_labels=len(labels))
    return make_folder(folder, "DistilBertForSequenceClassification", config, "[CLS] $A [SEP]")


def write(data: Path, task: str, rows: int = 24, split: str = "validation") -> None:
    """Problems of a task: words without meaning, labels in turn."""
    one = next(task_ for task_ in TASKS if task_.name == task)
    folder = data / "glue" / one.name.removesuffix("-mm")
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["\t".join([*one.columns, "label" if one.labels else "score"])]
    for i in range(rows):
        texts = [f"the {WORDS[(i + j) % len(WORDS)]} {WORDS[i % 7]}" for j in range(len(one.columns))]
        lines.append("\t".join([*texts, str(i % len(one.labels)) if one.labels else f"{i % 11 / 2:g}"]))
    (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def samples_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in folder.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("task", [task.name for task in TASKS])
def test_every_task_is_asked_and_measured(task: str, evaluate: Evaluate, data: Path, tmp_path: Path) -> None:
    one = next(task_ for task_ in TASKS if task_.name == task)
    write(data, task, split="validation_mismatched" if task == "mnli-mm" else "validation")
    model = classifier(tmp_path / "model", *(one.labels or ["score"]))
    (row,) = evaluate(model, task).summary["rows"]
    samples = samples_of(tmp_path / "evaluation" / "model" / f"{task}.jsonl")
    assert [s["id"] for s in samples] == list(range(24))
    oracles: dict[str, Callable[..., Any]] = {
        "accuracy": metrics.accuracy_score,
        "f1": metrics.f1_score,
        "matthews": metrics.matthews_corrcoef,
        "pearson": lambda a, b: stats.pearsonr(a, b).statistic,
        "spearman": lambda a, b: stats.spearmanr(a, b).statistic,
    }
    for measure in row["cells"]["model"]:
        assert measure["value"] == pytest.approx(float(oracles[measure["name"]](*pairs(samples))), abs=1e-9)
        assert measure["error"] >= 0
        assert measure["chance"] is not None


def test_labels_are_known_by_name_in_any_order(evaluate: Evaluate, data: Path, tmp_path: Path) -> None:
    write(data, "sst2")
    models = [classifier(tmp_path / name, *labels) for name, labels in
              {"a": ("negative", "positive"), "b": ("POSITIVE", "NEGATIVE")}.items()]  # fmt: skip
    shutil.copyfile(models[0] / "model.safetensors", models[1] / "model.safetensors")
    evaluate(models, "sst2")
    a, b = (samples_of(tmp_path / "evaluation" / name / "sst2.jsonl") for name in "ab")
    assert [s["answer"] for s in a] == [1 - s["answer"] for s in b]


def test_a_head_for_something_else_is_refused_by_name(
    evaluate: Evaluate, data: Path, tmp_path: Path, t5_folder: Path
) -> None:
    write(data, "sst2")
    other = classifier(tmp_path / "other", "spam", "ham")
    with pytest.raises(
        RecipeError, match=r"--tasks: sst2: .*other has the labels spam, ham; needed: negative, positive"
    ):
        evaluate(other, "sst2")
    with pytest.raises(RecipeError, match=r"--suite: glue: .* is a T5ForConditionalGeneration; needed: a head for seq"):
        evaluate(t5_folder, suite="glue")
    with pytest.raises(RecipeError, match=r"2 labels; needed: one output, a score"):
        evaluate(other, "stsb")
    with pytest.raises(RecipeError, match=r"--suite: got 'gleu'; allowed: .*; did you mean 'glue'\?"):
        evaluate(other, suite="gleu")


def test_bad_problems_name_file_and_line(evaluate: Evaluate, data: Path, tmp_path: Path) -> None:
    model = classifier(tmp_path / "model", "LABEL_0", "LABEL_1")
    with pytest.raises(DataError, match=r"data: no problems of cola; looked for .*glue/cola/\{validation,dev"):
        evaluate(model, "cola")
    (data / "cola").mkdir()
    (data / "cola" / "dev.tsv").write_text("text\tlabel\na\t1\n")
    with pytest.raises(DataError, match=r"dev\.tsv: no column 'sentence'; columns: text, label"):
        evaluate(model, "cola")
    (data / "cola" / "dev.tsv").write_text("sentence\tlabel\na\t-1\n")
    with pytest.raises(DataError, match=r"dev\.tsv:2: label '-1' is no label of cola \(hidden"):
        evaluate(model, "cola")
    score = classifier(tmp_path / "score", "score")
    (data / "stsb").mkdir()
    (data / "stsb" / "dev.tsv").write_text("sentence1\tsentence2\tscore\na\tb\t7\n")
    with pytest.raises(DataError, match=r"dev\.tsv:2: score is '7'; allowed: a score from 0 to 5"):
        evaluate(score, "stsb")


def test_a_suite_takes_what_there_is_and_says_what_is_left_out(
    evaluate: Evaluate, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for task in ("mrpc", "rte"):
        write(data, task)
    model = classifier(tmp_path / "model", "LABEL_0", "LABEL_1")
    done = evaluate(model, suite="glue").summary
    assert [row["task"] for row in done["rows"]] == ["mrpc", "rte"]
    assert any("has no data of them: cola, sst2, qqp" in note for note in done["notes"])
    assert any("stsb, mnli, mnli-mm" in note for note in done["notes"])
    ((average),) = done["averages"]
    parts = [sum(m["value"] for m in row["cells"]["model"]) / len(row["cells"]["model"]) for row in done["rows"]]
    assert average["cells"]["model"]["value"] == pytest.approx(sum(parts) / 2)
    assert (average["groups"], average["of"]) == (2, 9)
    folder = data / "glue" / "mrpc"
    (folder / "validation.tsv").write_text("sentence1\tsentence2\tlabel\na\tb\t1\nb\tc\t0\n")
    with pytest.raises(OutputError, match=r"mrpc\.json: exists and was made from other inputs .*--force"):
        evaluate(model, "mrpc")
    assert evaluate(model, "mrpc", force=True).summary["rows"][0]["examples"] == 2
    monkeypatch.setattr(GlueTask, "version", GlueTask.version + 1)
    with pytest.raises(OutputError, match=r"mrpc\.json: exists and was made from other inputs .*task_version"):
        evaluate(model, "mrpc")


def test_two_models_are_compared_and_shown_where_they_differ(evaluate: Evaluate, data: Path, tmp_path: Path) -> None:
    write(data, "sst2")
    first = classifier(tmp_path / "first", "negative", "positive")
    second = shutil.copytree(first, tmp_path / "second")
    config = read_json(second / "config.json")
    config["id2label"] = {"0": "positive", "1": "negative"}
    (second / "config.json").write_text(json.dumps(config))
    done = evaluate([first, second], "sst2", show=True)
    (row,) = done.summary["rows"]
    pair = row["pairs"]["second"]
    right = [s["right"] for s in samples_of(tmp_path / "evaluation" / "first" / "sst2.jsonl")]
    assert (pair["only_first"], pair["only_second"]) == (sum(right), 24 - sum(right))
    (shown,) = done.summary["shown"]
    assert (shown["differ"], shown["of"], len(shown["examples"])) == (24, 24, 5)
    assert shown["examples"][0]["answers"][0] != shown["examples"][0]["answers"][1]
    page = (tmp_path / "evaluation" / "evaluation.html").read_text(encoding="utf-8")
    assert "Is it real?" in page
    assert "24 of 24 answered otherwise" in page
    with pytest.raises(RecipeError, match="--show: prints where two models differ"):
        evaluate(first, "sst2", show=True)
