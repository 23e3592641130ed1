"""What of a model is left, unit by unit, for a picture: of masked models by zeros, of shrunk ones by shapes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..files.jsonfile import read_json
from ..files.records import RECORD
from ..models.folder import BaseModel
from ..models.layouts import layout_of
from ..models.shapes import KEY, shapes_of
from ..report.kept import Part, Row, Stack
from ..scheme.layout import unnumbered
from .plan import activation_of
from .units import Units, units_of
from .zeros import find, zeros_by_unit

if TYPE_CHECKING:
    from torch import Tensor

    from .records import Report


def kept_units(base: BaseModel, parameters: Mapping[str, Tensor]) -> list[Stack]:
    """Layers with their heads and neurons, and what is left of each; targets where no table knows units.

    Args:
        parameters: the model's, by name.
    """
    whole = layout_of({key: value for key, value in base.config.items() if key != KEY}, base.name)
    there = {units.path: units for units in units_of(base.layout)}
    before = _counts_before(base)
    parts: dict[str, list[Part]] = {}
    for units in units_of(whole):
        parts.setdefault(units.layer, []).append(_part(base, units, there.get(units.path), before, parameters))
    return _stacks(parts) if parts else [_targets(base, parameters)]


def stacks_of(report: Report, config: Mapping[str, Any]) -> list[Stack]:
    """The same of a model that was just shrunk, without a look at its weights.

    Args:
        config: the small model's ``config.json``, which says of shapes of their own which heads are left.
    """
    places = {} if report.dropped else shapes_of(config).heads
    parts: dict[str, list[Part]] = {}
    for row in report.rows:
        kept = set(places.get(row.path, range(row.units.after)))
        density = 1 - row.zeros / row.parameters.after if row.units.after else 0.0
        cells = tuple(density if i in kept else 0.0 for i in range(row.units.before))
        units = cells if row.kind == "attention" else ()
        parts.setdefault(row.layer, []).append(
            Part(row.kind, row.path, row.units.before, row.units.after, density, units)
        )
    return _stacks(parts)


def _part(
    base: BaseModel, units: Units, here: Units | None, before: Mapping[str, int], parameters: Mapping[str, Tensor]
) -> Part:
    """One sublayer.

    Args:
        units: as the configuration's sizes have them, ``here`` as they are; None where nothing is left.
        before: how many there were, of models that were shrunk to plain shapes.
    """
    if here is None:
        return Part(units.kind, units.path, before.get(units.path, units.count), 0, 0.0, (0.0,) * units.count)

    def read(name: str) -> Tensor:
        return parameters[name].detach().cpu()

    found = find(here, read, activation_of(base))
    size = sum(p.out_features * p.in_features for p in here.projections) // here.count
    zeros = zeros_by_unit(here, read).tolist()
    shares = {i: 1 - zeros[i] / size for i in found.kept}
    # Of shapes of their own it is known which heads are left; of plain ones how many.
    places = shapes_of(base.config).heads.get(units.path, range(here.count))
    count = max(before.get(units.path, 0), units.count)
    cells = {places[i]: share for i, share in shares.items()}
    return Part(
        units.kind,
        units.path,
        count,
        len(found.kept),
        sum(shares.values()) / len(shares) if shares else 0.0,
        tuple(cells.get(i, 0.0) for i in range(count)) if units.kind == "attention" else (),
    )


def _counts_before(base: BaseModel) -> dict[str, int]:
    """How many units there were before the model was shrunk, as the record beside it says."""
    path = base.folder / RECORD
    content = read_json(path) if path.is_file() else {}
    result = content.get("result") if isinstance(content, dict) else None
    if not isinstance(result, dict) or result.get("dropped"):  # layers that went whole have moved the others' names
        return {}
    return {row["path"]: row["units"]["before"] for row in result.get("rows", ())}


def _stacks(layers: Mapping[str, list[Part]]) -> list[Stack]:
    """Layers by the stack that they stand in; a row is called by its number."""
    groups: dict[str, list[tuple[str, list[Part]]]] = {}
    for path, parts in layers.items():
        groups.setdefault(unnumbered(f"{path}."), []).append((path, parts))
    alone = len(groups) == 1
    return [
        Stack("" if alone else _name(glob), _columns(rows), tuple(Row(_number(p), tuple(q)) for p, q in rows))
        for glob, rows in groups.items()
    ]


def _columns(rows: list[tuple[str, list[Part]]]) -> tuple[str, ...]:
    """Titles of the parts of the longest row."""
    longest = max((parts for _, parts in rows), key=len)
    several = sum(part.kind == "attention" for part in longest) > 1
    titles = list(_titles(longest, several))
    return tuple(titles)


def _titles(parts: list[Part], several: bool) -> Iterator[str]:
    attentions = 0
    for part in parts:
        if part.kind == "feed_forward":
            yield "feed-forward neurons"
            continue
        attentions += 1
        which = ("self-attention ", "cross-attention ")[min(attentions, 2) - 1] if several else "attention "
        yield f"{which}heads"


def _name(glob: str) -> str:
    """``encoder`` or ``decoder`` out of a stack's path, or the path."""
    found = re.search(r"\b(encoder|decoder)\b", glob)
    return found[1] if found else glob.partition("*")[0].strip(".")


def _number(path: str) -> str:
    found = re.findall(r"\d+", path)
    return found[-1] if found else path


def _targets(base: BaseModel, parameters: Mapping[str, Tensor]) -> Stack:
    """A row for each target of a model whose heads and neurons no table knows."""
    rows = []
    for target in base.layout.targets:
        zeros = sum(int((p.of(parameters[p.weight].detach()) == 0).sum()) for p in target.projections)
        share = 1 - zeros / target.parameters
        part = Part("linear", target.path, target.parameters, target.parameters - zeros, share)
        rows.append(Row(target.path, (part,)))
    return Stack("", ("weights that are not 0",), tuple(rows))
