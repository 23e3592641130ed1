"""The memory that a model takes: measured in a process of its own, in which nothing else has been."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from ..errors import InputError


def peak_bytes(folder: Path, *, compiled: bool, device: str, threads: int, shape: tuple[int, int, int]) -> int:
    """Most memory of a process that loads a model and runs it once, beside what it had with PyTorch imported.

    Args:
        shape: batch size, length, new tokens. On a GPU the peak is the GPU's.

    Raises:
        InputError: the process failed; with its last line.
    """
    told = {"folder": str(folder), "compiled": compiled, "device": device, "threads": threads, "shape": shape}
    command = [sys.executable, "-m", __name__, json.dumps(told)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(f"{folder}: its memory cannot be measured: {reason}")
    return int(done.stdout.split()[-1])


def _measured(folder: str, compiled: bool, device: str, threads: int, shape: list[int]) -> int:
    import torch
    import transformers.modeling_utils  # noqa: F401  (imported before the first look)

    from ..models.folder import BaseModel
    from .loaded import Loaded

    torch.set_num_threads(threads)
    where = torch.device(device)
    before = 0 if where.type == "cuda" else _high_water()
    base = BaseModel(folder)
    entry = Loaded.exported(base) if base.export else Loaded.torch(base, where, compiled=compiled)
    batch = entry.batch(*shape)
    (entry.generate(batch, 1 + shape[2]) if entry.generates else entry.forward(batch))()
    after = int(torch.cuda.max_memory_allocated(where)) if where.type == "cuda" else _high_water()
    return after - before


def _high_water() -> int:
    """Most memory that this process has had. Its resource usage would not do: it begins with that of its parent."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    from ..evaluation.measure import peak_memory

    return peak_memory()


def main(told: dict[str, Any]) -> None:
    """What the process does: one number on standard output."""
    print(_measured(**told))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
