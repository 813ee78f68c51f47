"""Each ask is a verb of the broker, with the arguments that it takes: held against the broker itself."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import msgspec
import pytest

from backwater_tornado.broker.broker import Broker
from backwater_tornado.broker.memory_store import MemoryStore
from backwater_tornado.broker.performers import Direct
from backwater_tornado.broker.values import (
    Batch,
    Entry,
    Join,
    Message,
    Outcome,
    Poll,
    Publication,
    PublishState,
    Queue,
    Settlement,
    SettleState,
    unpack,
)
from backwater_tornado.tasks import asks
from backwater_tornado.tasks.asks import Ask


class InPlace:
    """A broker in this process, asked as an application asks one over HTTP."""

    def __init__(self) -> None:
        self.broker = Broker(Direct(MemoryStore()))

    def __call__(self, ask: Ask[Any]) -> Any:
        async def answer() -> Any:
            return await getattr(self.broker, ask.verb)(*ask.args)

        found = asyncio.run(answer())
        found = unpack(found, ask.returns) if ask.packed else found
        msgspec.convert(msgspec.to_builtins(found), ask.returns)  # it is of the type that was promised
        return found


def publication(name: str, *joins: str) -> Publication:
    return Publication(Message(name, b"body", joins=joins, keep_result=60.0), "new")


def test_a_message_is_published_received_settled_and_its_result_read_and_forgotten() -> None:
    ask = InPlace()
    after = Join("j", 1, (publication("2"),))
    (published,) = ask(asks.publish([publication("1", "j")], [after]))
    assert (published.state, published.queues) == (PublishState.ACCEPTED, ("new",))
    ask(asks.open_session("s", 30.0, b"about"))
    batch: Batch = ask(asks.receive("s", Poll((("new", 5),), 5), 0.0))
    (delivery,) = batch.deliveries
    assert delivery.message.id == "1"
    assert [each.about for each in ask(asks.sessions())] == [b"about"]
    ask(asks.show("s", b"more"))
    assert [each.about for each in ask(asks.sessions())] == [b"more"]
    assert [each.id for each in ask(asks.leased("s"))] == [each.id for each in ask(asks.leased())] == ["1"]
    assert ask(asks.settle("s", [Settlement(delivery.token, outcome=Outcome("SUCCESS"))])) == [SettleState.DONE]
    assert [
        each.message.id for each in ask(asks.receive("s", Poll((("new", 5),), 5, batch.number), 0.0)).deliveries
    ] == ["2"]
    ask(asks.close_session("s"))
    (result,) = ask(asks.results(["1"]))
    assert (result.final, result.outcome) == (True, Outcome("SUCCESS"))
    ask(asks.forget(["1"]))
    assert ask(asks.results(["1"])) == [None]


def test_a_message_is_cancelled() -> None:
    ask = InPlace()
    ask(asks.publish([publication("1")]))
    ask(asks.cancel(iter(["1"]), Outcome("REVOKED", failed=True)))
    (result,) = ask(asks.results(["1"]))
    assert result.outcome.state == "REVOKED"


def test_queues_are_declared() -> None:
    ask = InPlace()
    ask(asks.declare(queues=[Queue("q"), Queue("r")]))
    assert [each.queue.name for each in ask(asks.stats())] == ["q", "r"]
    assert [each.queue.name for each in ask(asks.stats(["r", "unknown"]))] == ["r"]


def test_the_schedule_is_written_read_and_emptied() -> None:
    ask, entry = InPlace(), Entry("e", 10.0, publication("e"))
    assert ask(asks.plan(entry))
    assert ask(asks.plan(Entry("e", 20.0, publication("e")), 10.0, publication("e@10")))
    assert not ask(asks.plan(entry, 10.0))
    assert [(each.name, each.due) for each in ask(asks.schedule())] == [("e", 20.0)]
    assert ask(asks.stats(["new"]))[0].ready == 1
    assert [ask(asks.unplan("e")), ask(asks.unplan("e"))] == [True, False]


def test_what_waits_at_the_broker_says_so() -> None:
    assert asks.receive("s", Poll((), 1), 5.0).wait == asks.results(["1"], 5.0).wait == 5.0
    for ask in (asks.receive("s", Poll((), 1), 5.0), asks.results(["1"], 5.0)):
        assert ask.waiting(6.0) is ask
        shorter = ask.waiting(2.5)
        assert (shorter.wait, shorter.args) == (2.5, tuple(2.5 if each == 5.0 else each for each in ask.args))
    assert asks.results(["1"], 5.0, beside=["2"]).waiting(1.0).args == (["1"], 1.0, ["2"])
    assert (asks.results(["1"], 5.0, 7.0).within, asks.results(["1"]).within) == (7.0, None)


@pytest.mark.parametrize(
    "ask",
    [
        asks.publish([]),
        asks.receive("s", Poll((), 1), 0.0),
        asks.settle("s", []),
        asks.cancel([], Outcome("x")),
        asks.open_session("s", 1.0),
        asks.close_session("s"),
        asks.results([]),
        asks.results(["1"], beside=["2"]),
        asks.forget([]),
        asks.declare(),
        asks.stats(),
        asks.schedule(),
        asks.plan(Entry("e", 1.0, publication("e"))),
        asks.unplan("e"),
        asks.sessions(),
        asks.leased(),
    ],
    ids=lambda ask: ask.verb,
)
def test_every_ask_fits_the_broker_as_it_is(ask: Ask[Any]) -> None:
    inspect.signature(getattr(Broker(Direct(MemoryStore())), ask.verb)).bind(*ask.args)
