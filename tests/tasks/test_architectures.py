"""Which task a model can be asked for: the whole table of architectures and tasks."""

from __future__ import annotations

import pytest

from composer.errors import DataError
from composer.tasks import TASKS
from composer.tasks.architectures import check_task, infer_task

ABLE = {
    "T5ForConditionalGeneration": {"translation", "masked_language_model"},
    "BartForConditionalGeneration": {"translation", "masked_language_model"},
    "MarianMTModel": {"translation"},
    "BertForSequenceClassification": {"classification", "multi_label_classification"},
    "GPT2ForSequenceClassification": {"classification", "multi_label_classification"},
    "LlamaForCausalLM": {"language_model"},
    "GPT2LMHeadModel": {"language_model"},
    "GPT2DoubleHeadsModel": {"language_model"},
    "BertForMaskedLM": {"masked_language_model"},
    "DistilBertForQuestionAnswering": {"question_answering"},
    "BertModel": set(),
    "T5EncoderModel": set(),
    "BertForTokenClassification": set(),
    "BertForPreTraining": set(),
}
OURS = (
    "translation",
    "classification",
    "multi_label_classification",
    "language_model",
    "masked_language_model",
    "question_answering",
)


@pytest.mark.parametrize("architecture", ABLE)
@pytest.mark.parametrize("task", OURS)
def test_a_task_is_refused_where_the_head_cannot_do_it(architecture: str, task: str) -> None:
    config = {"architectures": [architecture]}
    if task in ABLE[architecture]:
        check_task(task, config, "m")
    else:
        with pytest.raises(DataError, match=rf"--task: got {task}, which {architecture} \(m\) cannot do; "):
            check_task(task, config, "m")


def test_every_task_of_this_package_is_in_the_table() -> None:
    assert set(OURS) <= set(TASKS.names())


def test_what_a_model_is_for_is_a_task_that_it_can_do() -> None:
    for architecture, able in ABLE.items():
        if able:
            assert infer_task({"architectures": [architecture]}) in able


def test_tasks_of_other_packages_know_their_models_themselves() -> None:
    check_task("legacy_translation", {}, "m")


def test_without_an_architecture_there_is_no_head() -> None:
    with pytest.raises(DataError, match=r"m/config\.json: names no architecture.*add the key 'architectures'"):
        check_task("classification", {"model_type": "bert"}, "m")
