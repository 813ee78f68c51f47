"""The command that prints what workers tell, as it happens.

It has a queue of its own, which the broker keeps in memory and drops with the command, so what happens while nobody
listens is told to nobody. A queue is declared anew whenever nothing has come for a while: one that is gone, with a
restart of the broker say, is as silent as one that is empty.

Rule: thin, as `cli`; what an event is, is in `tasks.events`.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any

import click
import msgspec

from .app import App
from .broker.values import Batch, Binding, Poll, Queue, Settlement
from .errors import CallFailed
from .flags import SETTINGS_HELP, with_settings
from .settings import load
from .task_commands import connect
from .tasks import asks
from .tasks.events import EXCHANGE, OF_TASKS, OF_WORKERS, WorkerEvent, read_event, routing_key
from .terminal import OK, complain, one_line

#: How long a poll waits at the broker, the broker keeps a queue of which it does not hear, and the pause after a
#: failure, seconds.
WAIT, TTL, PAUSE = 5.0, 30.0, 1.0
#: Seconds in which the broker is told that it ends.
FAREWELL = 2.0
#: Events in one answer, and events that wait for it at the broker; of more the oldest are dropped.
MOST, MOST_WAITING = 500, 10_000


class Listening:
    """A session with a queue of its own, bound to the events.

    Args:
        app: asks the broker.
        patterns: of the routing keys to listen for.
    """

    def __init__(self, app: App, patterns: Sequence[str]) -> None:
        self._app = app
        self._session = secrets.token_hex(8)
        name = f"{EXCHANGE.name}.{self._session}"
        self._queue = Queue(
            name,
            max_length=MOST_WAITING,
            overflow="drop_head",
            exclusive=self._session,
            auto_delete=True,
            keep_dead=False,
            transient=True,
        )
        self._bindings = [Binding(EXCHANGE.name, name, pattern) for pattern in patterns]

    def open(self) -> None:
        """From now on nothing is missed."""
        self._app.ask(asks.open_session(self._session, TTL))
        self._declare()

    def _declare(self) -> None:
        self._app.ask(asks.declare([EXCHANGE], [self._queue], self._bindings))

    def events(self) -> Iterator[WorkerEvent]:
        """What is told, for ever; raises `CallFailed` when that has come to an end."""
        confirmed = 0
        while True:
            batch = self._receive(confirmed)
            if not batch.deliveries:
                self._declare()
                continue
            confirmed = batch.number
            yield from filter(None, (read_event(each.message.body) for each in batch.deliveries))
            self._app.ask(asks.settle(self._session, [Settlement(each.token) for each in batch.deliveries]))

    def _receive(self, confirmed: int) -> Batch:
        poll = Poll(((self._queue.name, MOST),), MOST, confirmed, ())
        return self._app.ask(asks.receive(self._session, poll, WAIT))

    def close(self) -> None:
        """Have the broker drop the queue; where it cannot be asked, it does so by itself after a while."""
        with suppress(CallFailed):
            self._app.ask(replace(asks.close_session(self._session), within=FAREWELL))


def listen(app: App, patterns: Sequence[str], *, as_json: bool) -> Iterator[WorkerEvent]:
    """What is told, over every cut of the link; raises `CallFailed` where the broker never answered."""
    answered = away = False
    while True:
        listening = Listening(app, patterns)
        try:
            listening.open()
            answered, away = True, False
            click.echo("backwater: listening", err=True)
            yield from listening.events()
        except CallFailed as error:
            if not answered:
                raise
            if not away:
                text = f"{type(error).__name__}: {error}; it is tried until it answers"
                complain(f"the broker cannot be asked: {text}", code=error.code, as_json=as_json)
            away = True
        finally:
            if answered and not away:
                listening.close()
        time.sleep(PAUSE)


def describe_event(event: WorkerEvent) -> str:
    """An event in a line."""
    words = [_moment(event.at), event.worker, event.event]
    if event.id:
        words.append(f"{event.task or '?'}[{event.id}]")
    if event.seconds is not None:
        words.append(f"{event.seconds:.3f} s")
    if event.error:
        words.append(event.error)
    return "".join(each if each.isprintable() else "?" for each in one_line(" ".join(words)))


def _moment(at: float) -> str:
    """As ISO 8601 has it; as it is, where no calendar has it."""
    try:
        return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return str(at)


@click.command("events", epilog=SETTINGS_HELP)
@click.option("--task", "task", metavar="PATTERN", help="Of tasks with such names only: shop.*, say.")
@click.option(
    "--event", "names", multiple=True, type=click.Choice((*OF_TASKS, *OF_WORKERS)), help="These only.", metavar="NAME"
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, a line for each event.")
@with_settings("events")
def events_command(task: str | None, names: tuple[str, ...], as_json: bool, config: str | None, **flags: Any) -> int:
    """Print what happens to tasks, until Ctrl-C.

    Workers tell it that run with --events: received, started, progressed, retried, succeeded, failed, revoked,
    rejected, parked, returned and lost, and of themselves online, heartbeat and offline.

    \b
      backwater events --broker https://broker.example:8443 --secret-file site.key
      backwater events --task 'shop.*' --event failed --event retried
      backwater events --json | jq -r 'select(.seconds > 10) | .id'
    """  # noqa: D301 - click reads the escape
    patterns = [routing_key(name) for name in names] or ["#"]
    with connect(load("events", flags, config)) as app:
        for event in listen(app, patterns, as_json=as_json):
            if task is not None and not fnmatchcase(event.task, task):
                continue
            click.echo(msgspec.json.encode(event) if as_json else describe_event(event))
    return OK
