"""Layer-by-layer calibration on a Llama-like model with grouped queries, by hand-made targets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from composer import masks
from composer.calibration import Calibration
from composer.config import Configurations, resolve
from composer.criteria.l1 import L1
from composer.criteria.wanda import Wanda
from composer.granularity import keep_by_rank
from composer.layout import Layout, Projection, Target
from composer.library import Library
from composer.models.adapter import Family, Layer, Sublayer, linear, make_layout
from composer.scheme import build_scheme
from composer.sequential import prune_in_order
from composer.tasks.task import Examples
from tests.reference import wanda

WIDTH, INNER, HEADS, GROUPS, SIZE = 16, 32, 4, 2, 4


def layers(_: dict[str, Any]) -> Any:
    """Two layers; a head of a target is a key-value group: two query heads with one key and value."""
    for i in range(2):
        path = f"model.layers.{i}"

        def named(name: str, out: int, width: int, path: str = path) -> Projection:
            return Projection(f"{path}.{name}", out, width, False, "decoder")

        kv = [named(f"self_attn.{name}_proj", GROUPS * SIZE, WIDTH) for name in "kv"]
        qkv = Target(f"{path}.self_attn", "attention", (named("self_attn.q_proj", WIDTH, WIDTH), *kv), GROUPS)
        out = linear(f"{path}.self_attn.o_proj", WIDTH, WIDTH, bias=False, stream="decoder")
        up = [linear(f"{path}.mlp.{n}_proj", INNER, WIDTH, bias=False, stream="decoder") for n in ("gate", "up")]
        down = linear(f"{path}.mlp.down_proj", WIDTH, INNER, bias=False, stream="decoder")
        attention = Sublayer(f"{path}.attention", (qkv, out), (f"{path}.self_attn",), "decoder")
        forward = Sublayer(f"{path}.mlp", (*up, down), (f"{path}.mlp",), "decoder")
        yield Layer(path, (attention, forward), "decoder")


LAYOUT: Layout = make_layout(Family("Llama", ("llama",), layers, ()), {})


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
    sizes = {"hidden_size": WIDTH, "intermediate_size": INNER, "num_hidden_layers": 2, "vocab_size": 40}
    model = LlamaForCausalLM(
        LlamaConfig(**sizes, num_attention_heads=HEADS, num_key_value_heads=GROUPS, use_cache=False)
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "proj" in name:
                parameter.mul_(8)
    return model.eval()


@pytest.mark.parametrize(("granularity", "rate"), [("unstructured", 0.5), ("2:4", 0.5), ("4:8", 0.5)])
def test_masks_on_a_llama_like_model_are_the_published_ones(tmp_path: Path, granularity: str, rate: float) -> None:
    spec = {"rate": rate, "granularity": granularity}
    given = resolve(Configurations(configurations=[{"*": spec}]), LAYOUT)  # type: ignore[dict-item]
    scheme = build_scheme(given, LAYOUT, model="llama", fingerprint="f")
    draw = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, 40, (6, 9), generator=draw).tolist()
    data = Examples("train", [{"input_ids": row} for row in tokens], [""] * 6, "digest")
    library, model, task = Library(tmp_path), llama(), Task()

    def calibrate(layout: Layout) -> Calibration:
        return Calibration(model, task, data, layout, batch_size=4)  # type: ignore[arg-type]

    addresses = prune_in_order(model, LAYOUT, scheme, Wanda(), library, calibrate=calibrate)

    m = {"2:4": 4, "4:8": 8}.get(granularity, 0)
    removed = wanda.prune_layers(
        llama(),
        [[p.path for t in LAYOUT.targets if f".{i}." in t.path for p in t.projections] for i in range(2)],
        [{"input_ids": torch.tensor([row])} for row in tokens],
        lambda scores: wanda.semi_structured(scores, m // 2, m) if m else wanda.unstructured(scores, rate),
    )
    kept = {name: mask for n in scheme.at("module") for name, mask in library.get(addresses[n.hash]).masks.items()}
    assert len(kept) == 14
    for name, gone in removed.items():
        both, either = (gone & ~kept[f"{name}.weight"]).sum(), (gone | ~kept[f"{name}.weight"]).sum()
        assert both / either == 1.0, name  # Jaccard


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
