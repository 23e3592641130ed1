"""Make the demo checkpoint: ``python -m composer.demo.train [-o FOLDER] [--steps N] [--seed S]``.

Trains a tokenizer and a tiny T5 from scratch on the demo corpus (a few minutes on one core) and writes an
ordinary Hugging Face folder. Same seed, versions and machine: same weights.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import sacrebleu
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from .corpus import Split, pairs

Example = tuple[list[int], list[int]]

PREFIX = "translate English to German: "
CHECKPOINT = Path(__file__).parent / "checkpoint"
VOCABULARY = 1000
BATCH = 64
PEAK_RATE = 4e-3
MAX_LENGTH = 64


def make_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Train a BPE tokenizer with T5's special tokens on the train split, save it and load it again."""
    specials = ["<pad>", "</s>", "<unk>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])
    tokenizer.decoder = decoders.Metaspace()
    text = (sentence for pair in pairs("train") for sentence in pair)
    tokenizer.train_from_iterator(
        text, trainers.BpeTrainer(vocab_size=VOCABULARY - 1, special_tokens=specials, show_progress=False)
    )
    # The prefix is one token: it costs a tiny model neither time nor pieces.
    tokenizer.add_tokens([PREFIX.strip()])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=MAX_LENGTH,
    )
    fast.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def make_model(vocabulary: int) -> T5ForConditionalGeneration:
    """A T5 with random weights: 2 + 2 layers of width 64, 4 heads; small enough to tune in a demo."""
    config = T5Config(
        vocab_size=vocabulary,
        d_model=64,
        d_kv=16,
        d_ff=256,
        num_layers=2,
        num_heads=4,
        relative_attention_num_buckets=16,
        relative_attention_max_distance=32,
        # Drawing dropout masks would take a third of each step.
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
        architectures=["T5ForConditionalGeneration"],
        task_specific_params={"translation_en_to_de": {"prefix": PREFIX, "max_length": MAX_LENGTH, "num_beams": 1}},
    )
    return T5ForConditionalGeneration(config)


def encode(tokenizer: PreTrainedTokenizerBase, split: Split) -> list[Example]:
    """Token ids of a split's sources (with the prefix) and targets."""
    sources, targets = zip(*pairs(split), strict=True)
    inputs = tokenizer([PREFIX + source for source in sources]).input_ids
    return list(zip(inputs, tokenizer(list(targets)).input_ids, strict=True))


def collate(examples: Sequence[Example]) -> dict[str, Tensor]:
    """Pad to one batch; labels with -100."""
    inputs = [torch.tensor(source) for source, _ in examples]
    labels = [torch.tensor(target) for _, target in examples]
    ids = pad_sequence(inputs, batch_first=True, padding_value=0)
    return {
        "input_ids": ids,
        "attention_mask": (ids != 0).long(),
        "labels": pad_sequence(labels, batch_first=True, padding_value=-100),
    }


def batches(examples: Sequence[Example], steps: int, seed: int) -> Iterator[dict[str, Tensor]]:
    """Random batches of sentences of like length, epoch after epoch."""
    rng, ready = random.Random(seed), list[Sequence[Example]]()
    for _ in range(steps):
        if not ready:
            # The random second key keeps an epoch's batches different from those of the one before.
            order = sorted(examples, key=lambda example: (len(example[1]) // 3, rng.random()))
            ready = [order[i : i + BATCH] for i in range(0, len(order), BATCH)]
            rng.shuffle(ready)
        yield collate(ready.pop())


@torch.no_grad()
def mean_loss(model: T5ForConditionalGeneration, examples: Sequence[Example]) -> float:
    """Cross-entropy per target token."""
    model.eval()
    total, count = 0.0, 0
    for start in range(0, len(examples), BATCH):
        batch = collate(examples[start : start + BATCH])
        tokens = int((batch["labels"] != -100).sum())
        total, count = total + model(**batch).loss.item() * tokens, count + tokens
    return total / count


def translations(model: T5ForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, split: Split) -> list[str]:
    """Greedy translations of a split."""
    model.eval()
    examples, said = encode(tokenizer, split), list[str]()
    for start in range(0, len(examples), BATCH):
        batch = collate(examples[start : start + BATCH])
        batch.pop("labels")
        ids = model.generate(**batch, max_new_tokens=MAX_LENGTH, do_sample=False, num_beams=1)
        said += tokenizer.batch_decode(ids, skip_special_tokens=True)
    return said


def train(
    model: T5ForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, steps: int, seed: int
) -> tuple[float, float]:
    """AdamW under a one-cycle rate; returns the last train loss (running mean) and the valid loss."""
    data, valid = encode(tokenizer, "train"), encode(tokenizer, "valid")
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=steps, pct_start=0.1)
    running, start = float("nan"), time.perf_counter()
    for step, batch in enumerate(batches(data, steps, seed), start=1):
        model.train()
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        running = loss.item() if step == 1 else 0.98 * running + 0.02 * loss.item()
        if step % 500 == 0 or step == steps:
            seconds = time.perf_counter() - start
            valid_loss = mean_loss(model, valid)
            print(f"step {step}  train {running:.4f}  valid {valid_loss:.4f}  {seconds:.0f} s", flush=True)
    return running, valid_loss


README = """# Demo checkpoint

A tiny T5 ({parameters:,} parameters) trained from scratch on `composer.demo.corpus` (English to German).
Made by `python -m composer.demo.train --steps {steps} --seed {seed}`.
Train loss {train:.4f}, valid loss {valid:.4f}, test BLEU {bleu:.1f} (greedy; {signature}).
Licence: the same as the project's.
"""


def make_checkpoint(folder: Path, steps: int, seed: int) -> None:
    """Train everything, then move the files into ``folder``; other files there are left alone."""
    torch.manual_seed(seed)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        made = Path(scratch) / folder.name
        made.mkdir()
        tokenizer = make_tokenizer(made)
        model = make_model(len(tokenizer))
        train_loss, valid_loss = train(model, tokenizer, steps, seed)
        metric = sacrebleu.metrics.BLEU()
        bleu = metric.corpus_score(translations(model, tokenizer, "test"), [[target for _, target in pairs("test")]])
        print(f"test {bleu}")
        model.save_pretrained(made)
        (made / "model.safetensors").chmod(0o644)  # written for the owner alone, unlike the other files
        figures = {"train": train_loss, "valid": valid_loss, "bleu": bleu.score}
        text = README.format(
            parameters=model.num_parameters(),
            steps=steps,
            seed=seed,
            signature=metric.get_signature(),
            **figures,
        )
        (made / "README.md").write_text(text, encoding="utf-8")
        folder.mkdir(exist_ok=True)
        for file in made.iterdir():
            file.replace(folder / file.name)


def main() -> None:
    """Parse the command line and make the checkpoint."""
    parser = argparse.ArgumentParser(prog="python -m composer.demo.train", description="Make the demo checkpoint.")
    parser.add_argument("-o", "--output", type=Path, default=CHECKPOINT, help="folder (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=4000, help="training steps (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # The order of additions, hence the weights, depends on it.
    make_checkpoint(arguments.output, arguments.steps, arguments.seed)


if __name__ == "__main__":
    main()
