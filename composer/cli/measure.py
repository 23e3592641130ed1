"""Commands that look at models: evaluate, predict, plot and compare."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from . import tables
from .compared import comparison
from .options import COMMON, DATA, MACHINE, Common, Data, Machine
from .parameters import Criterion, DeadColumns, Force, Model, Output, Sweep
from .session import session
from .speed import timed
from .suites import SUITES, Suites, evaluated_suites
from .training_options import BLOCK_TRAINING, COMPARING, TRAINING, BlockTraining, Comparing, Training


def evaluate(
    models: Annotated[list[str], Parameter("MODEL", help="Model folders, hub ids, or 'demo'.")],
    /,
    *,
    output: Output = None,
    speed: Annotated[bool, Parameter(help="Also time the models, as compose speed does.")] = False,
    suites: Suites = SUITES,
    data: Data = DATA,
    machine: Machine = MACHINE,
    force: Force = False,
    common: Common = COMMON,
) -> None:
    """Measure models on test data, or on suites of benchmarks.

    Translation: BLEU with its signature, and chrF. Classification: accuracy
    and F1. Language models, masked or not: perplexity. Question answering:
    exact match and F1 as SQuAD v2 defines them, in all and by whether there
    is an answer. All: loss, sparsity, seconds per example and memory. Results
    are kept in results/.

    With --suite or --tasks: benchmarks, each with its own metric, standard error
    and chance level; every model is compared with the first one on the same
    examples. Answers, figures and evaluation.html are kept in evaluation/.

    Example

        compose evaluate models/base models/2-finetuned --data multi30k
        compose evaluate models/2-finetuned --data multi30k --test-size 200 --json
        compose evaluate models/base models/2 --suite language --suite-data data
    """
    from composer.steps.evaluate import evaluate

    with session(common, data, machine) as (recipe, console):
        if suites.asked:
            from composer.steps.evaluate_suites import evaluate_suites

            chosen = suites.arguments(recipe.source_lang, recipe.target_lang)
            more: dict[str, Any] = {"output": output, "force": force, "progress": console.progress}
            outcome = evaluate_suites(recipe, models, **chosen, **more)
            console.show(outcome, evaluated_suites(outcome))
            return
        outcome = evaluate(recipe, models, output=output, force=force, speed=speed, progress=console.progress)
        console.show(outcome, [*tables.results(outcome), *(timed(outcome.summary["speed"]) if speed else ())])


def predict(
    model: Annotated[str, Parameter("MODEL", help="Model folder, hub id, or 'demo'.")],
    texts: Annotated[list[str] | None, Parameter("TEXT", help="Texts [lines of standard input].")] = None,
    /,
    *,
    data: Data = DATA,
    machine: Machine = MACHINE,
    common: Common = COMMON,
) -> None:
    """Try a model on a text, or on lines of standard input.

    Prints one line per text: the translation, the label (for a pair, the two
    texts with a tab between them), how a language model goes on, the words
    for each mask, or the answer to a question with a tab and its context.

    Example

        compose predict models/2-finetuned "A man is riding a bicycle."
        compose predict models/2-finetuned < sentences.txt
    """
    from composer.steps.evaluate import predict

    with session(common, data, machine) as (recipe, console):
        asked = texts or _standard_input()
        answers = predict(recipe, model, asked, progress=console.progress)
        pairs = [{"text": text, "prediction": answer} for text, answer in zip(asked, answers, strict=True)]
        console.lines({"model": model, "predictions": pairs}, answers)


def plot(
    stats: Annotated[list[Path] | None, Parameter("STATS", help="Files of training runs [stats/*.csv].")] = None,
    /,
    *,
    output: Annotated[Path | None, Parameter(["-o", "--output"], help="Picture, .png or .svg [loss.png].")] = None,
    common: Common = COMMON,
) -> None:
    """Draw the loss curves of any number of runs.

    Training and validation loss, against steps and against seconds.

    Example

        compose plot
        compose plot stats/model-2.csv stats/baseline-2.csv -o loss.svg
    """
    from composer.errors import InputError
    from composer.steps.outcome import Outcome

    with session(common) as (recipe, console):
        folder = recipe.folder / "stats"
        curves = stats or sorted(folder.glob("*.csv"))
        if not curves:
            raise InputError(f"{folder}: no *.csv in it; `compose finetune` writes them")
        picture = output or recipe.folder / "loss.png"
        from composer.report import plots

        plots.plot(curves, picture)
        outcome = Outcome(picture, True, {"stats": [str(path) for path in curves]})
        console.show(outcome, tables.plotted(outcome))


def compare(
    *,
    no_train: Annotated[bool, Parameter("--no-train", help="Only tabulate what is there.")] = False,
    model: Model = None,
    criterion: Criterion = None,
    dead_columns: DeadColumns = None,
    sweep: Sweep = None,
    training: Training = TRAINING,
    blocks: BlockTraining = BLOCK_TRAINING,
    comparing: Comparing = COMPARING,
    data: Data = DATA,
    machine: Machine = MACHINE,
    force: Force = False,
    common: Common = COMMON,
) -> None:
    """Compare composed models with baselines; write the report.

    For each configuration: loss before training, loss and metric after the
    same number of steps, and the share of the baseline's steps that the
    composed model needs. Then the ledger of all work, and the number of
    configurations from which composing pays. Trains what the table lacks, and
    resumes.

    Example

        compose compare --data multi30k --steps 400
        compose compare --data multi30k --learning-rates 0.0003 0.001 --budgets 0.25 0.5 1
        compose compare --no-train --json
    """
    from composer.steps.compare import compare

    parts = (training, blocks, comparing, data, machine)
    fields: dict[str, Any] = {"model": model, "criterion": criterion, "dead_columns": dead_columns, "sweep": sweep}
    with session(common, *parts, **fields) as (recipe, console):
        outcome = compare(recipe, train=not no_train, force=force, progress=console.progress)
        console.show(outcome, comparison(outcome))


def _standard_input() -> list[str]:
    """The lines of standard input."""
    from composer.errors import InputError

    try:
        lines = [line.rstrip("\r\n") for line in sys.stdin]
    except UnicodeDecodeError as bad:
        raise InputError(f"standard input: byte {bad.start} is not UTF-8; the text must be UTF-8") from None
    if not lines:
        raise InputError("TEXT: nothing given, and standard input is empty; allowed: one or more texts")
    return lines
