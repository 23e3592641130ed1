"""``python -m legacy_seq2seq train|translate|evaluate``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

from . import data, pipe
from .config import Config
from .decoding import translate
from .evaluation import evaluate
from .model import Seq2Seq
from .training import Epoch, Settings, train
from .vocabulary import Vocabularies

DEFAULTS = argparse.ArgumentDefaultsHelpFormatter
DATA = Path(__file__).parents[2] / "shared" / "data" / "multi30k"
SIZES = ("d_model", "heads", "encoder_layers", "decoder_layers", "d_ff", "dropout", "norm_first")


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0, or 2 after one line that says what is wrong."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (OSError, ValueError) as error:
        print(f"legacy-seq2seq: {error}", file=sys.stderr)
        return 2
    return 0


def _train(options: argparse.Namespace) -> None:
    source, target = ("en", "de") if options.reverse else ("de", "en")
    pairs = data.read(options.data, "train", source, target)[: options.examples]
    held_out = data.read(options.data, "validation", source, target)[: options.examples]
    words = data.vocabularies(pairs, options.min_frequency)
    sizes = {name: getattr(options, name) for name in SIZES}
    config = Config(len(words.source), len(words.target), source_language=source, target_language=target, **sizes)
    settings = Settings(**{field.name: getattr(options, field.name) for field in fields(Settings)})
    print(f"{len(pairs)} pairs {source}-{target}; {len(words.source)} and {len(words.target)} words")
    print(f"words by {'torchtext' if pipe.has_torchtext() else 'the built-in builder'}; device {options.device}")
    training, validation = (data.encode(some, words, config.max_length) for some in (pairs, held_out))
    train(
        config, words, training, validation, options.folder, settings,
        device=options.device, on_step=_Steps(), on_epoch=_say_epoch,
    )  # fmt: skip
    print(f"best model in {options.folder}")


class _Steps:
    """One line in place while training, nothing where the output is no terminal."""

    def __init__(self) -> None:
        self.start, self.first = time.perf_counter(), -1

    def __call__(self, step: int, steps: int, loss: float) -> None:
        if not sys.stdout.isatty():
            return
        if self.first < 0:
            self.first, self.start = step, time.perf_counter()
        rate = (time.perf_counter() - self.start) / max(1, step - self.first)
        print(f"\rstep {step} of {steps}, loss {loss:.3f}, {rate * (steps - step):.0f} s left  ", end="", flush=True)


def _say_epoch(epoch: Epoch) -> None:
    mark = ", best" if epoch.best else ""
    print(
        f"\repoch {epoch.epoch}: training loss {epoch.train_loss:.3f}, validation loss {epoch.validation_loss:.3f}"
        f"{mark}, {epoch.seconds:.0f} s   ",
        flush=True,
    )


def _load(folder: Path, device: str) -> tuple[Seq2Seq, Vocabularies]:
    return Seq2Seq.load(folder).to(device), Vocabularies.load(folder)


def _translate(options: argparse.Namespace) -> None:
    model, words = _load(options.folder, options.device)
    texts = options.text or [line.rstrip("\n") for line in sys.stdin]
    for answer in translate(model, words, texts, options.beams, options.length_penalty):
        print(answer)


def _evaluate(options: argparse.Namespace) -> None:
    model, words = _load(options.folder, options.device)
    config = model.config
    pairs = data.read(options.data, options.split, config.source_language, config.target_language)
    found = evaluate(
        model, words, pairs[: options.examples], beams=options.beams, length_penalty=options.length_penalty
    )
    print(json.dumps(found, indent=2))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m legacy_seq2seq", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    training = _command(commands, "train", _train, "train a model into a folder, or go on where it stopped")
    training.add_argument("--reverse", action="store_true", help="English to German")
    training.add_argument("--min-frequency", type=int, default=3, help="rarer words are unknown")
    _flags_of(Config, SIZES, training)
    _flags_of(Settings, [field.name for field in fields(Settings)], training)
    search = [_command(commands, "translate", _translate, "translate texts, or the lines of standard input")]
    search[0].add_argument("text", nargs="*")
    search.append(_command(commands, "evaluate", _evaluate, "loss and BLEU on a split, as JSON"))
    search[1].add_argument("--split", choices=tuple(data.SPLITS), default="test")
    for command in search:
        command.add_argument("--beams", type=int, default=5, help="1 is greedy search")
        command.add_argument("--length-penalty", type=float, default=1.0)
    for command in (training, search[1]):
        command.add_argument("--data", type=Path, default=DATA, help="folder with train.de, train.en, val.de, ...")
        command.add_argument("--examples", type=int, help="only the first N pairs")
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], None],
    what: str,
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=what, description=what, formatter_class=DEFAULTS)
    command.add_argument("folder", type=Path, help="the model's folder")
    command.add_argument("--device", default="cpu", help="of torch, such as cuda")
    command.set_defaults(run=run)
    return command


def _flags_of(cls: type, names: Sequence[str], command: argparse.ArgumentParser) -> None:
    """One flag per field of a dataclass, with its default."""
    for field in fields(cls):
        if field.name not in names:
            continue
        flag = "--" + field.name.replace("_", "-")
        if isinstance(field.default, bool):
            command.add_argument(flag, action=argparse.BooleanOptionalAction, default=field.default, help=" ")
        else:
            command.add_argument(flag, type=type(field.default), default=field.default, help=" ")


if __name__ == "__main__":
    sys.exit(main())
