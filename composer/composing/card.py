"""The model card of a composed model: what is in it, and what it is not."""

from __future__ import annotations

from ..models.folder import BaseModel
from ..scheme.graph import Node

CARD = """---
library_name: {library}
tags: [pruned, composer]
base_model: {base}
---

# {base}, {percent} of target weights removed

Made with Composer: {how}.
{masked}
Load it like any other model: `{example}`.

| target | rate removed |
|---|---|
{rows}

`composer.json` holds the lineage: blocks, versions, machine and the resolved recipe.
"""


MASKED = """
**This is a masked model.** The removed weights are exactly 0.0, but they are still stored: the folder is as
large and the model as slow as the dense one until it is shrunk or run by a kernel that skips zeros.
"""


def model_card(base: BaseModel, root: Node | None, sparsity: float, how: str) -> str:
    """The text of ``README.md``; ``root`` is None for a dense model."""
    rates = root.rates if root else {}
    choices = root.choices if root else {}
    how_pruned = {path: f" ({', '.join(choice.values())})" for path, choice in choices.items()}
    rows = "\n".join(f"| `{p}` | {rate:g}{how_pruned.get(p, '')} |" for p, rate in rates.items()) or "| (none) | 0 |"
    masked = MASKED if rates else ""
    percent = f"{sparsity:.1%}"
    loading = {"library": base.storage.library, "example": base.storage.example(base.config)}
    return CARD.format(base=base.folder.name, percent=percent, how=how, masked=masked, rows=rows, **loading)
