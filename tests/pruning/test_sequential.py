"""Calibration on the base model and layer by layer, as the published code of Wanda and SparseGPT goes through a model.

On a Llama with grouped queries and on a GPT-2, whose `Conv1D` stores its weights turned; by hand-made tasks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from composer.calibration.sample import Calibration
from composer.library.store import Library
from composer.models.layouts import layout_of
from composer.pruning.criteria.criterion import Criterion
from composer.pruning.criteria.l1 import L1
from composer.pruning.criteria.sparsegpt import SparseGPT
from composer.pruning.criteria.wanda import Wanda
from composer.pruning.sequential import prune_in_order
from composer.pruning.variants import prune
from composer.scheme.building import build_scheme
from composer.scheme.configurations import Configurations, resolve
from composer.scheme.layout import Layout
from composer.scheme.shapes import parse_shape
from composer.tasks.task import Examples
from composer.tensors import masks
from composer.tensors.ranking import keep_by_rank
from tests.reference import sparsegpt, wanda
from tests.reference.inputs import seen_by_rows

WIDTH, INNER, HEADS, GROUPS = 16, 32, 4, 2
SIZES = {"hidden_size": WIDTH, "intermediate_size": INNER, "num_hidden_layers": 2, "vocab_size": 40}
CONFIG = LlamaConfig(**SIZES, num_attention_heads=HEADS, num_key_value_heads=GROUPS, use_cache=False)
LAYOUT: Layout = layout_of({**CONFIG.to_dict(), "architectures": ["LlamaForCausalLM"]})
"""Of the shipped table; a head of a target is a key-value group: two query heads with one key and value."""
TURNED = GPT2Config(n_embd=WIDTH, n_inner=INNER, n_head=HEADS, n_layer=2, n_positions=16, vocab_size=40)


class Task:
    """Token sequences of one length: as much of a task as a calibration pass asks for."""

    def collate(self, features: list[dict[str, list[int]]]) -> dict[str, Tensor]:
        return {"input_ids": torch.tensor([f["input_ids"] for f in features])}

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
        return model(**batch).logits.mean(), 1

    def real_tokens(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"decoder": torch.ones_like(batch["input_ids"], dtype=torch.bool)}


def llama() -> nn.Module:
    torch.manual_seed(0)
    model = LlamaForCausalLM(CONFIG)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "proj" in name:
                parameter.mul_(8)
    return model.eval()


def gpt2() -> nn.Module:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(TURNED)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
                parameter.mul_(8)
            elif name.endswith("bias"):
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def silent() -> nn.Module:
    """A Llama in which every third neuron of the first layer says nothing: the columns that read them are dead."""
    model = llama()
    with torch.no_grad():
        model.get_parameter("model.layers.0.mlp.up_proj.weight")[::3] = 0
    return model


@dataclass(frozen=True)
class Family:
    """A model, and the modules of each of its layers that are pruned."""

    make: Callable[[], nn.Module]
    layout: Layout
    layers: list[list[str]]

    @property
    def names(self) -> list[str]:
        return [name for names in self.layers for name in names]


SEVEN = [*(f"self_attn.{name}_proj" for name in "qkvo"), *(f"mlp.{name}_proj" for name in ("gate", "up", "down"))]
FOUR = ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]
LLAMA = Family(llama, LAYOUT, [[f"model.layers.{i}.{name}" for name in SEVEN] for i in range(2)])
GPT2 = Family(
    gpt2,
    layout_of({**TURNED.to_dict(), "architectures": ["GPT2LMHeadModel"]}),
    [[f"transformer.h.{i}.{name}" for name in FOUR] for i in range(2)],
)
# Query, key and value are three matrices of ours and one of the published code, which ranks a whole matrix.
APART = Family(gpt2, GPT2.layout, [[name for name in names if "c_attn" not in name] for names in GPT2.layers])
SILENT = Family(silent, LAYOUT, [["model.layers.0.mlp.down_proj"], []])
TOKENS = torch.randint(0, 40, (6, 9), generator=torch.Generator().manual_seed(1))
SAMPLES = [{"input_ids": row[None]} for row in TOKENS]


def ours(
    folder: Path, family: Family, criterion: Criterion, granularity: str, rate: float, *, sequential: bool
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights and keep-masks of the family's modules by their names, (out, in) as they are seen by rows."""
    layout = family.layout
    spec = {"rate": rate, "granularity": granularity}
    wanted = {t.path: spec for t in layout.targets if {p.path for p in t.projections} <= {*family.names}}
    given = resolve(Configurations(configurations=[wanted]), layout)  # type: ignore[dict-item]
    scheme = build_scheme(given, layout, model="m", fingerprint="f")
    data = Examples("train", [{"input_ids": row} for row in TOKENS.tolist()], [""] * 6, "digest")
    library, model, task = Library(folder), family.make(), Task()

    def calibrate(layout: Layout) -> Calibration:
        return Calibration(model, task, data, layout, batch_size=4)  # type: ignore[arg-type]

    if sequential:
        addresses = prune_in_order(model, layout, scheme, criterion, library, calibrate=calibrate)
    else:
        addresses = prune(model, layout, scheme, criterion, library, calibration=lambda: calibrate(layout))
    stored = [library.get(addresses[node.hash]) for node in scheme.at("module")]

    def by_rows(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        matrices = {name.removesuffix(".weight"): one for part in parts for name, one in part.items() if one.dim() == 2}
        return {name: seen_by_rows(model.get_submodule(name), one) for name, one in matrices.items()}

    weights, kept = by_rows([one.weights for one in stored]), by_rows([one.masks for one in stored])
    assert weights.keys() == kept.keys() == {*family.names}
    return weights, kept


def pattern(granularity: str) -> tuple[int, int]:
    """How many of how many neighbours are removed; 0 of 0 where nothing is said of neighbours."""
    shape = parse_shape(granularity)
    return shape.b - shape.a, shape.b


CUTS = pytest.mark.parametrize(
    ("name", "granularity", "rate", "sequential"),
    [
        ("llama", "unstructured", 0.5, True),
        ("llama", "unstructured", 0.25, True),
        ("llama", "2:4", 0.5, True),
        ("llama", "4:8", 0.5, True),
        ("llama", "unstructured", 0.75, False),
        ("llama", "2:4", 0.5, False),
        ("gpt2", "unstructured", 0.75, True),
        ("gpt2", "2:4", 0.5, True),
        ("gpt2", "unstructured", 0.25, False),
    ],
)


@CUTS
def test_masks_are_the_published_ones(
    tmp_path: Path, name: str, granularity: str, rate: float, sequential: bool
) -> None:
    family = GPT2 if name == "gpt2" else LLAMA
    _, kept = ours(tmp_path, family, Wanda(), granularity, rate, sequential=sequential)
    n, m = pattern(granularity)
    removed = wanda.prune_layers(
        family.make(),
        family.layers,
        SAMPLES,
        lambda scores: wanda.semi_structured(scores, n, m) if m else wanda.unstructured(scores, rate),
        sequential=sequential,
    )
    for path, gone in removed.items():
        both, either = (gone & ~kept[path]).sum(), (gone | ~kept[path]).sum()
        assert both / either == 1.0, path  # Jaccard


@CUTS
def test_weights_are_those_of_the_published_algorithm(
    tmp_path: Path, name: str, granularity: str, rate: float, sequential: bool
) -> None:
    whole = GPT2 if granularity == "2:4" else APART
    check_sparsegpt(tmp_path, whole if name == "gpt2" else LLAMA, granularity, rate, sequential)


@pytest.mark.parametrize("granularity", ["unstructured", "2:4"])
def test_weights_beside_dead_columns_are_those_of_the_published_algorithm(tmp_path: Path, granularity: str) -> None:
    check_sparsegpt(tmp_path, SILENT, granularity, 0.5, False)


def check_sparsegpt(folder: Path, family: Family, granularity: str, rate: float, sequential: bool) -> None:
    n, m = pattern(granularity)
    weights, kept = ours(folder, family, SparseGPT(), granularity, rate, sequential=sequential)  # type: ignore[arg-type]
    wanted = sparsegpt.prune_layers(
        family.make(), family.layers, SAMPLES, rate=rate, removed=n, of=m, sequential=sequential
    )
    for path, (gone, moved) in wanted.items():
        assert torch.equal(kept[path], ~gone), path
        assert (weights[path] - moved).abs().max() < 1e-4, path


def test_a_key_value_group_goes_whole_and_its_output_is_silent() -> None:
    model, target = llama(), LAYOUT.targets[0]
    weights = [model.get_parameter(p.weight).detach() for p in target.projections]
    scores = L1().score(target, weights, {})
    assert scores.shape == (GROUPS,)
    assert scores[1].item() == pytest.approx(sum(w[len(w) // 2 :].abs().sum().item() for w in weights), rel=1e-5)
    keep = keep_by_rank(scores, 0.5)
    gone = int((~keep).nonzero())
    masks.apply(dict(model.named_parameters()), masks.expand(target, keep))
    seen: list[Tensor] = []
    model.get_submodule("model.layers.0.self_attn.o_proj").register_forward_pre_hook(lambda _, a: seen.append(a[0]))
    model(torch.arange(5)[None])
    half = WIDTH // 2
    assert (seen[0][..., gone * half : (gone + 1) * half] == 0).all()
    assert (seen[0][..., (1 - gone) * half : (2 - gone) * half] != 0).any()
