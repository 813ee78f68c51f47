"""Ours as it comes, or with an outbox: plain functions, which the worker runs in threads; results kept a day."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import backwater_tornado as backwater
from backwater_tornado.keyfiles import read_keys
from queue_rivals.contract import Blocking, run, settings, url

SECRET = Path(os.environ["BENCHMARK_SECRET"])
#: Each process has one of its own; a worker's stays empty.
OUTBOX = f"sqlite://{SECRET.with_name(f'outbox-{os.getpid()}.db')}" if settings() == "outbox" else None
app = backwater.App(url(), read_keys(SECRET), outbox=OUTBOX)


@backwater.expose
def noop() -> int:
    """The task."""
    return run()


@backwater.expose
def order(*arguments: Any) -> int:
    """The same with arguments."""
    return run()


def producer() -> Blocking:
    """The producer."""
    return Blocking(
        send=noop.delay,
        send_many=lambda count: app.send_many([noop.s() for _ in range(count)]),
        wait=lambda result: result.get(timeout=30),
        ready=lambda result: bool(result.ready()),
        send_record=lambda record: order.delay(*record),
        accepted=app.flush if OUTBOX else None,
    )
