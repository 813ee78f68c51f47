"""Signed requests and their responses without a network, as the tests of the protocol need them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

import msgspec

from backwater_tornado.exposure import Exposed, Exposure
from backwater_tornado.options import Endpoint, Limits, ServerOptions
from backwater_tornado.protocol.calling import Attempt, Outgoing, Target
from backwater_tornado.protocol.codec import MSGPACK, Codec
from backwater_tornado.protocol.headers import encode_bytes
from backwater_tornado.protocol.keys import Key, KeyRing
from backwater_tornado.protocol.memory import InProcessMemory, Recorded
from backwater_tornado.protocol.messages import Batch, HttpResponse
from backwater_tornado.protocol.sealing import Seal, Sealed, Stamp, seal_many, seal_one
from backwater_tornado.protocol.serving import Exchange, Serving
from backwater_tornado.protocol.signatures import RequestHead, sign_request

T = TypeVar("T")

NOW = 1_700_000_000.0
KEY = Key(bytes(range(32)), "test")
OTHER_KEY = Key(bytes(range(1, 33)), "other")
BODY = MSGPACK.encode([[1, 2], {}])
STREAM = "AbCdEfGhIjK"


def digest_of(body: bytes) -> str:
    """The value of Content-Digest."""
    return f"sha-256={encode_bytes(hashlib.sha256(body).digest())}"


def fields_of(body: bytes = BODY, media_type: str = "application/msgpack", **more: str) -> dict[str, str]:
    """The fields that every request has, and `more` of them, written with underscores."""
    return {
        "content-type": media_type,
        "content-length": str(len(body)),
        "content-digest": digest_of(body),
        **{name.replace("_", "-"): value for name, value in more.items()},
    }


def signed(
    fields: Mapping[str, str] | None = None,
    key: Key = KEY,
    *,
    method: str = "POST",
    path: str = "/backwater/2/tasks/add",
    created: float = NOW,
    nonce: str = f"{STREAM}.1",
) -> RequestHead:
    """A request's head, signed over all its fields."""
    head = RequestHead(method, "host:8080", path, "", dict(fields_of() if fields is None else fields))
    return sign_again(head, key, created=created, nonce=nonce)


def sign_again(head: RequestHead, key: Key = KEY, *, created: float = NOW, nonce: str = f"{STREAM}.1") -> RequestHead:
    """The same head, with a signature made now."""
    plain = {name: value for name, value in head.fields.items() if not name.startswith("signature")}
    head = with_members(head, fields=plain)
    written = sign_request(key, head, created=int(created), expires=int(created) + 60, nonce=nonce)
    return with_fields(head, signature_input=written[0], signature=written[1])


def with_fields(head: RequestHead, **fields: str | None) -> RequestHead:
    """The head with other fields, None for without it; not signed again."""
    changed = {**head.fields, **{name.replace("_", "-"): value for name, value in fields.items()}}
    return with_members(head, fields={name: value for name, value in changed.items() if value is not None})


def with_members(record: T, **members: Any) -> T:
    """A copy with other members, whatever sort of record it is."""
    if isinstance(record, msgspec.Struct):
        return msgspec.structs.replace(record, **members)
    return replace(record, **members)  # type: ignore[type-var]


# Both ends -----------------------------------------------------------------------------------------------------------


class Tasks:
    def add(self, x: int, y: int = 0) -> int:
        return x + y


def serving_of(keys: object = KEY, exposed: object = None, **options: Any) -> Serving:
    """A server's half, with `tasks.add`; fields of `ServerOptions`, and `limits` as a mapping."""
    limits = Limits(**options.pop("limits", {}))
    exposure = Exposure.of(Exposed(tasks=Tasks()) if exposed is None else exposed)  # type: ignore[arg-type]
    memory = InProcessMemory(NOW - 3600)
    return Serving(KeyRing.of(keys), exposure, ServerOptions(limits=limits, **options), memory)  # type: ignore[arg-type]


def arrive(serving: Serving, head: RequestHead, body: bytes = BODY, now: float = NOW) -> Exchange:
    """The exchange after head and body have passed all steps."""
    exchange = Exchange(head, now)
    serving.accept_head(exchange)
    exchange.body, exchange.digest = body, hashlib.sha256(body).digest()
    serving.accept_body(exchange)
    return exchange


def calls_of(exchange: Exchange) -> Batch:
    """What the request asks for."""
    assert exchange.batch is not None
    return exchange.batch


def outgoing(number: int = 0, arguments: bytes = BODY, **more: Any) -> Outgoing:
    """A call of `tasks.add` with ten seconds left at the moment 0."""
    return Outgoing(number, **{"module": "tasks", "function": "add", "arguments": arguments, "deadline": 10.0, **more})


def seal(
    *calls: Outgoing, key: Key = KEY, codec: Codec = MSGPACK, nonce: int = 1, endpoint: str = "host", **limits: Any
) -> Sealed:
    """One request, or one for many calls, sealed at NOW."""
    material = Seal(STREAM, codec, Limits(**limits))
    target, stamp = Target(Endpoint.parse(endpoint)), Stamp(f"{STREAM}.{nonce}", 0, 0.0, NOW)
    if len(calls) == 1:
        return seal_one(material, key, Attempt(calls[0], target, fresh=False), stamp)
    return seal_many(material, key, target, calls, stamp)


def received(sealed: Sealed) -> RequestHead:
    """A sealed request's head as the server reads it."""
    return with_members(sealed.head, fields=dict(sealed.request.fields))


def answered(
    sealed: Sealed, value: object = 3, *, serving: Serving | None = None, recorded: Recorded | None = None
) -> HttpResponse:
    """The server's response to a sealed request."""
    serving = serving or serving_of(sealed.key)
    exchange = arrive(serving, received(sealed), sealed.request.body)
    answer = recorded or serving.form(exchange).encode_result(value)
    return serving.respond(exchange, answer, NOW, {})
