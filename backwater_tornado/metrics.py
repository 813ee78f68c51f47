"""What a broker is doing, for Prometheus: `/metrics` on a port of its own.

Nobody signs a scrape. So this is never on the port of calls, is off unless a port is named, and listens on this
machine alone unless an address is named as well: names of queues and of keys are told to whoever can reach it.

Queues that are one session's alone are left out: they come and go with it, and every name is a time series.

Rule: only looks. `prometheus_client` (the extra `prometheus`) is imported here alone, and this module only when asked
for.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

from tornado.httpserver import HTTPServer
from tornado.web import Application, RequestHandler

from .broker.values import Observation, QueueStats, SiteCounts
from .errors import CallFailed, InvalidOption

try:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
except ImportError as error:
    raise InvalidOption("metrics need prometheus-client: pip install 'backwater-tornado[prometheus]'") from error

Observe = Callable[[], Awaitable[Observation]]

#: Of a queue: name, what it is, label of the part, the parts by their labels.
_QUEUE_GAUGES = (
    ("messages", "Messages by what they are doing.", "state", ("ready", "delayed", "leased", "dead")),
    ("sessions", "Sessions that receive from it.", "", ("sessions",)),
)
#: Counters: name, what it is, field.
_QUEUE_COUNTERS = (
    ("published", "Messages that came into it since its store began.", "published"),
    ("delivered", "Messages that were handed out, repeatedly or not.", "delivered"),
    ("acked", "Messages that were done.", "acked"),
)
_SITE_COUNTERS = (
    ("published", "Messages that a key has published since the broker's start.", "published"),
    ("received", "Messages that were handed out to a key.", "received"),
    ("settled", "Deliveries that a key has ended.", "settled"),
    ("bytes_in", "Bytes of messages that a key has published.", "bytes_in"),
    ("bytes_out", "Bytes of messages that were handed out to a key.", "bytes_out"),
)


class _MetricsHandler(RequestHandler):
    def initialize(self, observe: Observe) -> None:
        self._observe = observe

    async def get(self) -> None:
        try:
            text = format_metrics(await self._observe())
        except CallFailed as error:
            self.set_status(503)
            self.finish(f"{error}\n")
            return
        self.set_header("Content-Type", CONTENT_TYPE_LATEST)
        self.finish(text)


def serve_metrics(observe: Observe, address: str, port: int) -> tuple[HTTPServer, int]:
    """Listen, on the running loop; gives the server and its port.

    Raises:
        InvalidOption: the port cannot be used.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        listening = socket.create_server((address, port), family=family)
    except (OSError, OverflowError) as error:
        raise InvalidOption(f"port {port} of {address} cannot be used for metrics: {error}") from error
    server = HTTPServer(Application([(r"/metrics", _MetricsHandler, {"observe": observe})], log_function=_log_nothing))
    listening.setblocking(False)
    server.add_socket(listening)
    return server, int(listening.getsockname()[1])


def _log_nothing(handler: RequestHandler) -> None:
    """In place of Tornado's access log."""


def format_metrics(seen: Observation) -> bytes:
    """What was seen, as Prometheus reads it."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Seen(seen))
    return generate_latest(registry)


class _Seen:
    """A collector of what was seen once."""

    def __init__(self, seen: Observation) -> None:
        self._seen = seen

    def collect(self) -> Iterator[Metric]:
        queues = [stats for stats in self._seen.queues if stats.queue.exclusive is None]
        yield from _queue_gauges(queues, self._seen.now)
        for name, text, field in _QUEUE_COUNTERS:
            yield _counter(f"backwater_queue_{name}", text, "queue", ((_name(each), each, field) for each in queues))
        for name, text, field in _SITE_COUNTERS:
            sites = ((each.key_id, each, field) for each in self._seen.sites)
            yield _counter(f"backwater_site_{name}", text, "key", sites)
        heard = GaugeMetricFamily(
            "backwater_site_heard_timestamp_seconds", "When a key was last heard of.", None, ["key"]
        )
        for site in self._seen.sites:
            heard.add_metric([site.key_id], site.heard)
        yield heard
        sessions = GaugeMetricFamily("backwater_sessions", "Sessions that are alive.", None, ["key"])
        keys = [receiver.key_id for receiver in self._seen.receivers]
        for key in sorted(set(keys)):
            sessions.add_metric([key], keys.count(key))
        yield sessions


def _queue_gauges(queues: Sequence[QueueStats], now: float) -> Iterator[Metric]:
    for name, text, label, parts in _QUEUE_GAUGES:
        labels = ["queue", label] if label else ["queue"]
        gauge = GaugeMetricFamily(f"backwater_queue_{name}", text, None, labels)
        for stats in queues:
            for part in parts:
                gauge.add_metric([_name(stats), part][: len(labels)], getattr(stats, part))
        yield gauge
    oldest = GaugeMetricFamily(
        "backwater_queue_oldest_age_seconds", "How long the oldest of the ready has waited.", None, ["queue"]
    )
    paused = GaugeMetricFamily("backwater_queue_paused", "1: nothing is handed out.", None, ["queue"])
    for stats in queues:
        oldest.add_metric([_name(stats)], 0.0 if stats.oldest is None else max(0.0, now - stats.oldest))
        paused.add_metric([_name(stats)], float(stats.queue.paused))
    yield oldest
    yield paused


def _counter(name: str, text: str, label: str, rows: Iterable[tuple[str, QueueStats | SiteCounts, str]]) -> Metric:
    counter = CounterMetricFamily(name, text, None, [label])
    for value, counts, field in rows:
        counter.add_metric([value], getattr(counts, field))
    return counter


def _name(stats: QueueStats) -> str:
    return stats.queue.name
