"""Periodic tasks as entries of the broker's schedule: what is to be done with one, as a function of now.

An entry holds a publication as a pattern; each run publishes it under an id of its own, made of the entry's name and
the moment at which the run was due. So whoever makes a run, and however often, the broker takes it once.

Rule: pure. Who looks at entries, and writes them, is `periodic`'s.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from backwater_tornado.broker.values import Entry, Publication
from backwater_tornado.errors import InvalidOption

from .schedule import Schedule, decode_schedule, encode_schedule, following, next_after
from .signatures import Canvas, Signature
from .workflow import Context, plan_canvas

#: Characters of an entry's name; the rest of a message's id is for the moment.
MAX_NAME: Final = 200
#: How far the clocks of two workers may be apart, seconds: what one has planned no other takes for a mistake then.
SKEW: Final = 300.0
#: Options of one sending, which is made once; links, too, have ids that are made when it is sent.
_OF_ONE: Final = ("task_id", "eta", "expires_at", "unique_for", "link", "link_error")


@dataclass(frozen=True, slots=True)
class Step:
    """An entry as it is to be written, and whether that is a run, so that its task is published."""

    entry: Entry
    is_run: bool


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME and value.isprintable()


def pattern_of(call: Canvas, context: Context) -> Publication:
    """What every run of a periodic task is made of; always the same for the same call.

    With the option `unique` there is no run while the last one goes on, or still waits.

    Raises:
        InvalidOption: it is a chain or a group, or has options that belong to one sending.
        Unserializable: an argument.
    """
    if not isinstance(call, Signature):
        raise InvalidOption("a periodic task is one call; let it send those that follow")
    for option in _OF_ONE:
        if getattr(call.options, option):
            raise InvalidOption(f"a periodic task has no option {option!r}, which is for one sending")
    alone = dataclasses.replace(context, new_id=lambda: "pattern", root="", parent="")
    return plan_canvas(call, alone).publications[0]


def make_entry(name: str, schedule: Schedule, pattern: Publication, now: float) -> Entry:
    """A new entry; its first run comes after now. Raises `InvalidOption`.

    `pattern` is the same whenever it is made, or the entry would count as changed: its spans are `delay`, `lifetime`.
    """
    if not _is_name(name):
        raise InvalidOption(f"a periodic task's name has 1 to {MAX_NAME} printable characters, not {name!r:.300}")
    return Entry(name, next_after(schedule, now, now), pattern, encode_schedule(schedule))


def renew(declared: Entry, there: Entry) -> Entry | None:
    """What to write where the broker has another entry of that name; None if that is the same.

    A run that was due on the same schedule stays due.
    """
    changed = replace(declared, due=there.due) if declared.spec == there.spec else declared
    return None if changed == there else changed


def publication_of(entry: Entry) -> Publication:
    """What the run that is due publishes."""
    message = replace(entry.publication.message, id=f"{entry.name}@{entry.due:.3f}")
    return replace(entry.publication, message=message)


def step_of(entry: Entry, now: float) -> Step | None:
    """What is to be done with an entry now; None: nothing until it is due. Raises `InvalidOption` if it is unreadable.

    One that is due later than its schedule has it was planned by a clock that was wrong, and is brought forward.
    """
    schedule = decode_schedule(entry.spec)
    if entry.due <= now:
        return Step(replace(entry, due=following(schedule, entry.due, now)), is_run=True)
    if entry.due > next_after(schedule, now + SKEW, entry.due):
        return Step(replace(entry, due=next_after(schedule, now, entry.due)), is_run=False)
    return None
