"""`compose show`: what is in a scheme, or in a model folder."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from ..models.folder import BaseModel
from ..scheme.graph import Scheme
from ..scheme.stored import load_scheme
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
        "no_targets": base.no_targets,
    }


def scheme_size(path: Path) -> int:
    """How many configurations a scheme has."""
    return len(load_scheme(path).roots)


def show_scheme(recipe: Given, scheme: Path, *, picture: Path | None = None) -> Outcome:
    """The graph as a table of nodes and as a picture (PNG or SVG)."""
    from ..report.graph import draw

    space = Workspace.of(recipe)
    graph, picture = space.scheme(scheme), picture or scheme.with_name("scheme.png")
    draw(graph, space.base.layout, picture)
    return Outcome(
        picture,
        True,
        {**scheme_summary(graph, space.base), "nodes": _nodes(graph), "picture": str(picture)},
    )


def _nodes(scheme: Scheme) -> list[dict[str, Any]]:
    """One row for each node; ``uses`` counts the configurations that it stands in."""
    uses = Counter(node.hash for root in scheme.roots for node in scheme.below(scheme.nodes[root]))
    rows = []
    for node in scheme.nodes.values():
        row: dict[str, Any] = {"level": node.level, "path": node.path}
        row |= {"rates": sorted(set(node.rates.values())), "uses": uses[node.hash]}
        if node.choices:
            row["choices"] = sorted({" ".join(choice.values()) for choice in node.choices.values()})
        rows.append(row)
    return rows


def show_model(recipe: Given, model: Path, *, picture: Path | None = None) -> Outcome:
    """Parameters, zeros and sparsity of a model folder, per target and in all; heads and neurons kept as a picture.

    Args:
        picture: PNG or SVG [the model's name with -kept.png, in the run's folder].
    """
    from ..report.kept import draw, said
    from ..report.kit.canvas import check_suffix
    from ..shrinking.kept import kept_units
    from ..tensors.masks import zeros_per_target

    base = BaseModel(model)
    if picture:
        check_suffix(picture)
    loaded = base.load()
    stacks = kept_units(base, dict(loaded.named_parameters()))
    picture = picture or Workspace.of(recipe).folder / f"{base.place.name}-kept.png"
    draw(stacks, picture, base.title)
    parameters = [parameter for _, parameter in loaded.named_parameters()]
    zeros = zeros_per_target(loaded, base.layout)
    summary = {
        "parameters": sum(parameter.numel() for parameter in parameters),
        "zeros": sum(int((parameter == 0).sum()) for parameter in parameters),
        "bytes": sum(file.stat().st_size for file in base.folder.glob("*.safetensors")),
        "sparsity": sum(zero for zero, _ in zeros.values()) / sum(size for _, size in zeros.values()),
        "no_targets": base.no_targets,
        "targets": [
            {"path": target.path, "kind": target.kind, "weights": size, "zeros": zero}
            for target in base.layout.targets
            for zero, size in [zeros[target.path]]
        ],
        "kept": said(stacks),
        "units": [
            {"path": part.path, "kind": part.kind, "before": part.before, "after": part.after, "density": part.density}
            for stack in stacks
            for row in stack.rows
            for part in row.parts
        ],
        "picture": str(picture),
    }
    return Outcome(base.folder, True, summary)
