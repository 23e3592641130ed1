"""Where numbers stop being finite: the first weight, or the first module on a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from .forward import answering, hooked


def first_not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Name of the first tensor with a NaN or an infinity in it; None where all are finite."""
    return next((name for name, tensor in tensors.items() if not is_finite(tensor)), None)


def is_finite(tensor: Tensor) -> bool:
    """Whether every number of it is finite; integers always are.

    The sum of the extremes is not finite where one of them is not: a third of the time of looking at each number.
    """
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    low, high = tensor.detach().aminmax()
    return bool((low + 0.0).isfinite() and (high + 0.0).isfinite())


def first_module_not_finite(model: nn.Module, run: Callable[[], Any]) -> str | None:
    """Path of the first module whose output is not finite while ``run`` runs the model; None where all are.

    A module inside another one ends before it, so the innermost is named.
    """
    paths: list[str] = []

    def watch(path: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            tensors = output if isinstance(output, (tuple, list)) else (output,)
            if not paths and any(isinstance(one, Tensor) and not is_finite(one) for one in tensors):
                paths.append(path)

        return hook

    hooks = (module.register_forward_hook(watch(path)) for path, module in model.named_modules() if path)
    with answering(model), hooked(hooks):
        run()
    return paths[0] if paths else None
