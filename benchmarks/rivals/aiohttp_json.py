"""aiohttp, client and server, JSON over HTTP/1.1 with kept-alive connections. Nothing signed, nothing compressed."""

from __future__ import annotations

import aiohttp  # type: ignore[import-not-found,unused-ignore]
import functions
from aiohttp import web  # type: ignore[import-not-found,unused-ignore]

from rivals.contract import Awaiting, Pages, Variant


async def _add(request: web.Request) -> web.StreamResponse:
    x, y = await request.json()
    return web.json_response(functions.add(x, y))


async def _echo(request: web.Request) -> web.StreamResponse:
    (value,) = await request.json()
    return web.json_response(functions.echo(value))


def serve(port: int) -> None:
    """The stock server, without an access log."""
    application = web.Application()
    application.router.add_post("/add", _add)
    application.router.add_post("/echo", _echo)
    web.run_app(application, host="127.0.0.1", port=port, access_log=None, print=None)


async def connect(host: str, port: int, pages: Pages) -> Awaiting:
    """One session; its pool holds 100 connections by default."""
    session = aiohttp.ClientSession()

    async def call(name: str, *args: object) -> object:
        async with session.post(f"http://{host}:{port}/{name}", json=args) as response:
            result: object = await response.json()
            return result

    return Awaiting(
        add=lambda: call("add", 1, 2), echo=lambda page: call("echo", page), pages=pages, close=session.close
    )


VARIANTS = {
    "aiohttp": Variant(about="aiohttp server and client, JSON", serve=serve, awaitable=connect),
    "aiohttp-uvloop": Variant(about="the same with uvloop at both ends", serve=serve, awaitable=connect, uvloop=True),
}
