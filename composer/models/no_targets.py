"""Which weights of a model are no targets, and why: what a sparsity of the targets does not say. No torch."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from ..files.safetensors import TensorHead
from ..scheme.layout import Layout, unnumbered

EMBEDDING = re.compile(r"embed|(^|\.)shared\.|(^|\.)w[tp]e\.|relative_attention_bias")
NORM = re.compile(r"norm\.weight$|(^|\.)ln_\w+\.weight$", re.IGNORECASE)
"""Also where it is a scale and a shift in one tensor."""
NUMBERS = ("F64", "F32", "F16", "BF16")
"""What a weight is stored as; folders also hold positions and masks, which are none."""
NAMED = 4
"""Other modules that are named, at most."""


def no_targets(tensors: Iterable[tuple[str, TensorHead]], layout: Layout) -> dict[str, Any]:
    """Counts of a model's weights: ``weights`` in all, and those that are no targets by ``reasons``, most first.

    Everything is counted from the files: reasons and targets add up to all weights.

    Args:
        tensors: name and head of each stored tensor. A bare body's may lack the prefix of the model, or have it.
    """
    sizes = {name: head for name, head in tensors if head.dtype in NUMBERS and not _is_buffer(name, head)}
    own = {p.weight for target in layout.targets for p in target.projections}
    bodies = {name.partition(".")[2] for name in own}
    counts: Counter[str] = Counter()
    others: dict[str, None] = {}
    for name, head in sizes.items():
        if name in own or name in bodies or name.partition(".")[2] in own:
            continue
        if reason := _reason(name, len(head.shape)):
            counts[reason] += head.size
        else:
            others[unnumbered(name.removesuffix(".weight"))] = None
    weights = sum(head.size for head in sizes.values())
    rest = weights - layout.parameters(layout.paths) - counts.total()
    if others and rest > 0:
        more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
        counts[f"other modules ({', '.join([*others][:NAMED])}{more})"] = rest
    return {"weights": weights, "reasons": dict(counts.most_common())}


def said(counts: Mapping[str, Any] | None) -> str:
    """In a sentence; empty where every weight is in a target, or nothing is known.

    >>> said({"weights": 1200, "reasons": {"embeddings": 1000, "norms and biases": 10}})
    '1,010 of all 1,200 weights are no targets: 1,000 of embeddings, 10 of norms and biases'
    """
    if not counts or not counts["reasons"]:
        return ""
    parts = ", ".join(f"{count:,} of {reason}" for reason, count in counts["reasons"].items())
    return f"{sum(counts['reasons'].values()):,} of all {counts['weights']:,} weights are no targets: {parts}"


def _is_buffer(name: str, head: TensorHead) -> bool:
    """What is no parameter: the logits' bias of BART's kin, and the causal masks in old folders of GPT-2."""
    return name == "final_logits_bias" or (len(head.shape) == 4 and name.endswith(("attn.bias", "attn.masked_bias")))


def _reason(name: str, dimensions: int) -> str | None:
    if dimensions < 2 or NORM.search(name):
        return "norms and biases"
    if EMBEDDING.search(name):
        return "embeddings"
    # transformers holds all experts of a layer in one parameter of three dimensions, whatever the files hold.
    return "fused experts" if "expert" in name else None
