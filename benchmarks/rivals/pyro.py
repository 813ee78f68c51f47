"""Pyro5: its thread-pool server, and one proxy (one connection) for each caller thread, as its manual says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import functions
import Pyro5  # type: ignore[import-untyped,import-not-found,unused-ignore]
import Pyro5.api  # type: ignore[import-untyped,import-not-found,unused-ignore]

from rivals.contract import Blocking, Pages, Variant


class Calls:
    """The exposed object."""

    def add(self, x: int, y: int) -> int:
        """A sum."""
        return functions.add(x, y)

    def echo(self, value: dict[str, Any]) -> dict[str, Any]:
        """The same back."""
        return functions.echo(value)


def serve(port: int) -> None:
    """Every connection holds a worker thread; the default pool of 80 would refuse the 81st caller."""
    Pyro5.config.THREADPOOL_SIZE = 200
    daemon = Pyro5.api.Daemon(host="127.0.0.1", port=port)
    daemon.register(Pyro5.api.expose(Calls), "calls")
    daemon.requestLoop()


def connector(serializer: str) -> Callable[[str, int, Pages], Blocking]:
    """Connects with that serializer; the server takes any."""

    def connect(host: str, port: int, pages: Pages) -> Blocking:
        Pyro5.config.SERIALIZER = serializer
        proxy = Pyro5.api.Proxy(f"PYRO:calls@{host}:{port}")
        proxy._pyroBind()
        return Blocking(add=lambda: proxy.add(1, 2), echo=proxy.echo, pages=pages, close=proxy._pyroRelease)

    return connect


VARIANTS = {
    "pyro5-serpent": Variant(about="Pyro5 as it comes", serve=serve, blocking=connector("serpent")),
    "pyro5-msgpack": Variant(about="Pyro5 with its msgpack serializer", serve=serve, blocking=connector("msgpack")),
}
