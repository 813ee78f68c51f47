"""rpyc: its threaded server, one connection for each caller thread.

A dict given to rpyc travels as a reference to the caller's own object, so an echo would send nothing. The dict
therefore goes as JSON text, read and written again at each end, which is what a user has to do as well.
"""

from __future__ import annotations

import json
from typing import Any

import functions
import rpyc  # type: ignore[import-untyped,import-not-found,unused-ignore]
from rpyc.utils.server import ThreadedServer  # type: ignore[import-untyped,import-not-found,unused-ignore]

from rivals.contract import Blocking, Pages, Variant


class Calls(rpyc.Service):  # type: ignore[misc,unused-ignore]
    """The exposed service."""

    def exposed_add(self, x: int, y: int) -> int:
        """A sum."""
        return functions.add(x, y)

    def exposed_echo(self, text: str) -> str:
        """The same back, as text."""
        return json.dumps(functions.echo(json.loads(text)))


def serve(port: int) -> None:
    """A thread for each connection."""
    ThreadedServer(Calls, hostname="127.0.0.1", port=port, backlog=200).start()


def connect(host: str, port: int, pages: Pages) -> Blocking:
    """One connection."""
    connection = rpyc.connect(host, port)
    root = connection.root
    add, echo = root.add, root.echo

    def echo_dict(page: dict[str, Any]) -> object:
        result: object = json.loads(echo(json.dumps(page)))
        return result

    return Blocking(add=lambda: add(1, 2), echo=echo_dict, pages=pages, close=connection.close)


VARIANTS = {"rpyc": Variant(about="rpyc, the dict as JSON text", serve=serve, blocking=connect)}
