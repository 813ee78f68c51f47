"""A broker that serves: its store, its verbs as the exposed module `broker`, and the server that listens for both.

    broker = await backwater.start_broker(secret, "sqlite:///var/lib/backwater/broker.db", port=8080)
    ...
    await broker.stop()

What a key may do is what the ring in force says, from the moment it is reloaded. Stopping sends the polls that wait
home, lets the calls in progress end, and closes the store when all that it accepted is committed.

Rule: only puts together; the verbs are the broker's (`broker.broker`), connections and signatures the server's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tornado.httpserver import HTTPServer

from .broker.broker import Broker
from .broker.stores import open_store
from .errors import InvalidOption
from .exposure import Exposed, Exposure
from .options import DEFAULT_STORE, Limits, make_options
from .protocol.keys import Scopes
from .server import GRACE, Server, start_clear_server, start_tls_server
from .service import take_options

_NOTHING = Scopes(call=(), publish=(), consume=())


class BrokerServer:
    """A server with a broker behind it, as `start_broker` gives it."""

    def __init__(self, make: Callable[[Callable[[str], Scopes]], Broker], listen: Callable[[Exposed], Server]) -> None:
        self.broker = make(self._scopes)
        self.server = listen(Exposed(broker=self.broker))
        self.broker.start()
        self._metrics: HTTPServer | None = None
        #: The port of `/metrics`, where it is served.
        self.metrics_port: int | None = None

    @property
    def port(self) -> int:
        """The port it listens on; the one that was given by the system when 0 was asked for."""
        return self.server.port

    def reload_keys(self, secret: object, *, erlang: object = None) -> None:
        """See `Server.reload_keys`; the scopes of the new ring hold from the next call on."""
        self.server.reload_keys(secret, erlang=erlang)

    async def stop(self, grace: float = GRACE) -> bool:
        """Send waiting polls home, stop the server, close the store; False when calls were cut after `grace` s."""
        self.broker.drain()
        if self._metrics is not None:
            self._metrics.stop()
            await self._metrics.close_all_connections()
        complete = await self.server.stop(grace)
        await self.broker.close()
        return complete

    def show_metrics(self, address: str, port: int) -> None:
        """Serve `/metrics` for Prometheus, see `metrics`; raises `InvalidOption`."""
        from .metrics import serve_metrics  # noqa: PLC0415 - an extra that only who asks for it has

        self._metrics, self.metrics_port = serve_metrics(self.broker.observe, address, port)

    def _scopes(self, key_id: str) -> Scopes:
        key = self.server.service.serving.keys.get(key_id)
        return _NOTHING if key is None else key.scopes  # a call in progress may outlive its key


async def start_broker(
    secret: object,
    store: str = DEFAULT_STORE,
    *,
    exposed: object = (),
    clock: Callable[[], float] = time.time,
    metrics: tuple[str, int] | None = None,
    **options: Any,
) -> BrokerServer:
    """Serve a broker on the running loop.

    Args:
        secret: as `start_clear_server`; the scopes of its keys say who may publish to, and receive from, which queues.
        store: `sqlite:///var/lib/backwater/broker.db`, `sqlite:broker.db` (from the current directory), `memory://`.
        exposed: what may be called beside the broker.
        clock: the broker's own, Unix seconds.
        metrics: address and port on which `/metrics` is served to Prometheus, and to anybody who can reach it; port 0
            lets the system choose, see `BrokerServer.metrics_port`.
        options: as `start_clear_server` or, with `certfile`, as `start_tls_server`; `ref` is `broker` by default. No
            `erlang`: its nodes have no words for a broker.

    Raises:
        ConfigurationError: a key, an option, the URL of the store, or the store itself cannot be used.
        OSError: the port cannot be used.
    """
    if options.get("erlang"):
        raise InvalidOption("Erlang's backwater has no words for a broker: give erlang to a server of its own")
    start: Callable[..., Server] = start_tls_server if "certfile" in options else start_clear_server
    beside = Exposure.of(exposed)  # type: ignore[arg-type]
    # As JSON has it, the body of a message is a third longer: so half of what an answer may be.
    largest = make_options(Limits, take_options(dict(options), Limits)).max_encoded_result_size // 2
    performer = open_store(store)
    try:
        broker = BrokerServer(
            lambda scopes: Broker(performer, scopes, clock, largest),
            lambda broker: start(secret, [broker, beside], **{"ref": "broker", **options}),
        )
    except BaseException:
        await performer.close()
        raise
    try:
        if metrics is not None:
            broker.show_metrics(*metrics)
    except BaseException:
        await broker.stop(0.0)
        raise
    return broker
