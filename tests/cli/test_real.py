"""The planning commands on a real model folder, from rates to a picture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from .conftest import Compose

SIZES = {"d_model": 8, "d_kv": 2, "d_ff": 16, "num_layers": 1, "num_decoder_layers": 1, "num_heads": 4}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A model folder with as much in it as planning reads: a configuration and some weights."""
    folder = tmp_path / "base"
    folder.mkdir()
    config = {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "vocab_size": 10, **SIZES}
    (folder / "config.json").write_text(json.dumps(config))
    save_file({"shared.weight": np.ones((10, 8), dtype=np.float32)}, folder / "model.safetensors")
    return folder


def test_from_rates_to_a_picture(compose: Compose, base: Path) -> None:
    assert compose("generate-config", "-m", "base", "--attention", "0.25", "0.5", "--linear", "0.3").status == 0
    written = json.loads(Path("conf.json").read_text())
    assert written["model"] == "base"
    assert len(written["configurations"]) == 2

    planned = json.loads(compose("generate-scheme", "--json").out)
    # Ten targets: the linear ones agree in both configurations, the three attentions do not.
    assert planned["levels"][0] == {"level": "module", "blocks": 13, "uses": 20, "saved": pytest.approx(0.36, abs=0.1)}
    assert planned["fresh"] is True
    assert "conf_prune.json is up to date" in compose("generate-scheme").out

    shown = compose("show", "-o", "picture.svg")
    assert shown.status == 0
    assert "encoder.block.0.layer.0.SelfAttention" in shown.out
    assert Path("picture.svg").read_text().lstrip().startswith("<?xml")


def test_rates_under_one_threshold_are_shown(compose: Compose, t5_folder: Path) -> None:
    words = ["--attention", "0.25", "--linear", "0.4", "--granularity", "global"]
    assert compose("generate-config", "-m", str(t5_folder), *words).status == 0
    told = compose("generate-scheme").out

    weights = {
        name.removesuffix(".weight"): np.abs(value).ravel()
        for name, value in load_file(t5_folder / "model.safetensors").items()
        if name.endswith(("n.o.weight", "wi.weight", "wo.weight"))
    }
    every = np.sort(np.concatenate([*weights.values()]))
    highest = every[round(0.4 * every.size) - 1]
    _, shown = told.split("Rates under one threshold\n")
    rows = [line.split(maxsplit=2) for line in shown.splitlines() if line.startswith("0 ")]
    assert {path: rate for _, path, rate in rows} == {
        path: f"{100 * (one <= highest).mean():.1f} %" for path, one in weights.items()
    }
    assert "Rates under" not in compose("generate-scheme").out  # up to date


def test_other_rates_want_force(compose: Compose, base: Path) -> None:
    assert compose("generate-config", "-m", "base").status == 0
    again = compose("generate-config", "-m", "base", "--linear", "0.9")
    assert again.status == 2
    assert again.err.startswith("error: conf.json: exists with other content")
    assert compose("generate-config", "-m", "base", "--linear", "0.9", "--force").status == 0


@pytest.mark.parametrize("words", ["generate-config -m base --targets nothing.*", "generate-config", "generate-scheme"])
def test_nothing_is_left_behind(words: str, compose: Compose, base: Path) -> None:
    result = compose(*words.split())
    assert result.status == 2
    assert result.err.startswith("error: ")
    assert [path.name for path in Path().iterdir()] == ["base"]
