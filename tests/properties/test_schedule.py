"""Any schedule at any moment: what comes next comes after now, and nothing between the two is passed over."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from backwater_tornado.errors import InvalidOption
from backwater_tornado.tasks.schedule import (
    Cron,
    Every,
    Schedule,
    decode_schedule,
    describe_schedule,
    encode_schedule,
    following,
    next_after,
)

#: Clocks that change in March and in September, at night and at midnight, and that never do.
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Sydney", "America/Sao_Paulo", "Asia/Kathmandu")
#: 2000 to 2050, and the hours around changes of the clocks, where the mistakes are.
CHANGES = [
    datetime(2026, 3, 29, 1, tzinfo=UTC),
    datetime(2026, 10, 25, 1, tzinfo=UTC),
    datetime(2026, 3, 8, 7, tzinfo=UTC),
]
moments = st.floats(946_684_800, 2_524_608_000) | st.builds(
    lambda change, offset: change.timestamp() + offset, st.sampled_from(CHANGES), st.floats(-10_000, 10_000)
)


def fields(lowest: int, highest: int) -> st.SearchStrategy[str]:
    numbers = st.integers(lowest, highest)
    ranges = st.tuples(numbers, numbers).map(lambda pair: "{}-{}".format(*sorted(pair)))
    steps = st.tuples(ranges | st.just("*"), st.integers(1, 7)).map(lambda pair: "{}/{}".format(*pair))
    one = numbers.map(str) | ranges | steps
    return st.just("*") | one | st.lists(one, min_size=2, max_size=3).map(",".join)


def made(spec: list[str], zone: str, catch_up: bool) -> Cron | None:
    try:
        return Cron(" ".join(spec), zone, catch_up)
    except InvalidOption:  # a 31st of February
        return None


crons = st.builds(
    made,
    st.tuples(fields(0, 59), fields(0, 23), fields(1, 31), fields(1, 12), fields(0, 7)).map(list),
    st.sampled_from(ZONES),
    st.booleans(),
).filter(lambda cron: cron is not None)
#: Those whose minute and hour are what matters, every day.
daily = st.builds(
    made,
    st.tuples(fields(0, 59), fields(0, 23)).map(lambda pair: [*pair, "*", "*", "*"]),
    st.sampled_from(ZONES),
    st.booleans(),
)
schedules: st.SearchStrategy[Schedule] = st.builds(Every, st.floats(0.1, 1e8), st.booleans()) | crons | daily  # type: ignore[assignment]


@given(schedules, moments, moments)
def test_the_next_moment_is_after_now(schedule: Schedule, now: float, anchor: float) -> None:
    assert next_after(schedule, now, anchor) > now


@given(schedules, moments, moments, st.floats(0, 1))
def test_nothing_is_passed_over(schedule: Schedule, now: float, anchor: float, part: float) -> None:
    next_one = next_after(schedule, now, anchor)
    between = min(now + (next_one - now) * part, next_one - 1e-3)
    if between > now:
        assert abs(next_after(schedule, between, anchor) - next_one) < 1e-3


@given(schedules, moments, moments)
def test_what_was_missed_is_behind_us_after_one_run_unless_all_is_caught_up(
    schedule: Schedule, due: float, now: float
) -> None:
    next_due = following(schedule, due, now)
    assert next_due > due
    assert schedule.catch_up or next_due > now


@given(st.integers(0, 23), st.integers(0, 59), st.sampled_from(ZONES), st.integers(2000, 2049))
def test_a_time_of_day_comes_once_on_every_day(hour: int, minute: int, zone: str, year: int) -> None:
    schedule, place = Cron(f"{minute} {hour} * * *", zone), ZoneInfo(zone)
    now, days = datetime(year, 1, 1, tzinfo=place).timestamp() - 1, []
    while (now := next_after(schedule, now, 0)) < datetime(year + 1, 1, 1, tzinfo=place).timestamp():
        days.append(datetime.fromtimestamp(now, place).date())
    assert len(days) == len(set(days)) == (366 if year % 4 == 0 else 365)


@given(schedules)
def test_every_schedule_can_be_written_and_read_and_described(schedule: Schedule) -> None:
    assert decode_schedule(encode_schedule(schedule)) == schedule
    assert describe_schedule(schedule)


@given(
    st.text(max_size=30)
    | st.lists(st.text("0123456789*/,-L#WmonfriMarDEC ", max_size=6), min_size=5, max_size=5).map(" ".join)
)
def test_whatever_is_written_is_a_schedule_or_refused(spec: str) -> None:
    try:
        schedule = Cron(spec)
    except InvalidOption:
        return
    assert next_after(schedule, 1e9, 0) > 1e9
    assert describe_schedule(schedule)
