"""When a periodic task runs next: schedules as values, as functions of now.

`Every` is a grid of moments, so many seconds apart. `Cron` is read as Debian's cron reads it, which says also what
happens when clocks are changed, in the schedule's own time zone:

* An hour and a minute that begin with no `*` mean a time of day. If there is none that day, as clocks go forward, it
  runs once, at the moment of the change; if there are two, as they go back, it runs at the first.
* With a `*` in front of hour or minute it means real time: it runs in both hours that have the same name, and not in
  one that there is not.
* A day of the month and a day of the week together mean either, unless one of them begins with `*`: then both.

What was missed, since the broker or all workers were down, is run once, however much it was; with `catch_up` each run
that was missed is made, one after the other.

Rule: now is an argument, in Unix seconds, and so is what comes out. Broker and stores see bytes only.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec
from cronsim import CronSim, CronSimError

from backwater_tornado.errors import InvalidOption

#: The shortest period, seconds: every run is a transaction of the broker's.
SHORTEST: Final = 0.1
#: Characters of a cron expression.
MAX_SPEC: Final = 255
#: 2000-01-01: where it is tried whether a cron expression ever comes.
_TRIED_AT: Final = 946_684_800.0
#: For the text of `describe`, longest first.
_UNITS: Final = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))


class Every(msgspec.Struct, frozen=True, tag="every", omit_defaults=True):
    """Every so many seconds. Raises `InvalidOption`."""

    seconds: float
    #: Make up for every run that was missed, and not for the last one only.
    catch_up: bool = False

    def __post_init__(self) -> None:
        if not _is_period(self.seconds):
            raise InvalidOption(f"a period should be {SHORTEST} seconds or more, not {self.seconds!r}")
        msgspec.structs.force_setattr(self, "seconds", float(self.seconds))


class Cron(msgspec.Struct, frozen=True, tag="cron", omit_defaults=True):
    """At the moments of a cron expression: minute, hour, day of the month, month, day of the week.

    Each is `*`, numbers, names, ranges, lists and steps (`*/5`, `8-18/2`, `mon-fri`, `jan,jul`); also `L`, the last day
    of the month, `LW`, its last working day, `5L`, its last Friday, and `5#2`, its second. Raises `InvalidOption`.
    """

    spec: str
    #: By its name in the IANA's data, such as Europe/Berlin.
    tz: str = "UTC"
    #: As in `Every`.
    catch_up: bool = False

    def __post_init__(self) -> None:
        if not _has_five_fields(self.spec):
            raise InvalidOption(f"a cron expression has five fields, not {self.spec!r:.100}")
        _next_of_cron(self, _TRIED_AT)


def _is_period(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and SHORTEST <= value < math.inf


def _has_five_fields(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MAX_SPEC and len(value.split()) == 5


Schedule = Every | Cron


def crontab(
    *,
    minute: str | int = "*",
    hour: str | int = "*",
    day_of_week: str | int = "*",
    day_of_month: str | int = "*",
    month_of_year: str | int = "*",
    tz: str = "UTC",
) -> Cron:
    """A cron expression field by field, as Celery has it. Raises `InvalidOption`.

    Both a day of the week and one of the month are refused: Celery takes them for both, and cron for either.
    """
    if not str(day_of_week).startswith("*") and not str(day_of_month).startswith("*"):
        raise InvalidOption("day_of_week and day_of_month together mean either in Cron(…), which is the way to say so")
    return Cron(f"{minute} {hour} {day_of_month} {month_of_year} {day_of_week}", tz)


def schedule_of(given: Schedule | str | float | timedelta) -> Schedule:
    """A schedule as people write it: seconds, a timedelta, a cron expression (in UTC). Raises `InvalidOption`."""
    if isinstance(given, Every | Cron):
        return given
    if isinstance(given, timedelta):
        return Every(given.total_seconds())
    return Cron(given) if isinstance(given, str) else Every(given)


# Moments -------------------------------------------------------------------------------------------------------------


def next_after(schedule: Schedule, now: float, anchor: float) -> float:
    """The first moment of a schedule after `now`, and never `now` itself; `anchor` is any moment of an `Every`."""
    if isinstance(schedule, Cron):
        return _next_of_cron(schedule, now)
    steps = math.floor((now - anchor) / schedule.seconds)
    while (moment := anchor + steps * schedule.seconds) <= now:
        steps += 1
    return moment


def following(schedule: Schedule, due: float, now: float) -> float:
    """When it runs next, now that a run which was due at `due` is made at `now`."""
    return next_after(schedule, due if schedule.catch_up else max(due, now), due)


def _next_of_cron(schedule: Cron, now: float) -> float:
    begin = datetime.fromtimestamp(now, _zone(schedule.tz))
    try:
        moments = CronSim(schedule.spec, begin)
    except CronSimError as error:
        raise InvalidOption(f"{schedule.spec!r} is no cron expression: {str(error).lower()}") from None
    # A time of day is found at the first of two hours of one name, so also from the second of them: it is over then.
    for moment in moments:
        if moment.timestamp() > now:
            return moment.timestamp()
    raise InvalidOption(f"{schedule.spec!r} never comes")


def _zone(name: str) -> tzinfo:
    if name == "UTC":  # needs no data
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError, TypeError):
        raise InvalidOption(f"there is no time zone {name!r:.100} here; the package tzdata has them all") from None


# For the broker, and for people --------------------------------------------------------------------------------------

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Schedule] = msgspec.msgpack.Decoder(Schedule)


def encode_schedule(schedule: Schedule) -> bytes:
    """As it stands in an `Entry`; equal schedules give equal bytes."""
    return _encoder.encode(schedule)


def decode_schedule(spec: bytes) -> Schedule:
    """What `encode_schedule` was given; raises `InvalidOption`."""
    try:
        return _decoder.decode(spec)
    except msgspec.MsgspecError as error:
        raise InvalidOption(f"this is no schedule: {error}") from None


def describe_schedule(schedule: Schedule) -> str:
    """As a person would say it."""
    if isinstance(schedule, Cron):
        said = CronSim(schedule.spec, datetime.fromtimestamp(_TRIED_AT, UTC)).explain()
        return f"{said} ({schedule.tz})"
    size, unit = next(((size, unit) for size, unit in _UNITS if schedule.seconds % size == 0), (1, "second"))
    count = schedule.seconds / size
    return f"Every {unit}" if count == 1 else f"Every {count:g} {unit}s"
