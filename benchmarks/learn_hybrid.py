"""Hybrid movement, shrunk, and densified: the part `hybrid` of `benchmarks/learn.py`.

A Trainer with `LearnMasks` and the dense model (or `--teacher`) as teacher: blocks in attentions, neurons in
feed-forwards, each with a schedule of its own. What is left is shrunk, timed beside the dense model, and learns on for
the same number of steps twice: with its zeros held, and densified. The metric is on all texts that are not trained on;
nothing is chosen by it.
A killed row goes on from its last checkpoint.
"""

from __future__ import annotations

import shutil
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import composer
from composer.models.folder import BaseModel
from composer.steps.tune_folder import fill_holes
from composer.tensors.masks import zeros_per_target
from composer.workspace import Workspace

if TYPE_CHECKING:
    from learn_bench import Bench, Row

RULES: dict[str, dict[str, Row]] = {
    "blocks": {
        "*.attention": {"rate": 0.6, "granularity": "32x32", "cool-down": 0.4},
        "*.out_lin": {"rate": 0.6, "granularity": "32x32", "cool-down": 0.4},
        "*.ffn.lin1": {"rate": 0.75, "granularity": "neuron", "cool-down": 0.3},
    },
    "heads": {
        "*.attention": {"rate": 0.58, "granularity": "head", "cool-down": 0.4},
        "*.ffn.lin1": {"rate": 0.76, "granularity": "neuron", "cool-down": 0.3},
    },
}
"""What goes in attentions -> rules by which 70 % of the linear weights go."""


def part(bench: Bench) -> None:
    """All rows of one seed."""
    given = bench.given
    dense = bench.row(("dense", "metric"), lambda: {"metric": metric(bench.space, bench.model)})["metric"]
    steps, more = given.hybrid_steps, given.densify_steps
    print(f"\nhybrid masks, {steps} steps, then {more} more; dense {dense:.2%}; {given.hybrid_rate:g} the peak rate")
    print("attention  scores  gone  left  shrunk  learnt on  densified  times as fast [95 %]  seconds a step")
    for kind in given.hybrid:
        for scores in given.scores:
            key = (kind, scores, steps, *shaping(given), *_larger(given))
            folder = given.output / "hybrid" / "-".join(map(str, (bench.seed, *key)))
            learnt = bench.row(("hybrid", *key), lambda k=kind, s=scores, f=folder: learn(bench, k, s, f))  # type: ignore[misc]
            held, filled = (
                bench.row(
                    ("on", d, more, given.densify_rate, *key),
                    lambda d=d, f=folder: learn_on(bench, f / "shrunk", f / f"on-{d}", d),  # type: ignore[misc]
                )
                for d in (False, True)
            )
            speed = bench.row(("speed", *key), lambda f=folder: times(bench, f / "shrunk"))  # type: ignore[misc]
            metrics = "  ".join(f"{row['metric']:.2%}" for row in (learnt, held, filled))
            print(f"{kind}  {scores}  {learnt['gone']:.1%}  {learnt['left']:.1%}  {metrics}", end="  ")
            print(f"{speed['text']}  {learnt['step_seconds']:.2f}")


def learn(bench: Bench, kind: str, scores: str, folder: Path) -> Row:
    """Learn masks and shrink; how much is gone, and how good what is left is."""
    space, given = bench.space, bench.given
    model = space.fresh_model()
    loss = lesson(bench, model, given.hybrid_hidden)
    callbacks = [composer.LearnMasks(RULES[kind], scores=scores)]
    seconds = train(space, model, folder / "learning", given.hybrid_steps, given, bench.seed, callbacks, loss)
    counts = zeros_per_target(model, space.base.layout).values()
    shutil.rmtree(folder / "masked", ignore_errors=True)
    (folder / "masked").mkdir(parents=True)
    space.base.save(model, folder / "masked")
    composer.shrink(folder / "masked", folder / "shrunk", force=True)
    small = BaseModel(folder / "shrunk")
    weights = sum(target.parameters for target in space.base.layout.targets)
    left = sum(target.parameters for target in small.layout.targets)
    gone = sum(zeros for zeros, _ in counts) / weights
    return {
        "gone": gone,
        "left": left / weights,
        "metric": metric(space, small.load()),
        "step_seconds": seconds / given.hybrid_steps,
    }


def _larger(given: Any) -> tuple[str, ...]:
    return (given.teacher.name,) if given.teacher else ()


def lesson(bench: Bench, model: Any, hidden: float) -> Any:
    """The loss: labels, answers and hidden states of the dense model, or of a larger one; dropout as was asked for."""
    given = bench.given
    if not given.dropout:
        without_dropout(model)
    teacher = BaseModel(given.teacher).load() if given.teacher else bench.space.fresh_model()
    how: Row = {"share": given.teacher_share, "temperature": given.temperature, "hidden": hidden}
    return composer.distill_loss(teacher.eval(), model, **how)


def shaping(given: Any) -> tuple[Any, ...]:
    """What shapes a hybrid run, beside its rules and steps."""
    what = (given.teacher_share, given.temperature, given.hybrid_hidden, given.dropout, given.grouped)
    return (given.hybrid_rate, given.batch_size, *what)


def without_dropout(model: Any) -> None:
    """What is left of a small model is not thinned further while it learns."""
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0


def learn_on(bench: Bench, start: Path, folder: Path, densify: bool) -> Row:
    """More steps of a shrunk model, its zeros held or filled."""
    given = bench.given
    space = Workspace(bench.space.recipe.model_copy(update={"model": str(start)}))
    model = space.fresh_model()
    filled = fill_holes(model, space, bench.space.base) if densify else 0
    loss = lesson(bench, model, given.hybrid_hidden)
    callbacks = [] if densify else [composer.KeepSparse()]
    train(space, model, folder, given.densify_steps, given, bench.seed, callbacks, loss, given.densify_rate)
    return {"metric": metric(space, model), "filled": filled}


def train(
    space: Workspace,
    model: Any,
    folder: Path,
    steps: int,
    given: Any,
    seed: int,
    callbacks: list[Any],
    loss: Any,
    rate: float | None = None,
    features: list[Any] | None = None,
) -> float:
    """The Trainer over the training examples, going on from a checkpoint where there is one; seconds of this call."""
    from transformers import Trainer, TrainingArguments

    args = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=given.batch_size,
        learning_rate=rate or given.hybrid_rate,
        warmup_steps=0.1,
        save_strategy="steps",
        save_steps=100,
        save_total_limit=1,
        logging_steps=100,
        seed=seed,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        remove_unused_columns=False,
        train_sampling_strategy="group_by_length" if given.grouped else "random",
    )
    trainer = Trainer(
        model=model,
        args=args,
        train_dataset=features or space.examples("train").features,
        data_collator=partial(collated, space, model),
        compute_loss_func=loss,
        callbacks=callbacks,
    )
    began = time.process_time()
    trainer.train(resume_from_checkpoint=any(folder.glob("checkpoint-*")) or None)
    shutil.rmtree(folder, ignore_errors=True)
    model.eval()
    return time.process_time() - began


def collated(space: Workspace, model: Any, features: list[Any]) -> dict[str, Any]:
    """A batch; a Trainer takes the labels away where it has a loss function, so a decoder is told what it reads."""
    batch = space.task.collate(features)
    if hasattr(model, "prepare_decoder_input_ids_from_labels"):
        batch["decoder_input_ids"] = model.prepare_decoder_input_ids_from_labels(labels=batch["labels"])
    return batch


def metric(space: Workspace, model: Any) -> float:
    """Accuracy on all texts that are not trained on."""
    import torch

    features, right = [*space.examples("valid").features, *space.examples("test").features], 0
    with torch.no_grad():
        for i in range(0, len(features), 32):
            batch = space.task.collate(features[i : i + 32])
            labels = batch.pop("labels")
            right += int((model.eval()(**batch).logits.argmax(-1) == labels).sum())
    return right / len(features)


def times(bench: Bench, small: Path) -> Row:
    """How many times as fast as the dense model at 16 texts of 32 tokens, by processor time, in turn with it."""
    from shrink_speed import timed

    record = timed([bench.space.base.folder, small], "torch", 16, 32, rounds=7)
    row = record["rows"][-1]
    faster = row["faster"]
    return {"text": f"{faster['value']:.2f} [{faster['low']:.2f}, {faster['high']:.2f}]", "macs": row["macs_ratio"]}
