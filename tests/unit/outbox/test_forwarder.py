"""A forwarder at a true file and a true broker, over a link that does as it is told."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from backwater_tornado import hedging
from backwater_tornado.broker.values import Queue
from backwater_tornado.errors import (
    CallFailed,
    ConfigurationError,
    NotInScope,
    OutcomeUnknown,
    StorageFailed,
    Unreachable,
)
from backwater_tornado.outbox import forwarder as module
from backwater_tornado.outbox.forwarder import IN_FLIGHT, Forwarder
from backwater_tornado.outbox.rules import KNOWN_FOR, LEAST_MESSAGES, choose
from backwater_tornado.outbox.seat import Seat
from backwater_tornado.outbox.sqlite_store import SqliteOutbox
from backwater_tornado.tasks.asks import Ask
from backwater_tornado.tasks.flows import MAX_MESSAGES
from backwater_tornado.tasks.signatures import Canvas, chain, group, signature
from tests.unit.outbox.lines import NOW, Line, parcels

PATIENCE = 20.0


@pytest.fixture
def box(tmp_path: Path) -> Iterator[SqliteOutbox]:
    made = SqliteOutbox(tmp_path / "o.db")
    yield made
    made.close()


@pytest.fixture
def line() -> Line:
    return Line()


def call(queue: str = "a", **options: Any) -> Canvas:
    return signature("m.f", queue=queue, **options)


def put(box: SqliteOutbox, *canvases: Canvas, at: float = NOW) -> list[str]:
    """Put them in; gives the id of each."""
    made = parcels(*canvases, at=at)
    box.put(made)
    return [each.id for each in made]


@contextlib.asynccontextmanager
async def forwarding(box: SqliteOutbox, line: Line, dice: float = 0.0) -> AsyncIterator[Forwarder]:
    forwarder = Forwarder(box, line, lambda: line.now, lambda: dice)
    running = asyncio.create_task(forwarder.run())
    try:
        yield forwarder
    finally:
        forwarder.stop()
        await asyncio.wait_for(running, PATIENCE)


async def until(condition: Any) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what it looks at rings no bell
            await asyncio.sleep(0)


async def all_gone(box: SqliteOutbox) -> None:
    await until(lambda: not box.is_waiting(box.last_number()))


def failing(*failures: CallFailed) -> Any:
    """Each once, then nothing more."""
    left = list(failures)

    async def fail(ask: Ask[Any]) -> None:
        if left:
            raise left.pop(0)

    return fail


class Gate:
    """Holds up asks until it is opened."""

    def __init__(self) -> None:
        self.waiting = 0
        self._open = asyncio.Event()

    async def __call__(self, ask: Ask[Any]) -> None:
        self.waiting += 1
        await self._open.wait()

    def open(self) -> None:
        self._open.set()


# What goes -----------------------------------------------------------------------------------------------------------


def test_what_lies_there_goes_and_so_does_what_comes(box: SqliteOutbox, line: Line) -> None:
    first = put(box, call(), chain(call(), call()))

    async def work() -> list[str]:
        async with forwarding(box, line):
            await all_gone(box)
            more = put(box, call(), call("b"))
            await all_gone(box)
        return more

    more = asyncio.run(work())
    assert line.received("a") == [*first, more[0]]
    assert line.received("b") == [more[1]]
    assert box.status().size == 0


def test_it_is_heard_at_once_and_looked_for_in_any_case(
    box: SqliteOutbox, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def heard(look: float) -> None:
        monkeypatch.setattr(module, "LOOK", look)
        async with forwarding(box, line) as forwarder:
            await until(lambda: forwarder.seat.fd >= 0)
            await asyncio.sleep(0)
            put(box, call())
            await all_gone(box)

    asyncio.run(heard(1e6))
    monkeypatch.setattr("backwater_tornado.outbox.sqlite_store.ring", lambda path: None)
    asyncio.run(heard(0.01))


def test_what_comes_while_a_request_is_on_its_way_goes_together(box: SqliteOutbox, line: Line) -> None:
    async def work() -> None:
        gate = line.before = Gate()
        async with forwarding(box, line):
            put(box, call())
            await until(lambda: gate.waiting)
            for _ in range(20):
                put(box, call())
                await asyncio.sleep(0)
            gate.open()
            await all_gone(box)

    asyncio.run(work())
    assert [len(each) for each in line.published] == [1, 20]


def test_other_queues_do_not_wait_for_one_whose_answer_is_slow(box: SqliteOutbox, line: Line) -> None:
    async def work() -> list[str]:
        gate = Gate()

        async def slow(ask: Ask[Any]) -> None:
            if "first" in line.published[-1]:
                await gate(ask)

        line.after = slow
        async with forwarding(box, line):
            put(box, call(task_id="first"))
            await until(lambda: gate.waiting)
            behind = put(box, call())
            other = put(box, call("b"))
            await until(lambda: other in line.published)
            assert behind not in line.published
            gate.open()
            await all_gone(box)
        return behind

    behind = asyncio.run(work())
    assert line.received("a") == ["first", *behind]


def test_several_requests_are_on_their_way_and_not_more(box: SqliteOutbox, line: Line) -> None:
    for number in range(IN_FLIGHT + 2):
        put(box, *[call(f"q{number}")] * (MAX_MESSAGES // 2 + 1))

    async def work() -> None:
        gate = line.before = Gate()
        async with forwarding(box, line):
            await until(lambda: gate.waiting == IN_FLIGHT)
            put(box, call("q0"))
            gate.open()
            await all_gone(box)

    asyncio.run(work())
    assert line.most_on_their_way == IN_FLIGHT


def test_more_than_is_looked_at_goes_in_the_end(box: SqliteOutbox, line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WINDOW", 3)
    sent = put(box, *[call()] * 20)

    async def work() -> None:
        async with forwarding(box, line):
            await all_gone(box)

    asyncio.run(work())
    assert line.received("a") == sent


def test_time_that_has_passed_is_taken_off(box: SqliteOutbox, line: Line) -> None:
    late, early = put(box, call(countdown=50), call(countdown=500))
    line.now = NOW + 100

    async def work() -> None:
        async with forwarding(box, line):
            await all_gone(box)

    asyncio.run(work())
    assert line.received("a") == [late]
    line.now = NOW + 500
    assert line.received("a") == [early]


# The link ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["before", "after"])
def test_a_failure_of_the_link_is_ridden_through(box: SqliteOutbox, line: Line, place: str) -> None:
    setattr(line, place, failing(Unreachable(), OutcomeUnknown(), StorageFailed()))
    sent = put(box, *[call()] * 5)

    async def work() -> None:
        async with forwarding(box, line) as forwarder:
            await all_gone(box)
            await until(lambda: not forwarder.failures)

    asyncio.run(work())
    assert line.received("a") == sent


def test_while_it_is_down_one_request_at_a_time_tries_it_and_then_all_go_at_once(
    box: SqliteOutbox, line: Line, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(IN_FLIGHT):
        put(box, *[call(f"q{number}")] * LEAST_MESSAGES)
    caplog.set_level(logging.INFO)
    asked = itertools.count(1)

    async def work() -> None:
        gate = Gate()

        async def down(ask: Ask[Any]) -> None:
            number = next(asked)
            if number <= 30:
                raise Unreachable("no route")
            if number > 31:
                await gate(ask)

        line.before = down
        async with forwarding(box, line, dice=-1.0) as forwarder:  # no pauses
            for _ in range(10):
                forwarder._room = forwarder._room.smaller()
            await until(lambda: forwarder.failures == 5)
            line.most_on_their_way = line.on_their_way
            assert forwarder.is_idle
            await until(lambda: line.published)
            assert line.most_on_their_way == 1
            await until(lambda: gate.waiting == 2)  # with room for two queues, and for the last
            assert not forwarder.is_idle
            gate.open()
            await all_gone(box)

    asyncio.run(work())
    assert [each.message for each in caplog.records] == [
        "tasks cannot be forwarded now, and wait in the outbox: no route",
        "the broker takes tasks again",
    ]


def test_while_it_is_down_a_request_is_not_waited_for_that_is_swallowed(
    box: SqliteOutbox, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hedging, "EVERY", 0.001)
    sent = put(box, call(), call())
    asked = 0

    async def swallow(ask: Ask[Any]) -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise Unreachable
        if asked < 5:
            await asyncio.Event().wait()  # nothing is heard of it any more

    async def work() -> None:
        line.before = swallow
        async with forwarding(box, line, dice=-1.0):
            await all_gone(box)

    asyncio.run(work())
    assert asked == 5
    assert line.received("a") == sent


def test_requests_shrink_when_they_fail_and_grow_when_they_do_not(box: SqliteOutbox, line: Line) -> None:
    put(box, *[call()] * 100)

    async def work() -> None:
        async with forwarding(box, line, dice=-1.0) as forwarder:
            await until(lambda: forwarder.seat.fd >= 0)
            await all_gone(box)

    line.before = failing(*[OutcomeUnknown()] * 7)
    asyncio.run(work())
    assert [len(each) for each in line.published] == [16, 32, 52]


def test_where_one_gets_through_what_failed_is_tried_again_at_once(box: SqliteOutbox, line: Line) -> None:
    async def work() -> None:
        gate, failed = Gate(), asyncio.Event()

        async def fail(ask: Ask[Any]) -> None:
            if not failed.is_set():
                failed.set()
                raise Unreachable
            await gate(ask)

        async with forwarding(box, line, dice=1e9) as forwarder:  # else it would wait for ever
            line.before = gate
            put(box, call("b"))
            await until(lambda: gate.waiting)
            line.before = fail
            put(box, call("a"))
            await until(lambda: forwarder.failures)
            gate.open()
            await all_gone(box)

    asyncio.run(work())
    assert len(line.published) == 2


def test_a_sender_in_a_loop_does_not_have_it_look_each_time(
    box: SqliteOutbox, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK", 1e6)
    monkeypatch.setattr(module, "REST", 1e6)

    async def work() -> None:
        gate = line.before = Gate()
        async with forwarding(box, line) as forwarder:
            await until(lambda: forwarder.seat.fd >= 0)
            for number, queue in enumerate("ab", 1):
                put(box, call(queue))
                await until(lambda number=number: gate.waiting == number)
            put(box, call("c"))
            for _ in range(100):
                await asyncio.sleep(0)
            assert gate.waiting == 2
            gate.open()  # an answer makes it look
            await all_gone(box)

    asyncio.run(work())


def test_what_has_to_wait_for_an_answer_is_not_looked_at_again_before_that(
    box: SqliteOutbox, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    monkeypatch.setattr(module, "REST", 0.0)
    monkeypatch.setattr(module, "choose", lambda *words: looks.append(len(words[0])) or choose(*words))

    async def work() -> None:
        gate = line.before = Gate()
        async with forwarding(box, line) as forwarder:
            put(box, call())
            await until(lambda: gate.waiting)
            for number in range(1, 20):
                put(box, call())
                await until(lambda number=number: len(forwarder._waiting) == number)
            assert max(looks) <= 1
            gate.open()
            await all_gone(box)

    asyncio.run(work())


def test_several_that_fail_at_once_count_as_one(box: SqliteOutbox, line: Line) -> None:
    for number in range(IN_FLIGHT):
        put(box, *[call(f"q{number}")] * (MAX_MESSAGES // 2 + 1))

    async def work() -> None:
        gate = Gate()

        async def fail(ask: Ask[Any]) -> None:
            await gate(ask)
            raise Unreachable

        line.before = fail
        async with forwarding(box, line, dice=100.0) as forwarder:
            await until(lambda: gate.waiting == IN_FLIGHT)
            gate.open()
            await until(lambda: not forwarder._busy)
            assert forwarder.failures == 1

    asyncio.run(work())


def test_what_was_on_its_way_is_sent_again_by_the_next_and_is_there_once(box: SqliteOutbox, line: Line) -> None:
    sent = put(box, *[call()] * 3)

    async def work() -> None:
        gate = line.after = Gate()
        async with forwarding(box, line):
            await until(lambda: gate.waiting)
        line.after = failing()
        assert box.is_waiting(3)
        async with forwarding(box, line):
            await all_gone(box)

    asyncio.run(work())
    assert line.published == [sent, sent]
    assert line.received("a") == sent


def test_a_fault_of_our_own_stops_nothing(box: SqliteOutbox, line: Line, caplog: pytest.LogCaptureFixture) -> None:
    line.before = failing(RuntimeError("a fault"))  # type: ignore[arg-type]
    put(box, call())

    async def work() -> None:
        async with forwarding(box, line):
            await all_gone(box)

    asyncio.run(work())
    assert "the forwarder has failed, and goes on" in caplog.text


def test_a_file_that_fails_for_a_while_stops_nothing(box: SqliteOutbox, line: Line) -> None:
    sent = put(box, call())
    read, left = box.reader(), [StorageFailed("locked")] * 3

    def fail(limit: int) -> Any:
        if left:
            raise left.pop()
        return read(limit)

    async def work() -> None:
        async with forwarding(box, line):
            await all_gone(box)

    box.reader = lambda: fail  # type: ignore[method-assign]
    asyncio.run(work())
    assert line.received("a") == sent


# Refusals ------------------------------------------------------------------------------------------------------------


def test_what_is_refused_for_good_is_kept_with_its_reason_and_all_else_goes(
    box: SqliteOutbox, line: Line, caplog: pytest.LogCaptureFixture
) -> None:
    line.declare(Queue("full", max_length=0))
    first, refused, last = put(box, call(), call("full"), call())

    async def work() -> None:
        line.after = failing(OutcomeUnknown())
        async with forwarding(box, line):
            await all_gone(box)

    asyncio.run(work())
    assert line.received("a") == [first, last]
    assert [(each.parcel.id, each.reason) for each in box.refused(9)] == [(refused, "queue_full")]
    assert box.status().refused == 1
    assert f"the broker did not take the task {refused}: queue_full" in caplog.text
    (result,) = asyncio.run(line.broker.results([refused]))
    assert result is not None
    assert result.final


def test_who_may_not_say_that_it_has_ended_goes_on_all_the_same(
    box: SqliteOutbox, line: Line, caplog: pytest.LogCaptureFixture
) -> None:
    line.declare(Queue("full", max_length=0))
    put(box, call("full"))

    async def bar(ask: Ask[Any]) -> None:
        if ask.verb == "cancel":
            raise NotInScope("the key may not call broker.cancel")

    async def work() -> None:
        line.before = bar
        async with forwarding(box, line):
            await all_gone(box)

    asyncio.run(work())
    assert len(box.refused(9)) == 1
    assert "could not be told to end" in caplog.text


def test_a_broker_that_is_busy_is_told_later_what_has_ended(box: SqliteOutbox, line: Line) -> None:
    line.declare(Queue("full", max_length=0))
    (refused,) = put(box, call("full"))
    left = [StorageFailed()]

    async def busy(ask: Ask[Any]) -> None:
        if ask.verb == "cancel" and left:
            raise left.pop()

    async def work() -> None:
        line.before = busy
        async with forwarding(box, line):
            await all_gone(box)

    asyncio.run(work())
    (result,) = asyncio.run(line.broker.results([refused]))
    assert result is not None
    assert len(box.refused(9)) == 1


def test_what_may_have_been_accepted_too_long_ago_is_not_sent_again(box: SqliteOutbox, line: Line) -> None:
    old, new = put(box, call(), call())
    box.take([1], NOW)
    line.now = NOW + KNOWN_FOR

    async def work() -> None:
        async with forwarding(box, line):
            await all_gone(box)

    asyncio.run(work())
    assert line.received("a") == [new]
    assert [(each.parcel.id, each.reason[:8]) for each in box.refused(9)] == [(old, "unknown:")]


def test_what_was_dropped_meanwhile_does_not_go(box: SqliteOutbox, line: Line) -> None:
    put(box, call())

    async def work() -> list[str]:
        gate = line.before = Gate()
        async with forwarding(box, line):
            await until(lambda: gate.waiting)
            sent = put(box, call(), group(call(), call()))
            assert box.remove([2]) == 1
            gate.open()
            await all_gone(box)
        return sent

    sent = asyncio.run(work())
    assert sent[0] not in line.received("a")


# The seat ------------------------------------------------------------------------------------------------------------


def test_one_forwards_and_another_takes_over(box: SqliteOutbox, line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK", 0.01)

    async def work() -> None:
        async with forwarding(box, line) as one:
            await until(lambda: one.seat.fd >= 0)
            async with forwarding(box, Line()) as idle:
                await until(lambda: idle.is_idle)
                assert not one.is_idle
            async with forwarding(box, line) as other:
                await until(lambda: other.is_idle)
                assert not other._news.is_set()
                put(box, call())
                await all_gone(box)
                one.stop()
                await until(lambda: other.seat.fd >= 0)
                assert not other.is_idle
                put(box, call())
                await all_gone(box)

    asyncio.run(work())
    assert len(line.received("a")) == 2


class LostSeat(Seat):
    """One whose store may be away, and takes the seat with it."""

    away = False

    def take(self) -> bool:
        if self.away:
            raise StorageFailed("away")
        return super().take()

    def hush(self) -> bool:
        super().hush()
        return not self.away


def test_a_seat_that_is_lost_is_taken_again_and_all_begins_anew(
    box: SqliteOutbox, line: Line, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "LOOK", 0.01)
    seat = LostSeat(box.path)
    box.seat = lambda: seat  # type: ignore[method-assign]

    async def work() -> list[str]:
        gate = line.before = Gate()
        async with forwarding(box, line) as forwarder:
            sent = put(box, call())
            await until(lambda: gate.waiting)
            seat.away = True
            sent += put(box, call("b"))
            await until(lambda: forwarder.failures)
            assert seat.fd < 0
            assert not forwarder._busy
            gate.open()
            seat.away = False
            await all_gone(box)
        return sent

    sent = asyncio.run(work())
    assert line.received("a", "b") == sent
    assert "the seat of this outbox's forwarder was lost" in caplog.text


def test_a_seat_that_is_given_up_while_it_is_waited_for(box: SqliteOutbox, line: Line) -> None:
    other = Seat(box.path)
    assert other.take()

    async def work() -> None:
        async with forwarding(box, line) as forwarder:
            await until(lambda: forwarder.is_idle)

    asyncio.run(work())
    other.leave()


def test_a_seat_that_cannot_be_used_is_told(box: SqliteOutbox, line: Line) -> None:
    Path(f"{box.path}-forwarder").unlink()
    with pytest.raises(ConfigurationError):
        asyncio.run(Forwarder(box, line).run())


def test_a_forwarder_that_was_stopped_gives_its_seat_back(box: SqliteOutbox, line: Line) -> None:
    async def work() -> None:
        async with forwarding(box, line) as forwarder:
            await until(lambda: forwarder.seat.fd >= 0)

    asyncio.run(work())
    seat = Seat(box.path)
    assert seat.take()
    seat.leave()
