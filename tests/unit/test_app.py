"""Applications before they speak to anybody: their settings, what they plan, and whom `delay` sends with."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextvars import copy_context
from typing import Any

import pytest

from backwater_tornado.app import RECV_TIMEOUT, App, AsyncApp, new_id
from backwater_tornado.errors import InvalidEndpoint, InvalidKey, InvalidOption, Unserializable
from backwater_tornado.tasks import asks, current
from backwater_tornado.tasks.current import current_sender
from backwater_tornado.tasks.messages import read_headers
from backwater_tornado.tasks.request import CURRENT_TASK, TaskContext, TaskRequest
from backwater_tornado.tasks.signatures import Signature, signature

URL, SECRET = "http://broker.invalid:8080", b"a secret of the application"


@pytest.fixture(autouse=True)
def no_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(current, "_default", [])


@pytest.fixture(params=[App, AsyncApp])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


# Settings ------------------------------------------------------------------------------------------------------------


def test_settings_of_the_application_and_of_its_client_are_told_apart(kind: Any) -> None:
    app = kind(URL, SECRET, queue="slow", result_expires=60, send_timeout=2, recv_timeout=4, connect_timeout=3)
    assert (app.options.queue, app.options.result_expires, app.options.send_timeout) == ("slow", 60, 2)
    assert (app.poll_wait, app.client_options["connect_timeout"]) == (3.0, 3)
    assert repr(app) == f"{kind.__name__}({URL!r})"


def test_a_poll_waits_for_less_than_what_counts_as_silence(kind: Any) -> None:
    assert kind(URL, SECRET).poll_wait < RECV_TIMEOUT


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"queue": ""}, "the option 'queue' should be"),
        ({"queue": 5}, "the option 'queue' should be"),
        ({"result_expires": -1}, "the option 'result_expires' should be seconds from 0"),
        ({"send_timeout": 0}, "send_timeout is a number above 0, not 0"),
        ({"send_timeout": "5"}, "send_timeout is a number above 0, not '5'"),
        ({"send_timeout": float("inf")}, "send_timeout is a number above 0"),
        ({"recv_timeout": 0}, "recv_timeout is a number above 0, not 0"),
        ({"recv_timeout": "8"}, "recv_timeout is a number above 0, not '8'"),
        ({"colour": "red"}, "unknown option 'colour'"),
    ],
)
def test_a_wrong_setting_is_told(kind: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        kind(URL, SECRET, **options)


def test_a_wrong_address_or_secret_is_told(kind: Any) -> None:
    with pytest.raises(InvalidEndpoint):
        kind("ftp://x", SECRET)
    with pytest.raises(InvalidKey):
        kind(URL, b"")


# Planning ------------------------------------------------------------------------------------------------------------


def test_what_a_call_does_not_say_the_application_does(kind: Any) -> None:
    app = kind(URL, SECRET, queue="slow", result_expires=60)
    ((publication,),) = (order.publications for order in app.plan([signature("m.f")]))
    assert (publication.routing_key, publication.message.keep_result) == ("slow", 60)


@pytest.mark.parametrize(("root_id", "root"), [("first", "first"), ("", "own")])
def test_what_a_task_sends_knows_the_task_as_its_parent(kind: Any, root_id: str, root: str) -> None:
    app = kind(URL, SECRET)
    task = TaskContext(TaskRequest(id="own", root_id=root_id), lambda value: None)
    context = copy_context()
    context.run(CURRENT_TASK.set, task)
    (order,) = context.run(app.plan, [signature("m.f")])
    headers = read_headers(order.publications[0].message)
    assert (headers.parent, headers.root) == ("own", root)


@pytest.mark.parametrize(
    ("call", "place"),
    [
        (signature("m.f", [1, {"x": [object()]}]), r"\[0\]\[1\]\['x'\]\[0\]"),
        (signature("m.f", (), {"name": object()}), r"\[1\]\['name'\]"),
        (signature("m.f", [object()], serializer="json"), r"\[0\]\[0\]"),
    ],
)
def test_an_argument_without_a_form_is_named_by_its_place(kind: Any, call: Signature, place: str) -> None:
    with pytest.raises(Unserializable, match=place):
        kind(URL, SECRET).plan([call])


def test_ids_cannot_be_guessed() -> None:
    ids = {new_id() for _ in range(1_000)}
    assert len(ids) == 1_000
    assert {len(each) for each in ids} == {32}


def test_an_ask_has_the_time_to_send_beyond_what_the_broker_may_wait(kind: Any) -> None:
    app = kind(URL, SECRET, send_timeout=2)
    assert app._options_for(asks.results(["1"]))["timeout"] == 2
    assert app._options_for(asks.results(["1"], 6.0))["timeout"] == 8
    assert app._options_for(asks.results(["1"], 6.0, within=3.0))["timeout"] == 3


# Whom delay sends with -----------------------------------------------------------------------------------------------


def test_the_application_made_last_is_the_default_unless_it_says_no() -> None:
    App(URL, SECRET)
    second = App(URL, SECRET)
    App(URL, SECRET, default=False)
    AsyncApp(URL, SECRET)
    assert current_sender() is second


def test_in_a_block_it_is_the_blocks() -> None:
    default, other = App(URL, SECRET), App(URL, SECRET, default=False)
    with other as entered, default, other:
        assert current_sender() is entered is other
    assert current_sender() is default


def test_without_an_application_it_is_said_what_to_do() -> None:
    with pytest.raises(InvalidOption, match="there is no application to send with"):
        signature("m.f").delay()


# Both ----------------------------------------------------------------------------------------------------------------


def verbs(kind: type) -> Iterator[tuple[str, Any]]:
    return ((name, value) for name, value in inspect.getmembers(kind, callable) if not name.startswith("_"))


def test_both_applications_have_the_same_verbs() -> None:
    blocking, awaitable = dict(verbs(App)), dict(verbs(AsyncApp))
    assert blocking.keys() - awaitable.keys() == {"drive_async"}  # by which a blocking one's results are awaited
    assert awaitable.keys() <= blocking.keys()
    for name, value in awaitable.items():
        one, other = inspect.signature(blocking[name]).parameters, inspect.signature(value).parameters
        assert [(each.name, each.kind, each.default) for each in one.values()] == [
            (each.name, each.kind, each.default) for each in other.values()
        ], name


def test_every_verb_that_speaks_to_the_broker_is_awaited_by_one_of_them() -> None:
    for name in ("send", "send_many", "send_task", "revoke", "ask", "drive"):
        assert inspect.iscoroutinefunction(getattr(AsyncApp, name))
        assert not inspect.iscoroutinefunction(getattr(App, name))
