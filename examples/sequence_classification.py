"""A classifier that learns which heads and neurons it can do without, and is then shrunk.

    python examples/sequence_classification.py models/base train.tsv -o smaller

The file has the columns `sentence` and `label` (0, 1, …), separated by tabs. The model as it was is the teacher.
"""

import argparse
import csv

from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    TrainingArguments,
)

import composer

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("model")
parser.add_argument("train")
parser.add_argument("-o", "--output", default="smaller")
parser.add_argument("--steps", type=int, default=2000)
parser.add_argument("--batch-size", type=int, default=32)
parser.add_argument("--heads", type=float, default=0.5, help="share of each attention's heads that goes")
parser.add_argument("--neurons", type=float, default=0.7, help="share of each feed-forward's neurons that goes")
given = parser.parse_args()

tokenizer = AutoTokenizer.from_pretrained(given.model)
with open(given.train, encoding="utf-8", newline="") as file:
    rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
features = [{**tokenizer(row["sentence"], truncation=True), "labels": int(row["label"])} for row in rows]

model = AutoModelForSequenceClassification.from_pretrained(given.model, dtype="float32")
teacher = AutoModelForSequenceClassification.from_pretrained(given.model, dtype="float32")
rules = {
    "*.attention": {"rate": given.heads, "granularity": "head"},  # paths as `compose show MODEL` lists them
    "re:.*(ffn.lin1|intermediate.dense)": {"rate": given.neurons, "granularity": "neuron"},
}
arguments = TrainingArguments(
    output_dir=f"{given.output}-training",
    max_steps=given.steps,
    per_device_train_batch_size=given.batch_size,
    learning_rate=5e-5,
    save_strategy="no",
    report_to="none",
)
trainer = composer.SparseTrainer(
    model,
    arguments,
    rules=rules,
    teacher=teacher,
    train_dataset=features,
    data_collator=DataCollatorWithPadding(tokenizer),
    processing_class=tokenizer,
)
trainer.train()
trainer.compile(given.output)
