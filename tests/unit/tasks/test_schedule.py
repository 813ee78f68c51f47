"""Schedules at chosen moments, days on which clocks are changed among them; for any moment, see tests/properties."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest

from backwater_tornado.errors import InvalidOption
from backwater_tornado.tasks.schedule import (
    Cron,
    Every,
    Schedule,
    crontab,
    decode_schedule,
    describe_schedule,
    encode_schedule,
    following,
    next_after,
    schedule_of,
)

BERLIN = "Europe/Berlin"
NOW = 1_700_000_000.0


def moment(text: str) -> float:
    """A moment in ISO's form, with its offset."""
    return datetime.fromisoformat(text).timestamp()


def runs(schedule: Schedule, now: str, count: int) -> list[str]:
    """The next so many, by Berlin's clocks."""
    found, last = [], moment(now)
    for _ in range(count):
        last = next_after(schedule, last, last)
        found.append(datetime.fromtimestamp(last, ZoneInfo(BERLIN)).isoformat())
    return found


# Every ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "next_one"), [(1000, 1060), (1000.5, 1060), (1059.9, 1060), (1060, 1120), (100, 160), (940, 1000)]
)
def test_a_period_is_a_grid_around_its_anchor(now: float, next_one: float) -> None:
    assert next_after(Every(60), now, anchor=1000) == next_one


def test_a_period_that_is_no_binary_fraction_comes_after_now_all_the_same() -> None:
    last = NOW
    for _ in range(1000):
        last, before = next_after(Every(0.1), last, NOW), last
        assert before < last <= before + 0.11


@pytest.mark.parametrize("seconds", [0, -1, 0.09, float("nan"), float("inf"), "60", None, True])
def test_a_wrong_period_is_refused(seconds: Any) -> None:
    with pytest.raises(InvalidOption, match=r"a period should be 0\.1 seconds or more, not "):
        Every(seconds)


# Cron ----------------------------------------------------------------------------------------------------------------


def test_a_cron_expression_is_read_in_its_time_zone() -> None:
    working_hours = Cron("*/30 8-9 * * mon-fri", BERLIN)
    friday = "2026-11-20T09:10:00+01:00"
    assert runs(working_hours, friday, 3) == [
        "2026-11-20T09:30:00+01:00",
        "2026-11-23T08:00:00+01:00",
        "2026-11-23T08:30:00+01:00",
    ]
    assert next_after(Cron("0 12 * * *"), moment(friday), 0) == moment("2026-11-20T12:00:00+00:00")


@pytest.mark.parametrize(
    ("now", "next_one"),
    [
        ("2026-11-20T11:59:59.9+00:00", "2026-11-20T12:00:00+00:00"),
        ("2026-11-20T12:00:00+00:00", "2026-11-21T12:00:00+00:00"),
        ("2026-11-20T12:00:00.1+00:00", "2026-11-21T12:00:00+00:00"),
    ],
)
def test_now_itself_is_not_next(now: str, next_one: str) -> None:
    assert next_after(Cron("0 12 * * *"), moment(now), 0) == moment(next_one)


def test_a_time_of_day_that_is_left_out_comes_once_when_clocks_are_changed() -> None:
    assert runs(Cron("30 2 * * *", BERLIN), "2026-03-28T12:00:00+01:00", 2) == [
        "2026-03-29T03:00:00+02:00",
        "2026-03-30T02:30:00+02:00",
    ]
    assert runs(Cron("0,30 2,3 * * *", BERLIN), "2026-03-29T01:00:00+01:00", 3) == [
        "2026-03-29T03:00:00+02:00",
        "2026-03-29T03:30:00+02:00",
        "2026-03-30T02:00:00+02:00",
    ]


def test_a_time_of_day_that_comes_twice_counts_once_and_first() -> None:
    nightly = Cron("30 2 * * *", BERLIN)
    assert runs(nightly, "2026-10-24T12:00:00+02:00", 2) == ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"]


@pytest.mark.parametrize("now", ["2026-10-25T02:31:00+02:00", "2026-10-25T02:10:00+01:00", "2026-10-25T02:30:00+01:00"])
def test_a_time_of_day_does_not_come_again_in_the_second_of_two_hours(now: str) -> None:
    assert runs(Cron("30 2 * * *", BERLIN), now, 1) == ["2026-10-26T02:30:00+01:00"]


def test_with_a_star_every_real_hour_counts() -> None:
    hourly = Cron("0 * * * *", BERLIN)
    assert runs(hourly, "2026-03-29T01:00:00+01:00", 2) == ["2026-03-29T03:00:00+02:00", "2026-03-29T04:00:00+02:00"]
    assert runs(hourly, "2026-10-25T01:00:00+02:00", 3) == [
        "2026-10-25T02:00:00+02:00",
        "2026-10-25T02:00:00+01:00",
        "2026-10-25T03:00:00+01:00",
    ]
    half_past_two = Cron("*/30 2 * * *", BERLIN)
    assert runs(half_past_two, "2026-03-29T01:00:00+01:00", 1) == ["2026-03-30T02:00:00+02:00"]


def test_two_kinds_of_day_mean_either_unless_one_begins_with_a_star() -> None:
    either, both = Cron("0 0 13 * fri", BERLIN), Cron("0 0 */13 * fri", BERLIN)
    assert runs(either, "2026-11-10T00:00:00+01:00", 2) == ["2026-11-13T00:00:00+01:00", "2026-11-20T00:00:00+01:00"]
    assert runs(both, "2026-11-10T00:00:00+01:00", 1) == ["2026-11-27T00:00:00+01:00"]


@pytest.mark.parametrize(
    ("spec", "first"),
    [
        ("0 0 L * *", "2026-11-30T00:00:00+01:00"),
        ("0 0 LW * *", "2026-11-30T00:00:00+01:00"),
        ("0 0 * * fri#2", "2026-11-13T00:00:00+01:00"),
        ("0 0 * * 5L", "2026-11-27T00:00:00+01:00"),
        ("0 0 29 feb *", "2028-02-29T00:00:00+01:00"),
    ],
)
def test_the_last_the_second_and_leap_days_are_found(spec: str, first: str) -> None:
    assert runs(Cron(spec, BERLIN), "2026-11-10T00:00:00+01:00", 1) == [first]


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ("61 * * * *", "'61 * * * *' is no cron expression: bad minute"),
        ("* 24 * * *", "bad hour"),
        ("* * 0 * *", "bad day-of-month"),
        ("* * * foo *", "bad month"),
        ("* * * * fri-mon", "bad day-of-week"),
        ("0 0 31 2 *", "bad day-of-month"),
        ("0 0 */40 2 1#5", "'0 0 */40 2 1#5' never comes"),
        ("* * * *", r"a cron expression has five fields, not '\* \* \* \*'"),
        ("0 * * * * *", "five fields"),
        ("@daily", "five fields"),
        ("", "five fields"),
        ("1" * 300 + " * * * *", "five fields"),
        (None, "five fields, not None"),
    ],
)
def test_a_wrong_expression_is_refused_with_what_is_wrong(spec: Any, complaint: str) -> None:
    with pytest.raises(InvalidOption, match=complaint.replace("*", r"\*") if "\\" not in complaint else complaint):
        Cron(spec)


@pytest.mark.parametrize("tz", ["No/Where", "", "/etc/passwd", "Europe", "\0", "x" * 5000, 3])
def test_a_wrong_time_zone_is_refused_by_name(tz: Any) -> None:
    with pytest.raises(InvalidOption, match="there is no time zone .* here; the package tzdata has them all"):
        Cron("* * * * *", tz)


def test_a_crontab_is_an_expression_field_by_field() -> None:
    assert crontab() == Cron("* * * * *")
    made = crontab(minute=0, hour="*/3", day_of_week="mon", month_of_year="1-6", tz=BERLIN)
    assert made == Cron("0 */3 * 1-6 mon", BERLIN)
    assert crontab(day_of_month=13, day_of_week="*") == Cron("* * 13 * *")


def test_two_kinds_of_day_in_a_crontab_are_refused_as_they_mean_something_else_in_celery() -> None:
    with pytest.raises(InvalidOption, match="day_of_week and day_of_month together"):
        crontab(day_of_month=13, day_of_week="fri")


# Both ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "schedule"),
    [
        (60, Every(60)),
        (0.5, Every(0.5)),
        (timedelta(minutes=2), Every(120)),
        ("*/5 * * * *", Cron("*/5 * * * *")),
        (Every(3, catch_up=True), Every(3, catch_up=True)),
        (Cron("0 0 * * *", BERLIN), Cron("0 0 * * *", BERLIN)),
    ],
)
def test_a_schedule_may_be_written_as_what_it_is(given: Any, schedule: Schedule) -> None:
    assert schedule_of(given) == schedule


def test_what_was_missed_runs_once() -> None:
    assert following(Every(60), due=1000, now=1000.1) == 1060
    assert following(Every(60), due=1000, now=1305) == 1360
    assert following(Cron("*/5 * * * *"), due=NOW - 3500, now=NOW) == NOW + 100


def test_what_was_missed_runs_each_time_if_that_was_asked_for() -> None:
    assert following(Every(60, catch_up=True), due=1000, now=1305) == 1060
    assert following(Cron("*/5 * * * *", catch_up=True), due=NOW - 3500, now=NOW) == NOW - 3200


def test_a_run_before_its_time_does_not_bring_the_next_one_forward() -> None:
    assert following(Every(60), due=1000, now=900) == 1060


@pytest.mark.parametrize(
    "schedule", [Every(60), Every(0.5, catch_up=True), Cron("* * * * *"), Cron("0 0 * * *", BERLIN, catch_up=True)]
)
def test_a_schedule_survives_the_broker(schedule: Schedule) -> None:
    assert decode_schedule(encode_schedule(schedule)) == schedule


def test_equal_schedules_have_equal_bytes() -> None:
    assert encode_schedule(Every(60)) == encode_schedule(Every(60.0))


@pytest.mark.parametrize(
    "spec", [b"", b"\xc1", b"60", *map(msgspec.msgpack.encode, ({"type": "every", "seconds": 0}, {"type": "sun"}))]
)
def test_bytes_that_are_no_schedule_are_refused(spec: bytes) -> None:
    with pytest.raises(InvalidOption, match="this is no schedule: "):
        decode_schedule(spec)


@pytest.mark.parametrize(
    ("schedule", "text"),
    [
        (Every(1), "Every second"),
        (Every(0.1), "Every 0.1 seconds"),
        (Every(90), "Every 90 seconds"),
        (Every(300), "Every 5 minutes"),
        (Every(3600), "Every hour"),
        (Every(7 * 86_400), "Every 7 days"),
        (Cron("30 2 * * *", BERLIN), "At 02:30 every day (Europe/Berlin)"),
        (Cron("*/5 8-18 * * mon-fri"), "Every fifth minute from 08:00 through 18:59 on Monday through Friday (UTC)"),
    ],
)
def test_a_schedule_is_described_as_a_person_would(schedule: Schedule, text: str) -> None:
    assert describe_schedule(schedule) == text
