"""What version 1 reads of HTTP: preferences, media types, gzip.

Rule: pure; a body is never inflated beyond the limit given.
"""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from collections.abc import Collection
from typing import Final

MEDIA_TYPE: Final = "application/x-erlang-etf"
TEXT: Final = "text/plain"
_WORD: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_PARAMETER: Final = rf'[ \t]*;[ \t]*{_WORD}=(?:{_WORD}|"[^"]*")'
_TYPE: Final = re.compile(rf"({_WORD}/{_WORD})((?:{_PARAMETER})*)[ \t]*", re.ASCII)
_CODING: Final = re.compile(rf"({_WORD})((?:{_PARAMETER})*)[ \t]*", re.ASCII)
_QUALITY: Final = re.compile(r";[ \t]*[qQ]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)(?:[ \t;]|$)", re.ASCII)
_LEVEL: Final = 6


class NotGzip(Exception):
    """A body is not a complete gzip stream."""


class TooLarge(Exception):
    """A body is larger than the limit when inflated."""


def media_type_of(value: str) -> str | None:
    """The media type in lower case, without parameters; None when the field cannot be read."""
    found = _TYPE.fullmatch(value.strip(" \t"))
    return None if found is None else found[1].lower()


def preferred_types(value: str) -> list[str] | None:
    """The media types of an Accept field, best first; None when it cannot be read."""
    return _preferred(value, _TYPE)


def preferred_codings(value: str) -> list[str] | None:
    """The codings of an Accept-Encoding field, best first; None when it cannot be read."""
    return _preferred(value, _CODING)


def _preferred(value: str, member: re.Pattern[str]) -> list[str] | None:
    """By quality, highest first. Of equals the last comes first, as genuine servers have it; quality 0 is none."""
    ranked: list[tuple[float, int, str]] = []
    for place, part in enumerate(value.split(",")):
        if not part.strip(" \t"):
            continue
        found = member.fullmatch(part.strip(" \t"))
        if found is None:
            return None
        stated = _QUALITY.search(found[2])
        quality = float(stated[1]) if stated else 1.0
        if quality > 0:
            ranked.append((-quality, -place, found[1].lower()))
    return [name for _, _, name in sorted(ranked)]


def chosen(preferred: Collection[str], known: Collection[str]) -> str | None:
    """The first that is known."""
    return next((name for name in preferred if name in known), None)


def digest_of(body: bytes) -> str:
    """The value of the `digest` field: of the body as it is sent."""
    return format_digest(hashlib.sha256(body).digest())


def format_digest(sha256: bytes) -> str:
    """The value of the `digest` field for a hash that is known already."""
    return f"SHA-256={base64.b64encode(sha256).decode()}"


def gzip(body: bytes, threshold: int) -> bytes | None:
    """The body as one gzip member; None below the threshold, and where it would not get smaller."""
    if len(body) < threshold:
        return None
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, 31)
    packed = packer.compress(body) + packer.flush()
    return packed if len(packed) < len(body) else None


def gunzip(body: bytes, limit: int) -> bytes:
    """Inflate one gzip member; what follows it is not looked at. Raises `NotGzip`, `TooLarge`."""
    inflater = zlib.decompressobj(31)
    try:
        found = inflater.decompress(body, limit + 1)
    except zlib.error as error:
        raise NotGzip(str(error)) from error
    if len(found) > limit:
        raise TooLarge
    if not inflater.eof:
        raise NotGzip("it ends too soon")
    return found
