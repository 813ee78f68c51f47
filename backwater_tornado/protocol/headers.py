"""Header fields: the few shapes of RFC 9651 (structured fields) and RFC 9110 that the protocol reads and writes.

Only what the wire needs is accepted; anything else is malformed. All scanning is linear in the input.
"""

from __future__ import annotations

import re
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Iterator

from backwater_tornado.errors import RequestMalformed

#: An idempotency key of ours: a stream's name and a number, which has one form only.
_NUMBERED = re.compile(r"([A-Za-z0-9_-]{1,64})\.(0|[1-9][0-9]{0,17})", re.ASCII)
_KEY = re.compile(r'"([\x20-\x21\x23-\x5b\x5d-\x7e]{1,128})"((?:;[a-z]+=[0-9.]{1,20}){0,2})', re.ASCII)
_TIMEOUT = re.compile(r"[0-9]{1,7}(\.[0-9]{1,3})?", re.ASCII)
#: The longest time that `backwater-timeout` can say, seconds.
MAX_TIMEOUT = 9_999_999.0
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)


def encode_bytes(value: bytes) -> str:
    """A byte sequence (RFC 9651, 3.3.5): `:base64:`."""
    return f":{b2a_base64(value, newline=False).decode('ascii')}:"


def decode_bytes(text: str) -> bytes | None:
    """The bytes of `:base64:`, or None when it is not one."""
    if len(text) < 2 or text[0] != ":" or text[-1] != ":":
        return None
    try:
        return a2b_base64(text[1:-1], strict_mode=True)
    except (Base64Error, ValueError):
        return None


def dictionary_members(field: str) -> Iterator[tuple[str, str]]:
    """The members of a structured dictionary as (key, raw value); commas within strings and lists do not split."""
    start, quoted, escaped, depth = 0, False, False, 0
    for at, char in enumerate(field):
        if escaped:
            escaped = False
        elif quoted:
            escaped, quoted = char == "\\", char != '"'
        elif char == '"':
            quoted = True
        elif char in "()":
            depth += 1 if char == "(" else -1
        elif char == "," and not depth:
            yield _split_member(field[start:at])
            start = at + 1
    yield _split_member(field[start:])


def read_digest(field: str) -> bytes | None:
    """The SHA-256 in a Content-Digest field (RFC 9530): None when it has none, no bytes when it cannot be read."""
    if field.startswith("sha-256=") and "," not in field:
        return decode_bytes(field[8:]) or b""
    for name, value in dictionary_members(field):
        if name == "sha-256":
            return decode_bytes(value) or b""
    return None


def _split_member(member: str) -> tuple[str, str]:
    key, _, value = member.strip(" \t").partition("=")
    return key, value


def media_type_of(content_type: str) -> str:
    """The media type of a Content-Type field, lower case, without parameters."""
    return content_type.partition(";")[0].strip().lower()


def accepted_media_types(field: str) -> list[str]:
    """The media types of an Accept field, best first; those with q=0 are left out (RFC 9110, 12.5.1)."""
    weighed: list[tuple[float, int, str]] = []
    for position, part in enumerate(field.split(",")):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    quality = float(parameter[2:])
                except ValueError:
                    quality = 0.0
        if name and 0 < quality <= 1:
            weighed.append((-quality, position, name))
    return [name for _, _, name in sorted(weighed)]


def read_retry_after(text: str | None) -> float | None:
    """The seconds of a Retry-After field (RFC 9110, 10.2.3); None for a date, or anything else."""
    if text is None or not (text.isascii() and text.isdigit() and len(text) < 5):
        return None
    return float(text)


def format_timeout(seconds: float) -> str:
    """Seconds left, with milliseconds, as `bounded_timeout`."""
    return f"{bounded_timeout(seconds):.3f}".rstrip("0").rstrip(".")


def bounded_timeout(seconds: float) -> float:
    """The nearest time that can travel: from a millisecond to some months, which is as good as for ever."""
    return min(max(seconds, 0.001), MAX_TIMEOUT)


def parse_timeout(text: str) -> float:
    """Seconds left; raises `RequestMalformed`."""
    if not _TIMEOUT.fullmatch(text):
        raise RequestMalformed("backwater-timeout is a number of seconds such as 4.5")
    return float(text)


def parse_traceparent(text: str | None) -> str | None:
    """A W3C traceparent, or None where it is absent or not one (a broken trace must not break a call)."""
    return text if text is not None and _TRACEPARENT.fullmatch(text) else None


def format_call_key(stream: str, number: int, settled: int, age: float | None) -> str:
    """An Idempotency-Key field: `"stream.number";settled=4702;age=3.2`."""
    text = f'"{stream}.{number}";settled={settled}'
    return text if age is None else f"{text};age={age:.3f}"


def parse_call_key(text: str) -> tuple[str, int, int, float | None]:
    """(stream, number, settled, age) of an Idempotency-Key field.

    A key of another client's making, without `.number`, is a stream of its own with the number 0. That stream's name
    keeps the quotes, so that `"a"` is never taken for `"a.0"`.

    Raises:
        RequestMalformed: it is not a string with our parameters.
    """
    match = _KEY.fullmatch(text)
    if match is None:
        raise RequestMalformed('Idempotency-Key is a quoted text such as "order-17"')
    settled, age = 0, None
    for parameter in match[2].split(";")[1:]:
        name, _, value = parameter.partition("=")
        try:
            if name == "settled":
                settled = int(value)
            elif name == "age":
                age = float(value)
            else:
                raise ValueError(name)
        except ValueError:
            raise RequestMalformed(f"Idempotency-Key has an unknown or broken parameter {name!r}") from None
    numbered = _NUMBERED.fullmatch(match[1])
    if numbered is None:
        return f'"{match[1]}"', 0, 0, age
    return numbered[1], int(numbered[2]), settled, age
