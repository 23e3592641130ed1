"""The calibration sample: one pass of the base model over it serves every criterion, rate and configuration."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property
from statistics import quantiles
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import InputError
from ..progress import SILENT, Progress
from ..scheme.layout import Layout, Projection
from ..tensors.batches import batch_indices, by_length
from .gram import Gram, Input, find_inputs, gather

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..tasks.task import Batch, Examples, Task
    from .gradients import Gradients

Key = TypeVar("Key")


def sample_indices(examples: int, size: int, *, seed: int) -> list[int]:
    """The calibration sample: ``size`` different examples, or all when there are fewer.

    A smaller sample of the same seed is the beginning of a larger one.

    >>> sample_indices(9, 2, seed=1) == sample_indices(9, 5, seed=1)[:2]
    True
    """
    return batch_indices(examples, min(size, examples), seed=seed, step=0)


def sample_like(lengths: Sequence[int], like: Sequence[int], size: int, *, seed: int) -> list[int]:
    """A sample of examples with these lengths, drawn so that each eighth of the lengths ``like`` has its share.

    Where the training split has too few of a length others fill their places. What is asked of a model is often longer
    than what it learnt from (SST-2: sentences, where it learnt from phrases), and moments of short inputs misjudge it.

    >>> [i % 2 for i in sample_like([1, 9, 1, 9, 1, 9, 1, 9], [9, 9, 9], 3, seed=0)]
    [1, 1, 1]
    """
    edges = [min(like), *(quantiles(like, n=8) if len(like) > 1 else ()), max(like) + 1]
    wanted = Counter(bisect_right(edges, length) for length in like)
    order = batch_indices(len(lengths), len(lengths), seed=seed, step=0)
    size, taken, drawn = min(size, len(lengths)), Counter[int](), list[int]()
    for i in order:
        part = bisect_right(edges, lengths[i])
        if taken[part] < round(size * wanted[part] / len(like)) and len(drawn) < size:
            taken[part] += 1
            drawn.append(i)
    there = set(drawn)
    return sorted([*drawn, *[i for i in order if i not in there][: size - len(drawn)]])


class Calibration:
    """A sample of the training split, and the moments of the base model's projections on it.

    While all moments fit into ``memory`` they are gathered in one pass, when they are first asked for, and kept;
    otherwise each group of them takes a pass of its own and is let go of.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        data: Examples,
        layout: Layout,
        *,
        size: int | None = None,
        indices: Sequence[int] | None = None,
        seed: int = 0,
        like: Examples | None = None,
        memory: int | None = None,
        batch_size: int = 64,
        by_need: bool = False,
        along: Collection[str] = (),
        metric: str = "plain",
        label_seed: int = 0,
        learning: Callable[[], Mapping[Projection, Tensor]] | None = None,
        progress: Progress = SILENT,
    ) -> None:
        """Draw the sample; nothing is gathered yet.

        Args:
            model: the base model; it is run in evaluation mode and not changed.
            data: where the sample is drawn from.
            size: draw so many examples with ``seed`` (:func:`sample_indices`); None takes all.
            indices: exactly these examples instead of a draw.
            like: draw them so that their lengths are as in this split (:func:`sample_like`).
            memory: most bytes of moments alive at once; None is no limit.
            by_need: gather only what is asked for, in a pass whenever something is new; not all in the first one.
            along: paths of projections whose moments are then gathered too, as they will be asked for.
            metric: ``plain`` moments, or those that know the ``loss`` (:mod:`.loss_moments`), one for each projection.
            label_seed: of the labels that these draw.
            learning: learns :attr:`movement`, when it is first looked at; None where nothing asks for it.
        """
        if indices is None:
            size = len(data) if size is None else size
            if like is None:
                indices = sample_indices(len(data), size, seed=seed)
            else:
                lengths, others = ([_length(feature) for feature in split.features] for split in (data, like))
                indices = sample_like(lengths, others, size, seed=seed)
        self.model, self.task, self.data, self.layout = model, task, data, layout
        self.memory, self.by_need, self.along = memory, by_need, frozenset(along)
        self.progress, self.learning = progress, learning
        self.metric, self.label_seed, self.batch_size = metric, label_seed, batch_size
        drawn = sorted(indices)
        lengths = [_length(data.features[i]) for i in drawn]
        self.indices = [[drawn[i] for i in chosen] for chosen in by_length(lengths, batch_size)]
        self.passes = 0
        self._held: dict[str, Gram] = {}
        self._weights: dict[str, list[Tensor]] = {}

    def __len__(self) -> int:
        return sum(map(len, self.indices))

    @property
    def tokens(self) -> int:
        """Of all batches, padding counted."""
        lengths = ([_length(self.data.features[i]) for i in chosen] for chosen in self.indices)
        return sum(len(batch) * max(batch) for batch in lengths)

    def batches(self) -> Iterator[Batch]:
        """The sample in batches of similar length, the longest first."""
        return (self.task.collate([self.data.features[i] for i in chosen]) for chosen in self.indices)

    def moments(self, wants: Mapping[Key, Collection[str]]) -> Iterator[tuple[Key, dict[str, Gram]]]:
        """For each key the moments of the projections at its paths.

        Whoever lets go of what came before asking for the next stays within ``memory``.

        Raises:
            InputError: ``memory`` is less than one key's moments need.
            ModelError: a projection that the model never runs.
        """
        missing = self._missing({path for paths in wants.values() for path in paths})
        if missing:
            if self.memory is not None and _bytes(self.inputs) > self.memory:
                yield from self._in_passes(wants)
                return
            self._held |= self._gather(missing, "calibration")
        for key, paths in wants.items():
            yield key, {path: self._held[path] for path in paths}

    def token_weights(self, projections: Collection[Projection]) -> Mapping[str, Sequence[Tensor | None]]:
        """By path, for each of :meth:`batches`, how much its real tokens matter to the loss (:func:`.token_weights`).

        None for each where moments are plain, to which all matter alike. What was gathered is kept: a number a token.
        """
        if self.metric == "plain":
            return {projection.path: [None] * len(self.indices) for projection in projections}
        from .slopes import token_weights

        missing = [p for path, p in {p.path: p for p in projections}.items() if path not in self._weights]
        if missing:
            self.passes += 1
            self._weights |= token_weights(self.model, self.task, list(self.batches()), missing, seed=self.label_seed)
        return self._weights

    def gradients(self) -> Gradients:
        """The loss's gradients on the sample; gathered anew each time, in one pass."""
        from .gradients import collect_gradients

        self.passes += 1
        indices = [i for chosen in self.indices for i in chosen]
        return collect_gradients(self.model, self.task, self.data, self.layout, indices=indices, progress=self.progress)

    @cached_property
    def knowing_loss(self) -> Calibration:
        """The same sample with moments that know the loss, of what reads heads or neurons; itself where its own do."""
        from .gradients import unit_readers

        if self.metric == "loss":
            return self
        drawn = [i for chosen in self.indices for i in chosen]
        how: dict[str, Any] = {"batch_size": self.batch_size, "memory": self.memory, "progress": self.progress}
        how |= {"metric": "loss", "label_seed": self.label_seed}
        how |= {"by_need": True, "along": [path for path, _ in unit_readers(self.layout).values()]}
        return Calibration(self.model, self.task, self.data, self.layout, indices=drawn, **how)

    @cached_property
    def movement(self) -> Mapping[Projection, Tensor]:
        """Scores that a fine-tuning of the base model learns (:mod:`.movement`), from all data and not the sample."""
        if self.learning is None:
            raise InputError("criterion 'movement': needs a run that learns its scores; compose prune makes one")
        return self.learning()

    @cached_property
    def inputs(self) -> list[Input]:
        """The tensors that the layout's projections read, in execution order."""
        smallest = self.task.collate([self.data.features[self.indices[-1][-1]]])
        found = find_inputs(self.model, self.layout, smallest, self.task)
        return found if self.metric == "plain" else [own for shared in found for own in shared.by_reader]

    def _missing(self, paths: Collection[str]) -> list[Input]:
        """What is to be gathered before the moments at ``paths`` are there."""
        if all(path in self._held for path in paths):
            return []
        return [
            source
            for source in self.inputs
            if not any(p.path in self._held for p in source.readers)
            and (not self.by_need or any(p.path in paths or p.path in self.along for p in source.readers))
        ]

    def _in_passes(self, wants: Mapping[Key, Collection[str]]) -> Iterator[tuple[Key, dict[str, Gram]]]:
        groups: list[tuple[list[Key], list[Input]]] = []
        for key, paths in wants.items():
            needed = [source for source in self.inputs if any(p.path in paths for p in source.readers)]
            if self.memory is not None and _bytes(needed) > self.memory:
                raise InputError(
                    f"--memory: got {self.memory} bytes; the moments that {key} wants alone need {_bytes(needed)}"
                )
            if groups and _bytes(both := _union(groups[-1][1], needed)) <= (self.memory or 0):
                groups[-1] = ([*groups[-1][0], key], both)
            else:
                groups.append(([key], needed))
        if len(groups) > 1:
            self.progress.note(
                f"calibration: {len(groups)} passes, to stay within {self.memory} bytes of Gram matrices"
            )
        for number, (keys, needed) in enumerate(groups, 1):
            order = [source for source in self.inputs if source in needed]
            gathered = self._gather(order, f"calibration {number}/{len(groups)}")
            for key in keys:
                yield key, {path: gathered[path] for path in wants[key]}
            del gathered  # before the next group is gathered: both together may not fit

    def _gather(self, inputs: Sequence[Input], label: str) -> dict[str, Gram]:
        self.passes += 1
        if self.metric == "loss":
            from .loss_moments import gather_loss_moments

            readers = [source.readers[0] for source in inputs]
            seed, batches = self.label_seed, list(self.batches())
            made = gather_loss_moments(
                self.model, self.task, batches, readers, seed=seed, label=label, progress=self.progress
            )
            return {path: moments.weighed for path, moments in made.items()}
        with self.progress.bar(label, len(self.indices)) as bar:
            return gather(self.model, self.task, self.batches(), inputs, bar)


def _union(inputs: Sequence[Input], more: Sequence[Input]) -> list[Input]:
    return [*inputs, *(source for source in more if source not in inputs)]


def _bytes(inputs: Sequence[Input]) -> int:
    return sum(source.bytes for source in inputs)


def _length(feature: Mapping[str, Any]) -> int:
    return max((len(value) for value in feature.values() if isinstance(value, Sequence)), default=0)
