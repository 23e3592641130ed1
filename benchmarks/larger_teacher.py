"""A teacher of twice as many layers, grown from the DistilBERT of `../shared/models` and fine-tuned on SST-2.

    python benchmarks/larger_teacher.py [--steps 600] [--shared ../shared] [-o .bench/teacher]

No larger model is at hand, so one is made. Behind each layer stands a copy whose sublayers add nothing at first, and
whose norms undo themselves on average: twelve layers answer nearly as the six did. Then `compose finetune` trains it.
The folder `grown-finetuned` serves `--teacher` of `benchmarks/learn.py distilbert --parts hybrid`. Accuracy and loss
are of the validation split, by which the best of its weights are kept.
"""

from __future__ import annotations

import argparse
import copy
import shlex
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from composer.composing.candidates import scored
from composer.files.environment import machine, versions
from composer.models.folder import BaseModel
from composer.recipe import ModelOptions, Recipe
from composer.steps.tune_folder import finetune_folder
from composer.workspace import Workspace

SAMPLE = 512
"""Training texts on which the means and deviations of tokens are taken."""


def grown(space: Workspace) -> nn.Module:
    """The base model with an idle copy behind each layer."""
    model: Any = space.fresh_model()
    config = copy.deepcopy(model.config)
    config.n_layers *= 2
    larger: Any = type(model)(config)
    rest = {name: value for name, value in model.state_dict().items() if ".layer." not in name}
    larger.load_state_dict(rest, strict=False)
    layers = larger.distilbert.transformer.layer
    for i, (layer, (mean, deviation)) in enumerate(
        zip(model.distilbert.transformer.layer, token_statistics(space, model), strict=True)
    ):
        layers[2 * i].load_state_dict(layer.state_dict())
        layers[2 * i + 1].load_state_dict(layer.state_dict())
        idle(layers[2 * i + 1], mean, deviation)
    return larger


def idle(layer: Any, mean: float, deviation: float) -> None:
    """Sublayers that add nothing; norms that give tokens back where they have this mean and deviation."""
    with torch.no_grad():
        for projection in (layer.attention.out_lin, layer.ffn.lin2):
            projection.weight.zero_()
            projection.bias.zero_()
        for norm in (layer.sa_layer_norm, layer.output_layer_norm):
            norm.weight.fill_(deviation)
            norm.bias.fill_(mean)


def token_statistics(space: Workspace, model: Any) -> list[tuple[float, float]]:
    """Behind each layer: means over tokens of their mean and of their deviation."""
    features = space.examples("train").first(SAMPLE).features
    batch = space.task.collate(list(features))
    batch.pop("labels")
    with torch.no_grad():
        states = model.eval()(**batch, output_hidden_states=True).hidden_states[1:]
    real = batch["attention_mask"].bool()
    return [(float(s[real].mean(-1).mean()), float(s[real].std(-1, unbiased=False).mean())) for s in states]


def main() -> int:
    """Grow it, train it, and print how good it is before and after, beside the base model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--learning-rate", type=float, default=3e-5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="folder with models/ and data/")
    parser.add_argument("-o", "--output", type=Path, default=Path(".bench/teacher"))
    given = parser.parse_args()
    print("machine:", machine(), "\nversions:", versions(), flush=True)
    learning = ModelOptions(steps=given.steps, batch_size=32, learning_rate=given.learning_rate, evaluations=6)
    recipe = Recipe(
        model=str(given.shared / "models/distilbert-mini-sst2"),
        data=str(given.shared / "data/sst2"),
        max_source_length=64,
        seed=given.seed,
        folder=given.output,
        finetune=learning,
    )
    space, folder = Workspace(recipe), given.output / "grown"
    if not (folder / "config.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        space.base.save(grown(space), folder)
    trained = finetune_folder(recipe, folder, output=folder.with_name("grown-finetuned")).output
    for name, path in {"base model": space.base.name, "grown": folder, "fine-tuned": trained}.items():
        own = BaseModel(path)
        print(f"{name}: {own.parameters:,} parameters,", scored(own.load(), space.task, space.examples("valid")))
    print(f"\nrepeat with: {shlex.join(['python', 'benchmarks/larger_teacher.py', *sys.argv[1:]])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
