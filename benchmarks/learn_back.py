"""What steps bring where 70 % of the linear weights have gone in closed form: the part `back` of `benchmarks/learn.py`.

Heads and neurons as `compose choose --keep-macs 0.3` took them (`chosen`), or one of the rules of `learn_hybrid.py`,
pruned by `obs` and repaired. From there the model learns the dense model's answers: `held`, shrunk first, its shapes as
they are; or `moved`, masked, while its masks learn on (`LearnMasks(start=…)`), and shrunk at the end. Figures are of
all texts that are not trained on, after the last step; nothing is chosen by them within a row.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from learn_hybrid import lesson, times, train
from learn_start import Looks, figures, repaired_model, rules_of

import composer
from composer.calibration.sample import sample_like
from composer.composing.refit import sweep
from composer.models.folder import BaseModel
from composer.tasks.task import input_lengths
from composer.tensors.batches import batch_indices
from composer.tensors.masks import zeros_as_masks

if TYPE_CHECKING:
    from learn_bench import Bench, Row


def part(bench: Bench) -> None:
    """All rows of one seed."""
    given = bench.given
    dense = bench.row(("dense", "figures"), lambda: figures(bench, bench.model))
    print(f"\n{given.back_steps} steps after closed forms (dense: loss {dense['loss']:.4f}, {dense['metric']:.2%})")
    print("what  masks  rate  answers  hidden  texts  steps: loss, accuracy; linear weights left; seconds a step")
    for kind in given.back:
        texts = (given.calibration_size, given.calibration_lengths)
        start = given.output / "back" / "-".join(map(str, (kind, bench.seed, *texts)))
        closed = bench.row(("closed", kind, *texts), lambda k=kind, s=start: closed_forms(bench, k, s))  # type: ignore[misc]
        rows = {"closed forms": closed}
        if given.swept:
            rows["and a sweep"] = bench.row(("swept", kind, *texts), lambda s=start: swept(bench, s))  # type: ignore[misc]
        for name, row in rows.items():
            told = f"{row['loss']:.4f}, {row['metric']:.2%}; {closed['left']:.1%}; {row['cpu']:.0f} s"
            print(f"{kind}  {name}, {texts[0]} texts of {texts[1]} lengths: {told}", flush=True)
        if given.timed:
            speed = bench.row(("speed", kind, *texts), lambda s=start: times(bench, s / "shrunk"))  # type: ignore[misc]
            print(f"{kind}  {speed['text']} times as fast, {speed['macs']:.2f} by multiplications", flush=True)
        for masks in given.back_masks:
            for rate in given.back_rates:
                for hidden in given.hidden_weights:
                    key = ("back", kind, masks, given.back_steps, rate, given.teacher_share, given.temperature, hidden)
                    row = bench.row(
                        (*key, *texts, given.train_lengths, given.dropout, given.batch_size, given.grouped),
                        lambda k=kind, m=masks, r=rate, h=hidden, s=start: learn(bench, k, m, r, h, s),  # type: ignore[misc]
                    )
                    seen = "  ".join(f"{n}: {one['loss']:.4f}, {one['metric']:.2%}" for n, one in row["seen"].items())
                    told = f"{rate:g}  {given.teacher_share:g}  {hidden:g}  {given.train_lengths}"
                    print(f"{kind}  {masks}  {told}  {seen}; {row['left']:.1%}; {row['step_seconds']:.2f}", flush=True)


def closed_forms(bench: Bench, kind: str, start: Path) -> Row:
    """Prune, repair and shrink, without a step."""
    shutil.rmtree(start, ignore_errors=True)
    start.parent.mkdir(parents=True, exist_ok=True)
    repaired_model(bench, kind).rename(start)
    composer.shrink(start, start / "shrunk", force=True)
    small = BaseModel(start / "shrunk")
    return {**figures(bench, small.load()), "left": left_of(small.layout, bench)}


def swept(bench: Bench, start: Path) -> Row:
    """Each sublayer refitted on what it really gets, over the same sample (not shrunk: it gives the same answers)."""
    given, space = bench.given, bench.space
    model, layout = BaseModel(start).load(), space.base.layout
    masks = zeros_as_masks(dict(model.named_parameters()), layout.targets)
    how: Row = {"size": given.calibration_size, "seed": bench.seed, "like": space.lengths_like}
    sweep(model, bench.model, layout, masks, space.task, space.examples("train"), **how)
    return figures(bench, model)


def left_of(layout: Any, bench: Bench) -> float:
    """Share of the base model's linear weights that a layout has."""
    left, weights = (sum(target.parameters for target in one.targets) for one in (layout, bench.space.base.layout))
    return left / weights


def learn(bench: Bench, kind: str, masks: str, rate: float, hidden: float, start: Path) -> Row:
    """Learn back, and shrink."""
    given, space = bench.given, bench.space
    if not (start / "shrunk" / "config.json").is_file():
        closed_forms(bench, kind, start)
    model: Any = BaseModel(start / "shrunk").load() if masks == "held" else space.fresh_model()
    loss = lesson(bench, model, hidden)
    steps, name = given.back_steps, f"{kind}-{masks}-{given.back_steps}-{rate:g}-{hidden:g}-{given.train_lengths}"
    folder = (
        given.output / "back" / f"work-{bench.seed}-{name}-{given.dropout:d}-{given.temperature:g}-{given.batch_size}"
    )
    looks = Looks(
        bench,
        model,
        sorted({round(steps * share) for share in (0, 0.25, 0.5, 1)}),
        folder.parent / f"{folder.name}.json",
    )
    learning = [] if masks == "held" else [composer.LearnMasks(rules_of(bench, kind), start=start)]
    callbacks = [*learning, looks]
    seconds = train(space, model, folder, steps, given, bench.seed, callbacks, loss, rate, features=texts(bench))
    layout = BaseModel(start / "shrunk").layout
    if masks == "moved":
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "masked").mkdir(parents=True)
        space.base.save(model, folder / "masked")
        composer.shrink(folder / "masked", folder / "shrunk", force=True)
        layout = BaseModel(folder / "shrunk").layout
    return {"seen": looks.seen, "left": left_of(layout, bench), "step_seconds": seconds / steps}


def texts(bench: Bench) -> list[Any]:
    """What is learnt from: training texts as they come, or, in a seeded order, as long as the validation split's."""
    given, features = bench.given, bench.space.examples("train").features
    if given.train_lengths == "train":
        return list(features)
    lengths = input_lengths(features), input_lengths(bench.space.examples("valid").features)
    chosen = sample_like(*lengths, given.back_steps * given.batch_size, seed=bench.seed)
    order = batch_indices(len(chosen), len(chosen), seed=bench.seed, step=0)
    return [features[chosen[i]] for i in order]
