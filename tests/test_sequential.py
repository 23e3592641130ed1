"""Layer-by-layer calibration on a Llama-like model with grouped queries, by hand-made targets."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from composer import masks
from composer.calibration import Calibration
from composer.config import Configurations, resolve
from composer.criteria.criterion import Criterion
from composer.criteria.l1 import L1
from composer.criteria.sparsegpt import SparseGPT
from composer.criteria.wanda import Wanda
from composer.granularity import keep_by_rank
from composer.layout import Layout
from composer.library import Library
from composer.models import layout_of
from composer.scheme import build_scheme
from composer.sequential import prune_in_order
from composer.tasks.task import Examples
from tests.reference import sparsegpt, wanda

WIDTH, INNER, HEADS, GROUPS = 16, 32, 4, 2
SIZES = {"hidden_size": WIDTH, "intermediate_size": INNER, "num_hidden_layers": 2, "vocab_size": 40}
CONFIG = LlamaConfig(**SIZES, num_attention_heads=HEADS, num_key_value_heads=GROUPS, use_cache=False)
LAYOUT: Layout = layout_of({**CONFIG.to_dict(), "architectures": ["LlamaForCausalLM"]})
"""Of the shipped table; a head of a target is a key-value group: two query heads with one key and value."""


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


LAYERS = [[p.path for t in LAYOUT.targets if f".{i}." in t.path for p in t.projections] for i in range(2)]
TOKENS = torch.randint(0, 40, (6, 9), generator=torch.Generator().manual_seed(1))
SAMPLES = [{"input_ids": row[None]} for row in TOKENS]


def pruned_in_order(
    folder: Path, criterion: Criterion, granularity: str
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights and keep-masks of all projections, half of each removed."""
    spec = {"rate": 0.5, "granularity": granularity}
    given = resolve(Configurations(configurations=[{"*": spec}]), LAYOUT)  # type: ignore[dict-item]
    scheme = build_scheme(given, LAYOUT, model="llama", fingerprint="f")
    data = Examples("train", [{"input_ids": row} for row in TOKENS.tolist()], [""] * 6, "digest")
    library, model, task = Library(folder), llama(), Task()

    def calibrate(layout: Layout) -> Calibration:
        return Calibration(model, task, data, layout, batch_size=4)  # type: ignore[arg-type]

    addresses = prune_in_order(model, LAYOUT, scheme, criterion, library, calibrate=calibrate)
    stored = [library.get(addresses[node.hash]) for node in scheme.at("module")]
    weights = {name: value for one in stored for name, value in one.weights.items()}
    masks = {name: mask for one in stored for name, mask in one.masks.items()}
    assert weights.keys() == masks.keys() == {f"{name}.weight" for names in LAYERS for name in names}
    return weights, masks


@pytest.mark.parametrize("granularity", ["unstructured", "2:4", "4:8"])
def test_masks_on_a_llama_like_model_are_the_published_ones(tmp_path: Path, granularity: str) -> None:
    _, kept = pruned_in_order(tmp_path, Wanda(), granularity)
    m = {"2:4": 4, "4:8": 8}.get(granularity, 0)
    removed = wanda.prune_layers(
        llama(),
        LAYERS,
        SAMPLES,
        lambda scores: wanda.semi_structured(scores, m // 2, m) if m else wanda.unstructured(scores, 0.5),
    )
    for name, gone in removed.items():
        both, either = (gone & ~kept[f"{name}.weight"]).sum(), (gone | ~kept[f"{name}.weight"]).sum()
        assert both / either == 1.0, name  # Jaccard


@pytest.mark.parametrize("granularity", ["unstructured", "2:4", "4:8"])
def test_weights_of_a_llama_like_model_are_those_of_the_published_algorithm(tmp_path: Path, granularity: str) -> None:
    weights, kept = pruned_in_order(tmp_path, SparseGPT(), granularity)  # type: ignore[arg-type]
    m = {"2:4": 4, "4:8": 8}.get(granularity, 0)
    wanted = sparsegpt.prune_layers(llama(), LAYERS, SAMPLES, removed=m // 2, of=m)
    for name, (gone, moved) in wanted.items():
        assert torch.equal(kept[f"{name}.weight"], ~gone), name
        assert (weights[f"{name}.weight"] - moved).abs().max() < 1e-4, name


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
