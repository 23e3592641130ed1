"""The steps of the work, one function for each command: plan, prune, tune blocks, compose.

Each takes a recipe (or a workspace, to share what is loaded), works in the recipe's folder, does nothing
when its output is there and current, and returns an :class:`~composer.outcome.Outcome`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .config import Configurations, read_configurations, resolve, write_configurations
from .errors import ConfigError, OutputError
from .generate import generate
from .jsonfile import read_json, reported, write_text
from .library import Library
from .models.base import BaseModel
from .outcome import Outcome
from .progress import SILENT, Progress
from .provenance import changes, is_current, new_folder, record, write_record
from .recipe import Recipe
from .scheme import Scheme, build_scheme
from .workspace import Kind, Workspace

Given = Recipe | Workspace


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
    given = read_configurations(source)
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
    given = read_configurations(source)
    if "base" not in space.__dict__ and not space.recipe.model:
        if not given.model:
            raise ConfigError(f"{source}: names no model; add the key 'model', or give -m/--model")
        space.__dict__["base"] = BaseModel(space.located(given.model, source.parent))
    layout = space.base.layout
    scheme = build_scheme(
        resolve(given, layout, where=str(source)),
        layout,
        model=space.stored_name(path.parent),
        fingerprint=space.base.fingerprint,
        block_levels=space.recipe.block_levels,
    )
    fresh = not _same_scheme(path, scheme, force)
    if fresh:
        scheme.save(path)
        space.forget_scheme(path)
    return Outcome(path, fresh, scheme_summary(scheme, space.base))


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
        {"level": n.level, "path": n.path, "rates": sorted(set(n.rates.values())), "uses": uses[n.hash]}
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


def prune(
    recipe: Given,
    *,
    scheme: Path | None = None,
    output: Path | None = None,
    force: bool = False,
    progress: Progress = SILENT,
) -> Outcome:
    """Prune every variant of the scheme, each once, into ``modules/pruned``."""
    import time

    from .criteria import CRITERIA

    space = Workspace.of(recipe)
    criterion = CRITERIA.get(space.recipe.criterion)()
    plan = space.scheme(scheme)
    library = Library(output or space.pruned)
    settings = _calibration(space) if criterion.needs else {}
    inputs = {"scheme": plan.digest, "criterion": {"name": criterion.name, **settings}}
    leaves = len(plan.at("module"))
    manifest = _manifest(library, plan, inputs, force)
    if manifest:
        return Outcome(library.folder, False, {"variants": leaves, "made": 0, "seconds": manifest["seconds"]})
    from .stages.prune import prune as work

    library.sweep()
    model, began = space.fresh_model() if criterion.needs else space.base.load(), time.perf_counter()

    def grams() -> Any:
        from .gram import collect

        size, seed = space.recipe.calibration_size, space.recipe.seed
        train = space.examples("train")
        return collect(model, space.task, train, space.base.layout, size=size, seed=seed, progress=progress)

    held = set(library.addresses())
    with reported(library.folder):
        addresses = work(
            model, space.base.layout, plan, criterion, library, settings=settings, grams=grams, progress=progress
        )
    seconds = time.perf_counter() - began
    made = len(set(addresses.values()) - held)
    content = record(inputs, addresses=addresses, seconds=seconds, recipe=space.resolved())
    library.write_manifest(plan.digest, content)
    return Outcome(library.folder, True, {"variants": leaves, "made": made, "seconds": seconds})


def finetune_blocks(
    recipe: Given,
    *,
    scheme: Path | None = None,
    pruned: Path | None = None,
    output: Path | None = None,
    force: bool = False,
    progress: Progress = SILENT,
) -> Outcome:
    """Tune every block of the scheme once, bottom-up, into ``modules/finetuned``; ``stats/block.csv``."""
    from .trainers import TRAINERS

    space = Workspace.of(recipe)
    r, plan = space.recipe, space.scheme(scheme)
    trainer = TRAINERS.get(r.trainer)
    start, library = Library(pruned or space.pruned), Library(output or space.finetuned)
    leaves = space.addresses(start, plan)
    from .stages.tune_blocks import head, tune_blocks
    from .trainers.trainer import BlockSettings

    settings = BlockSettings(
        trainer=r.trainer,
        seed=r.seed,
        calibration_size=r.calibration_size,
        **r.block.model_dump(exclude={"valid_size"}),
    )
    train, valid = space.examples("train"), head(space.examples("valid"), r.block.valid_size)
    data = {"train": train.digest, "valid": valid.digest}
    inputs = {"scheme": plan.digest, "pruned": leaves, "settings": settings.lineage(trainer.fields), "data": data}
    stats = space.folder / "stats" / "block.csv"
    held = _manifest(library, plan, inputs, force)
    if held and stats.is_file():
        return Outcome(library.folder, False, {**held["summary"], "stats": str(stats)})
    library.sweep()
    with reported(library.folder):
        done = tune_blocks(
            space.fresh_model(),
            space.base.layout,
            plan,
            trainer=trainer,
            settings=settings,
            task=space.task,
            train=train,
            valid=valid,
            pruned=start,
            tuned=library,
            addresses=leaves,
            progress=progress,
        )
    seconds = write_block_stats(library, done.addresses, stats)
    summary = {
        "blocks": len(done.addresses),
        "tuned": done.tuned,
        "teacher_passes": done.teacher_passes,
        "seconds": seconds,
    }
    content = record(inputs, addresses=done.addresses, summary=summary, device=space.device, recipe=space.resolved())
    library.write_manifest(plan.digest, content)
    return Outcome(library.folder, True, {**summary, "stats": str(stats)})


def write_block_stats(library: Library, addresses: dict[str, str], path: Path) -> float:
    """Collect the history of these blocks into one CSV; returns the seconds that they took in all."""
    from .stats import BLOCK_COLUMNS, write_csv

    kept = [library.stats(address) for address in dict.fromkeys(addresses.values())]
    write_csv(path, [row for stats in kept for row in stats.get("rows", [])], BLOCK_COLUMNS)
    return float(sum(stats.get("seconds", 0.0) for stats in kept))


def build_model(
    recipe: Given,
    i: int,
    *,
    scheme: Path | None = None,
    modules: Path | None = None,
    output: Path | None = None,
    force: bool = False,
) -> Outcome:
    """Compose configuration ``i`` into an ordinary Hugging Face folder, ``models/i``."""
    space = Workspace.of(recipe)
    plan, library = space.scheme(scheme), Library(modules or space.finetuned)
    root = plan.root(i)
    folder = output or space.folder / "models" / str(i)
    addresses = space.addresses(library, plan)
    from .stages.compose import compose, cover

    blocks = {n.hash: addresses[n.hash] for n in cover(plan, i, addresses)}
    inputs = {"configuration": root.hash, "blocks": blocks, "base": plan.fingerprint}
    sparsity = plan.sparsity(i, space.base.layout)
    summary = {"configuration": i, "sparsity": sparsity, "from": str(library.folder)}
    if is_current(folder, inputs, force=force):
        return Outcome(folder, False, summary)
    from .stages.card import model_card

    model = space.base.load()
    compose(model, space.base.layout, plan, i, library, addresses)
    with new_folder(folder) as temporary:
        space.base.save(model, temporary)
        card = model_card(space.base, root, sparsity, f"composed from {len(blocks)} blocks")
        write_text(temporary / "README.md", card)
        write_record(temporary, record(inputs, configuration=i, rates=root.rates, recipe=space.resolved()))
    return Outcome(folder, True, summary)


def finetune_model(recipe: Given, kind: Kind, i: int | None, **options: Any) -> Outcome:
    """Fine-tune one model whole; see :func:`composer.runs.finetune_model`."""
    from .runs import finetune_model as work

    return work(Workspace.of(recipe), kind, i, **options)


def evaluate(
    recipe: Given,
    models: Sequence[str | Path],
    *,
    output: Path | None = None,
    force: bool = False,
    progress: Progress = SILENT,
) -> Outcome:
    """Measure models on the test split; one ``results/<name>.json`` each."""
    from .runs import evaluate_models

    return evaluate_models(Workspace.of(recipe), models, output=output, force=force, progress=progress)


def predict(recipe: Given, model: str | Path, texts: Sequence[str]) -> list[str]:
    """What ``model`` makes of each text."""
    from .tasks import DataOptions, open_task

    space, base = Workspace.of(recipe), BaseModel(model)
    options = DataOptions(**{n: getattr(space.recipe, n) for n in DataOptions.model_fields if n != "data"}, data="demo")
    task = open_task(options, base.folder, base.config)
    return task.predict(base.load().to(space.device), texts)


def _calibration(space: Workspace) -> dict[str, Any]:
    """What identifies the calibration sample."""
    size, seed = space.recipe.calibration_size, space.recipe.seed
    return {"calibration": {"size": size, "seed": seed, "data": space.examples("train").digest}}


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


def _manifest(library: Library, plan: Scheme, inputs: dict[str, Any], force: bool) -> dict[str, Any] | None:
    """The library's record for the scheme if it is current and whole; another one wants ``force``."""
    held = library.manifest(plan.digest)
    if held is None:
        return None
    if held["inputs"] != inputs and not force:
        raise OutputError(
            f"{library.folder}: holds this scheme made from other inputs ({changes(held['inputs'], inputs)}); "
            "--force makes it again (stored blocks are kept)"
        )
    whole = held["inputs"] == inputs and all(address in library for address in held["addresses"].values())
    return held if whole else None
