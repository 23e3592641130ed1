"""What the parser could not use, in one plain line: the place, what was got, what is allowed."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Literal, get_args, get_origin

from cyclopts import CoercionError, CycloptsError, MissingArgumentError, RepeatArgumentError, UnknownOptionError
from cyclopts.exceptions import ConsumeMultipleError, UnknownCommandError, UnusedCliTokensError

from composer.errors import did_you_mean

KINDS: dict[Any, str] = {float: "a number", bool: "no value", int: "a whole number"}


def parse_problem(bad: CycloptsError, command: str | None, commands: Collection[str]) -> str:
    """One line for a command line that cannot be read; ``command`` is the one that was called."""
    see = f"(see `compose {command} --help`)" if command in commands else "(see `compose --help`)"
    if isinstance(bad, UnknownCommandError) and bad.unused_tokens:
        word = bad.unused_tokens[0]
        return f"unknown command {word!r}{did_you_mean(word, commands)} {see}"
    if isinstance(bad, UnusedCliTokensError) and bad.unused_tokens:
        return f"unexpected argument {bad.unused_tokens[0]!r} {see}"
    if isinstance(bad, UnknownOptionError):
        option = bad.token.keyword or bad.token.value
        if option in ("-m", "--model") and any("MODEL" in a.names for a in bad.argument_collection):
            return f"unknown option {option!r}: name the model without it, as `compose {command} MODEL` {see}"
        known = (name for argument in bad.argument_collection if argument.parse for name in argument.names)
        return f"unknown option {option!r}{did_you_mean(option, known)} {see}"
    if type(bad) in (MissingArgumentError, ConsumeMultipleError):
        choices = bad.argument.get_choices() if bad.argument else None
        return f"{_place(bad)}: nothing given{_allowed(choices)} {see}"
    if isinstance(bad, RepeatArgumentError):
        return f"{_place(bad)}: given more than once; allowed: once"
    if isinstance(bad, CoercionError) and (bad.token or bad.msg):
        return f"{_place(bad)}: {_bad_value(bad, bad.token.value if bad.token else '')}"
    text = str(bad)
    return text[:1].lower() + text[1:]


def _place(bad: Any) -> str:
    """The option as it was written, or its name."""
    token = getattr(bad, "token", None)
    written = token.keyword if token else getattr(bad, "keyword", None)
    return str(written or (bad.argument.name if bad.argument else "argument"))


def _bad_value(bad: CoercionError, value: str) -> str:
    if bad.msg is not None:
        return str(bad.msg)
    if get_origin(bad.target_type) is Literal:
        choices = [str(choice) for choice in get_args(bad.target_type)]
        return f"got {value!r}{_allowed(choices)}{did_you_mean(value, choices)}"
    return f"got {value!r}{_allowed([KINDS.get(bad.target_type, 'another kind of value')])}"


def _allowed(choices: Iterable[str] | None) -> str:
    return f"; allowed: {', '.join(choices)}" if choices else ""
