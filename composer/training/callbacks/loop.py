"""``sparse``: a pruned model's zeros held in any training loop (accelerate, Lightning, plain torch)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from .holding import Sparsity


@contextmanager
def sparse(model: nn.Module, optimizer: Optimizer, folder: str | Path | None = None) -> Iterator[Sparsity]:
    """Within the body the zeros of a pruned model stay exactly 0, whatever moves its weights.

    ::

        with composer.sparse(model, optimizer) as held:
            print(held)
            for batch in batches:
                model(**batch).loss.backward()
                optimizer.step()
                optimizer.zero_grad()

    Args:
        model: pruned; wrapped or not.
        optimizer: of its parameters, or accelerate's wrapper of one; after each of its steps zeros are set again.
        folder: a pruned model whose zeros are held instead, checked against ``model``.

    Raises:
        ModelError: as :class:`KeepSparse` has it; at the end, a weight that something else than the optimiser moved.
    """
    from .holding import sparsity_of

    held = sparsity_of(model, folder)
    inner = getattr(optimizer, "optimizer", optimizer)
    with inner.register_step_post_hook(lambda *_: held.holder.apply()):
        with held.holder:
            yield held
        held.holder.check("end of the training")
