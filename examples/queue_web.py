"""A web application that has its work done by workers: it answers at once, and shows how far the work is.

POST /reports      202 and where to look
GET /reports/ID    the state, and how far it is or what came of it
"""

from __future__ import annotations

import asyncio
import json

import jobs
from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

import backwater_tornado as backwater
from backwater_tornado.testing import running_broker, running_worker


class Reports(RequestHandler):
    """Everything about the broker is awaited, so the loop serves others meanwhile."""

    def initialize(self, queue: backwater.AsyncApp) -> None:
        self.queue = queue

    async def post(self) -> None:
        pages = int(self.get_body_argument("pages"))
        result = await self.queue.send(jobs.render.s(pages))
        self.set_status(202)
        self.set_header("location", f"/reports/{result.id}")

    async def get(self, id: str) -> None:
        state, value = await self.queue.result(id).look()  # its result, how far it is, or why it failed
        self.write({"state": state, "value": str(value) if isinstance(value, Exception) else value})


async def main(queue: backwater.AsyncApp) -> None:
    routes = [(path, Reports, {"queue": queue}) for path in (r"/reports", r"/reports/(\w+)")]
    server = HTTPServer(Application(routes))
    sockets = bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"

    browser = AsyncHTTPClient()
    answer = await browser.fetch(f"{url}/reports", method="POST", body="pages=5")
    print("POST /reports:", answer.code)
    while True:
        page = json.loads((await browser.fetch(url + answer.headers["location"])).body)
        if page["state"] == "SUCCESS":
            break
        if page["state"] == "PROGRESS":
            print("page", page["value"]["page"], "of", page["value"]["of"])
        await asyncio.sleep(0.1)
    print("result:", page["value"])
    server.stop()


with running_broker() as broker, running_worker(broker, [jobs]):
    asyncio.run(main(backwater.AsyncApp(broker.url, broker.secret)))

# Output:
# POST /reports: 202
# ...
# result: 5 pages
