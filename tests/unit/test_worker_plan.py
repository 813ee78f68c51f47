from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import backwater_tornado as backwater
from backwater_tornado.errors import InvalidKey, InvalidOption
from backwater_tornado.protocol.keys import format_key
from backwater_tornado.worker.options import WorkerOptions
from backwater_tornado.worker_plan import ASYNC_CONCURRENCY, WorkPlan, find_work, queues_of

MODULE = """
import backwater_tornado as backwater
from backwater_tornado.worker.hooks import Hooks

hooks = Hooks()

@hooks.on("start")
def note(): ...

@backwater.expose(queue="reports")
def report(): ...

@backwater.expose
def add(x: int) -> int: ...
"""
APP = 'app = backwater.App("http://shop.example", b"a secret of sixteen bytes", default=False)\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    key = backwater.Key(b"another secret of the site", "site")
    (tmp_path / "site.key").write_text(format_key(key))
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(folder: Path, name: str, more: str = "") -> str:
    (folder / f"{name}.py").write_text(MODULE + more)
    return name


@pytest.mark.parametrize(
    "wrong",
    [
        {"pool": "fibres"},
        {"concurrency": 0},
        {"max_tasks_per_child": 0, "pool": "processes"},
        {"max_memory_per_child": 1},
        {"prefetch": 0},
        {"grace": -1.0},
        {"ttl": 0.0},
    ],
)
def test_what_cannot_be_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match=next(iter(wrong))):
        WorkPlan(modules=("tasks",), **wrong)


def test_slots_are_as_many_as_said_or_as_fits_the_pool() -> None:
    assert WorkPlan(modules=(), concurrency=3).slots == 3
    assert WorkPlan(modules=(), pool="async").slots == ASYNC_CONCURRENCY
    assert WorkPlan(modules=()).slots >= 1


def test_functions_hooks_and_queues_are_those_of_the_modules(folder: Path) -> None:
    found = find_work(WorkPlan(modules=(write(folder, "plain"),), broker="http://a http://b", secret_file="site.key"))
    assert [each.name for each in found.exposure.functions()] == ["add", "report"]
    assert "start" in found.hooks
    assert (found.app, found.endpoints) == (None, ["http://a", "http://b"])
    assert found.keys.ids == ("site",)
    assert found.queues == queues_of(found.exposure.functions()) == ("default", "reports")
    told = WorkPlan(modules=("plain",), broker="http://a", secret_file="site.key", queues=("mine",))
    assert find_work(told).queues == ("mine",)


def test_the_broker_and_the_keys_of_an_app_are_the_workers_unless_others_are_named(folder: Path) -> None:
    module = write(folder, "shop", APP)
    found = find_work(WorkPlan(modules=(module,)))
    assert found.app is not None
    assert found.endpoints == "http://shop.example"
    assert found.keys.ids != ("site",)
    named = find_work(WorkPlan(modules=(module,), broker="http://a", secret_file="site.key"))
    assert (named.app is found.app, named.endpoints, named.keys.ids) == (True, ["http://a"], ("site",))


def test_without_a_broker_it_is_said_what_to_give(folder: Path) -> None:
    with pytest.raises(InvalidOption, match="no broker was named"):
        find_work(WorkPlan(modules=(write(folder, "none"),)))
    several = write(folder, "several", APP + APP.replace("app =", "other ="))
    with pytest.raises(InvalidOption, match="several Apps"):
        find_work(WorkPlan(modules=(several,)))
    with pytest.raises(InvalidKey):
        find_work(WorkPlan(modules=("none",), broker="http://a"))


def test_a_worker_that_the_broker_soon_gives_up_is_heard_of_sooner() -> None:
    assert WorkPlan(modules=()).worker_options(("default",)) == WorkerOptions()
    hasty = WorkPlan(modules=(), ttl=3.0).worker_options(("default",))
    assert (hasty.ttl, hasty.wait) == (3.0, 1.5)
