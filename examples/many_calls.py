"""Many calls at once: they share requests, and a slow one does not hold back the others."""

from __future__ import annotations

import asyncio
import secrets
from datetime import date

import tasks

import backwater_tornado as backwater
from backwater_tornado.testing import running_server

with running_server([tasks], secrets.token_bytes(32)) as server:
    # Blocking: `gather` sends them together.
    with backwater.Client(server.url, server.secret) as client:
        print(client.gather(("tasks", "add", [1, 2]), ("tasks", "divide", [1, 4]), ("tasks", "count_words", ["a b"])))
        results = client.gather(("tasks", "add", [1, 2]), ("tasks", "divide", [1, 0]), return_exceptions=True)
        print([str(result) for result in results])
        print("requests:", client.counters()["requests"])

    # Awaitable: whatever is called at the same time travels together.
    async def main() -> None:
        async with backwater.AsyncClient(server.url, server.secret) as client:
            remote = client.module("tasks")
            print(sum(await asyncio.gather(*(remote.add(number, 1) for number in range(100)))))
            print("requests:", client.counters()["requests"])
            typed = client.with_options(timeout=30, returns=tasks.Report)
            print(await typed.call("tasks", "report", date(2026, 1, 2), ["some words", "and more"]))

    asyncio.run(main())

# Output:
# [3, 0.25, 2]
# ['3', 'ZeroDivisionError: ...division by zero']
# requests: 2
# 5050
# requests: 1
# Report(day=datetime.date(2026, 1, 2), words=4)
