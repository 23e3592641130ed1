"""A pruned translator learns on, and not one of its zeros is lost.

    python examples/translation.py models/2 train.en train.de -o better --prefix "translate English to German: "

The two files hold one sentence a line. `models/2` is what `compose build-model` made, or any folder with zeros.
"""

import argparse

from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)

import composer

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("model")
parser.add_argument("source")
parser.add_argument("target")
parser.add_argument("-o", "--output", default="better")
parser.add_argument("--prefix", default="", help="what stands before each sentence")
parser.add_argument("--steps", type=int, default=1000)
parser.add_argument("--batch-size", type=int, default=32)
given = parser.parse_args()

tokenizer = AutoTokenizer.from_pretrained(given.model)
model = AutoModelForSeq2SeqLM.from_pretrained(given.model, dtype="float32")
with open(given.source, encoding="utf-8") as source, open(given.target, encoding="utf-8") as target:
    pairs = [(given.prefix + a.rstrip("\n"), b.rstrip("\n")) for a, b in zip(source, target, strict=True)]
features = [tokenizer(a, text_target=b, truncation=True, max_length=128) for a, b in pairs]
arguments = Seq2SeqTrainingArguments(
    output_dir=f"{given.output}-training",
    max_steps=given.steps,
    per_device_train_batch_size=given.batch_size,
    learning_rate=3e-4,
    save_strategy="no",
    report_to="none",
)
Seq2SeqTrainer(
    model=model,
    args=arguments,
    train_dataset=features,
    data_collator=DataCollatorForSeq2Seq(tokenizer, model),
    callbacks=[composer.KeepSparse()],
).train()
model.save_pretrained(given.output)
tokenizer.save_pretrained(given.output)
