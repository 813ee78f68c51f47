"""Queues, dead letters and periodic tasks as people and programs read them.

Rule: a row is a dictionary; JSON has it as it is, people get its columns. Nothing is asked here.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import click

from .broker.values import DeadLetter, Entry, Message, QueueRates, QueueStats
from .errors import CallFailed, InvalidOption, Unserializable
from .outbox.amounts import Status
from .outbox.parcels import Kept, Parcel, Taken, open_parcel
from .protocol.codec import JSON
from .tasks.messages import read_arguments, read_headers
from .tasks.schedule import decode_schedule, describe_schedule
from .worker.spool import About
from .worker.spool import Status as SpoolStatus

Row = Mapping[str, Any]


def queue_row(stats: QueueStats, rates: QueueRates) -> Row:
    """A queue: counts, seconds that the oldest has waited, messages per second."""
    return {
        "queue": stats.queue.name,
        "ready": stats.ready,
        "delayed": stats.delayed,
        "leased": stats.leased,
        "dead": stats.dead,
        "oldest": rates.waited,
        "in/s": round(rates.published, 2),
        "out/s": round(rates.delivered, 2),
        "done/s": round(rates.acked, 2),
        "sessions": stats.sessions,
        "paused": stats.queue.paused,
    }


def letter_row(letter: DeadLetter) -> Row:
    """A dead letter in a list."""
    return {
        "number": letter.number,
        "queue": letter.queue,
        "id": letter.message.id,
        "task": _task(letter.message),
        "reason": letter.reason,
        "detail": letter.detail,
        "at": _moment(letter.at),
        "deliveries": letter.count,
    }


def describe_letter(letter: DeadLetter) -> Row:
    """All that a dead letter holds: of a task its arguments, of anything else the body, as text or in base64."""
    message = letter.message
    about = {
        **letter_row(letter),
        "exchange": letter.exchange,
        "routing_key": letter.routing_key,
        "content_type": message.content_type,
        "content_encoding": message.content_encoding,
        "priority": message.priority,
        "size": len(message.body),
    }
    with suppress(CallFailed):
        args, kwargs = read_arguments(message)
        return {**about, "args": _plain(args), "kwargs": _plain(kwargs)}
    with suppress(UnicodeDecodeError):
        return {**about, "body": message.body.decode()}
    return {**about, "body_base64": base64.b64encode(message.body).decode()}


def entry_row(entry: Entry) -> Row:
    """A periodic task in a list."""
    return {
        "name": entry.name,
        "task": _task(entry.publication.message),
        "schedule": _schedule(entry.spec),
        "due": _moment(entry.due),
        "to": entry.publication.exchange or entry.publication.routing_key,
    }


def outbox_row(status: Status, *, is_forwarded: bool) -> Row:
    """An outbox: messages, and bytes of all bodies."""
    return {
        "waiting": sum(status.waiting.values()),
        "queues": status.waiting,
        "oldest": "" if status.oldest is None else _moment(status.oldest),
        "refused": status.refused,
        "dropped": status.dropped,
        "bytes": status.size,
        "forwarded": is_forwarded,
    }


def parcel_row(taken: Taken) -> Row:
    """What waits in an outbox."""
    return {**_parcel(taken.parcel), "tried": "" if taken.tried is None else _moment(taken.tried)}


def kept_row(kept: Kept) -> Row:
    """What was refused."""
    return {**_parcel(kept.parcel), "reason": kept.reason}


def spool_row(status: SpoolStatus) -> Row:
    """The spool of a worker: outcomes, and their bytes."""
    since = "" if status.oldest is None else _moment(status.oldest)
    return {"waiting": status.waiting, "oldest": since, "bytes": status.size, "superseded": status.superseded}


def spooled_row(about: About) -> Row:
    """A task whose outcome is, or was, in a spool."""
    return {"id": about.id, "task": about.task, "queue": about.queue, "at": _moment(about.at)}


def _parcel(parcel: Parcel) -> Row:
    task = ""
    with suppress(CallFailed):
        task = _task(open_parcel(parcel, parcel.at).publications[0].message)
    return {
        "id": parcel.id,
        "task": task,
        "queues": ", ".join(parcel.queues),
        "messages": parcel.messages,
        "size": len(parcel.body),
        "at": _moment(parcel.at),
    }


def _schedule(spec: bytes) -> str:
    with suppress(InvalidOption):
        return describe_schedule(decode_schedule(spec))
    return ""


def _task(message: Message) -> str:
    with suppress(CallFailed):
        return read_headers(message).task
    return ""


def _moment(at: float) -> str:
    try:
        return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return repr(at)  # beyond the calendar


# Showing -------------------------------------------------------------------------------------------------------------


def show_rows(rows: Sequence[Row], *, as_json: bool, empty: str) -> None:
    """Print rows of the same columns: a table on a terminal, aligned lines in a pipe, or a JSON list."""
    if as_json:
        click.echo(_encode(rows))
        return
    if not rows:
        click.echo(empty, err=True)
        return
    columns = list(rows[0])
    lines = [[_cell(name, row[name]) for name in columns] for row in rows]
    if sys.stdout.isatty():
        _show_table(columns, lines)
        return
    widths = [max(len(line[place]) for line in [columns, *lines]) for place in range(len(columns))]
    for line in [columns, *lines]:
        click.echo("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())


def _show_table(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    from rich.console import Console  # noqa: PLC0415 - 60 ms that a pipe need not wait for
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(*columns, box=None, padding=(0, 2, 0, 0))
    for first, *rest in lines:
        table.add_row(Text(first, "bold"), *map(Text, rest))
    Console(highlight=False).print(table)


def show_letter(about: Row, *, as_json: bool) -> None:
    """Print what is known of one: a line for each field, or a JSON object."""
    if as_json:
        click.echo(_encode(about))
        return
    width = max(map(len, about))
    for name, value in about.items():
        click.echo(f"{name:<{width}}  {value if isinstance(value, str) else _encode(value)}".rstrip())


_SECONDS: Sequence[tuple[float, str]] = ((86_400.0, "d"), (3600.0, "h"), (60.0, "min"))


def span(seconds: float) -> str:
    """Seconds as people say them: `12 s`, `3.5 h`."""
    for unit, name in _SECONDS:
        if seconds >= unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.0f} s"


def count_of(number: int, thing: str) -> str:
    """`1 message`, `2 messages`."""
    return f"{number} {thing}" + ("" if number == 1 else "s")


_CELLS: Mapping[str, Callable[[Any], str]] = {
    "oldest": lambda seconds: "" if seconds is None else span(seconds),
    "paused": lambda paused: "paused" if paused else "",
}


def _cell(name: str, value: Any) -> str:
    text = _CELLS.get(name, str)(value)
    # What came from elsewhere must not move the cursor.
    return "".join(each if each.isprintable() else "�" for each in text)


def _encode(value: Any) -> str:
    return JSON.encode(value).decode()


def _plain(value: Any) -> Any:
    """A value, or how Python writes it where JSON has no form for it."""
    try:
        JSON.encode(value)
    except Unserializable:
        return repr(value)
    return value
