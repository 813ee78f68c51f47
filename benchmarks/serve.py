"""A server process: `python benchmarks/serve.py VARIANT PORT`. Ends when standard input ends."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from importlib import import_module

import rivals


def _end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)


def main() -> None:
    """Serve the named variant for ever."""
    name, port = sys.argv[1], int(sys.argv[2])
    threading.Thread(target=_end_with_parent, daemon=True).start()
    variant = rivals.load(name)
    if variant.uvloop:
        asyncio.set_event_loop_policy(import_module("uvloop").EventLoopPolicy())
    variant.serve(port)


if __name__ == "__main__":
    main()
