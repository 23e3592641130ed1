"""Kwon et al. 2022, 'A Fast Post-Training Pruning Framework for Transformers', written from the paper: an oracle.

Masks are real numbers on heads and neurons, 1 at first. (1) Fisher information of masks from gradients of the task's
loss, one for each example; (2) the diagonal decides by a search over the number of heads, neurons filling the rest of
the budget (their algorithm 1); (3) within a layer, block-diagonal information rearranges the masks greedily; (4) masks
that stayed are tuned by linear least squares, layer by layer, towards the dense model's stream. Nothing else changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from composer.shrinking.units import Units
from composer.tasks.task import Task
from composer.tensors.forward import answering, real_rows

LARGEST = 10.0
"""A tuned mask beyond this means that the least squares went astray: the paper's code then keeps the mask as it was."""

Masks = dict[str, Tensor]


class MaskSearch:
    """Masks of one model."""

    def __init__(self, model: nn.Module, task: Task, batches: Sequence[Any], parts: Sequence[Units]) -> None:
        self.model, self.task, self.batches, self.parts = model, task, batches, parts
        self.gradients = self._gradients()

    def searched(self, budget: float, macs: Mapping[str, float]) -> Masks:
        """Step 2: masks of 0 and 1 within so many multiplications; ``macs`` are those of one unit, by path."""
        importance = {path: g.square().sum(0) for path, g in self.gradients.items()}
        heads = self._ranked("attention", importance)
        neurons = self._ranked("feed_forward", importance)
        head, neuron = (macs[ranked[0][1]] for ranked in (heads, neurons))
        best, choice = float("inf"), (len(heads), len(neurons))
        for n in range(1, len(heads) + 1):
            f = min(len(neurons), int((budget - n * head) / neuron))
            lost = sum(value for value, *_ in heads[n:]) + sum(value for value, *_ in neurons[max(f, 0) :])
            if f >= 0 and lost < best:
                best, choice = lost, (n, f)
        masks = {part.path: torch.zeros(part.count) for part in self.parts}
        for _, path, unit in [*heads[: choice[0]], *neurons[: choice[1]]]:
            masks[path][unit] = 1.0
        return masks

    def rearranged(self, masks: Masks) -> Masks:
        """Step 3: as many in every layer, exchanged one by one where that lowers the quadratic form."""
        return {path: self._exchange(mask.clone(), self.gradients[path]) for path, mask in masks.items()}

    def tuned(self, masks: Masks) -> Masks:
        """Step 4: masks of real numbers, in execution order."""
        masks = {path: mask.clone() for path, mask in masks.items()}
        for part in self.parts:
            if len(kept := masks[part.path].nonzero().flatten()):
                found = self._least_squares(part, kept, masks)
                if bool((found.abs() <= LARGEST).all()):
                    masks[part.path][kept] = found
        return masks

    @contextmanager
    def masked(self, masks: Mapping[str, Tensor]) -> Iterator[None]:
        """The model with these masks within the body; (units,), or (examples, units)."""
        handles = [
            self.model.get_submodule(part.last.path).register_forward_pre_hook(_gate(masks[part.path], part.columns))
            for part in self.parts
            if part.path in masks
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _gradients(self) -> dict[str, Tensor]:
        """Path -> gradient of the loss in each mask, (examples, units)."""
        rows: dict[str, list[Tensor]] = {part.path: [] for part in self.parts}
        with answering(self.model), torch.enable_grad():
            for batch in self.batches:
                size = len(batch["input_ids"])
                gates = {part.path: torch.ones(size, part.count, requires_grad=True) for part in self.parts}
                with self.masked(gates):
                    loss, count = self.task.loss(self.model, batch)
                for path, slope in zip(gates, torch.autograd.grad(loss * count, list(gates.values())), strict=True):
                    rows[path].append(slope)
        return {path: torch.cat(slopes) for path, slopes in rows.items()}

    def _ranked(self, kind: str, importance: Mapping[str, Tensor]) -> list[tuple[float, str, int]]:
        """Units of all layers, the most important first."""
        every = [
            (float(value), part.path, unit)
            for part in self.parts
            if part.kind == kind
            for unit, value in enumerate(importance[part.path])
        ]
        return sorted(every, reverse=True)

    @staticmethod
    def _exchange(mask: Tensor, gradients: Tensor) -> Tensor:
        information = gradients.double().T @ gradients.double()
        gone = (mask == 0).double()
        for unit in gone.nonzero().flatten().tolist():
            gone[unit] = 0.0
            costs = information.diagonal() + 2 * (information @ gone)
            costs[gone.bool()] = float("inf")
            gone[int(costs.argmin())] = 1.0
        return (gone == 0).to(mask.dtype)

    @torch.no_grad()
    def _least_squares(self, part: Units, kept: Tensor, masks: Masks) -> Tensor:
        """Minimise ``|Σ_i m_i W_i a_i + stream − dense stream|² + |m − 1|²`` over the kept masks.

        ``a_i`` are a unit's inputs in the masked model. The stream before the sublayer differs already, and is made
        good too; its bias is in both.
        """
        weight = self._weight(part)
        columns = (kept[:, None] * part.columns + torch.arange(part.columns)).flatten()
        own = weight[:, columns]
        between = own.T @ own if part.columns == 1 else torch.empty(0)
        normal = torch.zeros(len(kept), len(kept), dtype=torch.float64)
        right = torch.zeros(len(kept), dtype=torch.float64)
        for batch, dense in zip(self.batches, self._dense[part.path], strict=True):
            inputs, before = self._seen([part], batch, masks)[part.path]
            wanted = dense.double() - before
            shaped = inputs[:, columns].reshape(len(inputs), len(kept), part.columns)
            if part.columns == 1:
                normal += (shaped[:, :, 0].T @ shaped[:, :, 0]) * between
                right += ((wanted @ own) * shaped[:, :, 0]).sum(0)
                continue
            parts = torch.einsum("tuc,ouc->tuo", shaped, own.reshape(len(weight), len(kept), -1))
            normal += torch.einsum("tuo,tvo->uv", parts, parts)
            right += torch.einsum("tuo,to->u", parts, wanted)
        one = torch.ones(len(kept), dtype=torch.float64)
        eye = torch.eye(len(kept), dtype=torch.float64)
        return (one + torch.linalg.solve(normal + eye, right - normal @ one)).float()

    def _weight(self, part: Units) -> Tensor:
        return part.last.of(dict(self.model.named_parameters())[part.last.weight]).detach().double()

    @cached_property
    def _dense(self) -> dict[str, list[Tensor]]:
        """The dense model's stream after each sublayer, without the bias; by batch, (tokens, out) float32."""
        found: dict[str, list[Tensor]] = {part.path: [] for part in self.parts}
        weights = {part.path: self._weight(part) for part in self.parts}
        for batch in self.batches:
            for path, (inputs, stream) in self._seen(self.parts, batch, {}).items():
                found[path].append((inputs @ weights[path].T + stream).float())
        return found

    @torch.no_grad()
    def _seen(self, parts: Sequence[Units], batch: Any, masks: Masks) -> dict[str, tuple[Tensor, Tensor]]:
        """By path what the last projection reads before its own mask, and the stream that it adds to.

        Real tokens, (n, …). The pass ends when the last of ``parts`` has been seen.
        """
        seen: dict[str, dict[str, Tensor]] = {part.path: {} for part in parts}
        last = parts[-1].path

        def keep(path: str, name: str) -> Any:
            def hook(_: nn.Module, args: tuple[Tensor, ...], options: dict[str, Tensor]) -> None:
                seen[path][name] = args[0] if args else options["hidden_states"]
                if (path, name) == (last, "inputs"):
                    raise _Seen

            return hook

        handles = []
        for part in parts:  # DistilBERT: attention and feed-forward both read the stream itself
            for module, name in ((part.path, "stream"), (part.last.path, "inputs")):
                hooked = self.model.get_submodule(module)
                handles.append(hooked.register_forward_pre_hook(keep(part.path, name), with_kwargs=True))
        others = {path: mask for path, mask in masks.items() if path not in seen}
        try:
            with answering(self.model), self.masked(others), suppress(_Seen):
                self.task.loss(self.model, batch)
        finally:
            for handle in handles:
                handle.remove()
        real = self.task.real_tokens(batch)

        def rows(part: Units, name: str) -> Tensor:
            return real_rows(seen[part.path][name], real[part.last.stream], part.path).double()

        return {part.path: (rows(part, "inputs"), rows(part, "stream")) for part in parts}


class _Seen(Exception):  # noqa: N818  (no error)
    """What a pass was for has been seen."""


def _gate(mask: Tensor, columns: int) -> Any:
    def gate(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        wide = mask.repeat_interleave(columns, dim=-1)
        return (args[0] * (wide[:, None] if mask.dim() == 2 else wide), *args[1:])

    return gate
