"""The broker over HTTP: signed calls, polls that wait, and connections that are cut."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import backwater_tornado as backwater
from backwater_tornado import errors
from backwater_tornado.broker.broker import Broker
from backwater_tornado.broker.memory_store import MemoryStore
from backwater_tornado.broker.performers import Direct
from backwater_tornado.broker.values import (
    Batch,
    Entry,
    Lease,
    Message,
    Outcome,
    Poll,
    Publication,
    Published,
    PublishState,
    Queue,
    QueueRates,
    Receiver,
    Result,
    Settlement,
    SettleState,
    SiteCounts,
    pack,
    unpack,
)
from backwater_tornado.exposure import Exposed
from backwater_tornado.protocol.keys import KeyRing, Scopes
from backwater_tornado.testing import (
    CUT_AFTER_REQUEST,
    CUT_BEFORE_REQUEST,
    DROP,
    PASS,
    BadNetwork,
    RunningServer,
    Script,
    running_server,
)

PRODUCER = backwater.Key(b"the secret of the producers", "producer", scopes=Scopes(consume=()))
WORKER = backwater.Key(b"the secret of the workers of it", "worker", scopes=Scopes(publish=()))
RING = KeyRing([PRODUCER, WORKER])


class Raising:
    """Exposed as `raising`."""

    def store_error(self, name: str) -> None:
        raise getattr(errors, name)(f"raised: {name}")


@pytest.fixture
def server() -> Iterator[RunningServer]:
    def scopes(key_id: str) -> Scopes:
        key = RING.get(key_id)
        assert key is not None
        return key.scopes

    broker = Broker(Direct(MemoryStore()), scopes)
    with running_server(Exposed(broker=broker, raising=Raising()), RING) as running:
        running.run(broker.start)
        with backwater.Client(running.url, WORKER) as worker:
            worker.call("broker", "declare", [], [Queue("jobs")], [])
        try:
            yield running
        finally:
            asyncio.run_coroutine_threadsafe(broker.close(), running._loop).result(10)


def verb(client: backwater.Client, name: str, *args: object, returns: Any = None, **options: Any) -> Any:
    return client.with_options(returns=returns, idempotent=True, **options).call("broker", name, *args)


def publish(client: backwater.Client, *names: str) -> list[PublishState]:
    jobs = [Publication(Message(name, b"\x00\xff" + name.encode(), keep_result=60.0), "jobs") for name in names]
    return [each.state for each in verb(client, "publish", jobs, returns=list[Published])]


def test_a_message_goes_from_its_publisher_to_a_worker_and_its_result_back(server: RunningServer) -> None:
    with backwater.Client(server.url, PRODUCER) as producer, backwater.Client(server.url, WORKER) as worker:
        verb(worker, "open_session", "w")
        with ThreadPoolExecutor(2) as pool:
            polling = pool.submit(verb, worker, "receive", "w", Poll((("jobs", 5),), 5), 30.0, returns=Batch)
            assert publish(producer, "a", "b") == [PublishState.ACCEPTED] * 2
            batch = polling.result(20)
            result = pool.submit(verb, producer, "results", ["a"], 30.0, returns=list[Result | None])
            settlements = [
                Settlement(each.token, outcome=Outcome("SUCCESS", each.message.body)) for each in batch.deliveries
            ]
            assert set(verb(worker, "settle", "w", settlements, returns=list[SettleState])) == {SettleState.DONE}
            (found,) = result.result(20)
        assert [each.message.body for each in batch.deliveries] in ([b"\x00\xffa"], [b"\x00\xffa", b"\x00\xffb"])
        assert found.outcome == Outcome("SUCCESS", b"\x00\xffa")


def test_scopes_of_keys_hold_for_queues(server: RunningServer) -> None:
    with backwater.Client(server.url, PRODUCER) as producer, backwater.Client(server.url, WORKER) as worker:
        with pytest.raises(errors.QueueNotInScope, match="may not publish to 'jobs'"):
            publish(worker, "a")
        verb(producer, "open_session", "p")
        with pytest.raises(errors.QueueNotInScope, match="may not receive from 'jobs'"):
            verb(producer, "receive", "p", Poll((("jobs", 5),), 5))


@pytest.mark.parametrize("kind", [errors.StoreError, *errors.StoreError.__subclasses__()])
def test_an_error_of_the_broker_travels_as_itself(server: RunningServer, kind: type[errors.StoreError]) -> None:
    with backwater.Client(server.url, WORKER, max_attempts=1) as client, pytest.raises(kind) as raised:
        client.call("raising", "store_error", kind.__name__)
    assert type(raised.value) is kind
    assert raised.value.detail == f"raised: {kind.__name__}"


def test_malformed_values_are_the_callers_fault(server: RunningServer) -> None:
    with backwater.Client(server.url, PRODUCER) as client:
        for publications in ([{"message": {"id": 1, "body": b""}, "routing_key": "jobs"}], [3], {"a": 1}):
            with pytest.raises(backwater.InvalidArguments):
                client.call("broker", "publish", publications)
        assert publish(client, "a") == [PublishState.ACCEPTED]


def test_what_is_published_through_a_bad_link_is_there_once(server: RunningServer) -> None:
    """The connection is cut before the request, after it, or the answer is dropped, time and again."""
    script = Script([CUT_AFTER_REQUEST, DROP, CUT_BEFORE_REQUEST, PASS] * 20)
    with BadNetwork("127.0.0.1", server.port, script) as proxy:
        options: dict[str, Any] = {"recv_timeout": 0.5, "timeout": 40, "backoff": 0.005, "max_attempts": 50}
        with backwater.Client(f"http://127.0.0.1:{proxy.port}", PRODUCER, **options) as producer:
            states = [publish(producer, f"{number}")[0] for number in range(4)]
        assert set(states) <= {PublishState.ACCEPTED, PublishState.DUPLICATE}
    with backwater.Client(server.url, WORKER) as worker:
        verb(worker, "open_session", "w")
        batch = verb(worker, "receive", "w", Poll((("jobs", 100),), 100), returns=Batch)
    assert [each.message.id for each in batch.deliveries] == [f"{number}" for number in range(4)]


def test_messages_go_packed_over_http_too(server: RunningServer) -> None:
    with backwater.Client(server.url, PRODUCER) as producer, backwater.Client(server.url, WORKER) as worker:
        job = Publication(Message("a", b"\x00\xff", expires=4e9), "jobs")
        (published,) = unpack(verb(producer, "publish", pack([job]), None, True, returns=bytes), list[Published])
        assert published.state is PublishState.ACCEPTED
        verb(worker, "open_session", "w", 30.0, b"about")
        batch = unpack(verb(worker, "receive", "w", Poll((("jobs", 1),), 1), 0.0, True, returns=bytes), Batch)
        assert batch.deliveries[0].message == job.message
        settled = verb(worker, "settle", "w", pack([Settlement(batch.number)]), returns=bytes)
        assert unpack(settled, list[SettleState]) == [SettleState.DONE]
        with pytest.raises(errors.MalformedBatch, match="the binary is not"):
            verb(producer, "publish", b"\xc1")
        with pytest.raises(backwater.InvalidArguments, match="publish"):
            verb(producer, "publish", 5)


def test_what_is_done_to_queues_and_what_is_seen_of_them(server: RunningServer) -> None:
    with backwater.Client(server.url, PRODUCER) as producer, backwater.Client(server.url, WORKER) as worker:
        verb(worker, "pause", ["jobs"])
        verb(worker, "open_session", "w", 30.0, b"about")
        assert publish(producer, "a") == [PublishState.ACCEPTED]
        assert verb(worker, "receive", "w", Poll((("jobs", 1),), 1), returns=Batch).deliveries == ()
        verb(worker, "resume", ["jobs"])
        assert len(verb(worker, "receive", "w", Poll((("jobs", 1),), 1), returns=Batch).deliveries) == 1
        (lease,) = verb(worker, "leased", returns=list[Lease])
        assert (lease.session, lease.key_id, lease.id, lease.queue) == ("w", "worker", "a", "jobs")
        (receiver,) = verb(worker, "sessions", returns=list[Receiver])
        assert (receiver.session, receiver.about, receiver.held) == ("w", b"about", 1)
        (rates,) = verb(producer, "rates", returns=list[QueueRates])
        assert rates.published == rates.delivered > 0
        assert [each.published for each in verb(producer, "sites", returns=list[SiteCounts])] == [1]
        entry = Entry("nightly", 10.0, Publication(Message("n", b""), "jobs"), b"spec")
        assert verb(producer, "plan", entry)
        assert verb(producer, "schedule", returns=list[Entry]) == [entry]
        assert verb(producer, "unplan", "nightly")
        for refused in ("pause", "resume"):
            with pytest.raises(errors.QueueNotInScope):
                verb(producer, refused, ["jobs"])
