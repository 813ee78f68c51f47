"""Ours as it comes: plain functions, which the worker runs in threads; results kept a day."""

from __future__ import annotations

import os

import backwater_tornado as backwater
from backwater_tornado.keyfiles import read_keys
from queue_rivals.contract import Blocking, run, url

app = backwater.App(url(), read_keys(os.environ["BENCHMARK_SECRET"]))


@backwater.expose
def noop() -> int:
    """The task."""
    return run()


def producer() -> Blocking:
    """The producer."""
    return Blocking(
        send=noop.delay,
        send_many=lambda count: app.send_many([noop.s() for _ in range(count)]),
        wait=lambda result: result.get(timeout=30),
        ready=lambda result: bool(result.ready()),
    )
