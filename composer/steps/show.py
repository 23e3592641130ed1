"""`compose show`: what is in a scheme, or in a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..models.folder import BaseModel
from ..scheme.graph import Scheme, load_scheme
from ..workspace import Given, Workspace
from .outcome import Outcome


def scheme_summary(scheme: Scheme, base: BaseModel) -> dict[str, Any]:
    """What `generate-scheme` and `show` print."""
    return {
        "digest": scheme.digest,
        "block_levels": list(scheme.block_levels),
        "levels": [
            {"level": row.level, "blocks": row.blocks, "uses": row.uses, "saved": row.saved}
            for row in scheme.sharing(base.layout)
        ],
        "sparsity": [scheme.sparsity(i, base.layout) for i in range(len(scheme.roots))],
    }


def scheme_size(path: Path) -> int:
    """How many configurations a scheme has."""
    return len(load_scheme(path).roots)


def show_scheme(recipe: Given, scheme: Path, *, picture: Path | None = None) -> Outcome:
    """The graph as a table of nodes and as a picture (PNG or SVG)."""
    from ..report.graph import draw

    space = Workspace.of(recipe)
    plan, picture = space.scheme(scheme), picture or scheme.with_name("scheme.png")
    draw(plan, space.base.layout, picture)
    uses = dict.fromkeys(plan.nodes, 0)
    for root in plan.roots:
        for node in plan.below(plan.nodes[root]):
            uses[node.hash] += 1
    nodes = [
        {
            "level": n.level,
            "path": n.path,
            "rates": sorted(set(n.rates.values())),
            "uses": uses[n.hash],
            **({"choices": sorted({" ".join(c.values()) for c in n.choices.values()})} if n.choices else {}),
        }
        for n in plan.nodes.values()
    ]
    return Outcome(picture, True, {**scheme_summary(plan, space.base), "nodes": nodes, "picture": str(picture)})


def show_model(recipe: Given, model: Path) -> Outcome:
    """Parameters, zeros and sparsity of a model folder, per target and in all."""
    from ..tensors.masks import zeros_per_target

    base = BaseModel(model)
    loaded = base.load()
    zeros = zeros_per_target(loaded, base.layout)
    parameters = [p for _, p in loaded.named_parameters()]
    return Outcome(
        base.folder,
        True,
        {
            "parameters": sum(p.numel() for p in parameters),
            "zeros": sum(int((p == 0).sum()) for p in parameters),
            "bytes": sum(f.stat().st_size for f in base.folder.glob("*.safetensors")),
            "sparsity": sum(z for z, _ in zeros.values()) / sum(n for _, n in zeros.values()),
            "targets": [
                {"path": t.path, "kind": t.kind, "weights": n, "zeros": z}
                for t in base.layout.targets
                for z, n in [zeros[t.path]]
            ],
        },
    )
