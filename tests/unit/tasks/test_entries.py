"""What is to be done with an entry of the schedule; what comes of it with many workers, see tests/properties."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import replace

from backwater_tornado.broker.bounds import MAX_NAME
from backwater_tornado.broker.values import Entry, Message, Publication
from backwater_tornado.errors import InvalidOption
from backwater_tornado.tasks.entries import SKEW, Step, make_entry, pattern_of, publication_of, renew, step_of
from backwater_tornado.tasks.messages import read_arguments, read_headers
from backwater_tornado.tasks.schedule import Cron, Every, Schedule, encode_schedule
from backwater_tornado.tasks.signatures import chain, group, signature
from backwater_tornado.tasks.workflow import Context

NOW = 1_700_000_000.0  # 22:13:20
MINUTELY = Every(60)
PATTERN = Publication(Message("clean", b"body", priority=3), "jobs", lifetime=60.0)


def entry(schedule: Schedule = MINUTELY, pattern: Publication = PATTERN, now: float = NOW) -> Entry:
    return make_entry("clean", schedule, pattern, now)


def context(now: float = NOW, **more: Any) -> Context:
    return Context(now=now, new_id=lambda: f"new at {now}", **more)


def test_a_call_is_made_into_a_pattern_that_is_the_same_whenever_it_is_made() -> None:
    call = signature(
        "shop.clean", [1], {"deep": True}, queue="jobs", countdown=2, expires=60, priority=3, unique="clean"
    )
    pattern = pattern_of(call, context())
    assert pattern == pattern_of(call, context(NOW + 1, root="a task", parent="another"))
    assert (pattern.routing_key, pattern.delay, pattern.lifetime) == ("jobs", 2, 60)
    assert (pattern.message.priority, pattern.message.unique) == (3, "clean")
    assert (read_headers(pattern.message).task, read_headers(pattern.message).root) == ("shop.clean", "")
    assert read_arguments(pattern.message) == ([1], {"deep": True})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("task_id", "mine"),
        ("eta", NOW),
        ("expires_at", datetime.fromtimestamp(NOW, UTC)),
        ("unique_for", 60),
        ("link", signature("shop.add")),
        ("link_error", [signature("shop.add")]),
    ],
)
def test_an_option_of_one_sending_is_refused(option: str, value: Any) -> None:
    call = signature("shop.clean", **{option.replace("expires_at", "expires"): value})
    with pytest.raises(InvalidOption, match=f"a periodic task has no option '{option}', which is for one sending"):
        pattern_of(call, context())


@pytest.mark.parametrize("make", [chain, group])
def test_several_calls_are_refused(make: Any) -> None:
    with pytest.raises(InvalidOption, match="a periodic task is one call; let it send those that follow"):
        pattern_of(make(signature("shop.clean"), signature("shop.add")), context())


def test_the_first_run_of_a_period_is_one_period_from_now() -> None:
    assert entry() == Entry("clean", NOW + 60, PATTERN, encode_schedule(Every(60)))


def test_the_first_run_of_a_cron_expression_is_at_its_next_moment() -> None:
    assert entry(Cron("*/5 * * * *")).due == NOW + 100


@pytest.mark.parametrize("name", ["", "a" * 201, "a\nb", None, 3])
def test_a_wrong_name_is_refused(name: Any) -> None:
    with pytest.raises(InvalidOption, match="a periodic task's name has 1 to 200 printable characters, not "):
        make_entry(name, Every(60), PATTERN, NOW)


def test_an_entry_that_is_the_same_is_left_alone_whenever_it_was_made() -> None:
    assert renew(entry(now=NOW + 1000), entry()) is None


def test_an_entry_that_publishes_something_else_stays_due() -> None:
    other = replace(PATTERN, routing_key="others")
    assert renew(entry(pattern=other, now=NOW + 1000), entry()) == replace(entry(), publication=other)


def test_an_entry_with_another_schedule_is_due_anew() -> None:
    declared = entry(Every(30), now=NOW + 1000)
    assert renew(declared, entry()) == declared
    assert declared.due == NOW + 1030


def test_a_run_publishes_the_pattern_under_an_id_of_its_own() -> None:
    first, second = publication_of(entry()), publication_of(replace(entry(), due=NOW + 60.1))
    assert first == replace(PATTERN, message=replace(PATTERN.message, id="clean@1700000060.000"))
    assert second.message.id == "clean@1700000060.100"


def test_the_longest_name_leaves_room_for_the_moment() -> None:
    longest = replace(make_entry("a" * 200, Every(60), PATTERN, NOW), due=253_402_300_799.0)
    assert len(publication_of(longest).message.id) <= MAX_NAME


def test_nothing_is_done_until_an_entry_is_due() -> None:
    assert step_of(entry(), NOW + 59.9) is None
    assert step_of(entry(), NOW + 60) == Step(replace(entry(), due=NOW + 120), is_run=True)


def test_what_was_missed_is_one_run() -> None:
    assert step_of(entry(), NOW + 1000) == Step(replace(entry(), due=NOW + 1020), is_run=True)


def test_what_was_missed_is_every_run_if_that_was_asked_for() -> None:
    patient = entry(Every(60, catch_up=True))
    assert step_of(patient, NOW + 1000) == Step(replace(patient, due=NOW + 120), is_run=True)


@pytest.mark.parametrize("schedule", [Every(60), Cron("*/5 * * * *"), Every(86_400)])
def test_what_a_wrong_clock_has_planned_is_brought_forward_and_is_no_run(schedule: Schedule) -> None:
    wrong = entry(schedule, now=NOW + 3 * 86_400)
    step = step_of(wrong, NOW)
    assert step is not None
    assert not step.is_run
    assert NOW < step.entry.due <= entry(schedule).due
    assert step.entry == replace(wrong, due=step.entry.due)


@pytest.mark.parametrize("schedule", [Every(60), Every(0.1), Cron("* * * * *"), Cron("0 0 1 1 *")])
def test_what_a_clock_has_planned_that_is_a_little_ahead_is_left_as_it_is(schedule: Schedule) -> None:
    assert step_of(entry(schedule, now=NOW + SKEW), NOW) is None


def test_an_entry_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(InvalidOption, match="this is no schedule"):
        step_of(replace(entry(), spec=b"of another version"), NOW + 60)
