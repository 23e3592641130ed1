"""What results depend on besides their inputs: versions of packages, and the machine."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .. import __version__
from ..registry import plugin_versions

PACKAGES = (
    "torch",
    "transformers",
    "accelerate",
    "datasets",
    "safetensors",
    "sacrebleu",
    "numpy",
)


def versions() -> dict[str, str]:
    """Versions of Python, of Composer (the package that runs, however it was installed) and of the packages that shape
    results, those among them whose family, task, criterion or trainer is used."""
    numbers = {"python": platform.python_version(), "composer": __version__}
    for package in PACKAGES:
        try:
            numbers[package] = version(package)
        except PackageNotFoundError:
            continue
    return {**numbers, **plugin_versions()}


def machine() -> dict[str, Any]:
    """Processor, cores, memory and operating system; no host name, no paths."""
    import psutil

    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "threads": _threads(),
    }


def cache_folder(name: str) -> Path:
    """``composer/<name>`` in the user's cache (``XDG_CACHE_HOME``): what can be made again at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "composer" / name


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or "unknown"


def _threads() -> int | None:
    torch = sys.modules.get("torch")
    return torch.get_num_threads() if torch else None
