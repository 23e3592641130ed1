"""Tables and the picture of benchmarks/length.py, from its stored parts alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from joint_tables import QUESTIONS, seconds_axis

from composer.files.jsonfile import read_json

Row = Mapping[str, Any]


def seconds(row: Row, name: str = "seconds") -> float:
    """Processor seconds of a part's ``name``."""
    return float(row[name] * row["processor_share"])


@dataclass(frozen=True)
class Side:
    """One length of one side: the runs at the best rate, by configuration, and what the other rates took."""

    rate: float
    runs: Mapping[int, Row]
    search: float

    @property
    def each(self) -> float:
        """Seconds of one model alone."""
        return mean(seconds(row) for row in self.runs.values())


def alone(rows: Iterable[Row], side: str, middle: int) -> dict[tuple[int, int], Side]:
    """Length and seed -> the baselines there. The middle configuration tells the rate."""
    grouped: dict[tuple[int, int], dict[float, dict[int, Row]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        if row["side"] == side:
            grouped[row["steps"], row["seed"]][row["rate"]][row["configuration"]] = row
    sides = {}
    for at, found in sorted(grouped.items()):
        tried = [rate for rate in found if middle in found[rate]]
        if tried:
            best = min(tried, key=lambda rate: found[rate][middle]["loss"])
            lost = sum(seconds(found[rate][middle]) for rate in tried if rate != best)
            sides[at] = Side(best, found[best], lost)
    return sides


def together(rows: Iterable[Row]) -> dict[tuple[int, int], tuple[Row, float]]:
    """Joint steps and seed -> the joint phase at its best rate, and the seconds of its other rates."""
    grouped: dict[tuple[int, int], list[Row]] = defaultdict(list)
    for row in rows:
        if row["side"] == "joint":
            grouped[row["joint_steps"], row["seed"]].append(row)
    found: dict[tuple[int, int], tuple[Row, float]] = {}
    for at, tried in sorted(grouped.items()):
        best = min(tried, key=lambda row: mean(row["loss"]))
        found[at] = best, sum(seconds(row, "joint_seconds") for row in tried if row is not best)
    return found


def show(folder: Path, rows: Sequence[Row]) -> None:
    """Print every table that the parts allow, and draw the picture."""
    about = read_json(folder / "about.json")
    task = f"{about['task']}, {about['configurations']} configurations"
    print(f"\n{task}\nmachine: {about['machine']}\nversions: {about['versions']}")
    removed = ", ".join(f"{i} ({about['sparsity'][i]:.0%} removed)" for i in about["baselines"])
    print(f"baselines of configuration {removed}; processor seconds, validation and loading left out")
    middle = about["baselines"][len(about["baselines"]) // 2]
    for share in sorted({row.get("distill") or 0.0 for row in rows}):
        print(f"\nboth sides learn from the base model's answers, at a weight of {share:g}" if share else "")
        some = [row for row in rows if (row.get("distill") or 0.0) == share]
        joint = together(some)
        for question in ("A", "B"):
            for (length, seed), side in alone(some, question, middle).items():
                _show_length(question, length, side, {at: made for at, made in joint.items() if at[1] == seed}, about)
        if joint and not share:
            draw(joint, alone(some, "A", middle), about["configurations"], folder / "length.png")


def _show_length(
    question: str, length: int, side: Side, joint: dict[tuple[int, int], tuple[Row, float]], about: Mapping[str, Any]
) -> None:
    n = about["configurations"]
    ends = ", ".join(f"{i}: {row['loss']:.3f} / {row['metric']:.4g}" for i, row in sorted(side.runs.items()))
    print(
        f"\n{question} ({QUESTIONS[question]}), {length} steps of each model alone at {side.rate:g}; "
        f"loss / metric at the end: {ends}\n"
    )
    gaps = " | ".join(f"loss, metric of {i}: less alone" for i in sorted(side.runs))
    counts = "at loss | at metric | baselines | composed | less work | with searches"
    print(f"| joint steps | share | rate | {gaps} | {counts} |")
    print(f"|---|---|---|{'---|' * len(side.runs)}---|---|---|---|---|---|")
    for (steps, _), (made, search) in joint.items():
        print(_line(question, length, side, made, search, steps, n))


def _line(question: str, length: int, side: Side, made: Row, search: float, steps: int, n: int) -> str:
    """One joint phase against the baselines of a length; no ratio where some model is still above its baseline."""
    gaps = {i: (made["loss"][i] - row["loss"], _metric_gap(made, row, i)) for i, row in sorted(side.runs.items())}
    theirs = n * side.each
    ours = seconds(made, "block_seconds") + seconds(made, "joint_seconds")
    if question == "B":
        theirs += seconds(next(iter(side.runs.values())), "prune_seconds")
        ours += seconds(made, "prune_seconds")
    losses, metrics = [loss for loss, _ in gaps.values()], [gap for _, gap in gaps.values() if gap is not None]
    there = [(sum(gap <= 0 for gap in losses), len(losses)), (sum(gap >= 0 for gap in metrics), len(metrics))]
    whole = there[0][0] == len(gaps)
    ratios = [f"{theirs / ours:.1f}x", f"{(theirs + side.search) / (ours + search):.1f}x"] if whole else ["–", "–"]
    each = " | ".join(f"{loss:+.3f}, {'–' if gap is None else f'{gap:+.2g}'}" for loss, gap in gaps.values())
    counts = " | ".join(f"{count} of {known}" for count, known in there)
    rate = f"{made['learning_rate']:g}" if steps else "–"
    return (
        f"| {steps} | {steps / length:.2f} | {rate} | {each} | {counts} | {theirs:.0f} | {ours:.0f} "
        f"| {ratios[0]} | {ratios[1]} |"
    )


def _metric_gap(made: Row, row: Row, i: int) -> float | None:
    """By how much the metric of configuration ``i`` is above its baseline's; None where other examples were used."""
    same = made.get("tested") == row.get("tested")
    return float(made["metric"][i] - row["metric"]) if same else None


def draw(
    joint: dict[tuple[int, int], tuple[Row, float]], baselines: dict[tuple[int, int], Side], n: int, output: Path
) -> None:
    """What N models can become for a given total of work: both sides' mean loss against it, of the same models.

    Of the first seed; others stand in the tables.
    """
    from matplotlib.figure import Figure

    from composer.report.kit import canvas

    first = min(seed for _, seed in joint)
    joint = {at: made for at, made in joint.items() if at[1] == first}
    baselines = {at: side for at, side in baselines.items() if at[1] == first}
    chosen = sorted(set.intersection(*(set(side.runs) for side in baselines.values()))) if baselines else range(n)
    ways = {
        "each one alone": [
            (n * side.each + side.search, mean(side.runs[i]["loss"] for i in chosen), length)
            for (length, _), side in baselines.items()
        ],
        "learnt once together": [
            (
                seconds(made, "block_seconds") + seconds(made, "joint_seconds") + search,
                mean(made["loss"][i] for i in chosen),
                steps,
            )
            for (steps, _), (made, search) in joint.items()
        ],
    }
    with canvas.style():
        figure = Figure(figsize=(5.6, 3.8), layout="constrained")
        axes = figure.subplots()
        for (label, points), look in zip(ways.items(), (("o-", canvas.GREY), ("s-", canvas.PALETTE[0])), strict=True):
            at = sorted(points)
            axes.plot([x for x, *_ in at], [y for _, y, _ in at], look[0], color=look[1], label=label)
            for x, y, steps in at:
                axes.annotate(f"{steps} steps", (x, y), textcoords="offset points", xytext=(6, 4), fontsize=8)
        which = f"mean validation loss of configuration{'s' * (len(chosen) > 1)} {', '.join(map(str, chosen))}"
        axes.set(xlabel=f"processor seconds for {n} models, searches too", ylabel=which)
        work = [x for points in ways.values() for x, *_ in points]
        seconds_axis(axes, min(work), max(work))
        axes.legend()
        canvas.save(figure, output)
