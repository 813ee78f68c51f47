"""The commands that look into the spool of a worker.

Rule: thin, as `cli`; the file is `worker.spool`'s, how it looks `tables`. Nothing is changed, so the worker may run.
"""

from __future__ import annotations

from typing import Any

import click

from .errors import InvalidOption
from .flags import SETTINGS_HELP, with_settings
from .settings import load
from .tables import show_letter, show_rows, spool_row, spooled_row
from .worker.spool import read_status, read_superseded, read_waiting

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _path(config: str | None, flags: dict[str, Any]) -> str:
    named = load("spool", flags, config)["spool"]
    if not named:
        raise InvalidOption("no spool was named: give --spool FILE, BACKWATER_SPOOL, or spool in backwater.toml")
    return str(named)


@click.group("spool")
def spool_group() -> None:
    """Look into a spool: outcomes that wait, and superseded ones.

    \b
      backwater spool status --spool /var/lib/myapp/spool.db
      backwater spool list --superseded
    """  # noqa: D301 - click reads the escape


@spool_group.command("status", epilog=SETTINGS_HELP)
@_as_json
@with_settings("spool")
def spool_status(as_json: bool, config: str | None, **flags: Any) -> int:
    """Show how many outcomes wait, since when, and how many were superseded.

    \b
      backwater spool status --spool /var/lib/myapp/spool.db
      backwater spool status --json
    """  # noqa: D301 - click reads the escape
    show_letter(spool_row(read_status(_path(config, flags))), as_json=as_json)
    return 0


@spool_group.command("list", epilog=SETTINGS_HELP)
@click.option(
    "--superseded", is_flag=True, help="Tasks that another worker was given before the broker knew, last first."
)
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="So many at most.")
@_as_json
@with_settings("spool")
def spool_list(superseded: bool, limit: int, as_json: bool, config: str | None, **flags: Any) -> int:
    """List the tasks whose outcomes wait, oldest first; or those that were superseded.

    \b
      backwater spool list --spool /var/lib/myapp/spool.db
      backwater spool list --superseded --json
    """  # noqa: D301 - click reads the escape
    found = (read_superseded if superseded else read_waiting)(_path(config, flags), limit)
    empty = "nothing was superseded" if superseded else "nothing waits"
    show_rows([spooled_row(each) for each in found], as_json=as_json, empty=empty)
    return 0
