"""The commands for whoever runs a broker: its queues, what waits in them, and the dead.

Rule: thin, as `cli`; what they do is the broker's (`broker.broker`), how it looks `tables`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from .broker.values import DeadLetter, QueueRates, QueueStats
from .client import Client
from .errors import InvalidOption, UnknownQueue
from .flags import SETTINGS_HELP, with_settings
from .keyfiles import read_keys
from .options import ClientOptions, Limits
from .settings import Settings, load
from .tables import count_of, describe_letter, letter_row, queue_row, show_letter, show_rows
from .terminal import OK

#: Dead letters in one answer, and numbers in one request.
PAGE = 1000

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _connect(settings: Settings) -> Client:
    """A client of the broker that is named."""
    options = settings.given(ClientOptions, Limits)
    return Client(settings.broker_url(), read_keys(settings["secret_file"]), **options)


def _ask(client: Client, verb: str, *args: Any, returns: Any = None) -> Any:
    return client.with_options(returns=returns, idempotent=True).call("broker", verb, *args)


# Queues --------------------------------------------------------------------------------------------------------------


@click.command("queues", epilog=SETTINGS_HELP)
@click.argument("names", nargs=-1, metavar="[QUEUE]...")
@_as_json
@with_settings("queues")
def queues_command(names: tuple[str, ...], as_json: bool, config: str | None, **flags: Any) -> int:
    """List queues: what waits, runs and is dead.

    What comes, goes and is done is counted in a second, over the last minute.

    \b
      backwater queues --broker https://broker.example:8443 --secret-file site.key
      backwater queues default reports --json
    """  # noqa: D301 - click reads the escape
    with _connect(load("queues", flags, config)) as client:
        asked = list(names) or None
        stats = _ask(client, "stats", asked, returns=list[QueueStats])
        rates = {each.queue: each for each in _ask(client, "rates", asked, returns=list[QueueRates])}
    _check_known(names, stats)
    rows = [queue_row(each, rates.get(each.queue.name, QueueRates(each.queue.name))) for each in stats]
    show_rows(rows, as_json=as_json, empty="no queues")
    return OK


def _check_known(names: Sequence[str], found: Sequence[QueueStats]) -> None:
    known = {stats.queue.name for stats in found}
    for name in names:
        if name not in known:
            raise UnknownQueue(f"there is no queue {name!r}")


@click.command("purge", epilog=SETTINGS_HELP)
@click.argument("queue")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_as_json
@with_settings("purge")
def purge_command(queue: str, yes: bool, as_json: bool, config: str | None, **flags: Any) -> int:
    """Drop all messages that wait in a queue.

    Those that run go on. On a terminal it asks first.

    \b
      backwater purge default --broker https://broker.example:8443 --secret-file site.key
      backwater purge default --yes --json
    """  # noqa: D301 - click reads the escape
    with _connect(load("purge", flags, config)) as client:
        stats = _ask(client, "stats", [queue], returns=list[QueueStats])
        _check_known([queue], stats)
        waiting = stats[0].ready + stats[0].delayed
        if not yes and sys.stdin.isatty():
            click.confirm(f"Drop {count_of(waiting, 'message')} of {queue}?", abort=True, err=True)
        _say(as_json, "purged", _ask(client, "purge", queue))
    return OK


@click.command("pause", epilog=SETTINGS_HELP)
@click.argument("queues", nargs=-1, required=True, metavar="QUEUE...")
@with_settings("pause")
def pause_command(queues: tuple[str, ...], config: str | None, **flags: Any) -> int:
    """Hand out nothing more of these queues.

    What runs goes on, and what comes waits.

    \b
      backwater pause default reports --broker https://broker.example:8443 --secret-file site.key
    """  # noqa: D301 - click reads the escape
    with _connect(load("pause", flags, config)) as client:
        _ask(client, "pause", list(queues))
    return OK


@click.command("resume", epilog=SETTINGS_HELP)
@click.argument("queues", nargs=-1, required=True, metavar="QUEUE...")
@with_settings("resume")
def resume_command(queues: tuple[str, ...], config: str | None, **flags: Any) -> int:
    """Hand out again what waits in these queues.

    \b
      backwater resume default reports --broker https://broker.example:8443 --secret-file site.key
    """  # noqa: D301 - click reads the escape
    with _connect(load("resume", flags, config)) as client:
        _ask(client, "resume", list(queues))
    return OK


# The dead ------------------------------------------------------------------------------------------------------------


@click.group("dead", no_args_is_help=False)
def dead_group() -> None:
    """Look at messages that were put aside, replay or drop them.

    They were rejected, have expired, were delivered too often, or nobody knew their task (parked).

    \b
      backwater dead list --queue default
      backwater dead show 17
      backwater dead replay --queue default --reason max_deliveries
      backwater dead drop 17 18
    """  # noqa: D301 - click reads the escape


_queue = click.option("--queue", metavar="NAME", help="Of this queue only.")
_reason = click.option("--reason", metavar="REASON", help="rejected, expired, max_deliveries, parked or dropped only.")
_all = click.option("--all", "everything", is_flag=True, help="All of them, where neither queue nor reason is named.")
_dry = click.option("-n", "--dry-run", is_flag=True, help="Say how many that would be, and do nothing.")


@dead_group.command("list", epilog=SETTINGS_HELP)
@_queue
@_reason
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="So many at most.")
@_as_json
@with_settings("dead")
def dead_list(config: str | None, **flags: Any) -> int:
    """List dead letters, oldest first.

    \b
      backwater dead list --broker https://broker.example:8443 --secret-file site.key
      backwater dead list --queue default --reason expired --json
    """  # noqa: D301 - click reads the escape
    queue, reason, limit, as_json = (flags.pop(name) for name in ("queue", "reason", "limit", "as_json"))
    found = []
    with _connect(load("dead", flags, config)) as client:
        for letter in _letters(client, queue, reason):
            found.append(letter)
            if len(found) == limit:
                break
    show_rows([letter_row(letter) for letter in found], as_json=as_json, empty="none is dead")
    return OK


@dead_group.command("show", epilog=SETTINGS_HELP)
@click.argument("number", type=click.IntRange(1))
@_queue
@_as_json
@with_settings("dead")
def dead_show(number: int, queue: str | None, as_json: bool, config: str | None, **flags: Any) -> int:
    """Show one dead letter with all that it holds.

    \b
      backwater dead show 17 --broker https://broker.example:8443 --secret-file site.key
      backwater dead show 17 --queue default --json
    """  # noqa: D301 - click reads the escape
    with _connect(load("dead", flags, config)) as client:
        found = _ask(client, "dead_letters", queue, number - 1, 1, returns=list[DeadLetter])
    if not found or found[0].number != number:
        raise InvalidOption(f"there is no dead letter {number}" + (f" of the queue {queue!r}" if queue else ""))
    show_letter(describe_letter(found[0]), as_json=as_json)
    return OK


@dead_group.command("replay", epilog=SETTINGS_HELP)
@click.argument("numbers", nargs=-1, type=click.IntRange(1), metavar="[NUMBER]...")
@_queue
@_reason
@_all
@_dry
@_as_json
@with_settings("dead")
def dead_replay(numbers: tuple[int, ...], config: str | None, **flags: Any) -> int:
    """Put dead letters back into their queues, as if they had just come.

    \b
      backwater dead replay 17 18 --broker https://broker.example:8443 --secret-file site.key
      backwater dead replay --queue default --reason max_deliveries
      backwater dead replay --all -n
    """  # noqa: D301 - click reads the escape
    return _treat("replay", "replayed", numbers, config, flags)


@dead_group.command("drop", epilog=SETTINGS_HELP)
@click.argument("numbers", nargs=-1, type=click.IntRange(1), metavar="[NUMBER]...")
@_queue
@_reason
@_all
@_dry
@_as_json
@with_settings("dead")
def dead_drop(numbers: tuple[int, ...], config: str | None, **flags: Any) -> int:
    """Drop dead letters for good.

    \b
      backwater dead drop 17 18 --broker https://broker.example:8443 --secret-file site.key
      backwater dead drop --queue default --reason expired
      backwater dead drop --all -n
    """  # noqa: D301 - click reads the escape
    return _treat("drop", "dropped", numbers, config, flags)


def _treat(verb: str, done: str, numbers: tuple[int, ...], config: str | None, flags: dict[str, Any]) -> int:
    """Replay or drop what was chosen."""
    names = ("queue", "reason", "everything", "dry_run", "as_json")
    queue, reason, everything, dry, as_json = (flags.pop(name) for name in names)
    chosen = bool(queue or reason or everything)
    if bool(numbers) == chosen:
        raise InvalidOption(
            "name dead letters by their NUMBER or choose them with --queue, --reason or --all, not both"
        )
    with _connect(load("dead", flags, config)) as client:
        if chosen:
            numbers = tuple(letter.number for letter in _letters(client, queue, reason))
        if dry:
            _say(as_json, f"would be {done}", len(numbers))
            return OK
        count = 0
        with _progress(done, len(numbers)) as advance:
            for start in range(0, len(numbers), PAGE):
                portion = numbers[start : start + PAGE]
                count += _ask(client, verb, list(portion))
                advance(len(portion))
    _say(as_json, done, count)
    return OK


def _letters(client: Client, queue: str | None, reason: str | None) -> Iterator[DeadLetter]:
    """All of them, without their bodies, page by page."""
    after = 0
    while page := _ask(client, "dead_letters", queue, after, PAGE, True, returns=list[DeadLetter]):
        yield from (letter for letter in page if reason in (None, letter.reason))
        after = page[-1].number


def _say(as_json: bool, what: str, count: int) -> None:
    click.echo(json.dumps({what.replace(" ", "_"): count}) if as_json else f"{what}: {count}")


@contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal where there is something to wait for."""
    if not sys.stderr.isatty() or total <= PAGE:
        yield lambda _: None
        return
    from rich.console import Console  # noqa: PLC0415 - 60 ms that a pipe need not wait for
    from rich.progress import Progress  # noqa: PLC0415

    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task(what, total=total)
        yield lambda number: progress.advance(bar, number)


#: All of them, for the group `backwater`.
COMMANDS = (queues_command, purge_command, pause_command, resume_command, dead_group)
