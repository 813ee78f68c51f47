"""A task that fails is tried again, later and later; and what is left of one that never succeeds."""

from __future__ import annotations

import logging

import jobs

import backwater_tornado as backwater
from backwater_tornado.testing import running_broker, running_worker

logging.disable(logging.WARNING)  # the worker's log tells of every retry

with running_broker() as broker, running_worker(broker, [jobs]), backwater.App(broker.url, broker.secret):
    result = jobs.fetch.delay(3)
    print(result.get(timeout=20))

    # Four attempts are all it has: one, and three retries.
    result = jobs.fetch.delay(5)
    try:
        result.get(timeout=20)
    except backwater.RemoteError as error:
        print(f"{type(error).__name__}: {error}")
    print(result.state)
    print(str(result.traceback).splitlines()[-1])

    # One sending may have other ideas.
    print(jobs.fetch.apply_async([5], max_retries=10).get(timeout=20))

# Output:
# open at attempt 3
# RemoteError: ...still closed at attempt 4
# FAILURE
# ...still closed at attempt 4
# open at attempt 5
