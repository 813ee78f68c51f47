"""The command `backwater`: reads what it is told, hands it to the library, and says how it ended.

Rule: thin. Settings come from `settings`, words and exit codes from `terminal`; what a command does is in `doctor` and
the client; those that serve are in `serving_commands`.
"""

from __future__ import annotations

import os
import secrets
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar, cast, get_args

import click

from .client import Client
from .doctor import Examination, examine
from .errors import BackwaterError, ConfigurationError, InvalidOption
from .event_commands import events_command
from .findings import Finding, Verdict
from .flags import SETTINGS_HELP, read_arguments, read_terms, with_settings
from .inspect_commands import inspect_group
from .keyfiles import exposed_secret, read_keys
from .loading import load_exposure
from .options import CallOptions, ClientOptions, ErlangTerms, Limits
from .outbox_commands import COMMANDS as OUTBOX_COMMANDS
from .periodic_commands import periodic_group
from .protocol.keys import Algorithm, Key, KeyRing, Scopes, format_key
from .queue_commands import COMMANDS as QUEUE_COMMANDS
from .relay_commands import relay_command
from .serving_commands import broker_command, serve_child, serve_command
from .settings import Settings, load
from .spool_commands import spool_group
from .task_commands import result_command, send_command
from .terminal import (
    EXIT_CODES,
    INTERRUPTED,
    OK,
    RAISED,
    USAGE,
    complain,
    complain_of,
    show_examination,
    show_finding,
    show_functions,
    show_term,
    show_value,
)
from .worker_commands import worker_child, worker_command

F = TypeVar("F", bound=Callable[..., Any])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; gives the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in words
    try:
        code = backwater.main(args=words, prog_name="backwater", standalone_mode=False)
    except BackwaterError as error:
        return complain_of(error, as_json=as_json)
    except click.ClickException as error:
        where = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "backwater"
        complain(f"{error.format_message().rstrip('.')}; see `{where} --help`", as_json=as_json)
        return USAGE
    except (click.Abort, KeyboardInterrupt):
        complain("interrupted", code="interrupted", as_json=as_json)
        return INTERRUPTED
    return code if isinstance(code, int) else OK


#: How the help lists the commands; the rest is for whoever runs a broker.
_SECTIONS = {
    "Calls": ("keygen", "serve", "call", "modules", "doctor"),
    "Tasks": ("broker", "worker", "send", "result", "periodic", "forward", "outbox", "spool", "relay"),
}


class _Sections(click.Group):
    """Lists its commands by what they are for."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        listed = [name for names in _SECTIONS.values() for name in names]
        others = [name for name, each in self.commands.items() if name not in listed and not each.hidden]
        width = formatter.width - 6 - max(map(len, self.commands))
        for title, names in {**_SECTIONS, "Running a broker": others}.items():
            with formatter.section(title):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(width)) for name in names])


@click.group(
    cls=_Sections,
    epilog=EXIT_CODES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    no_args_is_help=False,
)
@click.version_option(package_name="backwater-tornado", message="%(prog)s %(version)s")
def backwater() -> None:
    """Calls and tasks between services over links that are slow, cut out and are not trusted.

    \b
      backwater keygen > site.key
      backwater serve tasks statistics:mean --secret-file site.key --port 8080
      backwater call http://127.0.0.1:8080 tasks add 1 2 --secret-file site.key
      backwater doctor http://127.0.0.1:8080 --secret-file site.key

    \b
      backwater broker --secret-file site.key --port 8080
      backwater worker tasks --broker http://127.0.0.1:8080 --secret-file site.key
      backwater send tasks.add 1 2 --broker http://127.0.0.1:8080 --secret-file site.key --wait
    """  # noqa: D301 - click reads the escape


for command in (
    serve_command,
    broker_command,
    worker_command,
    relay_command,
    serve_child,
    worker_child,
    send_command,
    result_command,
    periodic_group,
    inspect_group,
    events_command,
    spool_group,
    *OUTBOX_COMMANDS,
    *QUEUE_COMMANDS,
):
    backwater.add_command(command)


# keygen --------------------------------------------------------------------------------------------------------------


def _scope(kind: str, text: str) -> Callable[[F], F]:
    return click.option(f"--{kind}", metavar="PATTERN", multiple=True, help=text)


@backwater.command()
@click.option("--id", help="What the wire calls the key; derived from the secret by default.")
@click.option("--algorithm", type=click.Choice(get_args(Algorithm)), default="blake2b-256", show_default=True)
@click.option(
    "--not-before", metavar="TIME", help="When it becomes valid, such as 2026-07-01 or 2026-07-01T12:00:00+02:00."
)
@click.option("--not-after", metavar="TIME", help="The last moment it is valid.")
@_scope("call", "Functions that it may call: `tasks.*`, `math.sqrt`; at a broker also `broker.*`.")
@_scope("publish", "Queues and exchanges that it may send to: `orders`, `reports.*`.")
@_scope("consume", "Queues that it may receive from: a worker's, or whoever looks after them.")
def keygen(algorithm: str, id: str | None, **flags: Any) -> int:
    """Make a key and print it as an entry for a file of keys.

    Each of --call, --publish and --consume bounds what it may do of that kind, and may be given several times; one that
    is not given bounds nothing, and an empty one ('') allows nothing.

    \b
      backwater keygen > site.key               a new file, closed to others
      backwater keygen >> site.key              a newer key, for rotation; then send the server SIGHUP
      backwater keygen --call 'tasks.*' --not-after 2027-01-31
      backwater keygen --id berlin --call 'broker.*' --publish orders --consume 'berlin.*'
    """  # noqa: D301 - click reads the escape
    scopes = {name: tuple(filter(None, flags[name])) for name in ("call", "publish", "consume") if flags[name]}
    key = Key(
        secrets.token_bytes(32),
        id,
        algorithm=cast("Algorithm", algorithm),
        not_before=_moment("--not-before", flags["not_before"]),
        not_after=_moment("--not-after", flags["not_after"]),
        scopes=Scopes(**scopes),
    )
    _close_new_file()
    click.echo(format_key(key), nl=False)
    if sys.stdout.isatty():
        click.echo(
            "Keep it secret: who has it may call. `backwater keygen > site.key` keeps it off the screen.", err=True
        )
    return OK


def _moment(flag: str, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidOption(f"{flag} is a time such as 2026-07-01 or 2026-07-01T12:00:00Z, not {text!r}") from None
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


def _close_new_file() -> None:
    """Behind `> site.key` there is a new file that others may read: they may not any more."""
    try:
        descriptor = sys.stdout.fileno()
        found = os.fstat(descriptor)
        if stat.S_ISREG(found.st_mode) and found.st_size == 0:
            os.fchmod(descriptor, 0o600)
    except (OSError, ValueError):
        return  # no file, or not ours: the doctor tells


# call ----------------------------------------------------------------------------------------------------------------


# An ARG may begin with a minus: what is no option of ours goes through to `read_arguments`.
@backwater.command(epilog=SETTINGS_HELP, context_settings={"ignore_unknown_options": True})
@click.argument("url")
@click.argument("module")
@click.argument("function")
@click.argument("args", nargs=-1, metavar="[ARG]...")
@click.option(
    "--kw", "keywords", metavar="NAME=VALUE", multiple=True, help="A keyword argument; NAME=VALUE alone is one, too."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result, or the error, as JSON.")
@with_settings("call")
def call(url: str, module: str, function: str, config: str | None, **flags: Any) -> int:
    """Call a function and print its result.

    An ARG is JSON if it can be read as JSON, else a text; NAME=VALUE is a keyword argument. A text that looks like
    something else is written as JSON: '"12"', '"a=b"'.

    \b
      backwater call http://127.0.0.1:8080 tasks add 1 2 --secret-file site.key
      backwater call https://dc1.example:8443 statistics quantiles '[1, 2, 3]' n=4 --json
      backwater call http://127.0.0.1:8080 tasks report day=2026-07-01 --timeout 60 --idempotent

    To a node of Erlang's backwater the one ARG is the list of arguments, as Erlang writes it: atoms as ok or
    'Some atom', charlists "text", binaries <<"text">> or <<1,2>>, tuples {a,1}, maps #{key => 1}. So is the result.

    \b
      backwater call --wire erlang http://node.example:8080 string to_upper '["hello"]' --secret-file site.key
      backwater call erlang+https://node.example:8443 lists keyfind '[b, 1, [{a,1}, {b,2}]]'
    """  # noqa: D301 - click reads the escape
    words, keywords, as_json = flags.pop("args"), flags.pop("keywords"), flags.pop("as_json")
    settings = load("call", flags, config)
    own = {name: value for name, value in settings.given(CallOptions).items() if name != "timeout"}
    options = settings.given(ClientOptions, Limits)
    erlang, none = _is_erlang(url, settings), settings["erlang_none"]
    if erlang:
        options["terms"] = ErlangTerms(none=none)
    args, kwargs = (read_terms(words, keywords, none), {}) if erlang else read_arguments(words, keywords)
    with Client(url, read_keys(settings["secret_file"]), **options) as client:
        value = client.with_options(**own).call(module, function, *args, **kwargs)
    if erlang:
        show_term(value, none=none, as_json=as_json)
    else:
        show_value(value, as_json=as_json)
    return OK


def _is_erlang(url: str, settings: Settings) -> bool:
    """Whether it is a node of Erlang's backwater that is spoken to."""
    return settings["wire"] == "erlang" or url.startswith("erlang+")


# doctor --------------------------------------------------------------------------------------------------------------


@backwater.command(epilog=SETTINGS_HELP)
@click.argument("url")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@with_settings("doctor")
def doctor(url: str, as_json: bool, config: str | None, **flags: Any) -> int:
    """Look at the way to a server hop by hop, and say what to do.

    Settings, DNS, proxy, TCP, TLS, /healthz, key and signature in both directions, clock, latency, a large body.
    Nothing runs on the server: the calls are for a module that no server has.

    \b
      backwater doctor https://dc1.example:8443 --secret-file site.key
      backwater doctor https://dc1.example:8443 --ca-file ca.pem --json
    """  # noqa: D301 - click reads the escape
    settings = load("doctor", flags, config)
    if _is_erlang(url, settings):
        raise InvalidOption("the doctor knows version 2 only; for a node of Erlang's backwater try `backwater call`")
    found: list[Finding] = []
    for finding in _findings(url, settings):
        found.append(finding)
        if not as_json:
            show_finding(finding)
    if as_json:
        show_examination(url, found)
    return RAISED if any(each.verdict is Verdict.FAIL for each in found) else OK


def _findings(url: str, settings: Settings) -> Iterator[Finding]:
    keys: KeyRing | None = None
    notes = list(settings.notes)
    if settings["secret_file"]:
        try:
            keys = read_keys(settings["secret_file"])
        except ConfigurationError as error:
            yield Finding("settings", Verdict.FAIL, str(error), "`backwater keygen > site.key` makes a file of keys")
            return
        notes += filter(None, [exposed_secret(settings["secret_file"])])
    for note in notes:
        yield Finding("settings", Verdict.WARN, note)
    if not notes:
        source = f"from {settings.config}, " if settings.config else "from "
        yield Finding("settings", Verdict.OK, f"{source}flags and the environment")
    options = settings.given(ClientOptions, Limits)
    yield from examine(Examination(url, keys, options, settings["calls"], settings["body_size"]))


# modules -------------------------------------------------------------------------------------------------------------


@backwater.command("modules")
@click.argument("modules", nargs=-1, metavar="MODULE...")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
@with_settings("modules")
def modules_command(modules: tuple[str, ...], as_json: bool, config: str | None) -> int:
    """List what `serve` would expose.

    Of each function its signature, its options, and what it does.

    \b
      backwater modules tasks statistics:mean,median
      backwater modules examples/tasks.py --json
    """  # noqa: D301 - click reads the escape
    settings = load("modules", {"modules": modules}, config)
    show_functions(load_exposure(settings["modules"]).functions(), as_json=as_json)
    return OK
