"""What users test with: brokers whose clock a test moves."""

from __future__ import annotations

import pytest

import backwater_tornado as backwater
from backwater_tornado.broker.values import Poll
from backwater_tornado.tasks import asks
from backwater_tornado.testing import Clock, running_broker


def test_a_broker_with_a_clock_of_the_tests_own_sees_what_is_due_at_once() -> None:
    with running_broker(clock=Clock()) as broker:
        app = backwater.App(broker.url, broker.secret, default=False)
        sent = app.send_task("tasks.add", countdown=60)
        app.ask(asks.open_session("w", 1000.0))
        want = asks.receive("w", Poll((("default", 1),), 1), 0.0)
        assert app.ask(want).deliveries == ()
        broker.advance(59)
        assert app.ask(want).deliveries == ()
        broker.advance(1)
        assert [each.message.id for each in app.ask(want).deliveries] == [sent.id]


def test_only_a_clock_can_be_moved() -> None:
    with running_broker() as broker, pytest.raises(backwater.InvalidOption, match="only a Clock"):
        broker.advance(1)
