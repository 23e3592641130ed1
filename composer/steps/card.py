"""What was measured of a model, put into the card that Composer wrote for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files.jsonfile import read_json, write_text
from ..files.records import RECORD
from ..models.folder import BaseModel
from ..workspace import Workspace


def refresh_card(space: Workspace, model: BaseModel) -> bool:
    """Write the part about measurements of a model's card again, from ``results/``; whether anything changed.

    A folder without a card of ours stays as it is.
    """
    from ..composing.card import MEASURED, with_measured

    path = model.folder / "README.md"
    card = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    if MEASURED[0] not in card or not (model.folder / RECORD).is_file():
        return False
    results = list(_results(space.folder / "results"))
    own = [content for content in results if _measured(content) == model.fingerprint]
    above = _made_from(model)
    bases = {content["result"]["split"]: content["result"] for content in results if _measured(content) == above}
    lines = [line for content in own for line in _table(content, bases.get(content["result"]["split"]))]
    lines += [line for content in results for line in _speed(content, model.fingerprint)]
    fresh = with_measured(card, lines, _index(model, own))
    if fresh != card:
        write_text(path, fresh)
    return fresh != card


def _results(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob("*.json")):
        content = read_json(path, InputError)
        if isinstance(content, dict):
            yield content


def _measured(content: dict[str, Any]) -> str | None:
    """Fingerprint of the model that a result of `compose evaluate` is of."""
    inputs, result = content.get("inputs"), content.get("result")
    found = inputs.get("model") if isinstance(inputs, dict) and isinstance(result, dict) and "split" in result else None
    return found if isinstance(found, str) else None


def _made_from(model: BaseModel) -> str | None:
    """Fingerprint of the base model; of a shrunk model of somebody else's making, that of the masked one."""
    content = read_json(model.folder / RECORD, InputError)
    inputs = content.get("inputs", {})
    return inputs.get("base") or content.get("base") or inputs.get("model")


def _table(content: dict[str, Any], base: dict[str, Any] | None) -> Iterator[str]:
    """Metrics of this model beside those of what it was made from."""
    from ..tasks.metrics.table import metric_of

    result = content["result"]
    yield f"{result['source']}, {result['split']}, {result['examples']:,} examples.\n"
    yield "| metric | this model | base model |"
    yield "|---|---|---|"
    for name, value in {**result["metrics"], "loss": result["loss"]}.items():
        before = {**base["metrics"], "loss": base["loss"]}.get(name) if base else None
        said = [
            _figure(one, run.get("intervals", {}).get(name), metric_of(name).decimals)
            for one, run in ((value, result), (before, base or {}))
        ]
        yield f"| {metric_of(name).label} | {said[0]} | {said[1]} |"
    yield ""


def _figure(value: float | None, interval: Sequence[float] | None, decimals: int) -> str:
    """A figure with its interval, where it has one."""
    if value is None or interval is None:
        return "–" if value is None else f"{value:.{decimals}f}"
    low, high = interval
    return f"{value:.{decimals}f} (95 %: {low:.{decimals}f} to {high:.{decimals}f})"


def _speed(content: dict[str, Any], fingerprint: str) -> Iterator[str]:
    """What `compose speed` measured of it, against the first model of that run."""
    from ..timing.records import Speed

    if not {"entries", "rows", "clock"} <= content.keys():
        return
    speed = Speed.of_plain(content).of(fingerprint)
    if speed is None:
        return
    first = speed.entries[0]
    yield f"{speed.device}, {speed.threads} thread(s), {speed.machine.get('processor', '')}; against {first.label}.\n"
    yield "| part | batch | tokens | ms | times as fast | MACs | MB |"
    yield "|---|---|---|---|---|---|---|"
    for row in speed.rows:
        entry = speed.entries[row.entry]
        if entry.fingerprint == fingerprint:
            faster = f"{row.faster.value:.2f} ({row.faster.low:.2f} to {row.faster.high:.2f})" if row.faster else "–"
            faster += ", too noisy to say" if row.faster and row.faster.noisy else ""
            macs = f"1/{row.macs_ratio:.2f}" if row.macs_ratio else "–"
            seconds = speed.seconds(row).median
            yield (
                f"| {row.part} | {row.batch_size} | {row.length} | {seconds * 1000:.1f} | {faster} | {macs} | "
                f"{entry.bytes / 1e6:.1f} |"
            )
    yield ""


def _index(model: BaseModel, own: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Results as the hub reads them."""
    from ..composing.card import card_data

    if not own:
        return None
    kind = card_data(model.folder / "README.md").get("pipeline_tag", "other")
    results = [
        {
            "task": {"type": kind},
            "dataset": {"name": name, "type": name},
            "metrics": [{"type": name, "value": value} for name, value in result["metrics"].items()],
        }
        for content in own
        for result in [content["result"]]
        for name in [Path(str(result["source"]).partition("[")[0].partition(";")[0]).name or "data"]
        if result["metrics"]
    ]
    return {"name": model.title, "results": results} if results else None
