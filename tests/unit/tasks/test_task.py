"""An exposed function is still the function, and can be sent; what its mark says of sending is said for every one."""

from __future__ import annotations

import asyncio
import functools
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from backwater_tornado.errors import InvalidExposure, InvalidOption
from backwater_tornado.marks import ExposeKeywords, mark_of
from backwater_tornado.tasks.current import enter_block, leave_block
from backwater_tornado.tasks.options import SendOptions
from backwater_tornado.tasks.signatures import Group, Signature
from backwater_tornado.tasks.task import expose, send_options_of, task_name


@expose
def add(x: int, y: int = 0) -> int:
    return x + y


@expose(name="later", queue="slow", priority=3, expires=60, ignore_result=True, result_expires=9, serializer="json")
async def wait(seconds: float) -> str:
    return str(seconds)


@expose(max_retries=5, time_limit=3, soft_time_limit=2, retry_delay=1, acks_late=True, rate_limit="1/s")
def limited() -> None: ...


class Clock:
    @expose
    def tell(self, zone: str) -> str:
        return f"noon {zone}"

    @staticmethod
    @expose
    def zone() -> str:
        return "UTC"

    @expose
    @staticmethod
    def static() -> str:
        return "static"

    @expose
    @classmethod
    def kind(cls) -> str:
        return cls.__name__


def plain() -> None: ...


HERE = __name__
SLOW = SendOptions(queue="slow", priority=3, expires=60.0, ignore_result=True, result_expires=9.0, serializer="json")


class Kept(list[Any]):
    def send(self, canvas: Any, /) -> str:
        self.append(canvas)
        return "sent"


@pytest.fixture
def sent() -> Iterator[Kept]:
    app = Kept()
    enter_block(app)
    yield app
    leave_block()


def test_the_function_is_still_itself() -> None:
    assert add(1, 2) == 3
    assert asyncio.run(wait(1.5)) == "1.5"
    assert pickle.loads(pickle.dumps(add)) is add
    assert mark_of(add) is not None


def test_methods_of_classes_are_still_methods() -> None:
    clock = Clock()
    assert (clock.tell("here"), clock.zone(), clock.static(), clock.kind()) == ("noon here", "UTC", "static", "Clock")
    assert mark_of(clock.tell) is not None
    assert mark_of(vars(Clock)["static"]) is not None
    assert mark_of(vars(Clock)["kind"]) is not None


def test_a_function_is_sent_with_its_arguments(sent: Kept) -> None:
    assert add.delay(1, y=2) == "sent"
    assert add.apply_async([1], {"y": 2}, queue="q") == "sent"
    wait.delay(1.5)
    assert sent == [
        Signature(f"{HERE}.add", (1,), {"y": 2}),
        Signature(f"{HERE}.add", (1,), {"y": 2}, SendOptions(queue="q")),
        Signature(f"{HERE}.later", (1.5,), {}, SLOW),
    ]


def test_calls_as_values() -> None:
    one = Signature(f"{HERE}.add", (1,), {"y": 2})
    assert add.s(1, y=2) == add.signature([1], {"y": 2}) == one
    assert add.si(1, y=2) == Signature(f"{HERE}.add", (1,), {"y": 2}, immutable=True)
    assert add.signature([1], priority=5) == Signature(f"{HERE}.add", (1,), options=SendOptions(priority=5))
    assert add.map([1, 2]) == Group((add.s(1), add.s(2)))
    assert add.starmap([(1, 2), [3]]) == Group((add.s(1, 2), add.s(3)))
    assert wait.s(1).set(queue="fast").options == SendOptions(
        queue="fast", priority=3, expires=60.0, ignore_result=True, result_expires=9.0, serializer="json"
    )


def test_the_arguments_of_a_call_are_its_own() -> None:
    kwargs = {"y": 2}
    made = add.signature([1], kwargs)
    kwargs["y"] = 3
    assert made.kwargs == {"y": 2}


def test_a_wrong_option_of_sending_is_refused_where_it_is_written(sent: Kept) -> None:
    with pytest.raises(InvalidOption, match="no option 'colour' of sending"):
        add.apply_async([1], colour="red")
    with pytest.raises(InvalidOption, match="no option 'colour'"):
        expose(colour="red")  # type: ignore[call-overload]
    with pytest.raises(InvalidExposure, match="not a function"):
        expose(Clock)


#: Options of exposing that are the worker's business, or the server's; all others are the sender's.
OF_THE_WORKER = {
    *("name", "idempotent", "max_concurrency", "time_limit", "soft_time_limit", "bind", "acks_late", "rate_limit"),
    *("max_retries", "autoretry_for", "dont_autoretry_for", "track_started"),
    *("retry_backoff", "retry_backoff_max", "retry_jitter", "retry_delay"),
}


def test_every_option_that_concerns_sending_is_sent() -> None:
    concerning = set(get_type_hints(ExposeKeywords)) - OF_THE_WORKER
    said = {name for name in concerning if getattr(SLOW, name) != getattr(SendOptions(), name)}
    assert said == concerning
    assert send_options_of(wait) == SLOW


def test_what_concerns_the_worker_is_not_sent() -> None:
    assert send_options_of(limited) == send_options_of(plain) == SendOptions()


def test_none_says_nothing() -> None:
    assert send_options_of(expose(queue=None, expires=None, result_expires=None)(lambda: 0)) == SendOptions()


def test_a_task_is_named_by_module_and_name() -> None:
    assert task_name(add) == f"{HERE}.add"
    assert task_name(wait) == f"{HERE}.later"
    assert task_name(Clock.tell) == task_name(Clock().tell) == f"{HERE}.tell"


def test_what_was_not_exposed_is_no_task() -> None:
    with pytest.raises(InvalidOption, match=r"plain.* is no task; mark it with @backwater\.expose"):
        task_name(plain)


def test_a_partial_is_named_by_its_option_and_belongs_where_it_was_exposed() -> None:
    assert task_name(expose(name="inc")(functools.partial(add, 1))) == f"{HERE}.inc"
    with pytest.raises(InvalidOption, match=r"has no name; give it one, expose\(name=…\)"):
        expose(functools.partial(add, 1)).s()  # type: ignore[attr-defined]


SCRIPT = """\
from backwater_tornado.tasks.task import expose, task_name
@expose
def add(): ...
print(task_name(add))
"""


@pytest.mark.parametrize(
    ("arguments", "name"),
    [(["tasks.py"], "tasks.add"), (["-m", "pack.jobs"], "pack.jobs.add"), (["-m", "pack"], "pack.__main__.add")],
)
def test_a_function_of_the_script_that_runs_is_known_as_a_worker_imports_it(
    arguments: list[str], name: str, tmp_path: Path
) -> None:
    (tmp_path / "pack").mkdir()
    for file in ("tasks.py", "pack/jobs.py", "pack/__main__.py"):
        (tmp_path / file).write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.strip() == name


def test_without_a_script_the_name_is_pythons_own(monkeypatch: pytest.MonkeyPatch) -> None:
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "__spec__", None, raising=False)
    monkeypatch.setattr(main, "__file__", None, raising=False)
    monkeypatch.setattr(plain, "__module__", "__main__")
    assert task_name(expose(plain)) == "__main__.plain"
    monkeypatch.setattr(main, "__file__", "/somewhere/jobs.py")
    assert task_name(plain) == "jobs.plain"
    monkeypatch.setattr(main, "__spec__", type("Spec", (), {"name": "pack.jobs"}))
    assert task_name(plain) == "pack.jobs.plain"
