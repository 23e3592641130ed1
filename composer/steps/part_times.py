"""Seconds of a model's parts on this machine: measured once, kept in the user's cache for models of these shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from ..choosing.times import Times
from ..errors import InputError, RecipeError
from ..files.environment import cache_folder, machine
from ..files.jsonfile import digest_of, read_json, write_json
from ..progress import SILENT, Progress
from ..shrinking.units import Units
from ..workspace import Workspace

if TYPE_CHECKING:
    from ..timing.parts import PartTimer, Setting

NOISE = 0.15
"""How far the interval of a median may reach from it, relative; a table of noisier figures is not used."""


def setting_of(space: Workspace) -> Setting:
    """What the recipe says is timed.

    Raises:
        RecipeError: more threads than the machine has, or a runtime that does not run on the device.
        InputError: a length that the model does not read.
    """
    import psutil

    from ..timing.inputs import check_length, longest
    from ..timing.parts import Setting

    time, cores = space.recipe.time, psutil.cpu_count() or 1
    if time.threads > cores:
        raise RecipeError(f"--threads: got {time.threads}; allowed: 1 to {cores} (this machine's)")
    if time.runtime != "torch" and space.device != "cpu":
        raise RecipeError(f"--runtime: got {time.runtime}, which runs on the processor here, and {space.device}")
    room = longest(space.base.config, time.new_tokens)
    if "length" not in time.model_fields_set and room:  # nobody has said it: a small model gets what it reads
        time = time.model_copy(update={"length": max(1, min(time.length, room))})
    check_length(space.base.config, time.length, 0, space.base.name)
    return Setting(**time.model_dump(), device=space.device)


def timer(space: Workspace, units: Sequence[Units], setting: Setting) -> PartTimer:
    """What times models of any widths of the base model."""
    from ..timing.parts import PartTimer

    if setting.runtime == "torch":
        return PartTimer(space.base, units, setting)
    from ..exporting.convert import check_form, convert

    form = setting.runtime
    check_form(space.base, form)
    return PartTimer(space.base, units, setting, lambda model, folder: convert(model, form, folder))


def part_times(space: Workspace, units: Sequence[Units], *, force: bool = False, progress: Progress = SILENT) -> Times:
    """The table for what the recipe says is timed; measured where the cache does not have it.

    Raises:
        InputError: the machine is too noisy to measure on.
    """
    setting = setting_of(space)
    key = {"shape": _shape(space, units), "setting": asdict(setting), **_where(setting)}
    path = cache_folder("times") / f"{digest_of(key)[:24]}.json"
    if path.is_file() and not force:
        content = read_json(path)
        if isinstance(content, dict) and content.get("key") == key:
            return Times.of_plain(content["times"])
    times = timer(space, units, setting).table(progress, **key)
    if times.spread > NOISE:
        raise InputError(
            f"this machine is too noisy to measure time: the interval of a median reaches {times.spread:.1%} from it; "
            f"allowed: {NOISE:.0%}; run it when less else runs, or longer than --repeat {setting.repeat}".replace(
                "%", " %"
            )
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"key": key, "times": times.plain()})
    return times


def _shape(space: Workspace, units: Sequence[Units]) -> dict[str, Any]:
    """What the seconds of a model depend on, beside the machine: its kind and sizes, not its weights."""
    config = space.base.config
    sizes = {k: v for k, v in config.items() if isinstance(v, int) and not k.endswith("_token_id")}
    words = {k: config.get(k) for k in ("model_type", "architectures", "activation", "hidden_act", "feed_forward_proj")}
    parts = [[u.kind, u.path, u.count, *([p.in_features, p.out_features] for p in u.projections)] for u in units]
    return {"sizes": sizes, **words, "parts": digest_of(parts)}


def _where(setting: Setting) -> dict[str, Any]:
    """Machine and versions; how many threads are used stands in the setting."""
    packages = ("torch", "transformers") if setting.runtime == "torch" else ("onnxruntime",)
    found = dict.fromkeys(packages, "")
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    here = {name: value for name, value in machine().items() if name != "threads"}
    return {"machine": here, "versions": found}
