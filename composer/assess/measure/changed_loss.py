"""The loss of a changed model on fixed examples, without running again what the change cannot reach.

A module that has returned before the first changed module begins cannot depend on it: within a pass, what comes first
in time comes first in the computation. So one pass of the base model is recorded, and when the weights of some modules
are replaced every layer and sublayer that ends before them hands back what it gave then. That holds for any model
whose pass runs the same modules in the same order for all batches, and it is exact to the last bit. Whether a model
is one of these is checked: its loss on one batch, with everything handed back that can be, must be the dense one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from ...scheme.layout import Layout
from ...tasks.task import input_lengths
from ...tensors.batches import by_length
from ...tensors.forward import answering, hooked, to_device_of

if TYPE_CHECKING:
    from ...tasks.task import Batch, Examples, Task

MEMORY = 2 << 30
"""Most bytes of recorded outputs; a model that needs more runs whole each time."""


def batch_size_on(device: torch.device) -> int:
    """Examples of a batch. On a CPU small ones are quicker: less padding, and logits that stay near the cache."""
    return 16 if device.type == "cpu" else 64


class ChangedLoss:
    """The mean loss of a model over fixed examples, with the weights of some of its modules changed.

    ``dense`` is the loss without any change. The batches are made once; see the module for what is not run again.

    Args:
        model: with its own weights; changes are made to it in place
            (:func:`composer.tensors.parameters.replaced`) before :meth:`loss` is asked.
        memory: most bytes of recorded outputs; a model that needs more runs whole each time.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        data: Examples,
        layout: Layout,
        *,
        memory: int = MEMORY,
    ) -> None:
        batch_size = batch_size_on(next(model.parameters()).device)
        lengths = input_lengths(data.features)
        chosen = by_length(lengths, batch_size)
        self.model, self.task = model, task
        self.batches: list[Batch] = [
            to_device_of(model, task.collate([data.features[i] for i in indices])) for indices in chosen
        ]
        self._recorded = _RecordedPass(model, layout)
        with answering(model):
            self.dense = self._record(memory)

    def loss(self, changed: Collection[str]) -> float:
        """Mean loss, where only the modules at ``changed`` have other weights than the base model."""
        skipped = self._recorded.before(changed)
        total, count = 0.0, 0
        with answering(self.model):
            for i, batch in enumerate(self.batches):
                with self._recorded.handing_back(i, skipped):
                    loss, n = self._run(batch)
                total, count = total + loss * n, count + n
        return total / max(1, count)

    def _run(self, batch: Batch) -> tuple[float, int]:
        loss, n = self.task.loss(self.model, batch)
        return loss.item(), n

    def _record(self, memory: int) -> float:
        total, count, first = 0.0, 0, 0.0
        for i, batch in enumerate(self.batches):
            with self._recorded.recording(i, memory):
                loss, n = self._run(batch)
            first = first if i else loss
            total, count = total + loss * n, count + n
        if self.batches and self._recorded.ready(len(self.batches)):
            with self._recorded.handing_back(0, self._recorded.all):
                again, _ = self._run(self.batches[0])
            if again != first:  # not a model of this kind: it runs whole each time
                self._recorded.forget()
        return total / max(1, count)


class _RecordedPass:
    """One pass of the base model: outputs of layers and sublayers, batch by batch, and when which module ran.

    ``clock`` counts beginnings of targets' projections and ends of layers and sublayers; ``begins`` and ``ends`` say
    at which count each came first or last in the pass over the first batch.
    """

    def __init__(self, model: nn.Module, layout: Layout) -> None:
        self.modules = dict(model.named_modules())
        places = {path for block in layout.blocks if block.level != "module" for path in block.chain}
        self.places = [path for path in self.modules if path in places]
        self.projections = {p.path for target in layout.targets for p in target.projections}
        self.begins: dict[str, int] = {}
        self.ends: dict[str, int] = {}
        self.calls: Counter[str] = Counter()
        self.outputs: dict[tuple[int, str], Any] = {}
        self.bytes = 0
        self.full = False
        self.clock = 0

    @property
    def all(self) -> list[str]:
        """Every place that can be handed back: it runs once in a pass."""
        return [path for path in self.places if self.calls[path] == 1]

    def before(self, changed: Collection[str]) -> list[str]:
        """The places that have ended when the first of ``changed`` begins; none where one of these never ran."""
        if not self.outputs or not all(path in self.begins for path in changed):
            return []
        first = min((self.begins[path] for path in changed), default=self.clock)
        return [path for path in self.all if self.ends[path] < first]

    def ready(self, batches: int) -> bool:
        """Whether every output of every batch was recorded; a part of them is of no use and is dropped."""
        whole = not self.full and len(self.outputs) >= batches * len(self.all) > 0
        if not whole:
            self.forget()
        return whole

    def forget(self) -> None:
        """Drop the recording: from now on every pass runs whole."""
        self.outputs.clear()

    @contextmanager
    def recording(self, i: int, memory: int) -> Iterator[None]:
        """Within the body a pass over batch ``i`` is recorded."""
        seen: Counter[str] = Counter()

        def begin(path: str) -> Any:
            def hook(*_: Any) -> None:
                self.clock += 1
                if i == 0:
                    self.begins.setdefault(path, self.clock)

            return hook

        def end(path: str) -> Any:
            def hook(_: nn.Module, __: Any, output: Any) -> None:
                self.clock += 1
                seen[path] += 1
                if i == 0:
                    self.ends[path] = self.clock
                self._keep((i, path), output, memory)

            return hook

        begins = (self.modules[path].register_forward_pre_hook(begin(path)) for path in self.projections)
        ends = (self.modules[path].register_forward_hook(end(path)) for path in self.places)
        with hooked(chain(begins, ends)):
            yield
        self.calls |= seen

    def _keep(self, key: tuple[int, str], output: Any, memory: int) -> None:
        if self.full:
            return
        self.bytes += sum(leaf.nbytes for leaf in tree_leaves(output) if isinstance(leaf, Tensor))
        if self.bytes > memory:
            self.full = True
            self.outputs.clear()
        else:
            self.outputs[key] = _copied(output)

    @contextmanager
    def handing_back(self, i: int, places: Iterable[str]) -> Iterator[None]:
        """Within the body the modules at ``places`` return what they returned for batch ``i``, without being run."""
        replaced = [self.modules[path] for path in places]
        try:
            for path in places:
                # An instance's own attribute stands before its class's method, and goes without a trace.
                self.modules[path].__dict__["forward"] = _returning(self.outputs[i, path])
            yield
        finally:
            for module in replaced:
                module.__dict__.pop("forward", None)


def _returning(output: Any) -> Any:
    return lambda *_, **__: _copied(output)


def _copied(output: Any) -> Any:
    """A copy: the modules behind may write into what they get."""
    return tree_map_only(Tensor, torch.clone, output)
