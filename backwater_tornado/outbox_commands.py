"""The commands for an outbox: forwarding it, and looking at what lies there.

Rule: thin, as `cli`; forwarding is an application's (`app`), the file `outbox.store`'s, how it looks `tables`.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import click

from .app import App
from .errors import DeadlineExceeded, InvalidOption
from .flags import SETTINGS_HELP, with_settings
from .logs import start_logging
from .outbox.store import OutboxStore
from .outbox.stores import SCHEMAS, is_url, open_outbox
from .settings import Settings, load
from .tables import count_of, kept_row, outbox_row, parcel_row, show_letter, show_rows
from .task_commands import connect
from .terminal import NO_ANSWER, OK, RAISED, complain

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_LOOK = 1.0


def _url(settings: Settings) -> str:
    """The outbox that a command is about: a URL, or the path of its file."""
    named = settings["outbox"]
    if not named:
        raise InvalidOption("no outbox was named: give --outbox FILE, BACKWATER_OUTBOX, or outbox in backwater.toml")
    return str(named) if is_url(named) else f"sqlite://{Path(named).absolute().as_uri().removeprefix('file://')}"


def _open(settings: Settings) -> OutboxStore[Any]:
    """Open it; one that is not there is not made."""
    return open_outbox(_url(settings), make=False)


def _connect(settings: Settings) -> App:
    return connect(settings, outbox=_url(settings))


@click.command("forward", epilog=SETTINGS_HELP)
@with_settings("forward")
def forward_command(config: str | None, **flags: Any) -> int:
    """Forward an outbox to a broker until SIGTERM.

    What applications put into it goes on from here.
    One at a time forwards, so this may run beside applications that do it themselves: whoever is first, the others wait
    and take over when it ends.

    \b
      backwater forward --outbox /var/lib/myapp/outbox.db --broker https://broker.example:8443 --secret-file site.key

    \b
    SIGTERM, SIGINT  send what is there, for 5 seconds at most while the link is up, and end
    """  # noqa: D301 - click reads the escape
    settings = load("forward", flags, config)
    start_logging(settings["log_level"], as_json=settings["json_logs"])
    log = logging.getLogger("backwater.outbox")
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    with _connect(settings) as app:
        assert app.spool is not None
        app.spool.start()
        log.info("forwarding %s to %s", app.spool.store.name, settings.broker_url())
        while app.spool.is_forwarding and not stopping.wait(_LOOK):
            pass
    return OK if stopping.is_set() else RAISED


@click.group("outbox")
def outbox_group() -> None:
    """Look into an outbox: what waits, and what was refused.

    \b
      backwater outbox status --outbox /var/lib/myapp/outbox.db
      backwater outbox list --refused
      backwater outbox drop 7f3c…
      backwater outbox flush --for 60
      backwater outbox schema | sqlite3 app.db
    """  # noqa: D301 - click reads the escape


@outbox_group.command("status", epilog=SETTINGS_HELP)
@_as_json
@with_settings("outbox")
def outbox_status(as_json: bool, config: str | None, **flags: Any) -> int:
    """Show how much waits, for how long, how much was refused, and whether anybody forwards.

    \b
      backwater outbox status --outbox /var/lib/myapp/outbox.db
      backwater outbox status --json
    """  # noqa: D301 - click reads the escape
    store = _open(load("outbox", flags, config))
    seat = store.seat()
    is_free = seat.take()
    seat.leave()
    show_letter(outbox_row(store.status(), is_forwarded=not is_free), as_json=as_json)
    store.close()
    return OK


@outbox_group.command("list", epilog=SETTINGS_HELP)
@click.option("--refused", is_flag=True, help="What the broker did not take, and why.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="So many at most.")
@_as_json
@with_settings("outbox")
def outbox_list(refused: bool, limit: int, as_json: bool, config: str | None, **flags: Any) -> int:
    """List what waits, oldest first; or what was refused.

    \b
      backwater outbox list --outbox /var/lib/myapp/outbox.db
      backwater outbox list --refused --json
    """  # noqa: D301 - click reads the escape
    store = _open(load("outbox", flags, config))
    if refused:
        show_rows([kept_row(each) for each in store.refused(limit)], as_json=as_json, empty="none was refused")
    else:
        rows = [parcel_row(each) for each in store.waiting(0, limit)]
        show_rows(rows, as_json=as_json, empty="nothing waits")
    store.close()
    return OK


@outbox_group.command("drop", epilog=SETTINGS_HELP)
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--refused", is_flag=True, help="All that the broker did not take.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_as_json
@with_settings("outbox")
def outbox_drop(ids: tuple[str, ...], config: str | None, **flags: Any) -> int:
    """Drop what waits, or what was refused, for good; by the id in `list`. On a terminal it asks first.

    What is on its way, or was, may have been accepted all the same.

    \b
      backwater outbox drop 7f3c… --outbox /var/lib/myapp/outbox.db
      backwater outbox drop --refused
    """  # noqa: D301 - click reads the escape
    refused, yes, as_json = (flags.pop(name) for name in ("refused", "yes", "as_json"))
    if bool(ids) == refused:
        raise InvalidOption("name what to drop by its ID, or give --refused, not both")
    store = _open(load("outbox", flags, config))
    what = count_of(len(ids), "task") if ids else "all that was refused"
    if not yes and sys.stdin.isatty():
        click.confirm(f"Drop {what}?", abort=True, err=True)
    dropped = store.drop(ids) if ids else store.drop_refused()
    store.close()
    _say(as_json, dropped=dropped)
    return OK


@outbox_group.command("flush", epilog=SETTINGS_HELP)
@click.option("--for", "seconds", type=float, metavar="SECONDS", help="Wait so long at most.")
@_as_json
@with_settings("outbox")
def outbox_flush(seconds: float | None, as_json: bool, config: str | None, **flags: Any) -> int:
    """Forward all that is there now, and end; exit code 5 when not all of it has gone in time.

    \b
      backwater outbox flush --outbox /var/lib/myapp/outbox.db --broker https://broker.example:8443 --for 60
    """  # noqa: D301 - click reads the escape
    settings = load("outbox", flags, config)
    store = _open(settings)
    before = store.status()
    try:
        with _connect(settings) as app:
            app.flush(seconds)
    except DeadlineExceeded as error:
        complain(f"{error}; give it more time with --for", code=error.code, as_json=as_json)
        return NO_ANSWER
    refused = store.status().refused - before.refused
    store.close()
    _say(as_json, forwarded=sum(before.waiting.values()) - refused, refused=refused)
    return OK


@outbox_group.command("schema")
@click.option("--dialect", type=click.Choice(list(SCHEMAS)), default="sqlite", show_default=True)
def outbox_schema(dialect: str) -> int:
    """Print the tables of an outbox, for a database of your own (`App.outbox_in`).

    \b
      backwater outbox schema | sqlite3 app.db
      backwater outbox schema --dialect postgresql | psql postgresql://db.example/app
    """  # noqa: D301 - click reads the escape
    click.echo(SCHEMAS[dialect], nl=False)
    return OK


def _say(as_json: bool, **counts: int) -> None:
    click.echo(json.dumps(counts) if as_json else "\n".join(f"{name}: {count}" for name, count in counts.items()))


#: All of them, for the group `backwater`.
COMMANDS = (forward_command, outbox_group)
