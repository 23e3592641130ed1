"""Short names for blocks and their rates, for pictures where room is scarce."""

from __future__ import annotations

from collections.abc import Sequence

_WORDS = {
    "encoder": "enc",
    "decoder": "dec",
    "SelfAttention": "self-attn",
    "EncDecAttention": "cross-attn",
    "DenseReluDense": "ffn",
    "attention": "attn",
    "intermediate": "ffn in",
    "o": "out",
    "out_lin": "out",
    "output": "out",
    "lin1": "in",
    "lin2": "out",
}
_SILENT = {"block", "layer", "layers", "transformer", "model", "h", "bert", "distilbert", "dense", "self"}


def short_name(paths: Sequence[str]) -> str:
    """A short name of the block that holds these targets.

    >>> short_name(["encoder.block.0.layer.0.SelfAttention"])
    'enc 0 self-attn'
    >>> short_name(["decoder.block.2.layer.2.DenseReluDense.wi", "decoder.block.2.layer.2.DenseReluDense.wo"])
    'dec 2 ffn'
    >>> short_name(["bert.encoder.layer.3.output.dense"])
    'enc 3 ffn out'
    >>> short_name(["distilbert.transformer.layer.1.attention.out_lin"])
    'layer 1 attn out'
    """
    names = [_words(path) for path in paths]
    common = names[0]
    for name in names[1:]:
        same = [a == b for a, b in zip(common, name, strict=False)]
        common = common[: same.index(False) if False in same else len(same)]
    return " ".join(["layer", *common] if common and common[0].isdigit() else common) or paths[0]


def place(path: str) -> tuple[str, str, str]:
    """Where a target stands: its stack, the number of its layer, its role there.

    >>> place("decoder.block.2.layer.1.EncDecAttention.o")
    ('dec', '2', 'cross-attn out')
    >>> place("encoder.block.0.layer.0.SelfAttention.o at 0.5")
    ('enc', '0', 'self-attn out at 0.5')
    >>> place("transformer.h.10.attn.c_proj"), place("lm_head")
    (('', '10', 'attn c_proj'), ('', '', 'lm_head'))
    """
    words = _words(path)
    at = next((i for i, word in enumerate(words) if word.isdigit()), None)
    if at is None:
        return "", "", " ".join(words)
    return " ".join(words[:at]), words[at], " ".join(words[at + 1 :]) or "layer"


def _words(path: str) -> list[str]:
    path, at, rates = path.partition(" at ")  # a variant of a library
    parts = path.split(".")
    words: list[str] = []
    for part in parts:
        if part.isdigit():
            # The first number is the layer; T5 numbers the sublayers too, which their names say already.
            words += [] if any(w.isdigit() for w in words) else [part]
        elif part == "output" and "attention" not in parts:
            words += ["ffn", "out"]
        elif part not in _SILENT:
            words += _WORDS.get(part, part).split()
    return [*(words or [path]), *([f"at {rates}"] if at else [])]


def rates_text(rates: Sequence[float], *, brief: bool = False) -> str:
    """Rates as per cent, in order; one number where all are equal.

    >>> rates_text([0.25, 0.25]), rates_text([0.25, 0.3, 0.3]), rates_text([0.25, 0.3, 0.5], brief=True)
    ('25%', '25/30/30%', '25…50%')
    """
    texts = [f"{round(100 * rate, 1):g}" for rate in rates]
    if len(set(texts)) == 1:
        return f"{texts[0]}%"
    return f"{texts[0]}…{texts[-1]}%" if brief and len(texts) > 2 else f"{'/'.join(texts)}%"
