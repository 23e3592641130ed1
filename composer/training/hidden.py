"""Hidden states of a teacher: each of its layers that is paired with one of the model's says what that should give.

For paired layers the model's stream ``h``, (tokens, width), is to be the teacher's ``t``, (tokens, its width):

    mean over pairs of  ‖h·W − t‖² / ‖t‖²        over real tokens

Relative, so that layers of all depths weigh alike. Where widths agree W is the identity. Else it is learnt by least
squares from what both give on a few examples before the model learns, and then stays as it is: no optimiser has to know
of it, and a training that is gone on with has the same one. Layers are paired at equal distances, as by Jiao et al.
2020 (TinyBERT, "uniform"), each stack by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import ModelError
from ..tasks.task import input_lengths
from ..tensors.batches import by_length
from ..tensors.capture import result_of
from ..tensors.forward import answering, hooked, real_rows, to_device_of

if TYPE_CHECKING:
    from torch import nn

    from ..scheme.layout import Layout, Stream
    from ..tasks.task import Examples, Task

SAMPLE = 256
"""Examples that the maps between widths are learnt from."""
RIDGE = 1e-3
"""Pull of a map towards 0, as a share of the mean square of what it reads."""

States = dict[str, Tensor]
"""Path of a layer -> what it gave last."""


@dataclass(frozen=True)
class Pair:
    """A layer of the model and the teacher's that it learns from, by path; ``width`` is that of both streams."""

    stream: Stream
    ours: str
    theirs: str
    width: tuple[int, int]
    numbers: tuple[int, int]
    of: tuple[int, int]

    def __str__(self) -> str:
        (i, j), (n, m) = self.numbers, self.of
        stack = "" if self.stream == "encoder" else f"{self.stream} "
        return f"{stack}layer {i} of {n} from {j} of {m}"


def layer_pairs(ours: Layout, theirs: Layout) -> tuple[Pair, ...]:
    """Which layer learns from which: of each stack as many as the shallower one has, at equal distances in both.

    A layer that has lost a sublayer, or both, is one all the same.

    Raises:
        ModelError: the layers of one of the models are not known.
    """
    found: list[Pair] = []
    for stream in ("encoder", "decoder"):
        (n, our), (m, their) = (_stack(layout, stream) for layout in (ours, theirs))
        for k in range(1, min(n, m) + 1):
            i, j = round(k * n / min(n, m)), round(k * m / min(n, m))
            (path, width), (their_path, their_width) = our[i - 1], their[j - 1]
            found.append(Pair(stream, path, their_path, (width, their_width), (i, j), (n, m)))
    if not found:
        unknown = ours if not any(ours.whole.at("layer")) else theirs
        raise ModelError(
            f"--hidden: {unknown.family}: which modules are its layers no table says; leave hidden states out"
        )
    return tuple(found)


def _stack(layout: Layout, stream: str) -> tuple[int, list[tuple[str, int]]]:
    layout = layout.whole
    layers = [block for block in layout.at("layer") if block.stream == stream]
    return len(layers), [(block.chain[-1], layout.ends(block)[-1].last.out_features) for block in layers]


class HiddenStates:
    """Compares the layers of a model with those of its teacher.

    Attributes:
        maps: path of our layer -> (our width, the teacher's), where they differ.
    """

    def __init__(self, ours: Layout, theirs: Layout) -> None:
        self.pairs = layer_pairs(ours, theirs)
        self.maps: dict[str, Tensor] = {}

    def __str__(self) -> str:
        maps = sorted({f"{a} to {b}" for a, b in (pair.width for pair in self.pairs) if a != b})
        return f"hidden states: {', '.join(map(str, self.pairs))}" + (
            f"; by a linear map of {', '.join(maps)}" if maps else ""
        )

    @property
    def ours(self) -> list[str]:
        """Our layers."""
        return [pair.ours for pair in self.pairs]

    @property
    def theirs(self) -> list[str]:
        """The teacher's."""
        return [pair.theirs for pair in self.pairs]

    @property
    def unlearnt(self) -> list[Pair]:
        """Pairs that need a map and have none yet."""
        return [pair for pair in self.pairs if pair.width[0] != pair.width[1] and pair.ours not in self.maps]

    def distance(self, ours: States, theirs: States, tokens: Mapping[str, Tensor]) -> Tensor:
        """The mean over pairs of the squared distance, relative to what the teacher has.

        Args:
            tokens: stream -> bool (batch, length), True where a token is real.
        """
        total = torch.zeros((), device=next(iter(ours.values())).device)
        for pair in self.pairs:
            own, wanted = self._rows(pair, ours, theirs, tokens)
            if pair.ours in self.maps:
                own = own @ self.maps[pair.ours].to(own)
            total = total + (own - wanted).pow(2).sum() / wanted.pow(2).sum().clamp_min(1e-12)
        return total / len(self.pairs)

    def _rows(self, pair: Pair, ours: States, theirs: States, tokens: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        real = tokens[pair.stream]
        own, wanted = real_rows(ours[pair.ours], real, pair.ours), real_rows(theirs[pair.theirs], real, pair.theirs)
        return own.float(), wanted.float().detach()

    def learn_maps(self, model: nn.Module, teacher: nn.Module, task: Task, data: Examples) -> None:
        """Learn the maps that are needed from the first examples; nothing where widths agree."""
        if not self.unlearnt:
            return
        few, sums = data.first(SAMPLE), MapSums(self)
        with answering(model), answering(teacher):
            for indices in by_length(input_lengths(few.features), 32):
                batch = to_device_of(model, task.collate([few.features[i] for i in indices]))
                with watched(model, self.ours) as ours, watched(teacher, self.theirs) as theirs:
                    task.loss(model, batch)
                    task.loss(teacher, batch)
                sums.add(ours, theirs, task.real_tokens(batch))
        sums.solve()


class MapSums:
    """Second moments of both models' layers, added up over batches, and the maps that they lead to."""

    def __init__(self, hidden: HiddenStates) -> None:
        self.hidden = hidden
        self._sums: dict[str, tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def add(self, ours: States, theirs: States, tokens: Mapping[str, Tensor]) -> None:
        """Add a batch: ``hᵀh`` and ``hᵀt`` of each pair."""
        for pair in self.hidden.unlearnt:
            own, wanted = (rows.double() for rows in self.hidden._rows(pair, ours, theirs, tokens))
            new = own.T @ own, own.T @ wanted
            held = self._sums.get(pair.ours)
            self._sums[pair.ours] = (held[0] + new[0], held[1] + new[1]) if held else new

    def solve(self) -> None:
        """``W = (hᵀh + λ·mean·1)⁻¹ hᵀt``."""
        for path, (gram, cross) in self._sums.items():
            pull = RIDGE * gram.diagonal().mean().clamp_min(1e-12) * torch.eye(len(gram)).to(gram)
            self.hidden.maps[path] = torch.linalg.solve(gram + pull, cross).float()


@contextmanager
def watched(model: nn.Module, paths: Sequence[str]) -> Iterator[States]:
    """Within the body, what these modules of ``model`` give."""
    seen: States = {}
    with hooked(watch(model, paths, seen)):
        yield seen


def watch(model: nn.Module, paths: Sequence[str], seen: States) -> list[Any]:
    """Keep in ``seen`` what these modules give; returns the hooks."""
    modules = dict(model.named_modules())

    def keep(path: str) -> Any:
        return lambda _, __, output: seen.__setitem__(path, result_of(output))

    return [modules[path].register_forward_hook(keep(path)) for path in dict.fromkeys(paths)]
