"""Tables and the picture of benchmarks/joint.py, from its results.json alone."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from scipy.stats import t as student

from composer.files.jsonfile import read_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes

QUESTIONS = {
    "A": "the same masks on both sides",
    "B": "obs masks against l1 masks, choosing them counted",
    "original": "l1 masks on both sides, every variant's block distilled side by side",
}


def ledger(question: str, alone: dict[str, Any], made: dict[str, Any]) -> dict[str, Any]:
    """Seconds of both sides for the configurations of ``made``; a search is its trials less the winner's own run."""
    n, searched = made["configurations"], made.get("search", [])
    of_it = {
        "masks": made["prune_seconds"] if question == "B" else 0.0,
        "blocks": made["block_seconds"],
        "joint": made["joint_seconds"],
        "finish": sum(row["seconds"] for row in made["finish"]),
    }
    theirs = sum(row["seconds"] for row in alone["rows"][:n])
    lost = sum(row["seconds"] for row in alone["search"] if row["learning_rate"] != alone["learning_rate"])
    if question == "B":
        theirs += alone["prune_seconds"]
    ours = sum(of_it.values())
    tried = sum(row["joint_seconds"] or row["block_seconds"] for row in searched)  # closed forms serve every rate
    return {
        "configurations": n,
        "joint_steps": made["joint_steps"],
        "alone": theirs,
        "ours": ours,
        "of_it": of_it,
        "times": theirs / ours,
        "searches": (lost, tried),
        "times_searched": (theirs + lost) / (ours + tried) if searched or not made["joint_steps"] else None,
        "reached": sum(row["reached"] for row in made["finish"]),
        "at_once": sum(row["reached"] and not row["steps"] for row in made["finish"]),
    }


def show(folder: Path) -> None:
    """Print every table that the results allow, and draw the picture."""
    results = read_json(folder / "results.json")
    print(f"\nmachine: {results['machine']}\nversions: {results['versions']}\ncommand: {results['command']}")
    for seed, told in results["seeds"].items():
        print(f"\nseed {seed}, {results['steps']} steps for each baseline")
        for question in QUESTIONS:
            _show_question(question, told, results["rates"])
        if "more" in told:
            _show_more(told)
    _show_equal(results["seeds"])
    if any(told["A"] for told in results["seeds"].values()):
        draw(results, folder / "work.png")


def _show_question(question: str, told: dict[str, Any], rates: list[list[float]]) -> None:
    made_there = told.get(question, [])
    alone = told["alone"].get("A" if question == "A" else "B")
    rows = [ledger(question, alone, made) for made in made_there]
    if not rows:
        return
    print(f"\n{question}: {QUESTIONS[question]}; seconds until the baselines' final validation losses\n")
    print(
        "| N | joint steps | baselines | composed | masks + blocks + joint + finish | less work | reached "
        "| without a finish |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for row in sorted(rows, key=lambda row: (row["configurations"], row["joint_steps"])):
        parts = " + ".join(f"{seconds:.0f}" for seconds in row["of_it"].values())
        n = row["configurations"]
        times = f"{row['times']:.1f}x" if row["reached"] == n else "–"
        print(
            f"| {n} | {row['joint_steps']} | {row['alone']:.0f} | {row['ours']:.0f} | {parts} | {times} "
            f"| {row['reached']} of {n} | {row['at_once']} of {n} |"
        )
    for row in rows:
        if row["times_searched"] and row["reached"] == row["configurations"]:
            lost, tried = row["searches"]
            print(
                f"\nWith the learning-rate searches ({lost:.0f} s of a baseline, {tried:.0f} s of composing) at N = "
                f"{row['configurations']}, {row['joint_steps']} joint steps: {row['times_searched']:.1f}x"
            )
    widest = max(made_there, key=lambda made: (made["configurations"], made["joint_steps"]))
    print(
        "\n| heads / linear | removed from | baseline: start, end, metric | composed: loss, metric |\n|---|---|---|---|"
    )
    for i, (row, loss, metric) in enumerate(zip(alone["rows"], widest["loss"], widest["metric"], strict=False)):
        heads, linear = rates[i]
        kind = "mixed" if i % 2 else "uniform"
        print(
            f"| {heads:.0%} / {linear:.0%} | {kind} | {row['start']:.3f}, {row['loss']:.3f}, {row['metric']:.4g} "
            f"| {loss:.3f}, {metric:.4g} |"
        )


def _show_more(told: dict[str, Any]) -> None:
    more, n = told["more"], told["more"]["configurations"]
    alone = more["alone_wall_seconds"]
    spent = more["wall_seconds"] + more["build_wall_seconds"] + more["finish"]["seconds"]
    print(
        f"\nConfiguration {n} added to a joint library of {n - 1}, wall seconds up to its model on disk: {spent:.0f} s "
        f"(masks and blocks {more['wall_seconds']:.0f} s, {more['finish']['steps']} finishing steps), its baseline "
        f"{alone:.0f} s: {spent / alone:.0%}; loss {more['finish']['loss']:.3f}, baseline {more['goal']:.3f}"
    )


def _show_equal(seeds: dict[str, Any]) -> None:
    """Composed minus baseline, over seeds and configurations: with the same masks (A), and against classic ones (B)."""
    gaps: dict[tuple[str, ...], list[float]] = {}
    for told in seeds.values():
        for made in (made for made in told["A"] if made["joint_steps"] == told["joint_steps"]):
            joint = [{"loss": a, "metric": b} for a, b in zip(made["loss"], made["metric"], strict=True)]
            sides = {"the joint phase": joint}
            sides |= {"as many steps of its own": made["finished"]} if "finished" in made else {}
            for question, label in ((q, label) for q in ("A", "B") for label in sides):
                rows = zip(
                    sides[label], told["alone"].get(question, {"rows": []})["rows"], told["sparsity"], strict=False
                )
                for row, alone, removed in rows:
                    for figure in ("loss", "metric"):
                        for which in ["all", "above 50 %"][: 1 + (removed > 0.5)]:
                            key = (question, str(made["configurations"]), label, which, figure)
                            gaps.setdefault(key, []).append(row[figure] - alone[figure])
    print(
        f"\ncomposed minus baseline, {len(seeds)} seed(s)\n\n"
        "| question | N | composed after | configurations | figure | mean | 95 % interval | worst | pairs |\n"
        "|---|---|---|---|---|---|---|---|---|"
    )
    for name, values in sorted(gaps.items()):
        if len(values) > 1:
            half = float(student.ppf(0.975, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
            worst = max(values) if name[-1] == "loss" else min(values)
            middle = mean(values)
            print(
                f"| {' | '.join(name)} | {middle:+.3f} | {middle - half:+.3f} to {middle + half:+.3f} | {worst:+.3f} "
                f"| {len(values)} |"
            )


def _price(told: dict[str, Any], made: dict[str, Any]) -> tuple[bool, float]:
    """Sorts joint phases of different lengths: first those after which all get to their goals, then by seconds."""
    row = ledger("A", told["alone"]["A"], made)
    return row["reached"] < row["configurations"], row["ours"]


def draw(results: dict[str, Any], output: Path) -> None:
    """Total work against the mean validation loss reached: a line for each side, N at each point."""
    from matplotlib.figure import Figure

    from composer.report.kit import canvas

    told = next(iter(results["seeds"].values()))
    alone = told["alone"]["A"]["rows"]
    least = {made["configurations"]: made for made in sorted(told["A"], key=lambda made: _price(told, made))[::-1]}
    made = [least[n] for n in sorted(least)]
    rows = [ledger("A", told["alone"]["A"], row) for row in made]
    with canvas.style():
        figure = Figure(figsize=(9, 3.8), layout="constrained")
        left, right = figure.subplots(1, 2)
        ns = [row["configurations"] for row in rows]
        left.plot(ns, [row["alone"] for row in rows], "o-", color=canvas.GREY, label="baselines")
        left.plot(ns, [row["ours"] for row in rows], "s-", color=canvas.PALETTE[0], label="composed")
        left.set(xlabel="configurations", ylabel="seconds until the baselines' losses", ylim=(0, None), xticks=ns)
        left.legend()
        losses = [mean(row["loss"] for row in alone[:n]) for n in ns]
        ours = [mean(f["loss"] for f in row["finish"]) for row in made]
        for row, a, b in zip(rows, losses, ours, strict=True):
            right.plot([row["alone"], row["ours"]], [a, b], "-", color=canvas.GREY, linewidth=0.8, zorder=1)
            place = {"textcoords": "offset points", "xytext": (7, 3), "fontsize": 8}
            right.annotate(f"N={row['configurations']}", (row["alone"], a), **place)
        right.plot([row["alone"] for row in rows], losses, "o", color=canvas.GREY)
        right.plot([row["ours"] for row in rows], ours, "s", color=canvas.PALETTE[0])
        right.set(xlabel="total work (s)", ylabel="mean validation loss (nats)")
        seconds_axis(right, min(row["ours"] for row in rows), max(row["alone"] for row in rows))
        canvas.save(figure, output)


def seconds_axis(axes: Axes, low: float, high: float) -> None:
    """A logarithmic axis of seconds, with plain numbers, thousands as k."""
    axes.set_xscale("log")
    ticks = [x * 10**k for k in range(1, 6) for x in (1, 2, 5) if low / 2 <= x * 10**k <= high * 2]
    axes.set_xticks(ticks, [f"{x // 1000}k" if x >= 1000 else str(x) for x in ticks])
    axes.minorticks_off()
    axes.margins(x=0.15, y=0.12)
