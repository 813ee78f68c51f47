"""What Prometheus is told: the lines, where they are served, and where they are not."""

from __future__ import annotations

import asyncio
import http.client
import socket
import sys
import urllib.error
import urllib.request
from typing import Any

import pytest

import backwater_tornado as backwater
from backwater_tornado.broker.values import (
    Message,
    Observation,
    Publication,
    Queue,
    QueueStats,
    Receiver,
    SiteCounts,
)
from backwater_tornado.errors import InvalidOption, StorageFailed
from backwater_tornado.metrics import format_metrics

SEEN = Observation(
    100.0,
    [
        QueueStats(Queue("jobs", paused=True), 3, 2, 1, 4, 90.0, 5, 60, 50, 40),
        QueueStats(Queue('odd "name"\n')),
        QueueStats(Queue("reply", exclusive="key\nw"), 1),
    ],
    [SiteCounts("north", 1, 2, 3, 4, 5, 99.5)],
    [Receiver(name, "north", b"", 30.0, 0.0, 99.0) for name in ("v", "w")],
)


def test_what_was_seen_is_told_line_by_line() -> None:
    lines = [line for line in format_metrics(SEEN).decode().splitlines() if not line.startswith("#")]
    odd = 'odd \\"name\\"\\n'
    assert [line for line in lines if odd not in line] == [
        'backwater_queue_messages{queue="jobs",state="ready"} 3.0',
        'backwater_queue_messages{queue="jobs",state="delayed"} 2.0',
        'backwater_queue_messages{queue="jobs",state="leased"} 1.0',
        'backwater_queue_messages{queue="jobs",state="dead"} 4.0',
        'backwater_queue_sessions{queue="jobs"} 5.0',
        'backwater_queue_oldest_age_seconds{queue="jobs"} 10.0',
        'backwater_queue_paused{queue="jobs"} 1.0',
        'backwater_queue_published_total{queue="jobs"} 60.0',
        'backwater_queue_delivered_total{queue="jobs"} 50.0',
        'backwater_queue_acked_total{queue="jobs"} 40.0',
        'backwater_site_published_total{key="north"} 1.0',
        'backwater_site_received_total{key="north"} 2.0',
        'backwater_site_settled_total{key="north"} 3.0',
        'backwater_site_bytes_in_total{key="north"} 4.0',
        'backwater_site_bytes_out_total{key="north"} 5.0',
        'backwater_site_heard_timestamp_seconds{key="north"} 99.5',
        'backwater_sessions{key="north"} 2.0',
    ]
    assert f'backwater_queue_oldest_age_seconds{{queue="{odd}"}} 0.0' in lines


def test_a_clock_that_was_set_back_makes_no_age_below_0() -> None:
    seen = Observation(100.0, [QueueStats(Queue("jobs"), 1, oldest=150.0)], [], [])
    assert 'backwater_queue_oldest_age_seconds{queue="jobs"} 0.0' in format_metrics(seen).decode().splitlines()


def get(url: str) -> tuple[int, str, str]:
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:  # noqa: S310 - our own
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, "", error.read().decode()


async def started(**options: Any) -> backwater.BrokerServer:
    return await backwater.start_broker(b"a secret of the metrics", "memory://", port=0, address="127.0.0.1", **options)


def test_they_are_served_on_a_port_of_their_own_until_the_broker_stops() -> None:
    async def main() -> None:
        broker = await started(metrics=("127.0.0.1", 0))
        await broker.broker.declare([], [Queue("jobs")], [])
        await broker.broker.publish([Publication(Message("a", b""), "jobs")])
        url = f"http://127.0.0.1:{broker.metrics_port}"
        status, kind, text = await asyncio.to_thread(get, f"{url}/metrics")
        assert (status, kind.partition(";")[0]) == (200, "text/plain")
        assert 'backwater_queue_messages{queue="jobs",state="ready"} 1.0' in text
        assert (await asyncio.to_thread(get, f"{url}/"))[0] == 404
        assert (await asyncio.to_thread(get, f"http://127.0.0.1:{broker.port}/metrics"))[0] == 404
        await broker.stop(0.0)
        with pytest.raises(urllib.error.URLError):
            await asyncio.to_thread(get, f"{url}/metrics")

    asyncio.run(main())


def test_a_store_that_fails_is_told_as_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        broker = await started(metrics=("127.0.0.1", 0))

        async def fail() -> Observation:
            raise StorageFailed("the disk is full")

        assert broker._metrics is not None
        application: Any = broker._metrics.request_callback
        (rule,) = application.wildcard_router.rules
        monkeypatch.setitem(rule.target_kwargs, "observe", fail)
        status, _, text = await asyncio.to_thread(get, f"http://127.0.0.1:{broker.metrics_port}/metrics")
        assert (status, text) == (503, "the disk is full\n")
        await broker.stop(0.0)

    asyncio.run(main())


def test_a_connection_that_prometheus_keeps_open_ends_with_the_broker() -> None:
    async def main() -> None:
        broker = await started(metrics=("127.0.0.1", 0))
        assert broker.metrics_port is not None
        connection = http.client.HTTPConnection("127.0.0.1", broker.metrics_port, timeout=20)

        def scrape() -> int:
            connection.request("GET", "/metrics")
            answer = connection.getresponse()
            answer.read()
            return answer.status

        assert await asyncio.to_thread(scrape) == 200
        connection.auto_open = False
        await broker.stop(0.0)
        with pytest.raises((OSError, http.client.HTTPException)):
            await asyncio.to_thread(scrape)
        connection.close()

    asyncio.run(main())


def test_they_are_not_served_unless_that_is_asked_for() -> None:
    async def main() -> None:
        broker = await started()
        assert broker.metrics_port is None
        await broker.stop(0.0)

    asyncio.run(main())


def test_a_port_in_use_leaves_nothing_behind() -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(InvalidOption, match=f"port {port} of 127.0.0.1 cannot be used for metrics"):
                await started(metrics=("127.0.0.1", port))
        await (await started(metrics=("127.0.0.1", port))).stop(0.0)

    asyncio.run(main())


def test_without_the_extra_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "backwater_tornado.metrics")
    monkeypatch.setitem(sys.modules, "prometheus_client", None)

    async def main() -> None:
        with pytest.raises(InvalidOption, match=r"pip install 'backwater-tornado\[prometheus\]'"):
            await started(metrics=("127.0.0.1", 0))
        await (await started()).stop(0.0)

    asyncio.run(main())
