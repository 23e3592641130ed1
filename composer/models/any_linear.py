"""Any model that transformers knows and no family's table serves: every ``nn.Linear`` is a target.

The modules are found in a model without weights (on the meta device). There are module-level blocks only: what
an attention or a feed-forward is, no table says.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import ModelError
from ..scheme.layout import Layout, Stream, Target
from .families import FAMILIES, known_types
from .family import ModelConfig, leaf, linear
from .shapes import needs_code

if TYPE_CHECKING:
    from torch import nn

MEMORY = re.compile(
    r"(encoder_?(decoder_)?attn|encdecattention|cross_?att\w*)\.(.*\.)?(k|v|key|value)(_\w+)?$", re.IGNORECASE
)
"""Keys and values of a cross-attention, which read the encoder's tokens."""


def linear_layout(config: ModelConfig, where: str) -> Layout:
    """A linear target and its block for every ``nn.Linear``, in the order in which the model defines them.

    A module whose weight is tied to another parameter, as a language model's head to its embedding, is none.

    Raises:
        ModelError: a model that transformers does not know or cannot make, or one without such modules.
    """
    model = skeleton(config, where)
    targets = own_linears(model, lambda path: _stream(path, config, type(model)))
    if not targets:
        raise ModelError(
            f"{where}: no table for model_type {config['model_type']!r}, and {type(model).__name__} has no nn.Linear "
            f"of its own to prune; families: {', '.join(known_types())}"
        )
    return Layout(str(config["model_type"]), targets, tuple(map(leaf, targets)), listed=False)


def own_linears(model: nn.Module, stream: Callable[[str], Stream] = lambda _: "encoder") -> tuple[Target, ...]:
    """A linear target for every ``nn.Linear`` whose weight is no other module's, in the order of the model."""
    from torch import nn

    uses = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
    return tuple(
        linear(path, m.out_features, m.in_features, bias=m.bias is not None, stream=stream(path))
        for path, m in model.named_modules()
        if isinstance(m, nn.Linear) and uses[id(m.weight)] == 1
    )


def skeleton(config: ModelConfig, where: str) -> nn.Module:
    """The model on the meta device: modules and shapes without weights.

    Raises:
        ModelError: as :func:`linear_layout`.
    """
    import torch
    from transformers import CONFIG_MAPPING, AutoModel

    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        raise ModelError(
            f"{where}: model_type is {model_type!r}; allowed: {', '.join(known_types())}; "
            f"or one that another package serves: pip install that package beside composer ({FAMILIES.looked_at()}); "
            "or any other that transformers knows, with --targets"
        )
    try:
        # A dictionary of its own: the class takes keys out of what it is given.
        parsed = CONFIG_MAPPING[model_type].from_dict(dict(config))
        with torch.device("meta"):
            kind = model_class(config)
            return kind.from_config(parsed) if kind is AutoModel else kind(parsed)
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError, ImportError) as bad:
        reason = (str(bad).splitlines() or [type(bad).__name__])[0]
        raise ModelError(f"{where}: transformers cannot make this model: {reason}") from bad


def model_class(config: ModelConfig) -> Any:
    """The class that ``config.json`` names: an Auto class would give an encoder a fresh decoder.

    Of a model with shapes of its own, or with simpler norms, it is the class of :mod:`composer.models.modeling_shrunk`.
    """
    import transformers

    architecture = (config.get("architectures") or [""])[0]
    named = getattr(transformers, str(architecture), None)
    is_model = isinstance(named, type) and issubclass(named, transformers.PreTrainedModel)
    if is_model and needs_code(config):
        from . import modeling_shrunk

        return getattr(modeling_shrunk, architecture)
    return named if is_model else transformers.AutoModel


def _stream(path: str, config: ModelConfig, architecture: type) -> Stream:
    """Whose tokens a module reads: those of the stack that it stands in; a causal model has only a decoder."""
    if config.get("is_encoder_decoder"):
        return "decoder" if "decoder" in path.lower() and not MEMORY.search(path) else "encoder"
    causal = re.search(r"ForCausalLM|LMHead|DoubleHeads", architecture.__name__) or config.get("is_decoder")
    return "decoder" if causal else "encoder"
