"""Training: label-smoothed cross entropy, Adam with warm-up, early stopping, and a checkpoint after every epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from .checkpoint import Progress, load_checkpoint, save_checkpoint
from .config import Config
from .data import Batch, Example, batches
from .model import Seq2Seq
from .vocabulary import Vocabularies


@dataclass(frozen=True)
class Settings:
    """How a model is trained. The rate rises for ``warm_up`` of all steps, then falls to zero in a straight line."""

    epochs: int = 4
    batch_size: int = 32
    learning_rate: float = 3e-3
    warm_up: float = 0.1
    label_smoothing: float = 0.1
    patience: int = 2
    seed: int = 0


@dataclass(frozen=True)
class Epoch:
    """What an epoch brought: losses in nats per token (the validation's without smoothing), seconds so far."""

    epoch: int
    train_loss: float
    validation_loss: float
    seconds: float
    best: bool


def token_loss(model: Seq2Seq, batch: Batch, label_smoothing: float = 0.0) -> tuple[Tensor, int]:
    """Mean cross entropy over the target's real words and ``eos``, and how many they are.

    Only real places go through the generator, the dearest of all layers.
    """
    labels = batch.target[:, 1:]
    real = labels != model.config.pad_id
    states = model.decode(batch.target[:, :-1], model.encode(batch.source), batch.source)
    loss = F.cross_entropy(model.generator(states[real]), labels[real], label_smoothing=label_smoothing)
    return loss, int(real.sum())


@torch.no_grad()
def validation_loss(model: Seq2Seq, examples: Sequence[Example], batch_size: int) -> float:
    """Cross entropy per token, without smoothing."""
    model.eval()
    device = model.generator.weight.device
    total, tokens = 0.0, 0
    for batch in batches(examples, batch_size):
        loss, count = token_loss(model, batch.to(device))
        total, tokens = total + float(loss) * count, tokens + count
    return total / tokens


def rate_at(step: int, steps: int, settings: Settings) -> float:
    """The learning rate of a step (from 0) out of ``steps``."""
    rising = max(1, round(settings.warm_up * steps))
    share = (step + 1) / rising if step < rising else (steps - step) / max(1, steps - rising)
    return settings.learning_rate * share


def train(
    config: Config,
    words: Vocabularies,
    training: Sequence[Example],
    validation: Sequence[Example],
    folder: Path,
    settings: Settings | None = None,
    *,
    device: str = "cpu",
    on_step: Callable[[int, int, float], None] = lambda step, steps, loss: None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> Seq2Seq:
    """Train a model into ``folder``; the one with the lowest validation loss is kept there and returned.

    A folder that holds a checkpoint of the same settings goes on after its last whole epoch, with the same result as
    without the break. ``on_step`` gets the step, how many there are and the loss.

    Raises:
        ValueError: the folder's checkpoint has other settings.
    """
    settings = settings or Settings()
    torch.manual_seed(settings.seed)
    model = Seq2Seq(config).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.98), eps=1e-9)
    settled = {**config.to_dict(), **asdict(settings), "examples": len(training)}
    progress = load_checkpoint(folder, model, optimizer, settled) or Progress()
    steps_per_epoch = math.ceil(len(training) / settings.batch_size)
    steps = settings.epochs * steps_per_epoch
    before, start = progress.seconds, time.perf_counter()
    while progress.epoch < settings.epochs and progress.waited < settings.patience:
        model.train()
        total, tokens, step = 0.0, 0, progress.epoch * steps_per_epoch
        for batch in batches(training, settings.batch_size, seed=settings.seed * 1_000_003 + progress.epoch):
            for group in optimizer.param_groups:
                group["lr"] = rate_at(step, steps, settings)
            loss, count = token_loss(model, batch.to(torch.device(device)), settings.label_smoothing)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            step, total, tokens = step + 1, total + loss.item() * count, tokens + count
            on_step(step, steps, loss.item())
        current = validation_loss(model, validation, settings.batch_size)
        better = current < progress.best
        if better:
            model.save(folder, words)
        progress = Progress(
            progress.epoch + 1,
            min(current, progress.best),
            0 if better else progress.waited + 1,
            before + time.perf_counter() - start,
        )
        save_checkpoint(folder, model, optimizer, settled, progress)
        on_epoch(Epoch(progress.epoch, total / tokens, current, progress.seconds, better))
    return Seq2Seq.load(folder).to(device)
