"""Train a small Llama (grouped queries) on WikiText-2, as a base model for benchmarks: an ordinary Hugging Face folder.

    python benchmarks/language_model.py [--shared ../shared] [--text FOLDER] [-o .bench/wikitext-llama] [--steps 1000]

4 layers of width 192, 6 query heads for 2 key and value heads, a byte-level BPE tokenizer of 2,048 tokens trained on
the same text. Seeded; a killed run goes on from its last checkpoint. Prints the validation perplexity per token (of
this tokenizer: not comparable with published ones), the seconds, the machine and the versions.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import time
from pathlib import Path

from tokenizers import ByteLevelBPETokenizer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Trainer, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint

from composer.files.environment import machine, versions
from composer.tasks import DataOptions, open_task
from composer.tasks.loss import mean_loss

VOCABULARY, WINDOW = 2048, 128
SHAPE = {
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
}


def tokenizer(text: Path) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on a file; the corpus's ``<unk>`` is one token."""
    bpe = ByteLevelBPETokenizer()
    bpe.train([str(text)], vocab_size=VOCABULARY, special_tokens=["<pad>", "<unk>"], show_progress=False)
    return PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, pad_token="<pad>", unk_token="<unk>")


def start(folder: Path, text: Path, seed: int) -> LlamaForCausalLM:
    """A model with random weights; its tokenizer and config are in ``folder``."""
    found = tokenizer(text)
    found.save_pretrained(folder)
    set_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        max_position_embeddings=2 * WINDOW,
        tie_word_embeddings=True,
        pad_token_id=found.pad_token_id,
        bos_token_id=None,
        eos_token_id=None,
        **SHAPE,
    )
    model = LlamaForCausalLM(config)
    model.config.save_pretrained(folder)
    return model


def main() -> int:
    """Train, save and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--text", type=Path, help="folder with train.txt and valid.txt [WikiText-2 of --shared]")
    parser.add_argument("-o", "--output", type=Path, default=Path(".bench/wikitext-llama"))
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=0.002)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    data = given.text or given.shared / "data/wikitext-2"
    print("machine:", machine(), "\nversions:", versions(), "\n", flush=True)
    if (given.output / "model.safetensors").is_file():
        print(f"{given.output}: there already")
        return 0
    model, began = start(given.output, data / "train.txt", given.seed), time.perf_counter()
    task = open_task(
        DataOptions(data=str(data), max_source_length=WINDOW),
        given.output,
        {**model.config.to_dict(), "architectures": ["LlamaForCausalLM"]},
    )
    train, valid = task.load("train"), task.load("valid")
    weights = sum(p.numel() for p in model.parameters())
    print(f"{len(train):,} windows of {WINDOW} tokens; {weights:,} weights", flush=True)
    work = given.output / "work"
    arguments = TrainingArguments(
        output_dir=str(work),
        max_steps=given.steps,
        per_device_train_batch_size=given.batch_size,
        learning_rate=given.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=given.steps // 20,
        weight_decay=0.1,
        seed=given.seed,
        save_steps=100,
        save_total_limit=1,
        logging_steps=50,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    trainer = Trainer(model, arguments, train_dataset=list(train.features), data_collator=task.collate)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(work)) if work.is_dir() else None)
    loss = mean_loss(model, task, valid)
    model.save_pretrained(given.output)
    shutil.rmtree(work)
    print(json.dumps({"perplexity": math.exp(loss), "loss": loss, "seconds": time.perf_counter() - began}))
    print(f"\nrepeat with: python {' '.join(sys.argv)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
