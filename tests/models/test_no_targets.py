"""Which weights are no targets: counted from the files, against the parameters of the loaded model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from composer.models.folder import BaseModel
from composer.models.no_targets import said
from tests.conftest import make_folder
from tests.zoo import make_config

Folder = Callable[[str], Path]


@pytest.mark.parametrize("name", ["gpt2", "roberta", "bart"])
def test_targets_and_reasons_add_up_to_all_weights(model_folder: Folder, name: str) -> None:
    base = BaseModel(model_folder(name))
    counts = base.no_targets
    assert counts
    model = base.load()
    assert counts["weights"] == sum(p.numel() for p in model.parameters())
    assert counts["weights"] - sum(counts["reasons"].values()) == base.layout.parameters(base.layout.paths)
    vectors = sum(p.numel() for p in model.parameters() if p.dim() < 2)
    assert counts["reasons"]["norms and biases"] == vectors
    heads = [r for r in counts["reasons"] if r.startswith("other modules")]
    assert heads == (["other modules (classifier.dense, classifier.out_proj)"] if name == "roberta" else [])


def test_fused_experts_are_no_targets_and_named(tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    experts = {"intermediate_size": 8, "num_local_experts": 4, "num_experts_per_tok": 2, "tie_word_embeddings": True}
    config = make_config("MixtralForCausalLM", {**sizes, **experts, "pad_token_id": 0}, 35)
    base = BaseModel(make_folder(tmp_path, "MixtralForCausalLM", config, "$A"))
    assert base.no_targets
    fused = sum(p.numel() for name, p in base.load().named_parameters() if ".experts." in name)
    assert base.no_targets["reasons"]["fused experts"] == fused == 4 * 3 * 16 * 8
    assert f"{fused:,} of fused experts" in said(base.no_targets)
