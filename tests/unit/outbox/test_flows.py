"""What a forwarder asks of the broker: a true one, in memory."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from backwater_tornado.broker.broker import Broker
from backwater_tornado.broker.memory_store import MemoryStore
from backwater_tornado.broker.performers import Direct
from backwater_tornado.broker.values import Message, Publication, Queue, Result, unpack
from backwater_tornado.driving import drive
from backwater_tornado.errors import CallFailed, DeadlineExceeded, QueueNotInScope, Unreachable
from backwater_tornado.outbox.flows import Refusal, end_flow, publish_flow
from backwater_tornado.outbox.parcels import Parcel, Taken, open_parcel, pack_parcel
from backwater_tornado.tasks.asks import Ask
from backwater_tornado.tasks.signatures import Canvas, chain, group, signature
from backwater_tornado.tasks.workflow import Context, plan_canvas

NOW = 1000.0


class Line:
    """A broker, asked in place; some queues are out of this sender's scope, and the link may be down."""

    def __init__(self) -> None:
        self.broker = Broker(Direct(MemoryStore()), clock=lambda: NOW)
        self.barred: set[str] = set()
        self.asks: list[Ask[Any]] = []
        self.failure: CallFailed | None = None

    def __call__(self, ask: Ask[Any]) -> Any:
        self.asks.append(ask)
        if self.failure is not None:
            raise self.failure
        if ask.verb == "publish" and any(each.encode() in ask.args[0] for each in self.barred):
            raise QueueNotInScope("the key may not publish to it")
        answer = asyncio.run(getattr(self.broker, ask.verb)(*ask.args))
        return unpack(answer, ask.returns) if ask.packed else answer

    def declare(self, *queues: Queue) -> None:
        asyncio.run(self.broker.declare([], list(queues), []))

    def ready(self, queue: str) -> int:
        return sum(each.ready for each in asyncio.run(self.broker.stats([queue])))

    def result(self, id: str) -> Result | None:
        return asyncio.run(self.broker.results([id]))[0]


@pytest.fixture
def line() -> Line:
    return Line()


def taken(*canvases: Canvas) -> list[Taken]:
    context = Context(now=NOW, new_id=iter(map(str, range(1, 100))).__next__)
    orders = [plan_canvas(each, context) for each in canvases]
    return [Taken(number, pack_parcel(order.joins, order.publications, NOW)) for number, order in enumerate(orders, 1)]


def call(queue: str, **options: Any) -> Canvas:
    return signature("m.f", queue=queue, **options)


def reasons(refused: list[Refusal]) -> list[tuple[str, str]]:
    return [(each.kept.parcel.id, each.kept.reason) for each in refused]


def test_what_is_accepted_is_gone_and_so_is_what_was_before(line: Line) -> None:
    parcels = taken(call("a"), call("b"), call("a"))
    assert drive(publish_flow(parcels, NOW), line) == []
    assert drive(publish_flow(parcels, NOW), line) == []
    assert (line.ready("a"), line.ready("b")) == (2, 1)
    assert [each.verb for each in line.asks] == ["publish"] * 2


def test_nothing_is_not_asked_for(line: Line) -> None:
    assert drive(publish_flow([], NOW), line) == []
    drive(end_flow([]), line)
    assert line.asks == []


def test_what_is_refused_is_given_with_its_reason_and_all_else_is_accepted(line: Line) -> None:
    line.declare(Queue("full", max_length=1))
    parcels = taken(
        call("full"), group(call("a"), call("full"), call("a")), call("a", unique="k"), call("a", unique="k")
    )
    refused = drive(publish_flow(parcels, NOW), line)
    assert reasons(refused) == [("3", "queue_full"), ("6", "unique_key_held")]
    assert line.ready("a") == 3
    (publication,) = open_parcel(refused[0].kept.parcel, NOW).publications
    assert publication == refused[0].publication
    assert (publication.message.id, refused[0].kept.parcel.at) == ("3", NOW)


def test_whoever_waits_for_what_is_refused_is_told(line: Line) -> None:
    line.declare(Queue("full", max_length=0))
    parcels = taken(chain(call("full"), call("after")), call("full"))
    refused = drive(publish_flow(parcels, NOW), line)
    drive(end_flow(refused), line)
    drive(end_flow(refused), line)  # the answer was lost
    for each in refused:
        result = line.result(each.kept.parcel.id)
        assert result is not None
        assert (result.final, result.outcome.state, result.outcome.failed) == (True, "queue_full", True)
    assert line.ready("after") == 1  # marked as upstream_failed


def test_the_message_of_another_is_not_ended(line: Line) -> None:
    drive(publish_flow(taken(call("a", task_id="1")), NOW), line)
    other = Taken(1, pack_parcel((), [Publication(Message("1", b"other"), "a")], NOW))
    refused = drive(publish_flow([other], NOW), line)
    assert reasons(refused) == [("1", "id_of_another_message")]
    drive(end_flow(refused), line)
    assert line.ready("a") == 1


def test_the_parcel_that_a_request_is_refused_for_is_found_and_kept_whole(line: Line) -> None:
    line.barred = {"secret"}
    parcels = taken(*[call("a")] * 5, group(call("a"), call("secret")), *[call("a")] * 3)
    refused = drive(publish_flow(parcels, NOW), line)
    assert [(each.kept, each.publication) for each in refused] == [(refused[0].kept, None)]
    assert refused[0].kept.parcel == parcels[5].parcel
    assert refused[0].kept.reason == "queue_not_in_scope: the key may not publish to it"
    assert line.ready("a") == 8
    before = len(line.asks)
    drive(end_flow(refused), line)
    assert len(line.asks) == before


def test_order_is_kept_while_it_is_looked_for(line: Line) -> None:
    line.barred = {"secret"}
    drive(publish_flow(taken(call("a"), call("secret"), call("a"), call("a")), NOW), line)
    assert len([ask for ask in line.asks if ask.verb == "publish"]) == 5
    sent = [each for ask in line.asks for each in range(1, 5) if f"id\xa1{each}".encode("latin-1") in ask.args[0]]
    assert sent == [1, 2, 3, 4, 1, 2, 1, 2, 3, 4]


def test_what_cannot_be_read_is_kept(line: Line) -> None:
    broken = Taken(2, Parcel("2", ("a",), 1, b"\xc1", NOW))
    refused = drive(publish_flow([*taken(call("a")), broken], NOW), line)
    assert [each.kept.parcel for each in refused] == [broken.parcel]
    assert refused[0].kept.reason.startswith("body_undecodable: ")
    assert line.ready("a") == 1


@pytest.mark.parametrize("failure", [Unreachable(), DeadlineExceeded()], ids=lambda each: each.code)
def test_a_failure_of_the_link_is_thrown(line: Line, failure: CallFailed) -> None:
    line.failure = failure
    with pytest.raises(type(failure)):
        drive(publish_flow(taken(call("a"), call("a")), NOW), line)
    assert len(line.asks) == 1
