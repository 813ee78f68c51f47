"""backwater as it comes: every call and every answer signed, bound to each other, compressed above its threshold.

What is called are coroutines, on the server's loop, as with the other asyncio servers; `…-threads` calls plain
functions, for which the server uses its threads, as the thread-based servers do for every call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import coroutines
import functions

import backwater_tornado as backwater
from rivals.contract import Awaiting, Blocking, Pages, Variant

SECRET = b"benchmark-benchmark-benchmark-32"


def serve(port: int) -> None:
    """One process, one loop."""

    async def run() -> None:
        backwater.start_clear_server(SECRET, [functions, coroutines], port=port, address="127.0.0.1")
        await asyncio.Event().wait()

    asyncio.run(run())


def blocking_connector(module: str) -> Callable[[str, int, Pages], Blocking]:
    """The client for scripts."""

    def connect(host: str, port: int, pages: Pages) -> Blocking:
        client = backwater.Client(f"http://{host}:{port}", SECRET)
        return Blocking(
            add=lambda: client.call(module, "add", 1, 2),
            echo=lambda page: client.call(module, "echo", page),
            pages=pages,
            close=client.close,
        )

    return connect


def awaitable_connector(module: str) -> Callable[[str, int, Pages], Awaitable[Awaiting]]:
    """The client for loops."""

    async def connect(host: str, port: int, pages: Pages) -> Awaiting:
        client = backwater.AsyncClient(f"http://{host}:{port}", SECRET)

        async def close() -> None:
            client.close()

        return Awaiting(
            add=lambda: client.call(module, "add", 1, 2),
            echo=lambda page: client.call(module, "echo", page),
            pages=pages,
            close=close,
        )

    return connect


VARIANTS = {
    f"ours-{face}{suffix}": Variant(
        about=f"backwater, {client}, {what}",
        serve=serve,
        shared=face == "blocking",
        ours=True,
        **{face: connector(module)},  # type: ignore[arg-type]  # the one of the two that `face` names
    )
    for face, client, connector in (
        ("blocking", "Client", blocking_connector),
        ("awaitable", "AsyncClient", awaitable_connector),
    )
    for suffix, module, what in (("", "coroutines", "coroutines"), ("-threads", "functions", "plain functions"))
}
