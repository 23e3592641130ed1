"""The command that takes out of a model what is removed from it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from cyclopts import Parameter

from .format import percent
from .options import TALK, Talk
from .parameters import Force, Output, Words
from .session import talking
from .tables import Sheet, Shown, finished, shrunk_line

Form = Annotated[
    Literal["auto", "plain", "padded", "exact"],
    Parameter(help="plain if the architecture can state it, else exact; or one of them [auto]."),
]

Targets = Annotated[
    Words | None,
    Parameter(metavar="GLOB...", help="Of a model of no known family: projections whose rows go, then their reader."),
]


def shrink(
    model: Annotated[str, Parameter("MODEL", help="Folder of a masked model.")],
    /,
    *,
    output: Output = None,
    form: Form = "auto",
    targets: Targets = None,
    force: Force = False,
    talk: Talk = TALK,
) -> None:
    """Take out of a model what is removed from it.

    Heads, neurons, sublayers and layers that are wholly zero go; the answers
    stay the same, which is verified in a fresh process. The form plain is
    loaded by plain transformers; exact gives every layer its own shape and
    is loaded by composer.load or with trust_remote_code=True; padded is plain
    with zero units up to the largest layer.

    Example

        compose shrink models/2
        compose shrink models/2 -o small --form plain --json
    """
    from composer.steps.shrink import shrink

    with talking(talk) as console:
        outcome = shrink(model, output, form, targets=targets or (), force=force, progress=console.progress)
        console.show(outcome, shrunk(outcome.summary, finished(outcome, shrunk_line(outcome.summary))))


def shrunk(made: dict[str, Any], line: str) -> Shown:
    """What `shrink` took out, layer by layer."""
    sheet = Sheet("Kept", ["path"], ["units", "zeros\ninside", "parameters\nbefore", "after", "MACs\nleft"])
    for row in made["rows"]:
        units, parameters, macs = row["units"], row["parameters"], row["macs"]
        name = "heads" if row["kind"] == "attention" else "neurons"
        sheet.add_row(
            row["path"],
            f"{units['after']:,} of {units['before']:,} {name}",
            f"{row['zeros']:,}",
            f"{parameters['before']:,}",
            f"{parameters['after']:,}",
            percent(macs["after"] / macs["before"]),
        )
    yield sheet
    if made["dropped"]:
        yield f"gone whole: {', '.join(made['dropped'])}"
    yield f"{made['form']}: {made['why']}"
    yield line
