"""Serving calls: routes for an application of yours, an application of ours, and servers that listen.

`routes` and `application` give a Tornado application what it needs (`handlers`); `start_clear_server` and
`start_tls_server` listen with one, on Tornado's loop, and bound what a connection may cost (`listener`).
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from .conversations import MAX_DISCARDED
from .errors import InvalidOption
from .handlers import CallHandler, Front, HealthHandler, NotFoundHandler
from .listener import Listener
from .options import CLEAR_PORT, TLS_PORT, ListenerOptions, make_options
from .service import Service, make_service, take_options

GRACE = 30.0
#: The answers of the last calls are on their way; connections are closed after this all the same, seconds.
LAST_ANSWERS = 1.0


def routes(secret: object, exposed: object, *, prefix: str = "", **options: Any) -> list[tuple[Any, ...]]:
    """Routes for a Tornado application of yours: `Application([(r"/mine", Mine), *backwater.routes(secret, [tasks])])`.

    Args:
        secret: the secret, a `Key`, several keys from oldest to newest, or a `KeyRing`.
        exposed: what may be called, see `Exposure.of`.
        prefix: path in front of `/backwater/2`.
        options: fields of `ServerOptions` and `Limits`, and `state` and `erlang`, see `start_clear_server`.
    """
    return _routes(make_service(secret, exposed, options), prefix)


def _routes(service: Service, prefix: str = "") -> list[tuple[Any, ...]]:
    pattern = rf"{prefix}/backwater/[^/]*(?:/.*)?"
    return [(pattern, CallHandler, {"service": service})]


def application(secret: object, exposed: object, **options: Any) -> Application:
    """A Tornado application that serves calls and `/healthz`, and nothing else; arguments as `routes`."""
    return _application(make_service(secret, exposed, options))


def _application(service: Service) -> Application:
    return Application(
        [(r"/healthz", HealthHandler, {"service": service}), *_routes(service)],
        default_handler_class=NotFoundHandler,
        default_handler_args={"service": service},
        log_function=_log_nothing,
    )


def _log_nothing(handler: RequestHandler) -> None:
    """In place of Tornado's access log: see `Conversation`."""


class Server:
    """A server that listens, as `start_clear_server` and `start_tls_server` give it."""

    def __init__(self, ref: str, service: Service, listener: Listener, port: int) -> None:
        self.ref = ref
        self.service = service
        self.listener = listener
        #: The port it listens on; the one that was given by the system when 0 was asked for.
        self.port = port

    def reload_keys(self, secret: object, *, erlang: object = None) -> None:
        """Serve with another ring of keys from now on; requests in flight are not disturbed.

        Args:
            secret: as `start_clear_server`.
            erlang: another ring for Erlang nodes, where they have one of their own.
        """
        self.service.replace_keys(secret, erlang)

    async def stop(self, grace: float = GRACE) -> bool:
        """Take no more connections, let calls in flight end, then close; False when some were cut after `grace` s."""
        self.listener.begin_drain()
        complete = await self.service.drain(grace)
        await self.listener.idle(LAST_ANSWERS)
        self.listener.close_all()
        self.service.close()
        _SERVERS.pop(self.ref, None)
        return complete


_SERVERS: dict[str, Server] = {}


def start_clear_server(
    secret: object, exposed: object, *, ref: str = "clear", port: int = CLEAR_PORT, **options: Any
) -> Server:
    """Serve calls over HTTP on Tornado's loop.

    Args:
        secret: the secret (16 bytes or more), a `Key`, several keys from oldest to newest, or a `KeyRing`.
        exposed: what may be called: modules, `(module, ["function", …])`, names of modules, `Exposed(name=object)`.
        ref: a name of this server for `stop_server`; two servers need two names.
        port: 0 lets the system choose; see `Server.port`.
        options: fields of `ServerOptions`, `ListenerOptions` and `Limits`; `state`: path of a file that remembers
            calls and nonces across restarts and between processes on the same port; `erlang`: True or `ErlangOptions`
            to answer nodes of Erlang's backwater as well.

    Raises:
        ConfigurationError: a key, an exposed object or an option is wrong.
        OSError: the port cannot be used.
    """
    return _start(secret, exposed, ref, port, options, None)


def start_tls_server(
    secret: object,
    exposed: object,
    *,
    certfile: str,
    keyfile: str,
    client_ca: str | None = None,
    ref: str = "tls",
    **options: Any,
) -> Server:
    """Serve calls over HTTPS, port 8443 unless `port` says otherwise; TLS 1.2 or later.

    Args:
        certfile: the server's certificate with its chain, PEM.
        keyfile: its key, PEM.
        client_ca: ask every client for a certificate of this authority.

    The rest as `start_clear_server`.
    """
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=client_ca)
    except (OSError, ssl.SSLError) as error:
        raise InvalidOption(f"the authority {client_ca!r} cannot be used: {error}") from error
    try:
        context.load_cert_chain(certfile, keyfile)
    except (OSError, ssl.SSLError) as error:
        raise InvalidOption(f"the certificate {certfile!r} with the key {keyfile!r} cannot be used: {error}") from error
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return _start(secret, exposed, ref, options.pop("port", TLS_PORT), options, context)


def _start(
    secret: object, exposed: object, ref: str, port: int, options: dict[str, Any], context: ssl.SSLContext | None
) -> Server:
    if ref in _SERVERS:
        raise InvalidOption(f"a server with the ref {ref!r} is running already; give this one another ref")
    listener_options = make_options(ListenerOptions, take_options(options, ListenerOptions))
    sockets = bind_sockets(port, listener_options.address or "", reuse_port=listener_options.reuse_port)
    try:
        service = make_service(secret, exposed, options)
    except BaseException:
        for each in sockets:
            each.close()
        raise
    front = Front(service, _application(service), "http" if context is None else "https")
    # A body up to MAX_DISCARDED is read to its end before it is refused; Tornado must not refuse it first, unsigned.
    largest = max(service.options.limits.max_encoded_args_size, MAX_DISCARDED) + 1
    listener = Listener(front, listener_options, largest, context)
    listener.listen_on(sockets)
    server = _SERVERS[ref] = Server(ref, service, listener, sockets[0].getsockname()[1])
    return server


async def stop_server(ref: str | None = None, *, grace: float = GRACE) -> bool:
    """Stop the server named `ref`, or all; see `Server.stop`. Stopping what does not run is not an error."""
    chosen = [server for name, server in _SERVERS.items() if ref in (None, name)]
    results = await asyncio.gather(*(server.stop(grace) for server in chosen))
    return all(results)
