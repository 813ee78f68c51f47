"""How far a task is: it says so, and whoever has its id may ask, from any process and any host."""

from __future__ import annotations

import time

import jobs

import backwater_tornado as backwater
from backwater_tornado.testing import running_broker, running_worker

with running_broker() as broker, running_worker(broker, [jobs]), backwater.App(broker.url, broker.secret) as app:
    task_id = jobs.render.delay(10).id

    result = app.result(task_id)  # as another process would, that was told the id
    seen = 0
    while not result.ready():
        progress = result.progress
        if progress and progress["page"] > seen:
            seen = progress["page"]
            print("page", seen, "of", progress["of"])
        time.sleep(0.05)
    print(result.get())

# Output:
# page ...
# 10 pages
