"""A broker that serves: its store and server open and close together, and its keys say who may what."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

import backwater_tornado as backwater
from backwater_tornado.broker.values import Batch, Message, Poll, Publication, Published, PublishState, Queue
from backwater_tornado.errors import (
    InvalidExposure,
    InvalidOption,
    QueueNotInScope,
    StorageFailed,
    UnknownFunction,
)
from backwater_tornado.protocol.keys import Scopes
from backwater_tornado.testing import running_broker

ALL = backwater.Key(b"the secret of those who may all", "all")
BOUND = backwater.Key(b"the secret of one who may less", "bound", scopes=Scopes(publish=("mine",)))
FREED = backwater.Key(b"the secret of one who may less", "bound", scopes=Scopes(publish=("*",)))


def on_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(40):
            await test()

    asyncio.run(main())


def client(broker: backwater.BrokerServer, key: object = ALL) -> backwater.AsyncClient:
    return backwater.AsyncClient(f"http://127.0.0.1:{broker.port}", key, proxy="", timeout=40)


def started(store: str = "memory://", secret: object = ALL, **options: Any) -> Any:
    return backwater.start_broker(secret, store, port=0, address="127.0.0.1", **options)


async def publish(caller: backwater.AsyncClient, queue: str) -> list[Published]:
    asked = caller.with_options(returns=list[Published])
    return await asked.call("broker", "publish", [Publication(Message(queue, b"body"), queue)])


def test_what_was_published_is_received_after_a_restart(tmp_path: Path) -> None:
    store = f"sqlite:{tmp_path}/broker.db"

    async def test() -> None:
        broker = await started(store)
        async with client(broker) as caller:
            await caller.call("broker", "declare", [], [Queue("jobs")], [])
            assert [each.state for each in await publish(caller, "jobs")] == [PublishState.ACCEPTED]
        assert await broker.stop(1.0)
        broker = await started(store)
        async with client(broker) as caller:
            await caller.call("broker", "open_session", "w")
            asked = caller.with_options(returns=Batch)
            batch = await asked.call("broker", "receive", "w", Poll((("jobs", 1),), 1))
            assert [each.message.body for each in batch.deliveries] == [b"body"]
        assert await broker.stop(1.0)

    on_loop(test)


def test_the_scopes_of_the_ring_in_force_hold() -> None:
    async def test() -> None:
        broker = await started(secret=backwater.KeyRing([ALL, BOUND]))
        async with client(broker) as caller:
            await caller.call("broker", "declare", [], [Queue("mine"), Queue("theirs")], [])
        async with client(broker, BOUND) as caller:
            await publish(caller, "mine")
            with pytest.raises(QueueNotInScope, match="may not publish to 'theirs'"):
                await publish(caller, "theirs")
            broker.reload_keys(backwater.KeyRing([ALL, FREED]))
            assert [each.state for each in await publish(caller, "theirs")] == [PublishState.ACCEPTED]
        await broker.stop(1.0)

    on_loop(test)


def test_a_call_that_outlives_its_key_may_nothing_more() -> None:
    async def test() -> None:
        broker = await started(secret=backwater.KeyRing([ALL, BOUND]))
        assert broker.broker is not None
        broker.reload_keys(ALL)
        assert not broker._scopes("bound").allows_publish("mine")
        assert broker._scopes("all") == Scopes()
        await broker.stop(1.0)

    on_loop(test)


def test_stopping_sends_waiting_polls_home_and_cuts_nothing(tmp_path: Path) -> None:
    async def test() -> None:
        broker = await started(f"sqlite:{tmp_path}/broker.db")
        async with client(broker) as caller:
            await caller.call("broker", "declare", [], [Queue("jobs")], [])
            await caller.call("broker", "open_session", "w")
            asked = caller.with_options(returns=Batch)
            polling = asyncio.create_task(asked.call("broker", "receive", "w", Poll((("jobs", 1),), 1), 40.0))
            while not (await caller.call("broker", "stats", ["jobs"]))[0]["sessions"]:
                pass
            assert await broker.stop(30.0)
            assert (await polling).deliveries == ()
            with pytest.raises(StorageFailed, match="the store is closed"):
                await broker.broker.stats()

    on_loop(test)


def test_functions_may_stand_beside_the_broker() -> None:
    async def test() -> None:
        broker = await started(exposed=["math"])
        async with client(broker) as caller:
            assert await caller.call("math", "sqrt", 9) == 3.0
            for hidden in ("close", "start", "drain"):
                with pytest.raises((UnknownFunction, backwater.NotExposed)):
                    await caller.call("broker", hidden)
        await broker.stop(1.0)

    on_loop(test)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"erlang": True}, InvalidOption),
        ({"exposed": "no_such_module"}, InvalidExposure),
        ({"threads": 0}, InvalidOption),
        ({"certfile": "none.pem", "keyfile": "none.pem"}, InvalidOption),
    ],
)
def test_a_broker_that_cannot_be_started_leaves_its_store_to_others(
    tmp_path: Path, options: dict[str, Any], error: type[Exception]
) -> None:
    store = f"sqlite:{tmp_path}/broker.db"

    async def test() -> None:
        with pytest.raises(error):
            await started(store, **options)
        await (await started(store)).stop(1.0)

    on_loop(test)


def test_a_broker_under_test_has_a_clock_of_its_own() -> None:
    with (
        running_broker(clock=lambda: 5.0) as running,
        backwater.Client(running.url, running.secret, proxy="") as caller,
    ):
        caller.call("broker", "declare", [], [Queue("jobs")], [])
        caller.call("broker", "publish", [Publication(Message("a", b""), "jobs")])
        (stats,) = caller.call("broker", "stats")
        assert stats["oldest"] == 5.0
        assert running.run(lambda: running.broker) is running.broker
