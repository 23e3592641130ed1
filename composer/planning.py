"""Planning steps: configurations, scheme, and what is in a scheme or a model. No torch but for `show_model`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from .allocation import allocate, wants_allocation
from .config import GLOBAL_L1, Configurations, Spec, read_configurations, resolve, write_configurations
from .errors import ConfigError, OutputError
from .generate import generate
from .jsonfile import read_json
from .layout import Layout
from .models.base import BaseModel
from .outcome import Outcome
from .scheme import Scheme, build_scheme
from .workspace import Given, Workspace


def generate_config(recipe: Given, *, output: Path | None = None, force: bool = False) -> Outcome:
    """Write ``conf.json`` from the recipe's rates; nothing but the model's ``config.json`` is read."""
    space = Workspace.of(recipe)
    path, r = output or space.conf, space.recipe
    configurations = Configurations(
        model=space.stored_name(path.parent),
        configurations=generate(
            space.base.layout,
            attention=r.attention,
            linear=r.linear,
            count=r.count,
            grid=r.grid,
            draws=r.random,
            seed=r.seed,
            targets=r.targets,
            granularity=r.granularity or ("global" if r.criterion == GLOBAL_L1 else None),
            attention_granularity=r.attention_granularity,
        ),
    )
    content = configurations.model_dump(exclude_none=True)
    fresh = not _same_json(path, content, force)
    if fresh:
        write_configurations(path, configurations)
    n, m = len(configurations.configurations), len(configurations.configurations[0])
    return Outcome(path, fresh, {"model": space.base.name, "configurations": n, "targets": m})


def take_config(recipe: Given, source: Path, *, force: bool = False) -> Outcome:
    """Copy configurations into the workspace, with the base model named in them."""
    space = Workspace.of(recipe)
    given = read_configurations(source, partial(_layout_of, space, source))
    taken = given.model_copy(update={"model": space.stored_name(space.conf.parent)})
    fresh = not _same_json(space.conf, taken.model_dump(exclude_none=True), force)
    if fresh:
        write_configurations(space.conf, taken)
    return Outcome(space.conf, fresh, {"model": space.base.name, "configurations": len(given.configurations)})


def generate_scheme(
    recipe: Given, *, config: Path | None = None, output: Path | None = None, force: bool = False
) -> Outcome:
    """Write ``conf_prune.json``, the graph of everything that the configurations need."""
    space = Workspace.of(recipe)
    source, path = config or space.conf, output or space.conf_prune
    layout_of = partial(_layout_of, space, source)
    given = read_configurations(source, layout_of)
    layout = layout_of(given.model)
    assigned = resolve(given, layout, where=str(source))
    if any(map(wants_allocation, assigned)):
        parameters = dict(space.base.load().named_parameters())
        assigned = [allocate(one, layout, parameters) if wants_allocation(one) else one for one in assigned]
    scheme = build_scheme(
        assigned,
        layout,
        model=space.stored_name(path.parent),
        fingerprint=space.base.fingerprint,
        block_levels=space.recipe.block_levels,
    )
    if any(node.choices for node in scheme.at("module")):
        from .criteria.choice import check_criteria

        check_criteria(scheme, layout)
    fresh = not _same_scheme(path, scheme, force)
    if fresh:
        scheme.save(path)
        space.forget_scheme(path)
    followed = [
        {"configuration": i, "path": target, "rate": said.rate}
        for i, one in enumerate(assigned)
        for target, said in one.items()
        if isinstance(said, Spec) and said.granularity == "global"
    ]
    return Outcome(path, fresh, scheme_summary(scheme, space.base) | ({"global": followed} if followed else {}))


def _layout_of(space: Workspace, source: Path, model: str | None) -> Layout:
    """Of the workspace's base model; where nothing has said yet which it is, of the one that ``source`` names."""
    if model:
        space.take_base(model, source.parent)
    elif not space.has_base:
        raise ConfigError(f"{source}: names no model; add the key 'model', or give -m/--model")
    return space.base.layout


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
    from .scheme import load_scheme

    return len(load_scheme(path).roots)


def show_scheme(recipe: Given, scheme: Path, *, picture: Path | None = None) -> Outcome:
    """The graph as a table of nodes and as a picture (PNG or SVG)."""
    from .stages.report.graph import draw

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
    from .masks import zeros_per_target

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


def _same_json(path: Path, content: Any, force: bool) -> bool:
    """Whether ``path`` holds this content; another content wants ``force``."""
    if force or not path.exists():
        return False
    if path.is_file() and read_json(path) == content:
        return True
    raise OutputError(f"{path}: exists with other content; --force replaces it")


def _same_scheme(path: Path, scheme: Scheme, force: bool) -> bool:
    if force or not path.exists():
        return False
    held = read_json(path, OutputError) if path.is_file() else None
    if not isinstance(held, dict):
        raise OutputError(f"{path}: exists and is no scheme; --force replaces it")
    if held.get("digest") == scheme.digest:
        return True
    levels = held.get("block_levels") != list(scheme.block_levels)
    wanted = {
        "another base model": held.get("fingerprint") != scheme.fingerprint,
        "another path of the base model": held.get("model") != scheme.model,
        "other block levels": levels,
        # A root's hash covers the levels below it, so it tells only where these are the same.
        "other configurations": not levels and held.get("configurations") != list(scheme.roots),
    }
    changed = ", ".join(words for words, differs in wanted.items() if differs) or "it was edited"
    raise OutputError(f"{path}: exists and was made from other inputs ({changed}); --force replaces it")
