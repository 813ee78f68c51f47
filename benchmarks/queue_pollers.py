"""Idle workers: sessions that poll an empty queue of our broker, each with a client of its own, in one process.

Written as `queue_pollers.py COUNT`. Says when all of them wait; ends when standard input ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

import backwater_tornado as backwater
from backwater_tornado.broker.values import Poll, Queue
from backwater_tornado.keyfiles import read_keys
from backwater_tornado.protocol.keys import KeyRing

QUEUE = "idle"


async def poll(url: str, secret: KeyRing, number: int) -> None:
    """As a worker does that gets nothing."""
    client = backwater.AsyncClient(url, secret)
    await client.call("broker", "declare", [], [Queue(QUEUE)], [])
    await client.call("broker", "open_session", f"idle-{number}")
    while True:
        await client.call("broker", "receive", f"idle-{number}", Poll(wants=((QUEUE, 10),), credit=10, held=()), 50.0)


async def run(count: int) -> None:
    """Until standard input ends."""
    url, secret = os.environ["BENCHMARK_URL"], read_keys(os.environ["BENCHMARK_SECRET"])
    polls = [asyncio.create_task(poll(url, secret, number)) for number in range(count)]
    await asyncio.sleep(0.02 * count + 0.5)
    print(json.dumps({"ready": True}), flush=True)
    ended = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    done, _ = await asyncio.wait([*polls, ended], return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()


if __name__ == "__main__":
    asyncio.run(run(int(sys.argv[1])))
