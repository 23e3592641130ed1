"""Results of the steps as lines and tables: plain data in, things to print out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

from composer.models.no_targets import said
from composer.steps.outcome import Outcome
from composer.tasks.metrics.table import metric_of

from .format import NONE, duration, number, percent, plural, size

Shown = Iterator[RenderableType]
Lines = Callable[[Outcome], Shown]


class Sheet:
    """A titled table: columns of text that may wrap, then columns of figures that are never cut."""

    def __init__(self, title: str, names: Sequence[str], figures: Sequence[str], caption: str = "") -> None:
        self.title, self.caption = title, caption
        self._table = Table(
            box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True, header_style=""
        )
        for name in names:
            self._table.add_column(name, overflow="fold", vertical="bottom")
        for name in figures:
            self._table.add_column(name, justify="right", no_wrap=True, vertical="bottom")
        self.add_row = self._table.add_row
        self.add_section = self._table.add_section

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(self.title, style="bold")
        yield from console.render(self._table, options.update(width=self._width(console, options)))
        if self.caption:
            yield Text(self.caption)

    def _width(self, console: Console, options: ConsoleOptions) -> int:
        """Natural width; at most the console's, unless figures would be cut."""
        endless = options.update(width=10_000)
        natural = self._table.__rich_measure__(console, endless).maximum
        names = [column for column in self._table.columns if not column.no_wrap]
        spare = sum(max(0, _natural(console, endless, column) - 12) for column in names)
        return min(natural, max(options.max_width, natural - spare))


def _natural(console: Console, options: ConsoleOptions, column: Column) -> int:
    return max(Measurement.get(console, options, cell).maximum for cell in (column.header, *column.cells))


def finished(outcome: Outcome, text: str) -> str:
    """One line about an output: what is in it, or that nothing had to be done."""
    return f"{outcome.output}: {text}" if outcome.fresh else f"{outcome.output} is up to date"


def downloaded(outcome: Outcome) -> Shown:
    """What `download` brought."""
    got = outcome.summary
    files = plural(len(got["files"]), "file")
    yield finished(outcome, f"{got['repo']} at {got['commit'][:12]}, {size(got['bytes'])} in {files}")


def configurations(outcome: Outcome) -> Shown:
    """What `generate-config` wrote."""
    made = outcome.summary
    targets = plural(made["targets"], "target")
    yield finished(outcome, f"{plural(made['configurations'], 'configuration')} of {targets} of {made['model']}")


def scheme(outcome: Outcome) -> Shown:
    """What `generate-scheme` planned."""
    if outcome.fresh:
        yield from _levels(outcome.summary)
        yield from _followed(outcome.summary.get("global", []))
    yield finished(outcome, f"digest {outcome.summary['digest'][:12]}")


def _followed(rates: Sequence[dict[str, Any]]) -> Shown:
    """What one threshold over all targets takes from each."""
    sheet = Sheet("Rates under one threshold", ["configuration", "path"], ["rate"])
    for row in rates:
        sheet.add_row(str(row["configuration"]), row["path"], percent(row["rate"]))
    if rates:
        yield sheet


def graph(outcome: Outcome) -> Shown:
    """A scheme with all its nodes."""
    nodes = Sheet("Nodes", ["level", "path", "rates"], ["uses"])
    for node in outcome.summary["nodes"]:
        rates = ", ".join([_rates(node["rates"]), *node.get("choices", [])])
        nodes.add_row(node["level"], node["path"] or "(whole model)", rates, str(node["uses"]))
    yield nodes
    yield from _levels(outcome.summary)
    yield f"picture: {outcome.summary['picture']}"


def model(outcome: Outcome) -> Shown:
    """A model's targets and totals."""
    told = outcome.summary
    targets = Sheet("Targets", ["path", "kind"], ["weights", "zeros", "sparsity"])
    for row in told["targets"]:
        sparsity = percent(row["zeros"] / row["weights"] if row["weights"] else 0.0)
        targets.add_row(row["path"], row["kind"], f"{row['weights']:,}", f"{row['zeros']:,}", sparsity)
    yield targets
    yield f"{told['kept']}; picture: {told['picture']}"
    yield (
        f"{outcome.output}: {told['parameters']:,} parameters, {told['zeros']:,} of them zero, "
        f"{size(told['bytes'])}; sparsity of the targets {percent(told['sparsity'])}"
    )
    yield from _no_targets(told)


def pruned(outcome: Outcome) -> Shown:
    """What `prune` made."""
    made = outcome.summary
    modules, sublayers = made["variants"], made.get("sublayers", 0)
    text = plural(modules + sublayers, "variant")
    text += f" ({modules:,} of modules, {sublayers:,} of sublayers)" if sublayers else ""
    text += f", {made['made']:,} made in {duration(made['seconds'])}"
    yield finished(outcome, text)
    yield from _no_targets(made)


def tuned_blocks(outcome: Outcome) -> Shown:
    """What `finetune --level block` made."""
    made, joint = outcome.summary, outcome.summary.get("joint")
    text = f"{plural(made['blocks'], 'block')}, {made['tuned']:,} tuned with "
    text += plural(made["teacher_passes"], "teacher batch", "teacher batches")
    if joint:
        text += f", then {plural(joint['steps'], 'joint step')} over {plural(joint['configurations'], 'configuration')}"
        text += "" if joint["made"] else " made before"
        text += f", of which {joint['stays']:,} are better as they began and stay so" if "stays" in joint else ""
    yield finished(outcome, f"{text} in {duration(made['seconds'])}; curves in {made['stats']}")
    if own := (joint or {}).get("own"):
        yield (
            f"{own['what']} of each one's own: {size(own['bytes'])} for {plural(own['models'], 'model')}, beside "
            f"{size(own['model_bytes'])} that they share"
        )


def tuned_model(outcome: Outcome) -> Shown:
    """What `finetune --level model` made."""
    made = outcome.summary
    yield finished(
        outcome,
        f"{plural(made['steps'], 'step')} in {duration(made['seconds'])}, validation loss "
        f"{number(made['first_loss'])} to {number(made['final_loss'])}; curve in {made['stats']}",
    )
    if part := made.get("learnt"):
        took = 1000 * made["seconds"] / max(1, made["steps"])
        yield (
            f"{part['train']}: {part['parameters']:,} of {part['of']:,} parameters learnt, "
            f"{size(part['optimizer_bytes'])} in the optimiser, {took:.0f} ms a step"
        )
    if made["steps"] and made.get("best_step") == 0:
        yield "no step lowered the validation loss, so the start is kept; try a lower --learning-rate"


def built(outcome: Outcome) -> Shown:
    """What `build-model` composed."""
    made = outcome.summary
    text = f"configuration {made['configuration']} from {made['from']}, sparsity {percent(made['sparsity'])}"
    text += f", {size(made['disk'])} beside the library's {size(made['library'])}" if "disk" in made else ""
    small = made.get("shrunk")
    yield finished(outcome, f"{text}; {shrunk_line(small)}" if small else text)
    yield from _no_targets(made)


def shrunk_line(made: dict[str, Any]) -> str:
    """What shrinking left of a whole model, and how that was verified."""
    parameters, took, macs = made["parameters"], made["bytes"], made["macs"]
    verified = made["verification"]
    tokens = f", {plural(verified['generated'], 'generated token')} equal" if verified["generated"] else ""
    return (
        f"{parameters['before']:,} to {parameters['after']:,} parameters, {size(took['before'])} to "
        f"{size(took['after'])}, {percent(macs['after'] / macs['before'])} of the MACs; verified: logits differ by at "
        f"most {verified['difference']:.1g}{tokens}"
    )


def plotted(outcome: Outcome) -> Shown:
    """What `plot` drew."""
    yield finished(outcome, plural(len(outcome.summary["stats"]), "run"))


def results(outcome: Outcome) -> Shown:
    """What `evaluate` measured."""
    rows: list[dict[str, Any]] = outcome.summary["results"]
    metrics = list(dict.fromkeys(name for row in rows for name in row["metrics"]))
    first = rows[0] if rows else {}
    questions = first.get("details", {}).get("questions")
    counted = plural(questions, "question") if questions else plural(first.get("examples", 0), "example")
    title = f"{first.get('split', 'test')} ({counted})"
    heads = [name.replace("_", "\n") for name in metrics]
    shown = Sheet(title, ["model"], ["loss", *heads, "sparsity", "memory"])
    for row in rows:
        shown.add_row(
            str(row["model"]),
            number(row["loss"]),
            *(number(row["metrics"].get(name), metric_of(name).decimals) for name in metrics),
            percent(row["sparsity"]),
            size(row.get("memory_bytes")),
        )
    yield shown
    yield from dict.fromkeys(line for row in rows for line in _no_targets(row))
    for row in rows:
        if tokens := row.get("details", {}).get("tokens"):
            yield f"{row['model']}: {plural(tokens, 'token')} in {duration(row['details']['seconds'])}"
    yield from dict.fromkeys(line for row in rows for line in _signatures(row.get("details", {})))
    yield finished(outcome, plural(len(rows), "result"))


def plan(steps: Sequence[dict[str, Any]], folder: Path) -> Shown:
    """What `run --dry-run` would do."""
    shown = Sheet(f"Plan for {folder}", ["step", "does", "done"], [])
    for step in steps:
        shown.add_row(step["step"], step["does"], "yes" if step["done"] else NONE)
    yield shown


def shrunk_models(outcome: Outcome) -> Shown:
    """What a run's models are once they are shrunk, beside the base model; nothing where they were not."""
    rows: list[dict[str, Any]] = outcome.summary.get("shrunk", [])
    if not rows:
        return
    metrics = list(rows[0]["metrics"])
    cells = [f"{cell['part']}\nbatch {cell['batch_size']}" for cell in rows[0]["faster"]]
    labels = [metric_of(name).label for name in metrics]
    sparse = ["not\nzero"] * ("not_zero" in rows[0])
    sheet = Sheet("Small models", ["model"], ["million\nweights", *sparse, "MB", *labels, "loss", *cells, "MACs"])
    for row in rows:
        macs = row["faster"][-1]["macs"]
        sheet.add_row(
            Path(row["model"]).name,
            number(row["parameters"] / 1e6, 1),
            *(number(row["not_zero"] / 1e6, 1) for _ in sparse),
            number(row["bytes"] / 1e6, 1),
            *(number(row["metrics"].get(name), metric_of(name).decimals) for name in metrics),
            number(row["loss"]),
            *(f"{cell['value']:.2f}x{'?' * cell['noisy']}" for cell in row["faster"]),
            f"1/{macs:.2f}" if macs else NONE,
        )
    yield sheet
    yield "times as fast as the base model, measured in turn; ?: too noisy to say"
    widths = [round(row["bytes"] / row["parameters"]) for row in rows]
    if widths[0] != widths[-1]:
        yield f"the base model is stored in {widths[0]} bytes a weight, the small ones in {widths[-1]}"


def each(parts: Iterable[Shown]) -> Shown:
    """The lines of several results, one after the other; what several say in the same words once, at the end."""
    shown = [line for part in parts for line in part]
    last = {line: i for i, line in enumerate(shown) if isinstance(line, str)}
    yield from (line for i, line in enumerate(shown) if not isinstance(line, str) or last[line] == i)


def _levels(summary: dict[str, Any]) -> Shown:
    """Sharing per level, and the sparsity of each configuration."""
    tuned = set(summary.get("block_levels", ()))
    caption = "saved: part of the work that sharing spares" + ("; * tuned" if tuned else "")
    levels = Sheet("Sharing", ["level"], ["blocks", "uses", "saved"], caption)
    for row in summary["levels"]:
        name = f"{row['level']} *" if row["level"] in tuned else row["level"]
        levels.add_row(name, f"{row['blocks']:,}", f"{row['uses']:,}", percent(row["saved"]))
    yield levels
    sparsity = Sheet("Configurations", ["configuration"], ["sparsity"])
    for i, fraction in enumerate(summary["sparsity"]):
        sparsity.add_row(str(i), percent(fraction))
    yield sparsity
    yield from _no_targets(summary)


def _no_targets(summary: dict[str, Any]) -> Iterator[str]:
    """What a sparsity of the targets says nothing of."""
    if text := said(summary.get("no_targets")):
        yield text


def _rates(rates: Any) -> str:
    values = rates.values() if isinstance(rates, dict) else rates
    return " ".join(f"{rate:g}" for rate in dict.fromkeys(values)) or "0"


def _signatures(details: dict[str, Any]) -> Iterator[str]:
    """How metrics were computed, as sacrebleu says it."""
    for name, value in details.items():
        if "signature" in name:
            yield f"{name.replace('_', ' ')}: {value}"
        if name == "f1_per_label":
            yield f"F1 of each label: {', '.join(f'{label} {number(one)}' for label, one in value.items())}"
