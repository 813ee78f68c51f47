"""Values to bytes and back, by media type.

Rule: whatever goes wrong in encoding is `Unserializable`, whatever goes wrong in decoding is `BodyUndecodable` or
`NestedTooDeep`, and no bytes that a peer may send use more than a bounded part of the C stack. On the ordinary path no
Python code looks at every value. This module does not know what is encoded: arguments, results or problems.

MessagePack is written by ormsgpack, which hands over each type that it would change, and read by msgspec, which is as
fast, gives extensions without copying them, and refuses bytes behind the value (ormsgpack passes over them). JSON is
for people and other languages: a datetime or UUID is a string there, a tuple or set a list, bytes base64.

Memory: a decoded value takes up to some 75 times its bytes (an empty list is one byte, and 64 here). No length that a
body claims is believed before the bytes are there.
"""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
import ormsgpack

from backwater_tornado.errors import BodyUndecodable, NestedTooDeep, Unserializable

from .extensions import CONTAINERS, HASHABLE, LEAVES, MAX_EXTENSIONS, TUPLE, lower, pack_lowered, reader, simplify
from .nesting import MAX_DEPTH, check_json, check_msgpack

__all__ = ["JSON", "MAX_DEPTH", "MSGPACK", "PICKLE", "Codec", "codec_for"]


class Codec(Protocol):
    """One way of writing values."""

    @property
    def media_type(self) -> str:
        """As it stands in Content-Type, in lower case and without parameters."""
        ...

    def encode(self, value: Any) -> bytes:
        """The value as bytes.

        Raises:
            Unserializable: it has no form in this media type.
        """
        ...

    def decode(self, data: bytes) -> Any:
        """The value that the bytes stand for.

        Raises:
            BodyUndecodable: they stand for none, or more follows it.
            NestedTooDeep: it is nested deeper than `MAX_DEPTH`.
        """
        ...


# MessagePack ---------------------------------------------------------------------------------------------------------

# All that ormsgpack would write as something else (a tuple as a list, a datetime as a str) goes through the hook. Keys
# that are not str make it refuse: with OPT_NON_STR_KEYS it would turn a date or UUID that is a key into a str.
_OPTIONS = (
    ormsgpack.OPT_PASSTHROUGH_BIG_INT
    | ormsgpack.OPT_PASSTHROUGH_DATACLASS
    | ormsgpack.OPT_PASSTHROUGH_DATETIME
    | ormsgpack.OPT_PASSTHROUGH_ENUM
    | ormsgpack.OPT_PASSTHROUGH_SUBCLASS
    | ormsgpack.OPT_PASSTHROUGH_TUPLE
    | ormsgpack.OPT_PASSTHROUGH_UUID
)
# Containers within one another that are written the fast way; what is in the innermost must be plain. Each may stand
# 255 plain levels deep in its parent, and every level takes some 300 bytes of stack.
_FAST_EXTENSIONS = 3


def _writer(extensions: int) -> Callable[[Any], Any]:
    """The hook of ormsgpack at one level of extensions; what it raises only means: try the careful way."""
    inner = _writer(extensions - 1) if extensions else None

    def write(value: Any) -> Any:
        kind = type(value)
        code = CONTAINERS.get(kind)
        if code is not None:
            if code != TUPLE and not HASHABLE.issuperset(map(type, value)):
                raise TypeError
            return ormsgpack.Ext(code, ormsgpack.packb(list(value), inner, _OPTIONS))
        leaf = LEAVES.get(kind)
        return simplify(value) if leaf is None else leaf(value)

    return write


def _list_decoder(extensions: int) -> Callable[[memoryview], list[Any]]:
    inner = _list_decoder(extensions - 1) if extensions > 1 else None
    return msgspec.msgpack.Decoder(list, ext_hook=reader(inner)).decode


_write = _writer(_FAST_EXTENSIONS)
_read = msgspec.msgpack.Decoder(ext_hook=reader(_list_decoder(MAX_EXTENSIONS))).decode


class _MessagePack:
    media_type = "application/msgpack"

    def encode(self, value: Any) -> bytes:
        try:
            return ormsgpack.packb(value, _write, _OPTIONS)
        except Exception:  # noqa: BLE001 - the careful way says what is wrong, if anything is
            return _encode_carefully(value)

    def decode(self, data: bytes) -> Any:
        if len(data) > MAX_DEPTH:
            check_msgpack(data)
        return _decoded(_read, data, "MessagePack")


def _encode_carefully(value: Any) -> bytes:
    try:
        return pack_lowered(lower(value))
    except RecursionError as exc:
        raise Unserializable("the value is nested too deep for the stack that is left here") from exc


def _decoded(decode: Callable[[bytes], Any], data: bytes, what: str) -> Any:
    """`decode(data)`, where nothing that bytes can cause is any other error than ours."""
    try:
        return decode(data)
    except (BodyUndecodable, NestedTooDeep):
        raise
    except RecursionError as exc:
        raise NestedTooDeep("the body is nested too deep for the stack that is left here") from exc
    except Exception as exc:
        raise BodyUndecodable(f"the body is not {what}: {exc}") from exc


MSGPACK: Codec = _MessagePack()


# JSON ----------------------------------------------------------------------------------------------------------------


def _measure(value: Any) -> Any:
    """The hook by which ormsgpack walks a value just to see that its nesting is bounded."""
    kind = type(value)
    if kind in CONTAINERS:
        return list(value)
    return None if kind in LEAVES else simplify(value)


class _Json:
    media_type = "application/json"

    def encode(self, value: Any) -> bytes:
        try:
            # msgspec recurses as deep as the value goes; ormsgpack stops at 255 levels and is twice as fast
            ormsgpack.packb(value, _measure, _OPTIONS | ormsgpack.OPT_NON_STR_KEYS)
            data = msgspec.json.encode(value, enc_hook=_simplify_for_json)
        except Exception as exc:
            raise _unserializable(value, "JSON", exc) from exc
        if b"null" in data and _has_non_finite(value):
            raise Unserializable("nan and infinity have no form in JSON; application/msgpack carries them")
        return data

    def decode(self, data: bytes) -> Any:
        check_json(data)
        return _decoded(msgspec.json.decode, data, "JSON")


def _unserializable(value: Any, what: str, reason: Exception) -> Unserializable:
    """Why the value could not be encoded, from a careful look at each part of it."""
    try:
        lower(value)
    except Unserializable as exc:
        return exc
    except RecursionError:
        return Unserializable("the value is nested too deep for the stack that is left here")
    return Unserializable(f"the value has no form in {what}: {reason}")


def _simplify_for_json(value: Any) -> Any:
    if type(value) in LEAVES:  # a complex number; simplified it is itself, and msgspec would ask for ever
        raise Unserializable(f"{type(value).__name__} has no form in JSON")
    return simplify(value)


def _has_non_finite(value: Any) -> bool:
    kind = type(value)
    if kind is float:
        return not math.isfinite(value)
    if kind is dict:
        return any(map(_has_non_finite, value)) or any(map(_has_non_finite, value.values()))
    if kind is list or kind in CONTAINERS:
        return any(map(_has_non_finite, value))
    if kind in HASHABLE:
        return False
    return _has_non_finite(simplify(value))


JSON: Codec = _Json()


# pickle --------------------------------------------------------------------------------------------------------------


class _Pickle:
    media_type = "application/x-python-pickle"

    def encode(self, value: Any) -> bytes:
        try:
            return pickle.dumps(value, protocol=5)
        except Exception as exc:
            raise Unserializable(f"the value has no form in pickle: {exc}") from exc

    def decode(self, data: bytes) -> Any:
        stream = io.BytesIO(data)
        value = _decoded(lambda _: pickle.load(stream), data, "a pickle")  # noqa: S301 - both ends switched it on
        if stream.read(1):
            raise BodyUndecodable("the body is not a pickle: more follows it")
        return value


PICKLE: Codec = _Pickle()


def codec_for(media_type: str, *, unsafe: bool = False) -> Codec | None:
    """The codec of a media type (lower case, without parameters); pickle's only where it is `unsafe` on purpose."""
    if media_type == PICKLE.media_type and not unsafe:
        return None
    return _CODECS.get(media_type)


_CODECS = {codec.media_type: codec for codec in (MSGPACK, JSON, PICKLE)}
