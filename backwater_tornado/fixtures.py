"""Fixtures for pytest: a broker in memory, an application that sends to it, and a worker that runs your tasks.

    # conftest.py
    import pytest
    import shop.tasks

    pytest_plugins = ["backwater_tornado.fixtures"]

    @pytest.fixture
    def backwater_tasks():
        return [shop.tasks]

A test that asks for `backwater_worker` has its tasks run, over HTTP and with all that belongs to it. One that asks for
`backwater_app` only sees them sent. Time at the broker stands still until `backwater_broker.advance(seconds)`.

Rule: the only module that imports pytest; what runs is `testing`'s.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .app import App
from .tasks.current import set_default_sender
from .testing import Clock, RunningBroker, RunningWorker, running_broker, running_worker


@pytest.fixture
def backwater_clock() -> Clock:
    """The broker's clock, which stands still."""
    return Clock()


@pytest.fixture
def backwater_broker(backwater_clock: Clock) -> Iterator[RunningBroker]:
    """A broker in memory."""
    with running_broker(clock=backwater_clock) as broker:
        yield broker


@pytest.fixture
def backwater_app(backwater_broker: RunningBroker) -> Iterator[App]:
    """An application that sends to it; `add.delay(1, 2)` uses it for the length of the test."""
    app = App(backwater_broker.url, backwater_broker.secret, default=False, proxy="")
    before = set_default_sender(app)
    yield app
    set_default_sender(before)
    app.close()


@pytest.fixture
def backwater_tasks() -> object:
    """What `backwater_worker` runs: yours to override, with a list of modules."""
    raise pytest.UsageError("override the fixture backwater_tasks: a list of the modules with your tasks")


@pytest.fixture
def backwater_worker(
    backwater_broker: RunningBroker,
    backwater_app: App,
    backwater_tasks: object,
) -> Iterator[RunningWorker]:
    """A worker; what still runs when the test ends is interrupted."""
    with running_worker(backwater_broker, backwater_tasks) as worker:
        yield worker
