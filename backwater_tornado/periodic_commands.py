"""The commands for periodic tasks: what the broker's schedule holds, and taking something out of it.

Rule: thin, as `cli`; the schedule is the broker's, how it looks `tables`.
"""

from __future__ import annotations

import json
from typing import Any

import click

from .errors import InvalidOption
from .flags import SETTINGS_HELP, with_settings
from .settings import load
from .tables import entry_row, show_rows
from .task_commands import connect
from .tasks import asks
from .terminal import OK

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group("periodic", no_args_is_help=False)
def periodic_group() -> None:
    """Periodic tasks: what runs next, and when.

    \b
      backwater periodic list
      backwater periodic drop nightly-report
    """  # noqa: D301 - click reads the escape


@periodic_group.command("list", epilog=SETTINGS_HELP)
@_as_json
@with_settings("periodic")
def periodic_list(as_json: bool, config: str | None, **flags: Any) -> int:
    """List periodic tasks, the next due first.

    \b
      backwater periodic list --broker https://broker.example:8443 --secret-file site.key
    """  # noqa: D301 - click reads the escape
    with connect(load("periodic", flags, config)) as app:
        entries = app.ask(asks.schedule())
    show_rows([entry_row(entry) for entry in entries], as_json=as_json, empty="no periodic tasks")
    return OK


@periodic_group.command("drop", epilog=SETTINGS_HELP)
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@_as_json
@with_settings("periodic")
def periodic_drop(names: tuple[str, ...], as_json: bool, config: str | None, **flags: Any) -> int:
    """Take periodic tasks out of the schedule; what they have published already runs.

    A worker whose application still declares one puts it back when it starts.

    \b
      backwater periodic drop nightly-report --broker https://broker.example:8443 --secret-file site.key
    """  # noqa: D301 - click reads the escape
    with connect(load("periodic", flags, config)) as app:
        missing = [name for name in names if not app.ask(asks.unplan(name))]
    dropped = len(names) - len(missing)
    click.echo(json.dumps({"dropped": dropped}) if as_json else f"dropped: {dropped}")
    if missing:
        raise InvalidOption(f"there is no periodic task {missing[0]!r}")
    return OK
