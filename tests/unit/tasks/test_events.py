from __future__ import annotations

import json

import pytest

from backwater_tornado.broker import routing
from backwater_tornado.tasks.events import (
    EXCHANGE,
    OF_TASKS,
    OF_WORKERS,
    WorkerEvent,
    publication_of,
    read_event,
    routing_key,
)


def test_an_event_goes_to_the_exchange_as_json_that_says_what_is_known() -> None:
    event = WorkerEvent("succeeded", "w", 12.5, id="1", task="t.add", queue="default", seconds=0.25)
    publication = publication_of(event, "w/1")
    assert (publication.exchange, publication.routing_key) == (EXCHANGE.name, "task.succeeded")
    assert (publication.message.id, publication.message.keep_result) == ("w/1", None)
    told = {"event": "succeeded", "worker": "w", "at": 12.5}
    assert json.loads(publication.message.body) == {
        **told,
        "id": "1",
        "task": "t.add",
        "queue": "default",
        "seconds": 0.25,
    }
    assert read_event(publication.message.body) == event


def test_events_are_listened_for_by_whose_they_are() -> None:
    for name in OF_TASKS:
        assert routing.topic("task.*", routing_key(name))
    for name in OF_WORKERS:
        assert routing.topic("worker.*", routing_key(name))


@pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b'{"event": "succeeded"}', b'{"event":1,"worker":"","at":0}'])
def test_what_is_no_event_is_none(body: bytes) -> None:
    assert read_event(body) is None
