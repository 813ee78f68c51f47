"""backwater as it comes: every call and every answer signed, bound to each other, compressed above its threshold."""

from __future__ import annotations

import asyncio

import functions

import backwater_tornado as backwater
from rivals.contract import Awaiting, Blocking, Pages, Variant

SECRET = b"benchmark-benchmark-benchmark-32"


def serve(port: int) -> None:
    """One process, one loop."""

    async def run() -> None:
        backwater.start_clear_server(SECRET, [functions], port=port, address="127.0.0.1")
        await asyncio.Event().wait()

    asyncio.run(run())


def connect_blocking(host: str, port: int, pages: Pages) -> Blocking:
    """The client for scripts."""
    client = backwater.Client(f"http://{host}:{port}", SECRET)
    return Blocking(
        add=lambda: client.call("functions", "add", 1, 2),
        echo=lambda page: client.call("functions", "echo", page),
        pages=pages,
        close=client.close,
    )


async def connect_awaitable(host: str, port: int, pages: Pages) -> Awaiting:
    """The client for loops."""
    client = backwater.AsyncClient(f"http://{host}:{port}", SECRET)

    async def close() -> None:
        client.close()

    return Awaiting(
        add=lambda: client.call("functions", "add", 1, 2),
        echo=lambda page: client.call("functions", "echo", page),
        pages=pages,
        close=close,
    )


VARIANTS = {
    "ours-blocking": Variant(about="backwater, Client", serve=serve, blocking=connect_blocking, shared=True, ours=True),
    "ours-awaitable": Variant(about="backwater, AsyncClient", serve=serve, awaitable=connect_awaitable, ours=True),
}
