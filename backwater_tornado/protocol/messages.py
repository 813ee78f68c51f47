"""The values that the two halves of the protocol exchange with their edges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from .memory import CallId


class HttpRequest(msgspec.Struct, frozen=True):
    """A request ready to be sent; `fields` are all that it has beside Host."""

    url: str
    fields: Sequence[tuple[str, str]]
    body: bytes


class HttpResponse(msgspec.Struct, frozen=True):
    """A response, to be sent or as received; names of fields in lower case."""

    status: int
    fields: Mapping[str, str]
    body: bytes


class Call(msgspec.Struct, frozen=True):
    """One call as the server reads it: names, encoded arguments, and what bounds and identifies it."""

    module: str
    function: str
    #: `[args, kwargs]` in the media type of the request.
    arguments: bytes
    #: Seconds that the caller still waits, or None.
    timeout: float | None = None
    #: None when the caller gave no idempotency key.
    call_id: CallId | None = None
    traceparent: str | None = None
    #: Seconds for which it is remembered; None: as long as an attempt of it may still come.
    kept: float | None = None
    #: What the memory has before the key's id: calls in different parts of it have nothing to do with each other.
    part: str = ""


class Batch(msgspec.Struct, frozen=True):
    """What one request asks for: one call, or many (`streamed`)."""

    calls: Sequence[Call]
    streamed: bool = False
