"""The layout of a model that is in memory already: made by somebody else, wrapped, or of no known kind."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from ..errors import ModelError
from ..scheme.layout import Layout
from .any_linear import own_linears
from .families import known_types
from .family import leaf
from .folder import check_layout
from .layouts import layout_of

if TYPE_CHECKING:
    from torch import Tensor, nn


def layout_in_memory(model: nn.Module) -> Layout:
    """Targets of ``model``: by the table of its family where its modules are as that says, else every linear module.

    Raises:
        ModelError: there is nothing that could be pruned, or its parameters are distributed over processes.
    """
    check_whole(model)
    if layout := _by_family(model):
        return layout
    targets = own_linears(model)
    if not targets:
        raise ModelError(f"{type(model).__name__}: has no nn.Linear of its own; there is nothing that could be pruned")
    return Layout(type(model).__name__, targets, tuple(map(leaf, targets)), listed=False)


def _by_family(model: nn.Module) -> Layout | None:
    """The layout by the model's own configuration; None where that is missing or does not fit its modules."""
    config = getattr(model, "config", None)
    described: dict[str, Any] = config.to_dict() if config is not None and hasattr(config, "to_dict") else {}
    name = type(model).__name__
    if described.get("model_type") not in known_types():
        return None
    try:
        layout = layout_of({**described, "architectures": [name]}, name)
        check_layout(model, layout, name)
    except ModelError:  # a model of somebody's own around, or instead of, the family's
        return None
    return layout


def check_whole(model: nn.Module) -> None:
    """Refuse a model whose parameters are not whole in this process.

    Raises:
        ModelError: naming what distributes them.
    """
    wrappers = Counter(type(module).__name__ for module in model.modules())
    if any("FullyShardedDataParallel" in name or name.startswith("FSDP") for name in wrappers):
        raise ModelError("FSDP: parameters are spread over processes, and masks are not; use DDP, or one process")
    for parameter in model.parameters():
        if hasattr(parameter, "ds_id"):
            raise ModelError("DeepSpeed ZeRO-3: parameters are spread over processes, and masks are not; use stage 1")
        if type(parameter).__name__ == "DTensor" or type(parameter.data).__name__ == "DTensor":
            raise ModelError("DTensor (FSDP2): parameters are spread over processes, and masks are not; use DDP")


def vectors_of(model: nn.Module) -> dict[str, Tensor]:
    """Biases and norms, by name: vectors, and norms that are a scale and a shift in one tensor."""
    from ..tensors.parameters import unwrapped
    from .modeling_shrunk import NoNorm

    simple = {f"{path}.weight" for path, m in unwrapped(model).named_modules() if isinstance(m, NoNorm)}
    return {name: p for name, p in unwrapped(model).named_parameters() if p.dim() == 1 or name in simple}
