"""Parity with independent harnesses: lm-eval's own run of the same file, nltk's METEOR; skipped where not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from composer.errors import DataError
from composer.evaluation.suites.meteor import meteor, signature
from tests.conftest import Folder

from .conftest import Evaluate

ROWS = [
    {"question": "the man sees", "choices": ["a dog", "the red cat"], "answer": 0},
    {"question": "the boy likes", "choices": ["a film", "the old man"], "answer": 1},
    {"question": "a dog sees the", "choices": ["man", "boy and the film"], "answer": 1},
    {"question": "the film ends", "choices": ["well and the man likes a dog", "well"], "answer": 0},
]
TASK = """
task: piqa_here
dataset_path: json
dataset_kwargs:
  data_files:
    validation: {file}
output_type: multiple_choice
validation_split: validation
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_target: answer
doc_to_choice: choices
metric_list:
  - metric: acc
  - metric: acc_norm
metadata:
  version: 1.0
"""


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_figures_are_those_of_lm_eval_s_own_run(
    name: str, evaluate: Evaluate, data: Path, model_folder: Folder, tmp_path: Path
) -> None:
    pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'composer-pruning[eval]'")
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    from transformers import AutoModelForCausalLM, AutoTokenizer

    (data / "csr").mkdir()
    file = data / "csr" / "piqa.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (row,) = evaluate(model_folder(name), "piqa").summary["rows"]
    ours: list[dict[str, Any]] = row["cells"][name]

    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "piqa_here.yaml").write_text(TASK.format(file=file))
    model, tokenizer = (kind.from_pretrained(model_folder(name)) for kind in (AutoModelForCausalLM, AutoTokenizer))
    manager = TaskManager(include_path=str(tmp_path / "tasks"), include_defaults=False)
    theirs = lm_eval.simple_evaluate(
        # The tests' tokenizer ends every text; told so, lm-eval leaves the special tokens out.
        HFLM(pretrained=model, tokenizer=tokenizer, backend="causal", add_bos_token=False),
        tasks=["piqa_here"],
        task_manager=manager,
        bootstrap_iters=0,
        log_samples=True,
    )
    assert theirs
    figures = theirs["results"]["piqa_here"]
    assert [m["value"] for m in ours] == [figures["acc,none"], figures["acc_norm,none"]]
    by_row = {s["doc_id"]: [r[0][0] for r in s["resps"]] for s in theirs["samples"]["piqa_here"]}
    samples = (tmp_path / "evaluation" / name / "piqa.jsonl").read_text().splitlines()
    for sample in map(json.loads, samples):
        assert sample["log_likelihoods"] == pytest.approx(by_row[sample["id"]], abs=1e-4)
    _written_as_lm_eval_does(tmp_path / "evaluation" / name / "lm-eval", figures)


def _written_as_lm_eval_does(folder: Path, figures: dict[str, Any]) -> None:
    """lm-eval's own file, in its own shape."""
    held = json.loads((folder / "results_piqa.json").read_text())
    for key in ("acc,none", "acc_norm,none"):
        assert held["results"]["piqa"][key] == figures[key]
    assert held["n-samples"]["piqa"] == {"original": 4, "effective": 4}
    assert (held["n-shot"]["piqa"], held["versions"]["piqa"]) == (0, 1)
    lines = (folder / "samples_piqa.jsonl").read_text().splitlines()
    assert sum(json.loads(line)["acc"] for line in lines) / 4 == figures["acc,none"]


def test_meteor_is_nltk_s(tmp_path: Path) -> None:
    nltk = pytest.importorskip("nltk", reason="nltk is not installed: pip install 'composer-pruning[eval]'")
    from nltk.translate.meteor_score import single_meteor_score

    class Nothing:
        def synsets(self, word: str) -> list[Any]:
            return []

    for text, reference in (
        ("the cats sat on mats", "the cat sat on the mat"),
        ("ein alter Mann", "ein alter Mann geht"),
        ("x", "y"),
    ):
        wanted = single_meteor_score(reference.split(), text.split(), wordnet=Nothing())
        assert meteor(text, reference) == pytest.approx(wanted)
    assert meteor("the cats", "the cat") > meteor("the cots", "the cat"), "stems count"
    assert signature(None) == f"exact+stem|alpha:0.9|beta:3.0|gamma:0.5|split:blanks|nltk:{nltk.__version__}"
    with pytest.raises(DataError, match=r"--wordnet: .*: data\.noun is missing; needed: data\.noun, "):
        meteor("a", "b", tmp_path)
