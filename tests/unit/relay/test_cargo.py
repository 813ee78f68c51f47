from __future__ import annotations

from typing import Any

import pytest

from backwater_tornado.broker.values import (
    Delivery,
    Message,
    Outcome,
    Publication,
    Published,
    PublishState,
    Result,
    Settlement,
    Verdict,
)
from backwater_tornado.protocol.codec import MSGPACK
from backwater_tornado.relay.cargo import (
    FULL_PAUSE,
    KEEP,
    Away,
    arrival,
    depart,
    is_worn,
    load,
    needs,
    refusal,
    renewed,
    take,
)
from backwater_tornado.tasks.messages import TaskHeaders, encode_headers, read_arguments, read_headers
from backwater_tornado.tasks.outcomes import failed, succeeded

NOW = 500.0


def delivery(count: int = 1, exchange: str = "", headers: TaskHeaders | None = None, **more: Any) -> Delivery:
    written = b"" if headers is None else encode_headers(headers)
    body = MSGPACK.encode([[1], {}])
    return Delivery(7, "q", Message("a", **{"body": body, "headers": written, **more}), exchange, "q", count, 0.0)


def away(**more: Any) -> Away:
    return Away(7, "a", True, None, Publication(Message("a", b""), "q"), **more)


def loaded(it: Delivery, results: Any = None) -> Publication:
    found = load(it, "there", results or {})
    assert isinstance(found, Publication)
    return found


@pytest.mark.parametrize(
    ("more", "awaited"),
    [({}, False), ({"keep_result": 0.0}, True), ({"joins": ("j",)}, True), ({"unique": "k"}, True)],
)
def test_the_end_of_a_message_is_awaited_where_something_hangs_on_it(more: dict[str, Any], awaited: bool) -> None:
    assert take(delivery(**more), 0.0).is_awaited is awaited
    assert loaded(delivery(**more)).message.keep_result == (KEEP if awaited else None)


def test_what_belongs_to_the_near_broker_stays_there() -> None:
    whole = {"joins": ("j",), "unique": "k", "unique_until": 9.0, "priority": 3, "content_type": "t"}
    it = delivery(not_before=1.0, expires=2.0, keep_result=5.0, content_encoding="e", **whole)
    publication = loaded(it)
    kept = {**whole, "joins": (), "content_encoding": "e", "keep_result": KEEP}
    assert publication == Publication(Message("a", it.message.body, **kept), "there")


def test_what_is_left_of_a_lifetime_goes_along() -> None:
    one = take(delivery(expires=1060.0), skew=NOW - 1000.0)
    assert one.expires == NOW + 60
    one.publication = loaded(delivery(expires=1060.0))
    assert not one.is_tried
    assert depart(one, NOW + 10).lifetime == 50
    assert one.is_tried
    assert depart(one, NOW + 100).lifetime == 0
    assert depart(away(), NOW).lifetime is None


def test_a_copy_of_what_came_through_an_exchange_is_a_message_of_its_own() -> None:
    assert take(delivery(exchange="news"), 0.0).id == loaded(delivery(exchange="news")).message.id == "a@q"


def test_what_comes_a_second_time_comes_anew() -> None:
    assert not is_worn(delivery())
    assert is_worn(delivery(count=2))
    assert renewed(delivery(count=2)) == Settlement(7, Verdict.REQUEUE, replacement=delivery().message)


def test_a_task_that_comes_after_others_is_told_of_their_results_before_it_goes() -> None:
    it = delivery(headers=TaskHeaders("t.f", inputs=["x", "y"], root="r"))
    assert needs(it) == ("x", "y")
    results = {name: Result(name, succeeded(name * 2), True, 0.0) for name in "xy"}
    message = loaded(it, results).message
    assert read_arguments(message) == ([["xx", "yy"], 1], {})
    assert read_headers(message) == TaskHeaders("t.f", root="r")


def test_a_task_that_wants_ids_gets_ids_and_what_is_no_task_is_let_be() -> None:
    by_id = delivery(headers=TaskHeaders("t.f", inputs="x", inputs_by_id=True))
    for it in (by_id, delivery(headers=TaskHeaders("t.f")), delivery(), delivery(content_type="odd")):
        assert needs(it) == ()
        message = loaded(it).message
        assert (message.headers, message.body) == (it.message.headers, it.message.body)


def test_a_task_whose_inputs_have_failed_does_not_go() -> None:
    bad = {"x": Result("x", failed(ValueError("no")), True, 0.0)}
    for headers in (TaskHeaders("t.f", inputs="x"), TaskHeaders("t.f", inputs="x", upstream_failed=True)):
        settlement = load(delivery(headers=headers), "there", bad)
        assert isinstance(settlement, Settlement)
        assert (settlement.verdict, settlement.token) == (Verdict.ACK, 7)
        assert settlement.outcome is not None
        assert settlement.outcome.failed


@pytest.mark.parametrize("state", [PublishState.ACCEPTED, PublishState.DUPLICATE])
def test_what_was_taken_was_not_refused(state: PublishState) -> None:
    assert refusal(away(), Published(state, ("q",))) is None


def test_what_is_never_taken_is_put_aside_and_what_has_no_room_waits() -> None:
    held = Published(PublishState.REFUSED, reason="unique_key_held")
    unrouted = Published(PublishState.UNROUTED)
    for published, reason in ((held, "unique_key_held"), (unrouted, "unrouted")):
        said = Settlement(7, Verdict.REJECT, Outcome(reason, failed=True), reason=f"the far broker: {reason}")
        assert refusal(away(), published) == said
    full = Published(PublishState.REFUSED, reason="queue_full")
    assert refusal(away(), full) == Settlement(7, Verdict.RETURN, delay=FULL_PAUSE)


def test_news_of_a_message_are_told_once_and_its_end_ends_it() -> None:
    one = away()
    started = Result("a", Outcome("STARTED"), False, 1.0)
    assert arrival(one, started) == Settlement(7, Verdict.KEEP, started.outcome)
    assert arrival(one, started) is None
    assert not one.is_home
    ended = Result("a", Outcome("expired", failed=True), True, 1.0)
    assert arrival(one, ended) == Settlement(7, Verdict.ACK, ended.outcome)
    assert one.is_home
