"""grpcio's blocking server and client: one channel for all threads, ten worker threads as in its examples."""

from __future__ import annotations

from concurrent import futures
from typing import Any

import grpc  # type: ignore[import-untyped,import-not-found,unused-ignore]

from rivals import grpc_messages as messages
from rivals.contract import Blocking, Pages, Variant


def method_handlers(behaviours: dict[str, Any]) -> Any:
    """The service, for either kind of server."""
    return grpc.method_handlers_generic_handler(
        messages.SERVICE,
        {
            name: grpc.unary_unary_rpc_method_handler(
                behaviours[name],
                request_deserializer=request.FromString,
                response_serializer=reply.SerializeToString,
            )
            for name, (request, reply) in messages.METHODS.items()
        },
    )


def stub(channel: Any, method: str) -> Any:
    """The callable of one method, as generated code makes it."""
    request, reply = messages.METHODS[method]
    return channel.unary_unary(
        f"/{messages.SERVICE}/{method}",
        request_serializer=request.SerializeToString,
        response_deserializer=reply.FromString,
    )


def serve(port: int) -> None:
    """The server of grpcio's own examples."""
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=10))
    server.add_generic_rpc_handlers((method_handlers(messages.handlers()),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


def connect_typed(host: str, port: int, pages: Pages) -> Blocking:
    """Messages made of typed fields."""
    channel = grpc.insecure_channel(f"{host}:{port}")
    add, echo, made = stub(channel, "Add"), stub(channel, "Echo"), [messages.page(page) for page in pages]
    return Blocking(add=lambda: add(messages.Pair(x=1, y=2)).value, echo=echo, pages=made, close=channel.close)


def connect_struct(host: str, port: int, pages: Pages) -> Blocking:
    """A dict in, a dict out."""
    channel = grpc.insecure_channel(f"{host}:{port}")
    echo = stub(channel, "EchoStruct")
    return Blocking(
        add=lambda: 3,
        echo=lambda page: messages.to_dict(echo(messages.to_struct(page))),
        pages=pages,
        close=channel.close,
    )


VARIANTS = {
    "grpc-sync": Variant(
        about="grpcio, typed messages made beforehand (its best case)",
        serve=serve,
        blocking=connect_typed,
        shared=True,
    ),
    "grpc-sync-struct": Variant(
        about="grpcio, the dict as google.protobuf.Struct (what a user of dicts does)",
        serve=serve,
        blocking=connect_struct,
        shared=True,
        cases=("echo",),
    ),
}
