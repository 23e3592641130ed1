"""Adapters of peft under masks: none of a pruned model's zeros is lost, in training or when they are merged.

A low-rank update ``s·BA`` is dense: added to a masked weight it fills every zero. The update under the mask is
``s·M∘(BA)``. Where whole rows and columns are removed ``M = r cᵀ``, so that ``M∘(BA) = (r∘B)(A∘c)``: it is enough that
B has no removed rows and A no removed columns. For single weights the product is formed and masked, in training and in
merging alike; that takes one matrix of the weight's size for each adapted projection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class MaskedAdapters:
    """How many adapted projections were masked.

    Attributes:
        factored: through A and B, since whole rows or columns are removed.
        masked: weight by weight.
        dense: not at all, since they have no zeros.
    """

    factored: int = 0
    masked: int = 0
    dense: int = 0

    def __str__(self) -> str:
        return (
            f"adapters: {self.factored} masked through A and B, {self.masked} weight by weight, {self.dense} of "
            "projections without zeros"
        )


def mask_adapters(peft_model: nn.Module) -> MaskedAdapters:
    """Hold the zeros of a pruned model in the adapters that peft has given it; call it before training.

    ::

        model = peft.get_peft_model(pruned, LoraConfig(target_modules=["q_lin", "v_lin"]))
        print(composer.mask_adapters(model))

    Merging then is exact: ``model.merge_and_unload()`` answers as the adapted model did, and has every zero of the
    pruned one. What is saved is an ordinary adapter; `compose merge` masks it again.

    Raises:
        ModelError: peft is not installed, the model has no LoRA, no zeros are there to be held, or an adapter is of a
            kind (DoRA) whose merging is not linear in the update.
    """
    from ..errors import ModelError
    from ..models.adapters import import_peft

    lora = import_peft("mask_adapters").tuners.lora
    layers = {name: m for name, m in peft_model.named_modules() if isinstance(m, lora.Linear)}
    if not layers:
        raise ModelError("mask_adapters: the model has no LoRA of a linear module; make it with peft.get_peft_model")
    kinds = [_mask(name, layer) for name, layer in layers.items()]
    counts = {kind: kinds.count(kind) for kind in ("factored", "masked", "dense")}
    if counts["dense"] == len(layers):
        raise ModelError("mask_adapters: no adapted projection has zeros; there is nothing to hold")
    return MaskedAdapters(**counts)


def _mask(name: str, layer: Any) -> str:
    """Mask one adapted projection; returns how (a field of :class:`MaskedAdapters`)."""
    from ..errors import ModelError

    keep = layer.get_base_layer().weight.detach() != 0  # as it is stored: GPT-2's is (in, out)
    if bool(keep.all()):
        return "dense"
    if getattr(layer, "use_dora", None) and any(layer.use_dora.values()):
        raise ModelError(f"{name}: DoRA cannot be held while it learns: it is not linear in the update; merge it later")
    matrix = keep.T if layer.fan_in_fan_out else keep
    rows, columns = matrix.any(1), matrix.any(0)
    if bool((matrix == rows[:, None] & columns).all()):
        for adapter in layer.lora_A:
            _hold(layer.lora_A[adapter].weight, columns[None, :])
            _hold(layer.lora_B[adapter].weight, rows[:, None])
        return "factored"
    _mask_product(layer, keep)
    return "masked"


def _hold(weight: Tensor, keep: Tensor) -> None:
    """0 where ``keep`` is not, now and (by its gradient) later."""
    from ..tensors.masks import apply, gradient_masker

    mask = keep.expand_as(weight)
    apply({"": weight}, {"": mask})
    weight.register_hook(gradient_masker(mask))


def _mask_product(layer: Any, keep: Tensor) -> None:
    """Give an adapted projection the update ``s·M∘(BA)``, which peft's merging asks it for, and training by it."""
    from torch.nn import functional as F

    product, plain = layer.get_delta_weight, layer.forward

    def masked(adapter: str) -> Tensor:
        delta: Tensor = product(adapter)
        return delta.masked_fill(~keep.to(delta.device), 0.0)

    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if layer.disable_adapters or layer.merged:
            answer: Tensor = plain(x, *args, **kwargs)
            return answer
        answer = layer.base_layer(x, *args, **kwargs)
        for adapter in layer.active_adapters:
            if adapter in layer.lora_A:
                delta = masked(adapter)
                given = layer.lora_dropout[adapter](x.to(delta.dtype))
                answer = answer + F.linear(given, delta.T if layer.fan_in_fan_out else delta).to(answer.dtype)
        return answer

    layer.get_delta_weight, layer.forward = masked, forward
