"""The model card of a composed model: what is in it, and what it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..models.folder import BaseModel
from ..scheme.graph import Node

if TYPE_CHECKING:
    from ..shrinking.records import Report

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


SHRUNK = """---
library_name: transformers
tags: [pruned, composer]
---

# {name}, shrunk

What was removed from {name} is gone: {before:,} parameters became {after:,}. The answers are the same: logits differ by
at most {difference:.1g}{tokens}. {form}

Load it: `{example}`{alone}.

| part | kept | zeros inside |
|---|---|---|
{rows}

`composer.json` holds the lineage.
"""

FORM = {
    "plain": "Any transformers loads it.",
    "padded": "Any transformers loads it, since units of zeros were kept.",
    "exact": "Every layer has its own shape; `modeling_shrunk.py` beside the weights loads them.",
}


def shrunk_card(name: str, model: BaseModel, report: Report) -> str:
    """The text of ``README.md`` of a shrunk model; ``name`` is the masked one's."""
    verified = report.verification
    tokens = f", {verified.generated} generated tokens are equal" if verified and verified.generated else ""
    rows = (f"| `{r.path}` | {r.units.after:,} of {r.units.before:,} | {r.zeros:,} |" for r in report.rows)
    return SHRUNK.format(
        name=name,
        before=report.parameters.before,
        after=report.parameters.after,
        difference=verified.difference if verified else 0.0,
        tokens=tokens,
        form=FORM[report.form],
        example=model.storage.example(model.config),
        alone=", or `composer.load` without the code" if report.form == "exact" else "",
        rows="\n".join(rows),
    )
