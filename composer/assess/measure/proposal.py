"""A proposal: rates per target for a wished overall sparsity, from the sensitivities; measured as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from ...choosing.greedy import Choice, Point, choose, lower_hull, rise_at
from ...errors import ConfigError
from ...files.journal import Journal
from ...files.jsonfile import write_json
from ...files.stats import write_csv
from ...scheme.configurations import (
    Assignment,
    Configurations,
    Spec,
    read_configurations,
    resolve,
    write_configurations,
)
from ...scheme.layout import Layout
from ...scheme.shapes import rate_of
from ..contents import ProposalFile, SensitivityFile, WholeLoss
from ..settings import beyond
from .assessed_model import AssessedModel
from .sensitivity import rises

if TYPE_CHECKING:
    from ...progress import Bar

CONF = "conf.json"
COLUMNS = ("target", "rate", "removed", "total")


def assess_proposal(subject: AssessedModel, sensitivity: SensitivityFile) -> ProposalFile:
    """Write ``proposal.json``, its CSV and ``conf.json``; returns what the first one holds.

    Raises:
        ConfigError: more is wished than the measured rates remove.
    """
    wished, criterion, layout = subject.settings.sparsity, sensitivity["criterion"], subject.layout
    total = layout.parameters(subject.paths)
    choice = propose(rises(sensitivity), layout, round(wished * total), total)
    rates = {path: _rate(layout, path, count) for path, count in choice.removed.items()}
    uniform = uniform_rates(layout, subject.paths, sum(choice.removed.values()))
    assigned = write_conf(subject, rates, criterion)
    journal = subject.journal("proposal", criterion=criterion, repair=subject.settings.repair)
    with subject.progress.bar("proposal", 2) as bar:
        ours = _measured(subject, journal, assigned, criterion, bar)
        theirs = _measured(subject, journal, _specs(subject, uniform, criterion), criterion, bar)
    shown: Literal["repaired", "pruned"] = "repaired" if subject.settings.repair else "pruned"
    content: ProposalFile = {
        **subject.header("proposal", criterion=criterion, sparsity=wished),
        "wished": wished,
        "reached": sum(choice.removed.values()) / total,
        "rates": rates,
        "predicted_rise": choice.rise,
        "dense_loss": sensitivity["dense"]["loss"],
        "measured_loss": ours[shown],
        "uniform_loss": theirs[shown],
        "measured": ours,
        "uniform": {"rates": uniform, **theirs},
        "criterion": criterion,
        "repair": subject.settings.repair,
        "examples": len(subject.examples),
        "unit": subject.unit,
        "conf": CONF,
    }
    write_json(subject.folder / "proposal.json", content)
    rows = [
        {
            "target": p,
            "rate": rates.get(p, 0),
            "removed": choice.removed.get(p, 0),
            "total": layout.target(p).parameters,
        }
        for p in subject.paths
    ]
    write_csv(subject.folder / "proposal.csv", rows, COLUMNS)
    return content


def propose(rows: Iterable[tuple[str, int, float]], layout: Layout, goal: int, total: int) -> Choice:
    """The greedy choice (:mod:`.greedy`) for the measured rows: target, weights removed, rise.

    What looks like a gain is noise, and costs nothing; but the largest such gain tells how large noise is. That much,
    times the square of the rate, is added to every row, so that targets which noise alone tells apart are
    pruned alike. The rise that is handed back is without it.
    """
    rows = list(rows)
    noise = max([0.0, *(-rise for _, _, rise in rows)])
    table: dict[str, list[Point]] = {}
    costs: dict[str, list[Point]] = {}
    for path, removed, rise in rows:
        rate = removed / layout.target(path).parameters
        table.setdefault(path, []).append((removed, max(rise, 0.0) + noise * rate**2))
        costs.setdefault(path, []).append((removed, max(rise, 0.0)))
    units = {path: layout.target(path).parameters // layout.target(path).units for path in table}
    try:
        chosen = choose(table, units, goal).removed
    except ValueError:
        most = sum(max(removed for removed, _ in points) for points in table.values())
        raise ConfigError(beyond(goal / total, most / total)) from None
    return Choice(chosen, sum(rise_at(lower_hull(costs[path]), count) for path, count in chosen.items()))


def uniform_rates(layout: Layout, paths: Iterable[str], goal: int) -> dict[str, float]:
    """One rate for all targets; linear ones make good what whole heads are off, so that ``goal`` weights go.

    The last linear target takes the remainder of the others' rounding.
    """
    paths = list(paths)
    rate = goal / layout.parameters(paths)
    rates = dict.fromkeys(paths, rate)
    linear = [path for path in paths if layout.target(path).kind == "linear"]
    left = goal - sum(layout.target(path).removed_weights(rate) for path in paths if path not in linear)
    total = layout.parameters(linear)
    for path in linear:
        count = min(round(left * layout.target(path).parameters / total), layout.target(path).parameters - 1)
        rates[path] = _rate(layout, path, max(count, 0))
        left, total = left - max(count, 0), total - layout.target(path).parameters
    return {path: rate for path, rate in rates.items() if layout.target(path).removed_units(rate)}


def write_conf(subject: AssessedModel, rates: Mapping[str, float], criterion: str) -> Assignment:
    """Write ``conf.json`` and read it back as the next command will; the criterion stands in it, so that the masks
    are the measured ones."""
    path = subject.folder / CONF
    named: dict[str, float | Spec] = {**_specs(subject, rates, criterion)}
    content = Configurations(model=subject.space.stored_name(path.parent), configurations=[named])
    write_configurations(path, content)
    return resolve(read_configurations(path), subject.layout, where=str(path))[0]


def _specs(subject: AssessedModel, rates: Mapping[str, float], criterion: str) -> dict[str, Spec]:
    layout = subject.layout
    return {p: Spec(rate=r, criterion=subject.criterion_of(layout.target(p), criterion)) for p, r in rates.items()}


def _rate(layout: Layout, path: str, removed: int) -> float:
    target = layout.target(path)
    return rate_of(removed // (target.parameters // target.units), target.units)


def _measured(
    subject: AssessedModel, journal: Journal, assigned: Mapping[str, Any], criterion: str, bar: Bar
) -> WholeLoss:
    """The loss of a whole configuration, without and with repair; an empty one is the base model."""
    rates = {path: said.rate if isinstance(said, Spec) else said for path, said in assigned.items()}

    def loss(repair: bool) -> float:
        return subject.loss_with(subject.pruner.prune(assigned, criterion, repair=repair)[0])

    def make() -> dict[str, Any]:
        return {"pruned": loss(False), "repaired": loss(True) if subject.settings.repair else None}

    losses = journal.row(("whole", rates), make)
    bar.advance()
    return {"pruned": losses["pruned"], "repaired": losses["repaired"]}
