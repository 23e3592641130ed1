"""Gradients of the loss at what projections give: one pass forward and back, token by token.

What is differentiated is the loss of labels that are drawn from the model's own probabilities, so that sums of squares
estimate the true Fisher matrix; those of the data give the empirical one, which at a fitted model hardly tells
anything (Kunstner et al. 2019).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import ModelError
from ..scheme.layout import Projection
from ..tasks.loss import loss_and_logits
from ..tensors.finite import is_finite
from ..tensors.forward import answering, hooked, real_rows, to_device_of

if TYPE_CHECKING:
    from ..tasks.task import Batch, Task

EVEN = 0.05
"""The part of the token weights that is spread evenly: some tokens no gradient sees, and they must not run wild."""


class Slopes(NamedTuple):
    """Of one projection in one batch, at real tokens; a module that is called twice has both calls' rows.

    Attributes:
        read: what it reads, (tokens, in), without a column for the bias.
        source: the tensors that ``read`` was taken from: equal for projections that read the same.
        gradients: of the loss at what the module gives, (tokens, out); of a module that holds several projections, of
            all of them.
    """

    read: Tensor
    source: tuple[int, ...]
    gradients: Tensor


class BatchSlopes(NamedTuple):
    """One batch: the slopes of every projection, how many answers the loss is a mean over, and how many examples."""

    slopes: list[Slopes]
    answers: int
    examples: int


def passes(
    model: nn.Module, task: Task, batches: Sequence[Batch], projections: Sequence[Projection], *, seed: int
) -> Iterator[BatchSlopes]:
    """One pass forward and back for each batch, without dropout. The model is not changed.

    Args:
        projections: of different modules.
        seed: of the labels that are drawn; the same for the same batches, whatever the projections.

    Raises:
        ModelError: a projection that the model never runs, a loss without a gradient, answers that are not finite.
    """
    draw = torch.Generator().manual_seed(seed)
    for batch in batches:
        yield _pass(model, task, to_device_of(model, batch), projections, draw)


def token_weights(
    model: nn.Module, task: Task, batches: Sequence[Batch], projections: Sequence[Projection], *, seed: int
) -> dict[str, list[Tensor]]:
    """By path and batch, how much each real token's output matters to the loss: (tokens,) float32, of mean 1.

    ``(1 - EVEN) |g_t|² / mean + EVEN``, with ``g_t`` the gradient at the projection's output; all 1 where no token's
    output has a gradient at all.
    """
    found: dict[str, list[Tensor]] = {p.path: [] for p in projections}
    for one in passes(model, task, batches, projections, seed=seed):
        for projection, slopes in zip(projections, one.slopes, strict=True):
            found[projection.path].append(slopes.gradients.square().sum(1))
    return {path: _of_mean_one(squares) for path, squares in found.items()}


def _of_mean_one(squares: Sequence[Tensor]) -> list[Tensor]:
    mean = float(torch.cat([s.double() for s in squares]).mean()) if squares else 0.0
    return [(1 - EVEN) * s / mean + EVEN if mean > 0 else torch.ones_like(s) for s in squares]


def _pass(
    model: nn.Module, task: Task, batch: Batch, projections: Sequence[Projection], draw: torch.Generator
) -> BatchSlopes:
    with answering(model), torch.enable_grad(), _calls(model, projections) as seen:
        loss, count, logits = loss_and_logits(model, task, batch)
        if not loss.requires_grad:
            raise ModelError(f"moments that know the loss: that of the task {task.name!r} has no gradient")
        value, outer = _differentiated(loss, count, logits, task.asked(batch), draw)
        real = task.real_tokens(batch)
        calls = [_of_tokens(p, seen[p.path], real[p.stream]) for p in projections]
        outputs = [output for some in calls for _, output in some]
        gradients = iter(torch.autograd.grad(value, outputs, outer, allow_unused=True))
    made = []
    for projection, some in zip(projections, calls, strict=True):
        mask = real[projection.stream]
        read = [real_rows(rows, mask, projection.path).float() for rows, _ in some]
        slopes = [_rows(next(gradients), output, mask, projection.path) for _, output in some]
        source = tuple(id(rows) for rows, _ in some)
        made.append(Slopes(torch.cat(read), source, torch.cat(slopes)))
    return BatchSlopes(made, count, len(next(iter(real.values()))))


Calls = list[tuple[Tensor, Tensor]]
"""What a module read and gave, call by call."""


@contextmanager
def _calls(model: nn.Module, projections: Sequence[Projection]) -> Iterator[dict[str, Calls]]:
    """Within the body a pass of ``model`` leaves here what each projection's module reads and gives."""
    seen: dict[str, Calls] = {p.path: [] for p in projections}

    def keeper(path: str) -> Any:
        return lambda _, args, output: seen[path].append((args[0].detach(), output))

    with hooked(model.get_submodule(p.path).register_forward_hook(keeper(p.path)) for p in projections):
        yield seen


def _of_tokens(projection: Projection, calls: Calls, real: Tensor) -> Calls:
    """The calls with a row for each token (DeBERTa's query also projects the relative positions)."""
    if not calls:
        raise ModelError(f"{projection.path}: the model never runs this projection on the task's batches")
    if calls[0][1].shape[-1] != projection.rows:
        raise ModelError(
            f"{projection.path}: gives {calls[0][1].shape[-1]} values a token where its weight has {projection.rows} "
            "rows; moments that know the loss need the outputs of the weight itself"
        )
    return [call for call in calls if call[0].shape[:-1].numel() == real.numel()] or calls[:1]


def _rows(gradient: Tensor | None, output: Tensor, real: Tensor, path: str) -> Tensor:
    return real_rows(torch.zeros_like(output) if gradient is None else gradient, real, path).float()


def _differentiated(
    loss: Tensor, count: int, logits: Tensor | None, asked: Tensor | None, draw: torch.Generator
) -> tuple[Tensor, Tensor]:
    """What is differentiated, and with which outer gradient: the summed loss of labels drawn from the model.

    For a label drawn from ``p = softmax(z)`` the gradient of its cross entropy in ``z`` is ``p`` less one at the label.
    Where there are no logits of classes (one number as the answer) it is the data's own loss.
    """
    if logits is None or logits.shape[-1] == 1:
        return loss, torch.full_like(loss, count)
    rows = logits[asked] if asked is not None else logits.flatten(0, -2)
    chances = rows.detach().float().softmax(-1)
    if not is_finite(chances):
        raise ModelError("moments that know the loss: the model's answers on the calibration sample are not finite")
    labels = torch.multinomial(chances.cpu(), 1, generator=draw).to(chances.device)
    return rows, (chances - torch.zeros_like(chances).scatter_(1, labels, 1.0)).to(rows)
