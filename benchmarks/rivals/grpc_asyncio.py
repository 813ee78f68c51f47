"""grpcio's asyncio server and client: one channel for all tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc  # type: ignore[import-untyped,import-not-found,unused-ignore]
import grpc.aio  # type: ignore[import-untyped,import-not-found,unused-ignore]

from rivals import grpc_messages as messages
from rivals.contract import Awaiting, Pages, Variant
from rivals.grpc_blocking import method_handlers, stub


def _awaitable(behaviour: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Awaitable[Any]]:
    async def handle(request: Any, context: Any) -> Any:
        return behaviour(request, context)

    return handle


def server(compression: Any) -> Callable[[int], None]:
    """Serves, with that compression of the answers (none is how it comes)."""

    async def serve(port: int) -> None:
        serving = grpc.aio.server(compression=compression)
        behaviours = {name: _awaitable(behaviour) for name, behaviour in messages.handlers().items()}
        serving.add_generic_rpc_handlers((method_handlers(behaviours),))
        serving.add_insecure_port(f"127.0.0.1:{port}")
        await serving.start()
        await serving.wait_for_termination()

    return lambda port: asyncio.run(serve(port))


def connector(compression: Any) -> Callable[[str, int, Pages], Awaitable[Awaiting]]:
    """Typed messages, with that compression of the requests."""

    async def connect(host: str, port: int, pages: Pages) -> Awaiting:
        channel = grpc.aio.insecure_channel(f"{host}:{port}", compression=compression)
        add, echo, made = stub(channel, "Add"), stub(channel, "Echo"), [messages.page(page) for page in pages]

        async def add_value() -> object:
            value: object = (await add(messages.Pair(x=1, y=2))).value
            return value

        return Awaiting(add=add_value, echo=echo, pages=made, close=channel.close)

    return connect


async def connect_struct(host: str, port: int, pages: Pages) -> Awaiting:
    """A dict in, a dict out."""
    channel = grpc.aio.insecure_channel(f"{host}:{port}")
    echo = stub(channel, "EchoStruct")

    async def echo_dict(page: dict[str, Any]) -> object:
        return messages.to_dict(await echo(messages.to_struct(page)))

    async def add() -> object:
        return 3

    return Awaiting(add=add, echo=echo_dict, pages=pages, close=channel.close)


VARIANTS = {
    "grpc-aio": Variant(
        about="grpcio aio, typed messages made beforehand (its best case)",
        serve=server(None),
        awaitable=connector(None),
    ),
    "grpc-aio-struct": Variant(
        about="grpcio aio, the dict as google.protobuf.Struct (what a user of dicts does)",
        serve=server(None),
        awaitable=connect_struct,
        cases=("echo",),
    ),
    "grpc-aio-gzip": Variant(
        about="grpcio aio, typed messages, its gzip switched on",
        serve=server(grpc.Compression.Gzip),
        awaitable=connector(grpc.Compression.Gzip),
        cases=("echo",),
    ),
}
