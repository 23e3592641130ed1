from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from composer.errors import DataError, InputError, ModelError
from composer.tasks import TASKS, DataOptions, infer_task, open_task


@pytest.mark.parametrize(
    ("architecture", "task"),
    [
        ("T5ForConditionalGeneration", "translation"),
        ("MarianMTModel", "translation"),
        ("DistilBertForSequenceClassification", "classification"),
        ("GPT2LMHeadModel", "language_model"),
        ("LlamaForCausalLM", "language_model"),
        ("RobertaForMaskedLM", "masked_language_model"),
        ("BertForQuestionAnswering", "question_answering"),
    ],
)
def test_the_architecture_implies_the_task(architecture: str, task: str) -> None:
    assert infer_task({"architectures": [architecture]}) == task


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"architectures": ["GPT2Model"]}, r"GPT2Model: it has no head that a task is about"),
        (
            {"architectures": ["ViTForImageClassification"], "image_size": 8},
            r"does not read texts alone \(image_size\)",
        ),
        ({"model_type": "t5"}, r"none \(model_type 't5'\): add the key 'architectures'"),
        ({}, r"add the key 'architectures' to its config.json$"),
    ],
)
def test_without_a_task_it_is_said_why(config: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        infer_task(config)


def test_only_tasks_of_other_packages_are_worth_a_try() -> None:
    with pytest.raises(DataError, match=r"tasks of other packages, to name with --task: tagging$"):
        infer_task({"architectures": ["BertForTokenClassification"]}, ["translation", "tagging"])


def test_every_task_in_the_table_exists() -> None:
    for name in TASKS.names():
        assert TASKS.get(name).name == name  # type: ignore[attr-defined]


def test_open_task(tmp_path: Path, t5_tokenizer: Any, t5: Any) -> None:
    t5_tokenizer.save_pretrained(tmp_path)
    config = {**t5.config.to_dict(), "architectures": ["T5ForConditionalGeneration"]}
    task = open_task(DataOptions(data="demo", valid_size=3), tmp_path, config)
    data = task.load("valid")
    assert (task.name, len(data)) == ("translation", 3)
    assert task.predict(t5, ["a dog"]) is not None
    with pytest.raises(InputError, match=r"unknown task 'translate'; .* did you mean 'translation'"):
        open_task(DataOptions(data="demo", task="translate"), tmp_path, config)
    with pytest.raises(ModelError, match=r"the tokenizer has 27 tokens, the model's vocab_size is 7"):
        open_task(DataOptions(data="demo"), tmp_path, {**config, "vocab_size": 7})


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(ModelError, match=r"no tokenizer; looked for tokenizer\.json"):
        open_task(DataOptions(data="demo", task="translation"), tmp_path, {})
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match="the tokenizer does not load: ") as caught:
        open_task(DataOptions(data="demo", task="translation"), tmp_path, {})
    assert len(caught.value.problems) == 1


def test_nothing_heavy_is_imported_for_the_names() -> None:
    code = (
        "import sys, composer.tasks, composer.tasks.data.splits\n"
        "names = {'torch', 'transformers', 'datasets', 'pyarrow', 'sklearn', 'sacrebleu'}\n"
        "heavy = names & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
