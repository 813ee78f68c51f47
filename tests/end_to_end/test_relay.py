"""Two brokers, a worker at the far one and a relay between: those who send to the near one notice nothing of it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

import backwater_tornado as backwater
from backwater_tornado.broker.values import Binding, Exchange, Message, Poll, Publication, Queue, QueueStats
from backwater_tornado.errors import (
    InvalidOption,
    MessageTooLarge,
    TaskExpired,
    TaskNotAccepted,
    TaskRevoked,
    UpstreamFailed,
)
from backwater_tornado.tasks import asks
from backwater_tornado.testing import Clock, RunningBroker, running_broker, running_relay, running_worker

PATIENCE = 10.0


class Steps:
    """What the tasks of these tests do; exposed as `steps`."""

    def __init__(self) -> None:
        self.noted: list[Any] = []
        self.began, self.go = threading.Event(), threading.Event()

    @backwater.expose
    def add(self, *numbers: int) -> int:
        return sum(numbers)

    @backwater.expose
    def total(self, numbers: list[int], *more: int) -> int:
        return sum(numbers) + sum(more)

    @backwater.expose
    def refuse(self) -> None:
        raise ValueError("refused")

    @backwater.expose
    def note(self, *given: Any) -> None:
        self.noted.append(given)

    @backwater.expose(track_started=True)
    def hold(self) -> str:
        backwater.current_task().progress("half")  # type: ignore[union-attr]
        self.began.set()
        assert self.go.wait(PATIENCE)
        return "held"

    @backwater.expose(autoretry_for=(ValueError,), max_retries=3, retry_backoff=0.01)
    def stubborn(self) -> int:
        self.noted.append("again")
        if len(self.noted) < 3:
            raise ValueError("not yet")
        return len(self.noted)


@dataclass
class Place:
    near: RunningBroker
    far: RunningBroker
    #: Of the near broker, and of the far one.
    app: backwater.App
    there: backwater.App
    steps: Steps

    def worker(self, at: RunningBroker | None = None, **options: Any) -> contextlib.AbstractContextManager[Any]:
        return running_worker(at or self.far, backwater.Exposed(steps=self.steps), **options)

    def relay(self, *queues: str, **options: Any) -> contextlib.AbstractContextManager[Any]:
        return running_relay(self.near, self.far, queues=queues or ("default",), **options)

    def send(self, name: str, *args: Any, **options: Any) -> Any:
        return self.app.send(call(name, *args, **options))


def call(name: str, *args: Any, **options: Any) -> backwater.Signature:
    return backwater.signature(f"steps.{name}", args, **options)


def stats(app: backwater.App, queue: str = "default") -> QueueStats:
    """Of a queue; an unknown one has nothing."""
    return next(iter(app.ask(asks.stats([queue]))), QueueStats(Queue(queue)))


def until(condition: Callable[[], object]) -> None:
    """What nobody tells of."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@contextlib.contextmanager
def brokers(near: dict[str, Any] | None = None, far: dict[str, Any] | None = None) -> Iterator[Place]:
    with (
        running_broker(**(near or {})) as one,
        running_broker(**(far or {})) as other,
        backwater.App(one.url, one.secret, default=False, proxy="") as app,
        backwater.App(other.url, other.secret, default=False, proxy="") as there,
    ):
        yield Place(one, other, app, there, Steps())


@pytest.fixture
def place() -> Iterator[Place]:
    with brokers() as place:
        yield place


def test_results_come_home_and_nothing_is_left_behind(place: Place) -> None:
    with place.worker(), place.relay():
        sent = place.app.send_many([call("add", number, 1) for number in range(300)])
        assert [each.get(timeout=PATIENCE) for each in sent] == list(range(1, 301))
        until(lambda: stats(place.app).leased == 0)
        until(lambda: all(each is None for each in place.there.ask(asks.results([each.id for each in sent]))))
    assert stats(place.app).acked == stats(place.there).acked == 300


def test_a_task_whose_end_nobody_waits_for_has_ended_here_when_it_is_there(place: Place) -> None:
    with place.relay():
        place.send("note", 1, ignore_result=True)
        until(lambda: stats(place.app).acked == 1)
    assert stats(place.there).ready == 1
    with place.worker():
        until(lambda: place.steps.noted == [(1,)])


def test_errors_come_home_and_so_do_retries(place: Place) -> None:
    with place.worker(), place.relay():
        with pytest.raises(backwater.RemoteError, match="refused"):
            place.send("refuse").get(timeout=PATIENCE)
        assert place.send("stubborn").get(timeout=PATIENCE) == 3


def test_what_follows_a_task_follows_it_though_it_ran_elsewhere(place: Place) -> None:
    near = {"at": place.near, "queues": ["here"]}
    with place.worker(), place.worker(**near), place.relay():
        assert place.app.send(call("add", 1, 2) | call("add", 10)).get(timeout=PATIENCE) == 13
        mixed = [call("add", 1), call("add", 2, queue="here"), call("add", 3)]
        assert place.app.send(backwater.chord(mixed, call("total", 10))).get(timeout=PATIENCE) == 16
        assert place.app.send(call("add", 5, queue="here") | call("add", 1)).get(timeout=PATIENCE) == 6
        with pytest.raises(UpstreamFailed):
            place.app.send(call("refuse") | call("note", 1)).get(timeout=PATIENCE)
        failed = place.app.send(call("refuse").on_error(call("note")))
        until(lambda: place.steps.noted == [(failed.id,)])


def test_what_is_revoked_here_is_revoked_there(place: Place) -> None:
    with place.relay():
        waits = place.send("add", 1)
        until(lambda: stats(place.there).ready == 1)
        waits.revoke()
        with pytest.raises(TaskRevoked):
            waits.get(timeout=PATIENCE)
        assert stats(place.there).ready == 0


def test_how_far_a_task_is_is_known_here(place: Place) -> None:
    with place.worker(), place.relay(wait=0.05):
        sent = place.send("hold")
        assert place.steps.began.wait(PATIENCE)
        until(lambda: sent.progress == "half")
        place.steps.go.set()
        assert sent.get(timeout=PATIENCE) == "held"


def test_the_rest_of_a_lifetime_is_counted_by_the_far_brokers_clock() -> None:
    clocks = Clock(), Clock(time.time() + 7 * 3600)
    with brokers({"clock": clocks[0]}, {"clock": clocks[1]}) as place, place.relay():
        sent = place.send("add", 1, expires=60)
        later = place.send("add", 1, countdown=1000, expires=2000)
        until(lambda: stats(place.there).ready == 1)
        place.far.advance(55)
        assert stats(place.there).ready == 1
        place.far.advance(6)
        with pytest.raises(TaskExpired):
            sent.get(timeout=PATIENCE)
        assert stats(place.app).delayed == 1  # a delay is waited for at home
        place.near.advance(1001)
        until(lambda: stats(place.there).ready == 1)
        later.revoke()


def test_priorities_and_headers_go_along(place: Place) -> None:
    with place.relay():
        for number, priority in enumerate([1, 5, 3]):
            place.send("add", number, priority=priority)
        until(lambda: stats(place.there).ready == 3)
    place.there.ask(asks.open_session("w", 60.0))
    batch = place.there.ask(asks.receive("w", Poll((("default", 9),), 9), 0.0))
    assert [each.message.priority for each in batch.deliveries] == [5, 3, 1]


def test_what_is_too_large_there_is_put_aside_here_with_the_reason() -> None:
    with (
        brokers(far={"max_encoded_result_size": 1 << 16}) as place,
        place.worker(),
        place.relay(),
    ):
        sent = [place.send("note", "x" * size) for size in (10, 1 << 17, 20, 1 << 17)]
        for each in (sent[1], sent[3]):
            with pytest.raises(MessageTooLarge):
                each.get(timeout=PATIENCE)
        assert sent[2].get(timeout=PATIENCE) is None
        assert stats(place.app).dead == 2


def test_a_unique_key_is_held_at_both_brokers(place: Place) -> None:
    with place.relay():
        place.there.send(call("add", 1, unique="k"))
        refused = place.send("add", 2, unique="k")
        with pytest.raises(TaskNotAccepted, match="unique_key_held"):
            refused.get(timeout=PATIENCE)
        held = place.send("add", 3, unique="other", ignore_result=True)
        until(lambda: stats(place.there).ready == 2)
        with pytest.raises(TaskNotAccepted):
            place.send("add", 4, unique="other")
        with place.worker():
            until(lambda: stats(place.app).leased == 0)
        assert held.id


def test_what_there_is_no_room_for_waits_here(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backwater_tornado.relay.cargo.FULL_PAUSE", 0.05)
    place.there.ask(asks.declare(queues=[Queue("default", max_length=2)]))
    with place.relay():
        sent = [place.send("add", number) for number in range(6)]
        until(lambda: stats(place.there).ready == 2)
        with place.worker():
            assert [each.get(timeout=PATIENCE) for each in sent] == list(range(6))
    assert stats(place.app).dead == 0


def test_messages_go_both_ways_into_queues_of_other_names(place: Place) -> None:
    with (
        place.relay("out=berlin.out", back=["berlin.in=in"]),
        place.worker(queues=["berlin.out"]),
        place.worker(place.near, queues=["in"]),
    ):
        assert place.send("add", 1, queue="out").get(timeout=PATIENCE) == 1
        assert place.there.send(call("add", 2, queue="berlin.in")).get(timeout=PATIENCE) == 2


def test_a_message_does_not_go_to_and_fro(place: Place) -> None:
    with pytest.raises(InvalidOption, match="to and fro"), place.relay("a=b", back=["b=c"]):
        pass


def test_relays_may_come_and_go(place: Place) -> None:
    place.app.ask(asks.declare(queues=[Queue("default", max_deliveries=2)]))
    sent = [place.send("add", number) for number in range(50)]
    for _ in range(4):
        with place.relay():
            until(lambda: stats(place.app).leased == 50)
            until(lambda: stats(place.there).ready == 50)
    assert (stats(place.app).ready, stats(place.app).dead) == (50, 0)
    with place.worker(), place.relay():
        assert [each.get(timeout=PATIENCE) for each in sent] == list(range(50))
    assert stats(place.there).delivered == 50


def test_copies_of_a_message_in_several_queues_are_several_there(place: Place) -> None:
    queues = [Queue("a"), Queue("b")]
    bindings = [Binding("news", "a"), Binding("news", "b")]
    place.app.ask(asks.declare([Exchange("news", "fanout")], queues, bindings))
    place.app.ask(asks.publish([Publication(Message("one", b"not a task"), "", "news")]))
    with place.relay("a=c", "b=c"):
        until(lambda: stats(place.app, "a").acked + stats(place.app, "b").acked == 2)
    assert stats(place.there, "c").ready == 2
