"""xmlrpc of the standard library, with a thread for each connection (as it comes it serves one caller at a time)."""

from __future__ import annotations

import xmlrpc.client
from collections.abc import Callable
from socketserver import ThreadingMixIn
from typing import Any
from xmlrpc.server import SimpleXMLRPCRequestHandler, SimpleXMLRPCServer

import functions

from rivals.contract import Blocking, Pages, Variant


class _Server(ThreadingMixIn, SimpleXMLRPCServer):
    daemon_threads = True
    request_queue_size = 200


class _KeepAlive(SimpleXMLRPCRequestHandler):
    protocol_version = "HTTP/1.1"


def server(handler: type[SimpleXMLRPCRequestHandler]) -> Callable[[int], None]:
    """Serves with that handler: the stock one closes after each answer (HTTP/1.0)."""

    def serve(port: int) -> None:
        listening = _Server(("127.0.0.1", port), requestHandler=handler, logRequests=False, allow_none=True)
        register: Callable[[Callable[..., Any]], object] = listening.register_function
        register(functions.add)
        register(functions.echo)
        listening.serve_forever()

    return serve


def connect(host: str, port: int, pages: Pages) -> Blocking:
    """One proxy; its transport keeps the connection when the server does."""
    proxy = xmlrpc.client.ServerProxy(f"http://{host}:{port}/", allow_none=True)
    return Blocking(add=lambda: proxy.add(1, 2), echo=proxy.echo, pages=pages, close=lambda: proxy("close")())


VARIANTS = {
    "xmlrpc": Variant(
        about="xmlrpc of the standard library as it comes, HTTP/1.0",
        serve=server(SimpleXMLRPCRequestHandler),
        blocking=connect,
    ),
    "xmlrpc-http11": Variant(about="the same with HTTP/1.1 kept alive", serve=server(_KeepAlive), blocking=connect),
}
