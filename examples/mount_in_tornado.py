"""Our routes beside yours, in one Tornado application and on its loop."""

from __future__ import annotations

import asyncio
import secrets

import tasks
from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

import backwater_tornado as backwater


class Mine(RequestHandler):
    """A page of your own application."""

    def get(self) -> None:
        self.write("a page of mine")


async def main() -> None:
    secret = secrets.token_bytes(32)
    application = Application([(r"/mine", Mine), *backwater.routes(secret, [tasks])])
    server = HTTPServer(application)
    sockets = bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"

    page = await AsyncHTTPClient().fetch(f"{url}/mine")
    print(page.body.decode())
    async with backwater.AsyncClient(url, secret) as client:
        print(await client.call("tasks", "add", 1, 2))
    server.stop()


asyncio.run(main())

# Output:
# a page of mine
# 3
