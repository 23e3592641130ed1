"""`compose generate-config` and `compose generate-scheme`: configurations, and the graph of what they share."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from ..errors import ConfigError, OutputError
from ..files.jsonfile import read_json
from ..pruning.global_rates import allocate, complete, default_granularity, is_global, wants_allocation
from ..scheme.building import build_scheme
from ..scheme.configurations import Configurations, Spec, read_configurations, resolve, write_configurations
from ..scheme.generate import generate
from ..scheme.graph import Scheme
from ..scheme.layout import Layout
from ..workspace import Given, Workspace
from .outcome import Outcome
from .show import scheme_summary


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
            granularity=r.granularity or default_granularity(r.criterion),
            attention_granularity=r.attention_granularity,
            structured=r.structured,
            uniform=r.uniform,
            multiple=r.multiple,
        ),
    )
    configurations = complete(configurations, r.criterion)
    content = configurations.model_dump(exclude_none=True)
    fresh = not same_json(path, content, force)
    if fresh:
        write_configurations(path, configurations)
    n, m = len(configurations.configurations), len(configurations.configurations[0])
    return Outcome(path, fresh, {"model": space.base.name, "configurations": n, "targets": m})


def take_config(recipe: Given, source: Path, *, force: bool = False) -> Outcome:
    """Copy configurations into the workspace, with the base model named in them."""
    space = Workspace.of(recipe)
    given = complete(read_configurations(source, partial(_layout_of, space, source)), space.recipe.criterion)
    taken = given.model_copy(update={"model": space.stored_name(space.conf.parent)})
    fresh = not same_json(space.conf, taken.model_dump(exclude_none=True), force)
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
    given = complete(read_configurations(source, layout_of), space.recipe.criterion)
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
        from ..pruning.criteria.choice import check_criteria

        check_criteria(scheme, layout)
    fresh = not _same_scheme(path, scheme, force)
    if fresh:
        scheme.save(path)
        space.forget_scheme(path)
    followed = [
        {"configuration": i, "path": target, "rate": said.rate}
        for i, one in enumerate(assigned)
        for target, said in one.items()
        if isinstance(said, Spec) and is_global(said)
    ]
    return Outcome(path, fresh, scheme_summary(scheme, space.base) | ({"global": followed} if followed else {}))


def _layout_of(space: Workspace, source: Path, model: str | None) -> Layout:
    """The layout of the workspace's base model; where nothing has said yet which it is, ``source`` names it."""
    if model:
        space.take_base(model, source.parent)
    elif not space.has_base:
        raise ConfigError(f"{source}: names no model; add the key 'model', or give -m/--model")
    return space.base.layout


def same_json(path: Path, content: Any, force: bool) -> bool:
    """Whether ``path`` holds this content; another content wants ``force``."""
    if force or not path.exists():
        return False
    if path.is_file() and read_json(path) == content:
        return True
    raise OutputError(f"{path}: exists with other content; --force replaces it")


def _same_scheme(path: Path, scheme: Scheme, force: bool) -> bool:
    """Whether ``path`` holds this scheme; another one wants ``force``, and is told apart by what it was made from."""
    if force or not path.exists():
        return False
    content = read_json(path, OutputError) if path.is_file() else None
    if not isinstance(content, dict):
        raise OutputError(f"{path}: exists and is no scheme; --force replaces it")
    if content.get("digest") == scheme.digest:
        return True
    levels = content.get("block_levels") != list(scheme.block_levels)
    differs = {
        "another base model": content.get("fingerprint") != scheme.fingerprint,
        "another path of the base model": content.get("model") != scheme.model,
        "other block levels": levels,
        # A root's hash covers the levels below it, so it tells only where these are the same.
        "other configurations": not levels and content.get("configurations") != list(scheme.roots),
    }
    changed = ", ".join(words for words, differ in differs.items() if differ) or "it was edited"
    raise OutputError(f"{path}: exists and was made from other inputs ({changed}); --force replaces it")
