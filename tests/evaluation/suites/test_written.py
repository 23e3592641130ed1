"""Tasks answered by a text: a model made to answer reaches everything, gold scores 100 %, off by one nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from sacrebleu.metrics import BLEU, CHRF

from composer.errors import DataError, RecipeError
from composer.evaluation.sandbox.run import Outcome
from composer.evaluation.suites import code, translation
from composer.evaluation.suites.code import HumanEval, Mbpp, pass_at_k
from composer.evaluation.suites.math import Gsm8k, flexible_answer, strict_answer
from composer.evaluation.suites.suite import SuiteOptions
from composer.evaluation.suites.wordnet import WordNet
from composer.evaluation.suites.writing import Writing, WritingTask
from composer.files.jsonfile import read_json
from tests.conftest import Folder

from .conftest import Evaluate


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Stands for the model: the texts it writes, by the right answer of a problem."""
    texts: dict[str, list[str]] = {}

    def write(self: WritingTask, session: Writing, batch: Sequence[int]) -> list[list[str]]:
        assert session.problems
        return [texts[str(session.problems.rows[i]["gold"])] for i in batch]

    monkeypatch.setattr(WritingTask, "_write", write)
    return texts


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in folder.read_text(encoding="utf-8").splitlines()]


# ---- mathematics


def problems(data: Path, *answers: str) -> None:
    (data / "gsm8k").mkdir(exist_ok=True)
    rows = [json.dumps({"question": f"How many is {i}?", "answer": answer}) for i, answer in enumerate(answers)]
    (data / "gsm8k" / "test.jsonl").write_text("\n".join(rows) + "\n")


@pytest.mark.parametrize(
    ("text", "strict", "flexible"),
    [
        ("So 3 + 4 = 7. The answer is 7.", "7", "7"),
        ("The answer is $1,234.50.", None, "1234.50"),
        ("The answer is 1,234. Then 5 more.", "1234", "5"),
        ("The answer is -3.\n", "-3", "-3"),
        ("I do not know", None, None),
    ],
)
def test_numbers_are_found_as_lm_eval_finds_them(text: str, strict: str | None, flexible: str | None) -> None:
    assert (strict_answer(text), flexible_answer(text)) == (strict, flexible)


def test_right_sums_score_everything_and_those_off_by_one_nothing(
    evaluate: Evaluate, data: Path, model_folder: Folder, told: dict[str, list[str]]
) -> None:
    problems(data, "He has 2 + 2 = <<2+2=4>>4.\n#### 4", "#### 1,250", "#### -3")
    for gold in ("4", "1250", "-3"):
        told[gold] = [f"Well. The answer is {int(gold):,}."]
    (row,) = evaluate(model_folder("llama"), "gsm8k").summary["rows"]
    assert [m["value"] for m in row["cells"]["llama"]] == [1.0, 1.0]
    assert row["cells"]["llama"][0]["low"] < 0.5, "three examples say little"
    for gold in list(told):
        told[gold] = [f"The answer is {int(gold) + 1}."]
    (row,) = evaluate(model_folder("llama"), "gsm8k", force=True).summary["rows"]
    assert [m["value"] for m in row["cells"]["llama"]] == [0.0, 0.0]


def test_a_right_answer_without_a_number_names_its_line(evaluate: Evaluate, data: Path, model_folder: Folder) -> None:
    problems(data, "#### 4", "many")
    with pytest.raises(DataError, match=r"test\.jsonl:2: answer is 'many'; it must end in '#### NUMBER'"):
        evaluate(model_folder("llama"), "gsm8k")


def test_eight_shots_stand_before_the_problem(data: Path) -> None:
    problems(data, "#### 4")
    (row,) = Gsm8k().load(SuiteOptions(data=data)).rows
    assert row["prompt"].count("Q: ") == 9
    assert row["prompt"].count("The answer is") == 8
    assert row["prompt"].endswith("Q: How many is 0?\nA:")


# ---- programs

ONE = {
    "task_id": "HumanEval/0",
    "prompt": 'def double(x):\n    """ Twice x. """\n',
    "entry_point": "double",
    "canonical_solution": "    return 2 * x\n",
    "test": "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(-1) == -2\n",
}
TWO = {
    "task_id": 11,
    "text": "Write a function to add.",
    "code": "def add(a, b):\r\n  return a + b",
    "test_list": ["assert add(1, 2) == 3"],
    "test_setup_code": "",
}


@pytest.fixture
def programs(data: Path) -> Path:
    (data / "humaneval").mkdir()
    (data / "humaneval" / "HumanEval.jsonl").write_text(json.dumps(ONE) + "\n")
    (data / "mbpp").mkdir()
    rows = [{**TWO, "task_id": i} for i in (2, 3, 4, 11)]
    (data / "mbpp" / "mbpp.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return data


@pytest.mark.skipif(sys.platform != "linux", reason="the sandbox needs Linux")
def test_known_solutions_pass_and_spoilt_ones_fail(programs: Path) -> None:
    options = SuiteOptions(data=programs, run_generated_code=True)
    for task, right, wrong in (
        (HumanEval(), ONE["canonical_solution"], "    return x\n"),
        (Mbpp(), TWO["code"], "def add(a, b): return a - b"),
    ):
        (row,) = task.load(options).rows
        assert task.judge(row, [right, wrong])["passed"] == [True, False]
    (row,) = Mbpp().load(options).rows
    assert (row["prompt"].count("[BEGIN]"), row["prompt"].count("[DONE]")) == (4, 3)


def test_nothing_is_run_unless_it_is_asked_for(
    evaluate: Evaluate, programs: Path, model_folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code, "run_program", lambda *_, **__: pytest.fail("was run"))
    with pytest.raises(RecipeError, match=r"code: humaneval runs programs .*nothing was run: add --run-generated-code"):
        evaluate(model_folder("llama"), suite="code")
    with pytest.raises(RecipeError, match=r"--k: got 3; allowed: 1 to 2"):
        evaluate(model_folder("llama"), "mbpp", run_generated_code=True, samples=2, k=(1, 3))


def test_pass_at_k_is_the_share_of_draws_with_a_right_one(
    evaluate: Evaluate,
    programs: Path,
    model_folder: Folder,
    told: dict[str, list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run(program: str, *_: Any, **__: Any) -> Outcome:
        passed = "right" in program
        return Outcome(passed, "passed" if passed else "error", "")

    monkeypatch.setattr(code, "run_program", run)
    told[ONE["canonical_solution"]] = ["right", "wrong", "wrong", "right"]
    (row,) = evaluate(model_folder("llama"), "humaneval", run_generated_code=True, samples=4, k=(1, 2, 4)).summary[
        "rows"
    ]
    assert {m["name"]: m["value"] for m in row["cells"]["llama"]} == pytest.approx(
        {"pass@1": 1 / 2, "pass@2": 1 - 1 / 6, "pass@4": 1.0}
    )


@pytest.mark.parametrize(("n", "c", "k"), [(5, 2, 1), (5, 2, 3), (6, 0, 2), (4, 4, 4)])
def test_pass_at_k_by_counting_all_subsets(n: int, c: int, k: int) -> None:
    from itertools import combinations

    draws = list(combinations([1] * c + [0] * (n - c), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(any(draw) for draw in draws) / len(draws))


# ---- translation

PAIRS = [("a man", "ein alter Mann"), ("a dog runs", "ein Hund läuft schnell"), ("the end", "das Ende von allem hier")]


@pytest.fixture
def parallel(data: Path) -> Path:
    (data / "multi30k").mkdir()
    for i, language in enumerate(("en", "de")):
        text = "".join(f"{pair[i]}\n" for pair in PAIRS)
        (data / "multi30k" / f"test_2016_flickr.{language}").write_text(text, encoding="utf-8")
    return data


def test_bleu_and_chrf_are_those_of_sacrebleu(
    evaluate: Evaluate, parallel: Path, t5_folder: Path, told: dict[str, list[str]]
) -> None:
    answers = ["ein alter Mann da", "der Hund läuft schnell", "das Ende von allem"]
    for (_, gold), answer in zip(PAIRS, answers, strict=True):
        told[gold] = [answer]
    (row,) = evaluate(t5_folder, "multi30k").summary["rows"]
    by_name = {m["name"]: m for m in row["cells"]["t5"]}
    references = [[gold for _, gold in PAIRS]]
    assert by_name["bleu"]["value"] == pytest.approx(BLEU().corpus_score(answers, references).score)
    assert by_name["chrf"]["value"] == pytest.approx(CHRF().corpus_score(answers, references).score)
    assert by_name["bleu"]["low"] < by_name["bleu"]["value"] < by_name["bleu"]["high"]
    details = row["details"]["t5"]
    assert details["read_as"] == "translate English to German: …"
    assert "BLEU signature" in details
    for _, gold in PAIRS:
        told[gold] = [gold]
    (row,) = evaluate(t5_folder, "multi30k", force=True).summary["rows"]
    assert [m["value"] for m in row["cells"]["t5"]][:2] == pytest.approx([100.0, 100.0])


def test_the_best_of_several_needs_meteor(
    evaluate: Evaluate, parallel: Path, t5_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(translation, "_has_nltk", lambda: False)
    with pytest.raises(RecipeError, match=r"needs nltk; pip install 'composer-pruning\[eval\]'"):
        evaluate(t5_folder, "multi30k", samples=5)


def test_the_best_of_several_by_meteor_counts(
    evaluate: Evaluate, parallel: Path, t5_folder: Path, told: dict[str, list[str]], tmp_path: Path
) -> None:
    pytest.importorskip("nltk", reason="nltk is not installed: pip install 'composer-pruning[eval]'")
    for _, gold in PAIRS:
        told[gold] = ["nichts", gold, "ein Mann"]
    (row,) = evaluate(t5_folder, "multi30k", samples=3).summary["rows"]
    by_name = {m["name"]: m["value"] for m in row["cells"]["t5"]}
    assert by_name["bleu"] == pytest.approx(100.0)
    assert by_name["meteor"] > 0.95
    assert all(len(s["meteors"]) == 3 for s in lines(tmp_path / "evaluation" / "t5" / "multi30k.jsonl"))


def wordnet(folder: Path) -> Path:
    """Two synsets in the format of WordNet's files, the licence before them, and an irregular form."""
    folder.mkdir()
    noun = "  1 This software and database is being provided\r\n00000010 06 n 02 hund 0 köter 0 000 | a dog\r\n"
    texts = {"data.noun": noun, "data.verb": "00000020 38 v 02 laufen 0 rennen 1 000 | run\n", "data.adv": ""}
    texts |= {"data.adj": "00000030 00 s 02 schnell(p) 0 flink 0 000 | fast\n", "verb.exc": "läuft laufen\n"}
    for name, text in texts.items():
        (folder / name).write_bytes(text.encode())
    return folder


def test_synonyms_count_where_wordnet_is_given(
    evaluate: Evaluate, parallel: Path, t5_folder: Path, told: dict[str, list[str]], tmp_path: Path
) -> None:
    pytest.importorskip("nltk", reason="nltk is not installed: pip install 'composer-pruning[eval]'")
    for _, gold in PAIRS:
        told[gold] = [gold]
    told[PAIRS[1][1]] = ["ein Köter läuft flink"]
    folder = wordnet(tmp_path / "wordnet")
    assert [s.words for s in WordNet(folder).synsets("läuft")] == [("laufen", "rennen")]

    def score(**more: Any) -> tuple[float, str]:
        evaluate(t5_folder, "multi30k", force=True, **more)
        own = lines(tmp_path / "evaluation" / "t5" / "multi30k.jsonl")[1]["meteor"]
        return own, json.dumps(read_json(tmp_path / "evaluation" / "t5" / "multi30k.json")["inputs"])

    # Two of four words, not beside each other: 1/2 less a half; with synonyms all four in one piece.
    assert score()[0] == pytest.approx(0.5 * (1 - 0.5 * (2 / 2) ** 3))
    value, inputs = score(wordnet=folder)
    assert value == pytest.approx(1 - 0.5 * (1 / 4) ** 3)
    assert "exact+stem+synonym" in inputs
    (folder / "data.verb").write_text("laufen\n")
    with pytest.raises(DataError, match=r"data\.verb:1: is no line of WordNet's"):
        WordNet(folder)
    with pytest.raises(DataError, match=r"--wordnet: .*data\.noun is missing; needed: data\.noun"):
        evaluate(t5_folder, "multi30k", wordnet=tmp_path)


# ---- the writing itself


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt", "t5", "bart"])
def test_a_text_does_not_depend_on_its_batch(
    name: str, evaluate: Evaluate, parallel: Path, model_folder: Folder, tmp_path: Path
) -> None:
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(translation.TranslationSuiteTask, "most", 8)
    with monkeypatch.context():
        evaluate(model_folder(name), "multi30k", batch_size=3)
        together = lines(tmp_path / "evaluation" / name / "multi30k.jsonl")
        evaluate(model_folder(name), "multi30k", batch_size=1, force=True)
        assert lines(tmp_path / "evaluation" / name / "multi30k.jsonl") == together
    monkeypatch.undo()
    assert any(sample["answer"] for sample in together)


def test_sampled_texts_depend_on_the_seed_alone(
    parallel: Path, evaluate: Evaluate, model_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(translation.TranslationSuiteTask, "most", 8)
    found = []
    for seed_temperature in (1.5, 1.5, 0.7):
        evaluate(model_folder("llama"), "multi30k", temperature=seed_temperature, force=True)
        found.append([s["answer"] for s in lines(tmp_path / "evaluation" / "llama" / "multi30k.jsonl")])
    assert found[0] == found[1]
    assert found[0] != found[2]


def test_who_does_not_write_is_refused(evaluate: Evaluate, parallel: Path, bert_folder: Path, t5_folder: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"--suite: translation: .*BertForSequenceClassification; needed: an encoder-dec"
    ):
        evaluate(bert_folder, suite="translation")
    with pytest.raises(RecipeError, match=r"--suite: code: .* is a T5ForConditionalGeneration; needed: a causal"):
        evaluate(t5_folder, suite="code")
    with pytest.raises(DataError, match=r"no problems of wmt14; looked for .*newstest2014\.en-de"):
        evaluate(t5_folder, "wmt14")
