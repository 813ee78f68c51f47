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

from .broker.broker import Broker
from .broker.performers import Performer
from .broker.stores import open_store
from .errors import InvalidOption
from .exposure import Exposed, Exposure
from .options import DEFAULT_STORE
from .protocol.keys import Scopes
from .server import GRACE, Server, start_clear_server, start_tls_server

_NOTHING = Scopes(call=(), publish=(), consume=())


class BrokerServer:
    """A server with a broker behind it, as `start_broker` gives it."""

    def __init__(self, performer: Performer, clock: Callable[[], float], listen: Callable[[Exposed], Server]) -> None:
        self.broker = Broker(performer, self._scopes, clock)
        self.server = listen(Exposed(broker=self.broker))
        self.broker.start()

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
        complete = await self.server.stop(grace)
        await self.broker.close()
        return complete

    def _scopes(self, key_id: str) -> Scopes:
        key = self.server.service.serving.keys.get(key_id)
        return _NOTHING if key is None else key.scopes  # a call in progress may outlive its key


async def start_broker(
    secret: object,
    store: str = DEFAULT_STORE,
    *,
    exposed: object = (),
    clock: Callable[[], float] = time.time,
    **options: Any,
) -> BrokerServer:
    """Serve a broker on the running loop.

    Args:
        secret: as `start_clear_server`; the scopes of its keys say who may publish to, and receive from, which queues.
        store: `sqlite:///var/lib/backwater/broker.db`, `sqlite:broker.db` (from the current directory), `memory://`.
        exposed: what may be called beside the broker.
        clock: the broker's own, Unix seconds.
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
    performer = open_store(store)
    try:
        return BrokerServer(
            performer, clock, lambda broker: start(secret, [broker, beside], **{"ref": "broker", **options})
        )
    except BaseException:
        await performer.close()
        raise
