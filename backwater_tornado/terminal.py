"""What the command says, and how it ends: exit codes, errors in one line, listings for people and for programs.

Rule: results go to standard output and everything else to standard error, so that a script may read either. Colours and
tables only where a person looks: a pipe gets plain lines, `--json` gets one JSON document.
"""

from __future__ import annotations

import json
import pprint
import shutil
import sys
from collections.abc import Sequence
from typing import Any

import click

from .erlang import format_term
from .errors import (
    BackwaterError,
    DeadlineExceeded,
    InvalidArguments,
    OutcomeUnknown,
    Refused,
    RemoteError,
    ResponseUnsigned,
    UnknownFunction,
    UnknownModule,
    Unreachable,
    Unserializable,
    Unverified,
)
from .exposure import Function
from .findings import Finding, Verdict
from .protocol.codec import JSON

OK, RAISED, USAGE, UNREACHABLE, REFUSED, NO_ANSWER, UNVERIFIED, INTERRUPTED = 0, 1, 2, 3, 4, 5, 6, 130

EXIT_CODES = """\b
Exit codes:
  0    it worked
  1    the function or the task raised; doctor: a check failed; serve, broker, worker: what ran was cut
  2    wrong usage or configuration
  3    the server could not be reached, nothing ran
  4    the server refused the call, nothing ran
  5    no answer in time: the function may have run
  6    an answer came that could not be verified
  130  interrupted
"""

#: The exit code of an error: that of the first class that fits.
_CODES: Sequence[tuple[type[BaseException], int]] = (
    (Unreachable, UNREACHABLE),
    (OutcomeUnknown, NO_ANSWER),
    (DeadlineExceeded, NO_ANSWER),
    (Unverified, UNVERIFIED),
    (Refused, REFUSED),
    (ValueError, USAGE),  # ConfigurationError
    (Unserializable, USAGE),
)

#: What to do, for errors that do not say it themselves.
_ADVICE: Sequence[tuple[type[BaseException], str]] = (
    (Unreachable, "see `backwater doctor URL`"),
    (DeadlineExceeded, "give it more time with --timeout"),
    (ResponseUnsigned, "is --secret-file that of this server? see `backwater doctor URL`"),
    (Unverified, "see `backwater doctor URL`"),
    (UnknownModule, "`backwater modules MODULE` lists what a module exposes"),
    (UnknownFunction, "`backwater modules MODULE` lists what a module exposes"),
    (InvalidArguments, "an ARG is JSON where it can be, NAME=VALUE for a keyword"),
)


def exit_code(error: BaseException) -> int:
    """The exit code for an error."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), RAISED)


def one_line(text: str) -> str:
    """A text without line breaks."""
    return " ".join(text.split())


def complain(message: str, *, code: str = "usage", as_json: bool = False, **more: Any) -> None:
    """Say in one line what went wrong."""
    if as_json:
        click.echo(json.dumps({"error": {"code": code, "message": message, **more}}, ensure_ascii=False), err=True)
    else:
        click.echo(f"backwater: {one_line(message)}", err=True)


def complain_of(error: BackwaterError, *, as_json: bool = False) -> int:
    """Say what went wrong and what to do; gives the exit code."""
    code: str = getattr(error, "code", "configuration")
    if isinstance(error, RemoteError):
        if error.traceback and not as_json:
            click.echo(error.traceback.rstrip("\n"), err=True)
        told = {"type": error.type, "traceback": error.traceback}
        complain(f"the remote function raised {error}", code=code, as_json=as_json, **told)
        return RAISED
    if isinstance(error, Unserializable):
        code = "unserializable"
    advice = next((advice for kind, advice in _ADVICE if isinstance(error, kind)), "")
    complain(f"{error}; {advice}" if advice else str(error), code=code, as_json=as_json)
    return exit_code(error)


def show_value(value: Any, *, as_json: bool) -> None:
    """Print a result; raises `Unserializable` when it has no form in JSON."""
    if as_json:
        click.echo(JSON.encode(value))
    else:
        click.echo(pprint.pformat(value, width=shutil.get_terminal_size().columns, sort_dicts=False))


def show_term(value: Any, *, none: str, as_json: bool) -> None:
    """Print a result as Erlang writes it."""
    click.echo(JSON.encode(_plain(value, none)) if as_json else format_term(value, none=none))


def _plain(value: Any, none: str) -> Any:
    """A term as JSON has it: binaries and atoms as texts, what has no form there as Erlang writes it."""
    match value:
        case None | bool() | int() | float():
            return value
        case str():
            return str(value)
        case bytes():
            try:
                return value.decode()
            except UnicodeDecodeError:
                return format_term(value, none=none)
        case list() | tuple():
            return [_plain(each, none) for each in value]
        case dict():
            return {_plain_key(name, none): _plain(each, none) for name, each in value.items()}
    return format_term(value, none=none)


def _plain_key(name: Any, none: str) -> str:
    plain = _plain(name, none)
    return plain if isinstance(plain, str) else format_term(name, none=none)


# The doctor ----------------------------------------------------------------------------------------------------------

_LABELS = {Verdict.OK: "ok", Verdict.WARN: "warn", Verdict.FAIL: "FAIL"}
_STYLES = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "bold red"}


def show_finding(finding: Finding) -> None:
    """Print one line of the doctor's, and what to do below it."""
    label = f"{_LABELS[finding.verdict]:<5}"
    rest = f"{finding.check:<10} {one_line(finding.message)}"
    advice = f"      -> {one_line(finding.advice)}" if finding.advice else ""
    if not sys.stdout.isatty():
        click.echo(f"{label} {rest}" + (f"\n{advice}" if advice else ""))
        return
    from rich.console import Console  # noqa: PLC0415 - 60 ms that a pipe need not wait for
    from rich.text import Text  # noqa: PLC0415

    console = Console(highlight=False)
    console.print(Text.assemble((label, _STYLES[finding.verdict]), " ", rest), soft_wrap=True)
    if advice:
        console.print(Text(advice, style="dim"), soft_wrap=True)


def show_examination(url: str, findings: Sequence[Finding]) -> None:
    """Print all findings as one JSON document."""
    checks = [
        {"check": each.check, "verdict": each.verdict.value, "message": each.message, "advice": each.advice}
        for each in findings
    ]
    well = all(each.verdict is not Verdict.FAIL for each in findings)
    click.echo(json.dumps({"url": url, "ok": well, "checks": checks}, ensure_ascii=False))


# Exposed functions ---------------------------------------------------------------------------------------------------


def _options_of(function: Function) -> dict[str, Any]:
    options = function.options
    own = {name: getattr(options, name) for name in ("idempotent", "max_concurrency", "time_limit", "queue")}
    return {name: value for name, value in own.items() if value not in (None, False)} | dict(options.task)


def show_functions(functions: Sequence[Function], *, as_json: bool) -> None:
    """Print what is exposed."""
    if as_json:
        click.echo(json.dumps([_described(each) for each in functions], ensure_ascii=False, default=repr))
        return
    rows = [_row(each) for each in functions]
    if not sys.stdout.isatty():
        for name, signature, notes, summary in rows:
            click.echo("  ".join(each for each in (f"{name}{signature}", notes, summary) if each))
        return
    from rich.console import Console  # noqa: PLC0415 - as above
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table("function", "options", "what it does", box=None, padding=(0, 2, 0, 0))
    for name, signature, notes, summary in rows:
        table.add_row(Text.assemble((name, "bold"), signature), Text(notes, "dim"), Text(summary))
    Console(highlight=False).print(table)


def _row(function: Function) -> tuple[str, str, str, str]:
    notes = ", ".join(name if value is True else f"{name}={value}" for name, value in _options_of(function).items())
    begin = "async " if function.is_async else ""
    signature = function.signature.removeprefix(function.name)
    return f"{begin}{function.module}.{function.name}", signature, f"[{notes}]" if notes else "", function.summary


def _described(function: Function) -> dict[str, Any]:
    return {
        "module": function.module,
        "name": function.name,
        "signature": function.signature,
        "async": function.is_async,
        "summary": function.summary,
        "options": _options_of(function),
    }
