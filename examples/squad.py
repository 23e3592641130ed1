"""Answers in contexts: blocks of the attention and neurons of the feed-forward go while the model learns SQuAD.

    python examples/squad.py models/base train-v2.0.json -o pruned

Hybrid masks as in Lagunas et al. 2021: single blocks cost as much time as before, so they are left where whole units
would hurt; neurons make the model faster (`compose shrink pruned`).
"""

import argparse
import json

from transformers import AutoModelForQuestionAnswering, AutoTokenizer, Trainer, TrainingArguments, default_data_collator

import composer

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("model")
parser.add_argument("train")
parser.add_argument("-o", "--output", default="pruned")
parser.add_argument("--steps", type=int, default=5000)
parser.add_argument("--batch-size", type=int, default=16)
parser.add_argument("--length", type=int, default=384, help="tokens of a window: a question and a part of its context")
parser.add_argument("--stride", type=int, default=128, help="tokens that neighbouring windows share")
parser.add_argument("--block", default="32x32", help="of the attention's weights")
parser.add_argument("--rate", type=float, default=0.7)
given = parser.parse_args()

tokenizer = AutoTokenizer.from_pretrained(given.model)


def windows(question, context, answers):
    """Features of one question; where a window lacks the answer it is the first token, [CLS]."""
    begin = answers[0]["answer_start"] if answers else -1
    end = begin + len(answers[0]["text"]) if answers else -1
    encoded = tokenizer(
        question,
        context,
        truncation="only_second",
        max_length=given.length,
        stride=given.stride,
        padding="max_length",
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    for i, offsets in enumerate(encoded["offset_mapping"]):
        inside = [k for k, source in enumerate(encoded.sequence_ids(i)) if source == 1]
        first = next((k for k in inside if offsets[k][0] <= begin < offsets[k][1]), None)
        last = next((k for k in inside if offsets[k][0] < end <= offsets[k][1]), None)
        span = (first, last) if first is not None and last is not None else (0, 0)
        inputs = {name: encoded[name][i] for name in ("input_ids", "attention_mask")}
        yield {**inputs, "start_positions": span[0], "end_positions": span[1]}


with open(given.train, encoding="utf-8") as file:
    paragraphs = [paragraph for article in json.load(file)["data"] for paragraph in article["paragraphs"]]
features = [f for p in paragraphs for q in p["qas"] for f in windows(q["question"], p["context"], q["answers"])]

model = AutoModelForQuestionAnswering.from_pretrained(given.model, dtype="float32")
rules = {
    "*.attention": {"rate": 0.25, "granularity": "head"},
    "re:.*(out_lin|attention.output.dense)": {"rate": given.rate, "granularity": given.block, "cool-down": 0.4},
    "re:.*(ffn.lin1|intermediate.dense)": {"rate": given.rate, "granularity": "neuron"},
}
arguments = TrainingArguments(
    output_dir=f"{given.output}-training",
    max_steps=given.steps,
    per_device_train_batch_size=given.batch_size,
    learning_rate=3e-5,
    save_strategy="no",
    report_to="none",
)
Trainer(
    model=model,
    args=arguments,
    train_dataset=features,
    data_collator=default_data_collator,
    callbacks=[composer.LearnMasks(rules)],
).train()
model.save_pretrained(given.output)
tokenizer.save_pretrained(given.output)
