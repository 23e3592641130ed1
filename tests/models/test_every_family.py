"""The whole way with a tiny model of every family, and of none: prune, tune, compose, save, load, count, compare."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune as torch_prune

from composer.calibration.sample import Calibration
from composer.calibration.teacher import Teacher
from composer.composing.assemble import compose
from composer.library.store import Library
from composer.models.folder import BaseModel
from composer.pruning.criteria.l1 import L1
from composer.pruning.criteria.obs import DAMPING, Obs
from composer.pruning.variants import prune
from composer.recipe import Recipe
from composer.scheme.building import build_scheme
from composer.scheme.configurations import Configurations, resolve
from composer.scheme.globs import match_targets
from composer.scheme.graph import Scheme
from composer.steps.show import show_model
from composer.tasks.task import Batch, Examples, Feature
from composer.tensors.mask_holder import MaskHolder
from composer.training.blocks import TRAINERS
from composer.training.blocks.tuner import BlockSettings, BlockTuner
from composer.training.blocks.waves import Waves
from tests.reference import heads, modules
from tests.reference.moments import collect
from tests.zoo import OTHERS, ZOO

Folder = Callable[[str], Path]

TABLES = ("t5", "gated", "mt5", "distilbert", "bert", *ZOO)
HEADS, WEIGHTS = 0.5, 0.3


class Toy:
    """Random tokens and random labels, for a model with any head; see :class:`composer.tasks.task.Task`."""

    name, main_metric = "toy", "loss"

    def __init__(self, vocabulary: int, *, both: bool) -> None:
        self.vocabulary, self.both = vocabulary, both

    def examples(self, count: int) -> Examples:
        draw = torch.Generator().manual_seed(count)
        features: list[Feature] = [
            {"input_ids": torch.randint(2, self.vocabulary, (3 + i % 3,), generator=draw).tolist()}
            for i in range(count)
        ]
        return Examples("train", features, [""] * count, f"toy {count}")

    def collate(self, features: Sequence[Feature]) -> Batch:
        rows = [torch.tensor(f["input_ids"]) for f in features]
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        batch = {"input_ids": ids, "attention_mask": (ids != 0).long()}
        if self.both:
            batch["decoder_input_ids"] = ids[:, :-1].contiguous()
        return batch

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
        logits = model(**batch).logits.flatten(0, -2)
        return F.cross_entropy(logits, torch.arange(len(logits)) % logits.shape[-1]), len(logits)

    def real_tokens(self, batch: Batch) -> dict[str, Tensor]:
        mask = batch["attention_mask"].bool()
        return {"encoder": mask, "decoder": mask[:, :-1] if self.both else mask}


def make_task(base: BaseModel) -> Any:
    streams = {p.stream for t in base.layout.targets for p in t.projections}
    return Toy(base.config["vocab_size"], both=len(streams) == 2)


def make_scheme(base: BaseModel, rates: dict[str, float], levels: Any = ("module", "sublayer", "layer")) -> Scheme:
    resolved = resolve(Configurations(configurations=[rates]), base.layout)
    return build_scheme(resolved, base.layout, model="tiny", fingerprint=base.fingerprint, block_levels=levels)


def rates_of(base: BaseModel) -> dict[str, float]:
    chosen = base.layout.paths if base.layout.listed else match_targets(["transformer.*"], base.layout, where="")
    return {t: HEADS if base.layout.target(t).kind == "attention" else WEIGHTS for t in chosen}


def answers(model: nn.Module, batch: Batch) -> Tensor:
    with torch.no_grad():
        return model(**batch).logits


@pytest.mark.parametrize("name", [*TABLES, *OTHERS])
def test_the_whole_way(model_folder: Folder, tmp_path: Path, name: str) -> None:
    import transformers

    base = BaseModel(model_folder(name))
    model, task, rates = base.load(), make_task(base), rates_of(base)
    scheme, pruned = make_scheme(base, rates), Library(tmp_path / "pruned")
    leaves = prune(model, base.layout, scheme, L1(), pruned)
    for trainer in ("distill", "least_squares"):
        settings = BlockSettings(trainer, 2, 4, 1e-3, 9, 0, calibration_size=8)
        tuned = Library(tmp_path / trainer)
        train, valid, layout = task.examples(8), task.examples(8), base.layout
        sample = Calibration(model, task, train, layout, size=settings.calibration_size, seed=settings.seed)
        waves = Waves(
            scheme,
            layout,
            (pruned, tuned),
            leaves,
            settings=settings.lineage(TRAINERS.get(trainer).fields),
            data={"train": train.digest, "valid": valid.digest},
        )
        teacher = Teacher(model, layout, task, train, valid, sample)
        done = BlockTuner(teacher, waves, TRAINERS.get(trainer), settings).run()
        for address in done.addresses.values():
            rows = tuned.stats(address).get("rows", [])
            # Closed forms know their error on the calibration sample.
            losses = [row["valid_loss" if trainer == "distill" else "train_loss"] for row in rows]
            assert all(loss < 10 for loss in losses)
            if trainer == "least_squares" and rows:
                assert losses[-1] <= 1.001 * losses[0] + 1e-9, rows[0]["path"]
    composed = base.load()
    compose(composed, base.layout, scheme, 0, tuned, done.addresses)
    base.save(composed, tmp_path / "saved")

    again = getattr(transformers, base.config["architectures"][0]).from_pretrained(tmp_path / "saved").eval()
    sizes = modules.discover(again)
    removed = total = 0
    for path in rates:
        weights = [again.get_submodule(p).get_parameter("weight") for p in sizes.get(path, [path])]
        zeros, count = (sum(int(n) for n in each) for each in (map(zeros_in, weights), map(torch.numel, weights)))
        attention = path in sizes and path not in sizes[path]
        assert zeros == (count // 2 if attention else round(WEIGHTS * count)), path
        removed, total = removed + zeros, total + count
    shown = show_model(Recipe(folder=tmp_path), tmp_path / "saved").summary
    assert sum(row["zeros"] for row in shown["targets"]) == removed
    if base.layout.listed:
        assert shown["sparsity"] == scheme.sparsity(0, base.layout) == removed / total
    batch = task.collate(task.examples(4).features)
    assert torch.allclose(answers(again, batch), answers(composed, batch), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(answers(again, batch), answers(model, batch), rtol=1e-2, atol=1e-3)


def zeros_in(weight: Tensor) -> int:
    return int((weight == 0).sum())


@pytest.fixture(params=TABLES)
def base(request: pytest.FixtureRequest, model_folder: Folder) -> BaseModel:
    return BaseModel(model_folder(request.param))


def test_a_removed_head_is_gone_from_what_the_out_projection_reads(base: BaseModel, tmp_path: Path) -> None:
    """The base model whose out-projections see zeros instead of these heads gives the same answers."""
    model, pruned, task = base.load(), base.load(), make_task(base)
    units = {a.path: a for a in heads.attentions(model)}
    scheme = make_scheme(base, dict.fromkeys(units, HEADS), ())
    library = Library(tmp_path)
    keep = compose(pruned, base.layout, scheme, 0, library, prune(model, base.layout, scheme, L1(), library))
    batch = task.collate(task.examples(4).features)
    read: dict[str, Tensor] = {}
    for a in units.values():
        gone = heads.lowest_groups(model, a, a.keys // 2)
        lost = [h for h in range(a.queries) if h * a.keys // a.queries in gone]
        for path, parts, n in heads.rows(pruned, a):
            dead = [h for h in range(n) if not parts[h].any()]
            assert dead == [h for h in range(n) if h * a.keys // n in gone], path

        def watch(_: nn.Module, args: tuple[Any, ...], path: str = a.path) -> None:
            read[path] = args[0]

        def cut(_: nn.Module, args: tuple[Any, ...], lost: list[int] = lost, n: int = a.queries) -> Any:
            split = args[0].unflatten(-1, (n, -1)).clone()
            split[..., lost, :] = 0
            return (split.flatten(-2),)

        pruned.get_submodule(a.out).register_forward_pre_hook(watch)
        model.get_submodule(a.out).register_forward_pre_hook(cut)
    assert torch.allclose(answers(pruned, batch), answers(model, batch), rtol=1e-5, atol=1e-5)
    for a in units.values():
        split = read[a.path].unflatten(-1, (a.queries, -1))
        alive = [h for h in range(a.queries) if split[..., h, :].any()]
        assert len(alive) == a.queries // 2
        dead = [h * a.keys // a.queries for h in range(a.queries) if h not in alive]
        assert sorted(set(dead)) == heads.lowest_groups(model, a, a.keys // 2)
    with MaskHolder(dict(pruned.named_parameters()), keep):
        task.loss(pruned, batch)[0].backward()
    parameters = dict(pruned.named_parameters())
    for name, mask in keep.items():
        gradient = parameters[name].grad
        assert gradient is not None
        assert not gradient[~mask].any()
        assert gradient[mask].any() or name.endswith(".bias"), name


def test_linear_masks_are_those_of_torch_on_the_model_s_own_modules(base: BaseModel, tmp_path: Path) -> None:
    """What stands between: finding the modules, weights that are stored turned, composing."""
    model, library = base.load(), Library(tmp_path)
    targets = [path for path, _ in modules.linear_modules(model) if modules.target_of(path) == path]
    assert {*targets} == {target.path for target in base.layout.targets if target.kind == "linear"}
    scheme = make_scheme(base, dict.fromkeys(targets, WEIGHTS), ())
    keep = compose(model, base.layout, scheme, 0, library, prune(model, base.layout, scheme, L1(), library))
    dense = base.load()
    for path in targets:
        module = torch_prune.l1_unstructured(dense.get_submodule(path), "weight", amount=WEIGHTS)
        assert torch.equal(keep[f"{path}.weight"], module.get_buffer("weight_mask").bool()), path
        assert torch.equal(model.get_parameter(f"{path}.weight"), module.weight), path


def test_moments_are_gathered_and_heads_removed_by_them(base: BaseModel, tmp_path: Path) -> None:
    """Every projection has moments over all real tokens, equal to those of its inputs.

    With obs those heads go that a greedy pass removes which tries all and solves anew for each, on the inputs
    themselves.
    """
    model, task = base.load(), make_task(base)
    data = task.examples(6)
    grams = collect(model, task, data, base.layout, batch_size=6)
    batch = task.collate(data.features)
    real = task.real_tokens(batch)
    seen: dict[str, Tensor] = {}
    projections = {p.path: p for t in base.layout.targets for p in t.projections}

    def keep(path: str) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
            seen.setdefault(path, args[0])

        return hook

    for path in projections:
        model.get_submodule(path).register_forward_pre_hook(keep(path))
    task.loss(model, batch)
    for path, p in projections.items():
        wide = seen[path].reshape(*real[p.stream].shape, -1)
        X = wide[real[p.stream]].double()
        assert grams[path].tokens == int(real[p.stream].sum()) == len(X)
        assert grams[path].examples == len(data)
        assert torch.allclose(grams[path].inputs, X.T @ X, rtol=1e-4, atol=1e-4), path
    units = list(heads.attentions(model))
    scheme, library = make_scheme(base, dict.fromkeys([a.path for a in units], HEADS), ()), Library(tmp_path)
    sample = Calibration(model, task, data, base.layout)
    addresses = prune(model, base.layout, scheme, Obs(), library, calibration=lambda: sample)
    pruned = base.load()
    compose(pruned, base.layout, scheme, 0, library, addresses)
    for a in units:
        stream = projections[a.out].stream
        rows = seen[a.out].reshape(*real[stream].shape, -1)[real[stream]]
        gone = heads.cheapest_groups(model, a, rows, a.keys // 2, DAMPING)
        for path, parts, n in heads.rows(pruned, a):
            dead = [h for h in range(n) if not parts[h].any()]
            assert dead == [h for h in range(n) if h * a.keys // n in gone], path
