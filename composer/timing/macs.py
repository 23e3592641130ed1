"""Multiply-accumulates of a forward pass, and what they have to do with the seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def macs(forward: Callable[[], Any]) -> int:
    """Multiply-accumulates of all matrix products that ``forward`` makes in PyTorch, attention's own included.

    Counted in the running model, so that heads and neurons that are gone do not count and zeros do: what is masked is
    multiplied all the same.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    counter.mod_tracker = _Whole()  # type: ignore[assignment]
    # The fused attention of processors is no product that the counter knows; written out it is two.
    with counter, sdpa_kernel(SDPBackend.MATH):
        forward()
    return int(counter.get_total_flops()) // 2


class _Whole:
    """Stands for the counter's record of modules, which is not asked for: its hooks die of a parameter that a module
    gets as its input where no gradient is kept (DeBERTa's relative positions).
    """

    parents = frozenset({"Global"})

    def __enter__(self) -> None:
        """Nothing to record."""

    def __exit__(self, *_: object) -> None:
        """Nothing was recorded."""


def why(macs_before: int, macs_after: int, speedup: float) -> str:
    """One sentence on a measured speed-up beside the ratio of MACs.

    >>> print(why(200, 100, 1.6))
    80 % of the 2.00x by MACs: as if 25 % of the first model's time were none of them (look-ups, norms, softmax, \
activations, moving data, Python).
    >>> print(why(200, 200, 1.0))
    As many MACs: zeros are multiplied like any other weight.
    >>> print(why(200, 100, 2.2))
    More than the 2.00x by MACs: smaller matrices also fit better into the caches.
    >>> print(why(200, 100, 0.9))
    Nothing of the 2.00x by MACs: at this size the time goes elsewhere (Python, look-ups, moving data).
    """
    ratio = macs_before / macs_after
    if abs(ratio - 1) < 0.005:
        return "As many MACs: zeros are multiplied like any other weight."
    if speedup >= ratio:
        return f"More than the {ratio:.2f}x by MACs: smaller matrices also fit better into the caches."
    if speedup <= 1 < ratio:
        where = "at this size the time goes elsewhere (Python, look-ups, moving data)"
        return f"Nothing of the {ratio:.2f}x by MACs: {where}."
    # Seconds as a fixed part and one that follows the MACs: 1 = f + m and 1/speedup = f + m/ratio.
    fixed = (1 / speedup - 1 / ratio) / (1 - 1 / ratio)
    return (
        f"{speedup / ratio:.0%} of the {ratio:.2f}x by MACs: as if {fixed:.0%} of the first model's time were none of "
        "them (look-ups, norms, softmax, activations, moving data, Python)."
    ).replace("%", " %")
