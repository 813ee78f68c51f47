"""A TCP relay: counts the bytes both ways and, if asked, adds a delay each way.

`python benchmarks/link.py --delay 0.05 8001 8002` prints one line of JSON with a listening port for each port given,
then answers commands on standard input, one a line: `counts` (bytes [up, down] for each port since the last `reset`)
and `reset`. It ends when standard input ends.

The delay is a pure one: every piece of data is passed on `delay` seconds after it came, whole and in order; pieces
travel side by side, and nothing limits the bandwidth. A new connection's first bytes wait one more round trip, because
a real link would have carried the handshake first.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections import deque


class Tally:
    """Bytes of one relayed port: towards the server, and back."""

    def __init__(self) -> None:
        self.up = 0
        self.down = 0


class End(asyncio.Protocol):
    """One of the two ends of a relayed connection. What it receives goes out at its peer, later."""

    def __init__(self, tally: Tally, delay: float, *, is_client: bool) -> None:
        self.tally, self.delay, self.is_client = tally, delay, is_client
        self.peer: End | None = None
        self.transport: asyncio.Transport | None = None
        self.earliest = 0.0
        self.travelling: deque[tuple[float, bytes | None]] = deque()
        self.timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready to send: let out what has already arrived for this end."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self.is_client:
            self.earliest = asyncio.get_running_loop().time() + 2 * self.delay
        if self.peer is not None:
            self.peer.let_out()

    def data_received(self, data: bytes) -> None:
        """Count, then send on its way."""
        if self.is_client:
            self.tally.up += len(data)
        else:
            self.tally.down += len(data)
        self.depart(data)

    def eof_received(self) -> bool:
        """Keep the other direction open; the close travels like data."""
        self.depart(None)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Gone altogether."""
        self.transport = None
        self.depart(None)

    def depart(self, item: bytes | None) -> None:
        """Put data (or the close, None) on the way."""
        if not self.delay and not self.travelling and self.peer is not None and self.peer.transport is not None:
            self.peer.arrive(item)
            return
        due = max(asyncio.get_running_loop().time(), self.earliest) + self.delay
        self.travelling.append((due, item))
        self.let_out()

    def let_out(self) -> None:
        """Hand over what is due, and set one timer for the rest: order is kept by the queue, not by timers."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        loop = asyncio.get_running_loop()
        while self.travelling and self.peer is not None and self.peer.transport is not None:
            due, item = self.travelling[0]
            if due > loop.time():
                self.timer = loop.call_at(due, self.let_out)
                return
            self.travelling.popleft()
            self.peer.arrive(item)

    def arrive(self, item: bytes | None) -> None:
        """At the far end: out it goes."""
        if self.transport is None:
            return
        if item is None:
            self.transport.close()
        else:
            self.transport.write(item)


async def listen(target: int, tally: Tally, delay: float) -> int:
    """Relay a fresh port to that one. Gives the fresh port."""
    loop = asyncio.get_running_loop()
    pending: set[asyncio.Task[None]] = set()

    def accepted() -> End:
        client = End(tally, delay, is_client=True)
        task = loop.create_task(join(client))
        pending.add(task)
        task.add_done_callback(pending.discard)
        return client

    async def join(client: End) -> None:
        server = End(tally, delay, is_client=False)
        client.peer, server.peer = server, client
        await loop.create_connection(lambda: server, "127.0.0.1", target)

    server = await loop.create_server(accepted, "127.0.0.1", 0, backlog=200)
    port: int = server.sockets[0].getsockname()[1]
    return port


async def run(targets: list[int], delay: float) -> None:
    """Relay until standard input ends."""
    tallies = [Tally() for _ in targets]
    ports = [await listen(target, tally, delay) for target, tally in zip(targets, tallies, strict=True)]
    print(json.dumps({"ports": ports}), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        counts = [[tally.up, tally.down] for tally in tallies]
        if line.strip() == "reset":
            for tally in tallies:
                tally.up = tally.down = 0
        print(json.dumps({"counts": counts}), flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--delay", type=float, default=0.0, help="seconds each way (default %(default)s)")
    parser.add_argument("target", type=int, nargs="+", help="ports on 127.0.0.1 to relay to")
    options = parser.parse_args()
    asyncio.run(run(options.target, options.delay))


if __name__ == "__main__":
    main()
