"""What a type checker sees of the public names; it is checked and never run."""

from __future__ import annotations

import ipaddress
from typing import Any, assert_type

import pycurl
from tornado.httpclient import AsyncHTTPClient
from tornado.web import Application

import backwater_tornado as backwater
from backwater_tornado.testing import RunningServer, running_server


@backwater.expose
def add(x: int, y: int) -> int:
    return x + y


@backwater.expose(name="later", time_limit=5, max_concurrency=2, queue="slow", max_retries=3)
async def wait(seconds: float) -> str:
    return str(seconds)


def an_exposed_function_is_still_itself() -> None:
    assert_type(add(1, y=2), int)
    add("1", 2)  # type: ignore[arg-type]
    add.__name__.upper()


async def an_exposed_coroutine_is_still_itself() -> None:
    assert_type(await wait(1.5), str)


def a_task_is_sent_with_the_functions_own_arguments() -> None:
    assert_type(add.delay(1, y=2), backwater.AsyncResult[int])
    assert_type(add.delay(1, 2).get(timeout=3), int)
    add.delay(1, "x")  # type: ignore[arg-type]
    add.delay(1)  # type: ignore[call-arg]
    assert_type(wait.delay(1.5).get(), str)
    wait.delay("long")  # type: ignore[call-overload]
    assert_type(add.apply_async([1, 2], countdown=3), backwater.AsyncResult[int])
    assert_type(wait.apply_async([1.5], queue="slow"), backwater.AsyncResult[str])


async def a_task_is_awaited() -> None:
    assert_type(await add.delay(1, 2), int)
    assert_type(await wait.delay(1.5), str)


@backwater.expose(bind=True)
def bound(task: backwater.TaskContext, x: int) -> str:
    return str(x)


class Clock:
    @backwater.expose
    def add(self, x: int, y: int) -> int:
        return x + y

    @backwater.expose
    async def wait(self, seconds: float) -> str:
        return str(seconds)

    @staticmethod
    @backwater.expose
    def zone() -> str:
        return "UTC"

    @backwater.expose
    @classmethod
    def make(cls) -> Clock:
        return cls()


async def methods_are_still_typed() -> None:
    assert_type(Clock().add(1, 2), int)
    assert_type(await Clock().wait(1.5), str)
    assert_type(Clock.zone(), str)
    assert_type(Clock.make(), Clock)
    Clock().add(1, "x")  # type: ignore[arg-type]


def a_bound_task_is_called_without_its_context() -> None:
    assert_type(bound.delay(1), backwater.AsyncResult[str])
    bound.delay("x")  # type: ignore[arg-type]


def what_is_sent_has_its_kind_of_result(app: backwater.App) -> None:
    assert_type(app.send(add.s(1, 2)), backwater.AsyncResult[Any])
    assert_type(app.send(backwater.group(add.s(1, 2))), backwater.GroupResult)
    assert_type(app.send_task("tasks.add", [1, 2]), backwater.AsyncResult[Any])
    app.send(add)  # type: ignore[call-overload]
    app.send(add.s(1, 2) | add.s(3)).get(timeout=3)


def calls_are_put_together() -> None:
    assert_type(add.s(1) | add.s(2), backwater.Chain)
    assert_type(add.si(1, 2), backwater.Signature)
    assert_type(add.map([1, 2]) | add.s(), backwater.Chain)
    assert_type(backwater.group(add.s(1, 2), add.s(3, 4)), backwater.Group)
    assert_type(backwater.chain(add.s(1, 2), add.s(3)).on_error(add.s()), backwater.Chain)
    assert_type(backwater.signature("tasks.add", [1, 2], queue="slow").set(priority=3), backwater.Signature)


@backwater.expose(colour="red")  # type: ignore[call-overload, untyped-decorator]
def unknown_option() -> None: ...


def a_blocking_client() -> None:
    key = backwater.Key(b"secret" * 4, "site", algorithm="hmac-sha256", scopes=backwater.Scopes(call=("tasks.*",)))
    with backwater.Client(("host", 8080), [key], curl_options={pycurl.INTERFACE: "lo"}) as client:
        assert_type(client, backwater.Client)
        assert_type(client.with_options(timeout=3, returns=list[int]), backwater.Client)
        value: int = client.call("tasks", "add", 1, y=2)
        assert_type(client.gather(("tasks", "add", [1, 2]), ("math", "sqrt", [value])), list[Any])
        assert_type(client.counters(), dict[str, int])
        assert_type(client.endpoints(), list[dict[str, Any]])
        assert_type(client.module("tasks"), backwater.Module)
    backwater.Client(ipaddress.ip_address("::1"), b"secret" * 4)
    backwater.call(("host", b"secret" * 4), "tasks", "add", [1, 2], timeout=3)


async def an_awaitable_client() -> None:
    async with backwater.AsyncClient(["https://a:8443", "b"], "secret" * 4, http_client=AsyncHTTPClient()) as client:
        assert_type(client, backwater.AsyncClient)
        total: int = await client.call("tasks", "add", 1, 2)
        assert_type(await client.gather(("tasks", "add", [total, 2])), list[Any])


async def a_server() -> None:
    server = backwater.start_clear_server(b"secret" * 4, ["math", add.__module__], ref="one", port=0)
    assert_type(server, backwater.Server)
    server.reload_keys(backwater.KeyRing.of(b"secret" * 4))
    assert_type(server.port, int)
    assert_type(await server.stop(grace=1.0), bool)
    assert_type(await backwater.stop_server("one"), bool)
    assert_type(backwater.application(b"secret" * 4, [backwater.Exposed(clock=object())]), Application)
    Application([*backwater.routes(b"secret" * 4, ["math"], prefix="/api")])
    with running_server(["math"]) as running:
        assert_type(running, RunningServer)


def errors_tell_what_they_have(error: backwater.CallFailed) -> None:
    assert_type(error.code, str)
    assert_type(error.retryable, bool)
    if isinstance(error, backwater.RemoteError):
        assert_type(error.traceback, str | None)
    if isinstance(error, backwater.ResponseUnsigned):
        assert_type(error.hint, backwater.Refused | None)
    call = backwater.current_call()
    if call is not None:
        assert_type(call.remaining(), float | None)
