"""One figure for each layer, as published ways to spread a budget over layers want it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..progress import SILENT, Progress
from ..scheme.layout import Stream
from ..shrinking.units import Units
from ..tensors.capture import first_input, result_of
from ..tensors.forward import answering, hooked, real_rows, to_device_of

if TYPE_CHECKING:
    from ..tasks.task import Task
    from .sample import Calibration

OUTLIER = 5.0
"""A weight is an outlier whose score is above so many times the layer's mean: M of OWL, the authors' value."""

Figures = Callable[..., dict[str, float]]


def outlier_ratios(
    model: nn.Module, task: Task, calibration: Calibration, parts: Sequence[Units], *, progress: Progress = SILENT
) -> dict[str, float]:
    """By layer, the share of its weights that are outliers (OWL, Yin et al. 2023, equation 1).

    A weight's score is ``|W_ij| ‖X_j‖``, with the norm of what its column reads over all real tokens of the sample
    (:mod:`composer.pruning.criteria.wanda`); an outlier's is above :data:`OUTLIER` times the mean of all of the layer.
    """
    weights = dict(model.named_parameters())
    layers: dict[str, list[Tensor]] = {}
    wanted = {part.path: [p.path for p in part.projections] for part in parts}
    for part, (_, grams) in zip(parts, calibration.moments(wanted), strict=True):
        for projection in part.projections:
            norms = grams[projection.path].norms
            matrix = projection.of(weights[projection.weight].detach()).abs().float()
            layers.setdefault(part.layer, []).append((matrix * norms.to(matrix)).flatten())
    found = {}
    for layer, scores in layers.items():
        every = torch.cat(scores)
        found[layer] = float((every > OUTLIER * every.mean()).double().mean())
    return found


def block_influences(
    model: nn.Module, task: Task, calibration: Calibration, parts: Sequence[Units], *, progress: Progress = SILENT
) -> dict[str, float]:
    """By layer, how far it turns the stream: ``1 - mean cos(x_t, y_t)`` of what token t is before and after it.

    Over all real tokens of the sample (block influence; ShortGPT, Men et al. 2024, equation 1).
    """
    streams: dict[str, Stream] = {part.layer: part.last.stream for part in parts}
    sums, tokens = dict.fromkeys(streams, 0.0), dict.fromkeys(streams, 0)
    real: Mapping[str, Tensor] = {}

    def listener(layer: str) -> Any:
        def listen(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            before = real_rows(first_input((args, kwargs)), real[streams[layer]], layer)
            after = real_rows(result_of(output), real[streams[layer]], layer)
            sums[layer] += float(functional.cosine_similarity(before.float(), after.float(), dim=-1).double().sum())
            tokens[layer] += len(before)

        return listen

    batches = list(calibration.batches())
    hooks = (model.get_submodule(one).register_forward_hook(listener(one), with_kwargs=True) for one in streams)
    with hooked(hooks), answering(model), progress.bar("influence of layers", len(batches)) as bar:
        for batch in batches:
            here = to_device_of(model, batch)
            real = task.real_tokens(here)
            task.loss(model, here)
            bar.advance()
    return {layer: 1 - sums[layer] / max(1, tokens[layer]) for layer in streams}


FIGURES: Mapping[str, Figures] = {"owl": outlier_ratios, "block-influence": block_influences}
"""Name of a rule of :mod:`composer.choosing.rules` -> what measures what it wants to know."""
