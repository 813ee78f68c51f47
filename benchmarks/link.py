"""A bad network in a process of its own: counts the bytes both ways and, if asked, adds a delay each way.

`python benchmarks/link.py --delay 0.05 8001 8002` prints one line of JSON with a listening port for each port given,
then answers commands on standard input, one a line: `counts` (bytes [up, down] for each port since the last `reset`)
and `reset`. It ends when standard input ends.

The delay is a pure one (`backwater_tornado.testing.BadNetwork`): pieces travel side by side, and nothing limits the
bandwidth. A new connection's first bytes wait one more round trip: a real link would carry the handshake first.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import ExitStack

from backwater_tornado.testing import BadNetwork


def run(targets: list[int], delay: float) -> None:
    """Relay until standard input ends."""
    with ExitStack() as stack:
        links = [stack.enter_context(BadNetwork("127.0.0.1", target, delay=delay)) for target in targets]
        print(json.dumps({"ports": [link.port for link in links]}), flush=True)
        begun = [(0, 0) for _ in links]
        for line in sys.stdin:
            now = [(link.counts().up, link.counts().down) for link in links]
            counts = [[up - was_up, down - was_down] for (up, down), (was_up, was_down) in zip(now, begun, strict=True)]
            if line.strip() == "reset":
                begun = now
            print(json.dumps({"counts": counts}), flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--delay", type=float, default=0.0, help="seconds each way (default %(default)s)")
    parser.add_argument("target", type=int, nargs="+", help="ports on 127.0.0.1 to relay to")
    options = parser.parse_args()
    run(options.target, options.delay)


if __name__ == "__main__":
    main()
