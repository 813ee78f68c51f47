"""The fixtures that users test their tasks with: as a user's own files use them, in a pytest of their own."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]
# Each starts a pytest of its own: once, on the source tree.
pytestmark = pytest.mark.slow

TASKS = """
import backwater_tornado as backwater

@backwater.expose
def add(x, y):
    return x + y

@backwater.expose(bind=True, max_retries=1, retry_delay=3600, autoretry_for=(ConnectionError,))
def flaky(task):
    if task.request.retries == 0:
        raise ConnectionError("away")
    return "there"

@backwater.expose
def sending():
    return add.delay(20, 1).id
"""

CONFTEST = """
import pytest

pytest_plugins = ["backwater_tornado.fixtures"]

@pytest.fixture
def backwater_tasks():
    import shop_tasks
    return [shop_tasks]
"""


RUN = """
import backwater_tornado as backwater
from shop_tasks import add, flaky, sending

def test_a_result(backwater_worker):
    assert add.delay(1, 2).get(timeout=20) == 3

def test_a_task_that_sends_another_sends_it_to_the_same_broker(backwater_app, backwater_worker):
    id = sending.delay().get(timeout=20)
    assert backwater_app.result(id).get(timeout=20) == 21

def test_a_day_later(backwater_broker, backwater_worker):
    result = add.apply_async([1, 2], countdown=86_400)
    assert not result.ready()
    backwater_broker.advance(86_400)
    assert result.get(timeout=20) == 3

def test_a_retry_waits_until_the_clock_is_moved(backwater_broker, backwater_worker):
    result = flaky.delay()
    while result.state != "RETRY":
        assert not result.ready()
    backwater_broker.advance(3600)
    assert result.get(timeout=20) == "there"

def test_what_is_sent_and_not_run(backwater_app):
    result = add.delay(1, 2)
    assert result.state is backwater.State.PENDING
"""

DEFAULT = """
import backwater_tornado as backwater
from backwater_tornado.tasks.current import current_sender

theirs = backwater.App("http://127.0.0.1:1", "a secret of sixteen bytes")

def test_within(backwater_app):
    assert current_sender() is backwater_app

def test_afterwards():
    assert current_sender() is theirs
"""


def test_tasks_of_a_test_are_sent_and_run_and_the_default_application_is_restored(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(shop_tasks=TASKS, conftest=CONFTEST, test_run=RUN, test_default=DEFAULT)
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=7)


def test_without_tasks_it_is_said_what_to_override(pytester: pytest.Pytester) -> None:
    pytester.makeconftest('pytest_plugins = ["backwater_tornado.fixtures"]')
    pytester.makepyfile("def test_it(backwater_worker): pass")
    done = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["*override the fixture backwater_tasks*"])
