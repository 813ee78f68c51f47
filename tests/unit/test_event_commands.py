from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from backwater_tornado import event_commands
from backwater_tornado.app import App
from backwater_tornado.broker.values import Message, Publication, PublishState
from backwater_tornado.event_commands import Listening, describe_event
from backwater_tornado.tasks import asks
from backwater_tornado.tasks.events import EXCHANGE, WorkerEvent, publication_of
from backwater_tornado.testing import running_broker


@pytest.fixture
def app() -> Iterator[App]:
    with running_broker() as broker, App(broker.url, broker.secret, default=False, proxy="") as app:
        yield app


def publish(app: App, *publications: Publication) -> list[PublishState]:
    return [each.state for each in app.ask(asks.publish(publications))]


def test_what_is_no_event_is_passed_over_and_what_was_taken_is_gone(app: App) -> None:
    listening = Listening(app, ["task.*"])
    listening.open()
    events = [WorkerEvent("succeeded", "w", 1.0, id=str(number)) for number in range(3)]
    junk = Publication(Message("junk", b"?"), "task.succeeded", EXCHANGE.name)
    online = publication_of(WorkerEvent("online", "w", 1.0), "online")
    sent = publish(app, junk, online, *(publication_of(each, f"w/{each.id}") for each in events))
    assert sent == [PublishState.ACCEPTED, PublishState.UNROUTED, *[PublishState.ACCEPTED] * 3]
    found = listening.events()
    assert [next(found) for _ in events] == events
    publish(app, publication_of(events[0], "another"))
    assert next(found) == events[0]  # asked for when the others were settled
    (stats,) = app.ask(asks.stats())
    assert (stats.queue.transient, stats.ready, stats.leased, stats.acked) == (True, 0, 1, 4)
    listening.close()
    assert app.ask(asks.stats()) == []


def test_a_queue_that_is_gone_is_declared_anew(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_commands, "WAIT", 0.01)
    listening = Listening(app, ["#"])
    listening.open()
    (stats,) = app.ask(asks.stats())
    app.ask(asks.Ask("delete", ([], [stats.queue.name], []), int))
    assert app.ask(asks.stats()) == []
    found: list[WorkerEvent] = []
    event = WorkerEvent("online", "w", 1.0)
    thread = threading.Thread(target=lambda: found.append(next(listening.events())))
    thread.start()
    attempts = 0
    while publish(app, publication_of(event, f"w/{attempts}")) != [PublishState.ACCEPTED]:
        attempts += 1
    thread.join(20)
    assert found == [event]


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (WorkerEvent("online", "w", 0.5), "1970-01-01T00:00:00.500+00:00 w online"),
        (
            WorkerEvent("failed", "w", 0.0, id="1", task="t.f", seconds=1.25, error="E: a\nb\x1b[2J"),
            "1970-01-01T00:00:00.000+00:00 w failed t.f[1] 1.250 s E: a b?[2J",
        ),
        (WorkerEvent("parked", "w", 0.0, id="1", error="why"), "1970-01-01T00:00:00.000+00:00 w parked ?[1] why"),
        (WorkerEvent("parked", "w", 1e300), "1e+300 w parked"),
    ],
)
def test_an_event_is_a_line_whatever_is_in_it(event: WorkerEvent, line: str) -> None:
    assert describe_event(event) == line
