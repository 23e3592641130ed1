"""Zeros of a LoRA that was trained in anybody's way, without masks: the part `merge` of `benchmarks/learn.py`."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from composer.models.folder import BaseModel
from composer.tensors.parameters import set_values

if TYPE_CHECKING:
    from learn_bench import Bench, Row


def part(bench: Bench) -> None:
    """A LoRA merged into a model without half of its weights."""
    row = bench.row(("merge",), partial(_merged, bench))
    print(f"\nzeros of a model without half of its linear weights, after a LoRA of {bench.given.recover} steps:")
    print(f"before {row['before']:,}; merged as usual {row['usual']:,}; by compose merge {row['merged']:,}")
    print(f"validation loss: {row['loss']}")


def _merged(bench: Bench) -> Row:
    from composer.steps.merge import merge
    from composer.tensors.masks import zeros_per_target

    space, folder = bench.space, bench.given.output / "lora"
    shutil.rmtree(folder, ignore_errors=True)
    model = _learnt(bench, folder)
    made = merge(space.recipe, folder / "adapter", folder / "pruned", output=folder / "merged").summary
    usual = sum(zeros for zeros, _ in zeros_per_target(model.merge_and_unload(), space.base.layout).values())
    return {"usual": usual, **made["zeros"], "loss": made["loss"]}


def _learnt(bench: Bench, folder: Path) -> Any:
    """The pruned model with the adapter that it has learnt; both are saved below ``folder``."""
    import peft
    import torch

    from composer.tensors.batches import batch_indices
    from composer.tensors.masks import apply

    space = bench.space
    weights, masks = bench.pruned("l1", 0.5, repair=False)
    model: Any = space.fresh_model()
    set_values(dict(model.named_parameters()), weights)
    apply(dict(model.named_parameters()), masks)
    (folder / "pruned").mkdir(parents=True)
    space.base.save(model, folder / "pruned")
    modules = [p.path for target in bench.linear for p in target.projections]
    config = peft.LoraConfig(r=8, target_modules=modules, lora_dropout=0.0)
    model = peft.get_peft_model(BaseModel(folder / "pruned").load(), config)
    learner = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    train = space.examples("train")
    for step in range(bench.given.recover):
        chosen = batch_indices(len(train), bench.given.batch_size, seed=bench.seed, step=step)
        loss, _ = space.task.loss(model, space.task.collate([train.features[i] for i in chosen]))
        learner.zero_grad()
        loss.backward()
        learner.step()
    model.save_pretrained(folder / "adapter")
    return model
