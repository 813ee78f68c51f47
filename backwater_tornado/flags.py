"""From the words of a command line to values: a flag for each setting, and the arguments of a call.

Rule: no value is checked here that `settings` or the library checks; this only reads.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from .erlang import parse_term
from .errors import InvalidOption
from .settings import COMMANDS, Kind, Setting

F = TypeVar("F", bound=Callable[..., Any])

SETTINGS_HELP = """
Every option may also be given as a variable, BACKWATER_ and its name in capitals (BACKWATER_SECRET_FILE), or in a TOML
file: ./backwater.toml, or the one that --config or BACKWATER_CONFIG names. There an option stands at the top, for all
commands, or in the table of one ([serve]); its paths begin at the file's folder. A flag goes before a variable, and a
variable before the file.
"""


def with_settings(command: str) -> Callable[[F], F]:
    """A flag for each setting of the command, and `--config`."""

    def decorate(function: F) -> F:
        for setting in reversed(list(COMMANDS[command].values())):
            if setting.name != "modules":
                function = _flag(setting)(function)
        return click.option("--config", metavar="FILE", help="The TOML file of settings.")(function)

    return decorate


_METAVARS = {Kind.TEXT: "TEXT", Kind.PATH: "FILE", Kind.WHOLE: "NUMBER", Kind.NUMBER: "NUMBER", Kind.TEXTS: "TEXT"}


def _flag(setting: Setting) -> Callable[[F], F]:
    default = "" if setting.default in (None, (), False) else f"  [default: {str(setting.default).lower()}]"
    if setting.kind is Kind.SWITCH:
        flags = f"{setting.flag}/--no-{setting.flag.removeprefix('--')}"
        return click.option(flags, setting.name, default=None, help=setting.help + default)
    several = setting.kind is Kind.TEXTS
    text = f"{setting.help}{' May be given several times.' if several else ''}{default}"
    return click.option(
        setting.flag, setting.name, metavar=_METAVARS[setting.kind], multiple=several, default=None, help=text
    )


def read_arguments(words: Sequence[str], keywords: Sequence[str]) -> tuple[list[Any], dict[str, Any]]:
    """Positional and keyword arguments: of the bare words, and of those given as `--kw`."""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for word, must in (*((word, False) for word in words), *((word, True) for word in keywords)):
        name, equals, value = word.partition("=")
        if equals and name.isidentifier():
            if name in kwargs:
                raise InvalidOption(f"the keyword argument {name!r} is given twice")
            kwargs[name] = _value(value)
        elif must:
            raise InvalidOption(f"--kw takes NAME=VALUE, not {word!r}")
        else:
            args.append(_checked_value(word))
    return args, kwargs


def read_terms(words: Sequence[str], keywords: Sequence[str], none: str) -> list[Any]:
    """The arguments of an Erlang function: one ARG, the list of them as Erlang writes it."""
    if keywords:
        raise InvalidOption("Erlang's functions have no named arguments")
    if len(words) > 1:
        raise InvalidOption("with the wire erlang the arguments are one ARG, a list of terms: '[1, \"two\"]'")
    try:
        args = parse_term(words[0] if words else "[]", none=none)
    except ValueError as error:
        raise InvalidOption(f"the arguments are no Erlang term: {error}") from error
    if not isinstance(args, list):
        raise InvalidOption(f"the arguments are a list of terms, such as '[1, \"two\"]', not {words[0]}")
    return args


def _checked_value(word: str) -> Any:
    value = _value(word)
    if word.startswith("-") and word != "-" and isinstance(value, str):
        flags = [setting.flag for setting in COMMANDS["call"].values()]
        near = difflib.get_close_matches(word.partition("=")[0], [*flags, "--json", "--kw", "--config"], n=1)
        advice = f"did you mean {near[0]}?" if near else f"as a text it is written '{json.dumps(word)}'"
        raise InvalidOption(f"there is no option {word}; {advice}")
    return value


def _value(word: str) -> Any:
    try:
        return json.loads(word)
    except (ValueError, RecursionError):
        return word
