"""Sweep: refit a composed model's sublayers in execution order, each on the inputs that it really gets.

Blocks are made on the base model's inputs, so that configurations can share them; in a composed model the errors of
neighbours add up. The stream after a sublayer is the stream before it plus the output ``f`` of its last projection
``W`` (before the norm, in post-norm models; times a factor, in Granite). With ``X̂`` what that projection reads in the
composed model, ``r̂`` the stream before the sublayer there, and ``r`` and ``f`` those of the base model, the new weights
minimise

    ``|X̂ W'ᵀ - (f + r - r̂)|² + λ |W' - W|²``   over ``W'`` that are zero where ``W`` is masked

(a bias is one more column of ``W``, and of ones in ``X̂``). All that comes later sees the new weights at work.
In post-norm layers ``r`` is the input of the sublayer. In pre-norm layers that one gets a normed copy of ``r``, which
is what entered the layer plus what the sublayers before have added.

Every batch of the calibration sample runs once through each model, as a coroutine that waits at each sublayer's end
until all batches have arrived there and the new weights are in place. So the sweep costs two forward passes, without
what comes after the last sublayer, and the moments; it holds one sublayer's activations of the whole sample.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..calibration.sample import Calibration
from ..progress import SILENT, Progress
from ..scheme.layout import Block, Layout, Projection
from ..tasks.task import Batch, Examples, Task
from ..tensors.capture import Arguments, first_input, result_of
from ..tensors.forward import answering, hooked, real_rows, to_device_of
from ..tensors.lockstep import Pass, current, in_step, stops
from ..tensors.masks import Masks
from ..tensors.parameters import set_values
from ..training.blocks.moments import RegressionSums, kept, matrix, separated


@dataclass(frozen=True)
class Refit:
    """One sublayer: ``|ĥ - h|²`` of its stream, over ``|f|²`` of what the base model's sublayer adds to its own."""

    path: str
    before: float
    after: float


@dataclass(frozen=True)
class SweepResult:
    """What a sweep did: its wall time, and each sublayer in execution order."""

    seconds: float
    refits: tuple[Refit, ...]


def sweep(
    model: nn.Module,
    base: nn.Module,
    layout: Layout,
    masks: Masks,
    task: Task,
    data: Examples,
    *,
    size: int,
    batch_size: int = 64,
    seed: int = 0,
    like: Examples | None = None,
    damping: float = 0.01,
    further: Further | None = None,
    metric: str = "plain",
    progress: Progress = SILENT,
) -> SweepResult:
    """Refit the last projection of each sublayer of ``model``, in place, towards the stream of ``base``.

    A sublayer without masks is refitted too: it makes up for those before it, if there is anything to make up for.

    Args:
        model: the composed model.
        base: another model of the same architecture; not changed.
        masks: keep-masks by parameter name (:func:`composer.tensors.masks.expand`); they hold exactly afterwards.
        data: where the calibration sample of ``size`` examples is drawn from with ``seed``.
        like: a split whose lengths they have.
        damping: λ relative to the mean of the moments' diagonal; it pulls towards the weights as they are.
        further: places between sublayers where batches wait too: path -> what is done there. Whoever names them has
            put hooks into both models that hand something over by these paths (:mod:`composer.tensors.lockstep`).
        metric: all tokens weigh alike (``plain``), or by what the ``loss`` of ``base`` depends on them
            (:func:`composer.calibration.slopes.token_weights`).

    Raises:
        ModelError: a sublayer, or another of these places, that does not come once per pass, in the layout's order;
            those before it are refitted then.
    """
    began = time.perf_counter()
    looks: dict[str, Any] = {"like": like, "batch_size": batch_size, "metric": metric, "label_seed": seed}
    sample = Calibration(base, task, data, layout, size=size, seed=seed, **looks)
    blocks = {block.path: block for block in layout.at("sublayer")}
    weights = sample.token_weights([layout.ends(block)[0].last for block in blocks.values()])
    refits = []
    with (
        answering(base),
        answering(model),
        _stopping(base, layout, blocks.values(), at_end=True),
        _stopping(model, layout, blocks.values(), at_end=False),
        _running(task, base, model, sample.batches()) as pairs,
        progress.bar("sweep", len(blocks) + len(further or ())) as bar,
    ):
        for path in stops(partial(task.loss, model, pairs[0].batch)) if further else blocks:
            if further and path in further:
                further[path](pairs)
            else:
                block, last = blocks[path], layout.ends(blocks[path])[0].last
                refits.append(_refit(model, block, last, masks, pairs, weights[last.path], damping))
            bar.advance(path)
    return SweepResult(time.perf_counter() - began, tuple(refits))


class Pair:
    """A batch on its way through the base model and the composed one; its real tokens by stream."""

    def __init__(self, task: Task, base: nn.Module, model: nn.Module, batch: Batch) -> None:
        self.batch = batch
        self.theirs, self.ours = (Pass(partial(task.loss, one, batch)) for one in (base, model))
        self.real = task.real_tokens(batch)


Pairs = Sequence[Pair]
Further = Mapping[str, Callable[[Pairs], object]]


def _refit(
    model: nn.Module,
    block: Block,
    last: Projection,
    masks: Masks,
    pairs: Pairs,
    tokens: Sequence[Tensor | None],
    damping: float,
) -> Refit:
    """Let all batches arrive at the sublayer's last projection, solve, and write the new weights into it."""
    parameters = dict(model.get_submodule(last.path).named_parameters(prefix=last.path))
    start = matrix(parameters, last)
    weight, bias = (start[:, :-1], start[:, -1]) if last.bias else (start, None)
    moments = RegressionSums(last, start)
    for pair, own in zip(pairs, tokens, strict=True):
        theirs, ours, real = pair.theirs, pair.ours, pair.real[block.stream]
        output, inputs = theirs.to(block.path), ours.to(block.path)
        rows, added = real_rows(inputs, real, last.path), real_rows(output, real, block.path)
        missing = real_rows(theirs.entered - ours.entered, real, block.path) / block.scale
        moments.add(rows, added + missing - F.linear(rows, weight, bias), added, own)
    made = moments.refit(start, kept(masks, last, start.device), damping)
    set_values(parameters, separated(made.weight, last))
    return Refit(block.path, made.before, made.after)


@contextmanager
def _stopping(model: nn.Module, layout: Layout, blocks: Iterable[Block], *, at_end: bool) -> Iterator[None]:
    """Within the body each run of ``model`` stops once in every sublayer.

    It hands over what its last projection gives, or else, before that one runs, what it reads.
    """

    def begin(given: Arguments) -> None:
        current().stream = first_input(given)

    def enter(block: Block, given: Arguments) -> None:
        run = current()
        run.entered = run.stream if block.path in layout.pre_norm else first_input(given)

    def end(block: Block, result: Tensor) -> None:
        run = current()
        # OPT's feed-forward works on (batch * length, width).
        added = result - run.entered if block.residual else result.reshape(run.entered.shape)
        if at_end:
            run.hand_over(block.path, added)
        if block.path in layout.pre_norm:
            run.stream = run.entered + block.scale * added

    def before(path: str, call: Callable[[Arguments], None]) -> Any:
        module = model.get_submodule(path)
        return module.register_forward_pre_hook(lambda _, *given: call(given), with_kwargs=True)

    def hooks(block: Block) -> Iterator[Any]:
        yield before(block.chain[0], lambda given: enter(block, given))
        if not at_end:
            last = layout.ends(block)[0].last.path
            yield before(last, lambda given: current().hand_over(block.path, first_input(given)))
        if at_end or block.path in layout.pre_norm:
            module = model.get_submodule(block.chain[-1])
            yield module.register_forward_hook(lambda _, __, output: end(block, result_of(output)))

    begins = (before(path, begin) for path in dict.fromkeys(layout.pre_norm.values()))
    with hooked(chain(begins, chain.from_iterable(map(hooks, blocks)))):
        yield


@contextmanager
def _running(task: Task, base: nn.Module, model: nn.Module, batches: Iterable[Batch]) -> Iterator[Pairs]:
    """A pair of runs for each batch, not begun; those that wait somewhere at the end are ended there."""
    pairs = [Pair(task, base, model, to_device_of(model, batch)) for batch in batches]
    with in_step(one for pair in pairs for one in (pair.theirs, pair.ours)):
        yield pairs
