"""A saved model held against the masked one: the same logits, and token for token what searches generate.

``python -m composer.shrinking.verify MASKED SMALL`` prints it as JSON: a fresh process shares nothing with the one
that saved the model.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError, ModelError
from ..models.folder import BaseModel
from ..models.storage import auto_class
from .records import Verification

TOLERANCE = 1e-4
"""Largest difference of logits, relative to the largest logit, in float32."""
TEXTS, LENGTH, NEW = 3, 12, 12
"""Texts of random tokens, how long they are, and how many tokens are generated."""


@dataclass(frozen=True)
class Answers:
    """What a model makes of the texts: logits at real tokens, and generated tokens by search."""

    logits: Tensor
    generated: dict[str, list[list[int]]]


def verify(masked: Path, small: Path) -> Verification:
    """Compare two folders in a fresh process.

    Raises:
        ModelError: they differ, or the small one cannot be loaded.
    """
    with tempfile.TemporaryDirectory() as cache:
        # The code of the folder is copied where transformers looks for it, and not into the user's own cache.
        path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
        environment = os.environ | {"HF_MODULES_CACHE": cache, "PYTHONPATH": path}
        command = [sys.executable, "-m", "composer.shrinking.verify", str(masked), str(small)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise ModelError(f"not the same model, and nothing was kept: {lines[-1]}")
    return Verification(**json.loads(done.stdout.splitlines()[-1]))


def compared(masked: Answers, small: Answers) -> Verification:
    """Hold two models' answers against each other.

    Raises:
        ModelError: logits that differ by more than :data:`TOLERANCE`, or other tokens.
    """
    difference = float((masked.logits - small.logits).abs().max())
    relative = difference / max(float(masked.logits.abs().max()), 1e-30)
    if not relative <= TOLERANCE:
        raise ModelError(f"logits differ by {relative:.2g} of the largest; allowed: {TOLERANCE:g}")
    for search, tokens in masked.generated.items():
        if tokens != small.generated[search]:
            raise ModelError(f"{search} search gives other tokens than the masked model, though logits agree")
    counts = [len(line) for lines in masked.generated.values() for line in lines]
    return Verification(difference, relative, sum(counts) if counts else None)


def answers(model: nn.Module) -> Answers:
    """What ``model`` makes of random texts, the first two of them shorter, with padding."""
    anyhow: Any = model
    config = anyhow.config
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(2, config.vocab_size, (TEXTS, LENGTH), generator=draw)
    if config.is_encoder_decoder and isinstance(config.eos_token_id, int):
        ids[:, LENGTH // 4 - 1 :: LENGTH // 4] = config.eos_token_id  # where classifiers read
    mask = torch.ones_like(ids)
    generates = bool(anyhow.can_generate())
    for i, short in enumerate((LENGTH // 2, LENGTH // 4)):
        # Generation goes on from the end of a text: what generates without an encoder is padded at the start.
        side = slice(None, short) if generates and not config.is_encoder_decoder else slice(LENGTH - short, None)
        ids[i, side], mask[i, side] = getattr(config, "pad_token_id", None) or 0, 0
    inputs = {"input_ids": ids, "attention_mask": mask}
    both = {**inputs, "decoder_input_ids": ids.flip(1)} if config.is_encoder_decoder else inputs
    with torch.no_grad():
        result = model(**_accepted(model, both))
        values = [value for value in result.to_tuple() if isinstance(value, Tensor) and value.is_floating_point()]
        logits = torch.cat([_real(value, mask, config.is_encoder_decoder) for value in values[:2]])
        generated = {name: _generated(anyhow, inputs, beams) for name, beams in SEARCHES.items()} if generates else {}
    return Answers(logits, generated)


SEARCHES = {"greedy": 1, "beam": 3}


def _accepted(model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    import inspect

    return {name: value for name, value in inputs.items() if name in inspect.signature(model.forward).parameters}


def _real(value: Tensor, mask: Tensor, decoded: bool) -> Tensor:
    """What a model says of real tokens, as one row; all of it where it is not by token."""
    by_token = value.dim() > 1 and value.shape[:2] == mask.shape and not decoded
    return (value[mask.bool()] if by_token else value).flatten()


def _generated(model: Any, inputs: dict[str, Tensor], beams: int) -> list[list[int]]:
    length = {"max_new_tokens": NEW, "min_new_tokens": NEW // 2}
    lines = model.generate(**inputs, **length, num_beams=beams, do_sample=False, use_cache=True)
    tokens: list[list[int]] = lines.tolist()
    return tokens


def load_as_anyone(folder: Path) -> nn.Module:
    """The model as someone without Composer loads it."""
    import transformers

    config = BaseModel(folder).config
    name = auto_class(config)
    exact = "auto_map" in config
    kind = getattr(transformers, name or ("AutoModel" if exact else config["architectures"][0]))
    model: nn.Module = kind.from_pretrained(
        folder, dtype=torch.float32, **({"trust_remote_code": True} if exact else {})
    )
    return model.eval()


def _main(masked: str, small: str) -> None:
    first = answers(BaseModel(masked).load())
    print(json.dumps(asdict(compared(first, answers(load_as_anyone(Path(small)))))))


if __name__ == "__main__":
    try:
        _main(*sys.argv[1:])
    except InputError as bad:
        sys.exit("\n".join(bad.problems))
