"""Calls that follow one another, or run side by side, over HTTP and on a real worker, whatever becomes of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

import backwater_tornado as backwater
from backwater_tornado.testing import running_broker, running_worker

PATIENCE = 30.0


class Steps:
    """What the tasks of these tests do; exposed as `steps`."""

    def __init__(self) -> None:
        self.noted: list[Any] = []
        self.again = threading.Event()

    def add(self, *numbers: int) -> int:
        return sum(numbers)

    def total(self, numbers: list[Any], *more: int) -> int:
        return self.add(*numbers, *more)

    def large(self, size: int) -> bytes:
        return bytes(size)

    def sizes(self, several: list[bytes]) -> list[int]:
        return [len(each) for each in several]

    def refuse(self, *given: Any) -> None:
        raise ValueError("refused")

    def note(self, *given: Any) -> None:
        self.noted.append(given)

    def parent(self) -> tuple[str, str]:
        task = backwater.current_task()
        assert task is not None
        return task.request.root_id, task.request.parent_id


@pytest.fixture
def steps() -> Steps:
    return Steps()


@pytest.fixture
def app(steps: Steps) -> Iterator[backwater.App]:
    with (
        running_broker() as broker,
        running_worker(broker, backwater.Exposed(steps=steps)),
        backwater.App(broker.url, broker.secret, default=False) as app,
    ):
        yield app


def call(name: str, *args: Any, **options: Any) -> backwater.Signature:
    return backwater.signature(f"steps.{name}", args, **options)


def get(app: backwater.App, canvas: Any) -> Any:
    return app.send(canvas).get(timeout=PATIENCE)


def test_results_travel_along(app: backwater.App) -> None:
    assert get(app, call("add", 1, 2) | call("add", 10)) == 13
    assert get(app, backwater.group(call("add", number) for number in range(20))) == list(range(20))
    assert get(app, backwater.chord([call("add", 1), call("add", 2)], call("total", 10))) == 13
    assert get(
        app, backwater.group(call("add", 1), call("add", 2)) | backwater.group(call("total"), call("total", 1))
    ) == [3, 4]
    assert get(app, backwater.chain(call("add", 1), backwater.group(), call("total"))) == 0
    nested = backwater.group(call("add", 1) | call("add", 1), backwater.group(call("add", 3), call("add", 4)))
    assert get(app, nested) == [2, [3, 4]]
    assert get(app, call("add", 1) | backwater.Signature("steps.add", (5,), immutable=True)) == 5


def test_a_chord_may_have_more_results_than_fit_into_one_answer(app: backwater.App) -> None:
    canvas = backwater.group([call("large", 1_500_000)] * 6)
    assert get(app, canvas | call("sizes")) == [1_500_000] * 6
    result = app.send(canvas)
    assert [len(each) for each in result.get(timeout=PATIENCE)] == [1_500_000] * 6
    assert result.successful()


def test_what_follows_a_failure_fails_without_a_run(app: backwater.App, steps: Steps) -> None:
    last = app.send(backwater.chain(call("refuse"), backwater.group(call("note"), call("note")), call("note")))
    with pytest.raises(backwater.UpstreamFailed):
        last.get(timeout=PATIENCE)
    with pytest.raises(backwater.UpstreamFailed):
        last.parent.get(timeout=PATIENCE)
    with pytest.raises(backwater.RemoteError, match="ValueError: refused"):
        last.parent.parent.get(timeout=PATIENCE)
    assert steps.noted == []


def test_a_group_with_a_failure_fails_what_follows_and_keeps_the_rest(app: backwater.App) -> None:
    last = app.send(backwater.group(call("add", 1), call("refuse")) | call("total"))
    with pytest.raises(backwater.UpstreamFailed):
        last.get(timeout=PATIENCE)
    one, other = last.parent.get(timeout=PATIENCE, propagate=False)
    assert (one, other.type) == (1, "ValueError")


def test_links_get_the_result_and_error_links_the_id(app: backwater.App, steps: Steps) -> None:
    ended = app.send(call("add", 1).link(call("note", "well", task_id="linked")).on_error(call("note", "badly")))
    assert app.result("linked").get(timeout=PATIENCE) is None
    failed = app.send(call("refuse").link(call("note", "well")).on_error(call("note", "badly", task_id="told")))
    assert app.result("told").get(timeout=PATIENCE) is None
    assert (steps.noted, ended.get()) == ([(1, "well"), (failed.id, "badly")], 1)


def test_what_is_revoked_fails_what_follows(app: backwater.App, steps: Steps) -> None:
    last = app.send(call("add", 1, countdown=3600) | call("note"))
    last.parent.revoke()
    with pytest.raises(backwater.UpstreamFailed):
        last.get(timeout=PATIENCE)
    assert steps.noted == []


def test_a_step_that_is_revoked_before_its_turn_does_not_run(app: backwater.App, steps: Steps) -> None:
    last = app.send(call("add", 1, countdown=0.2) | call("note") | call("note"))
    last.parent.revoke()
    with pytest.raises(backwater.UpstreamFailed):
        last.get(timeout=PATIENCE)
    with pytest.raises(backwater.TaskRevoked):
        last.parent.get(timeout=PATIENCE)
    assert steps.noted == []


def test_all_of_a_workflow_know_what_it_began_with(app: backwater.App) -> None:
    last = app.send(call("add", 1) | backwater.Signature("steps.parent", immutable=True))
    assert last.get(timeout=PATIENCE) == (last.parent.id, "")
