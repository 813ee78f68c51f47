"""Keys: who may sign, how a message is authenticated, and what a key is allowed to do.

Rules:

* A secret never leaves a `Key` except through `format_key`; no repr, message or chained exception shows it.
* One subkey per direction, so that a request can never be passed off as a response, nor either as a frame of a
  streamed answer. With `blake2b-256` the three are derived from the secret by the `person` field of BLAKE2b. With
  `hmac-sha256` requests and responses use the secret itself, so that any RFC 9421 library can sign them (there the
  signed text itself tells the directions apart: `@method` against `@status`); only frames have a subkey.
* A ring is ordered oldest to newest: every key in it is accepted while it is valid, the newest valid one signs.
* A key that is not valid yet is accepted `tolerance` early, for clocks differ; a retired key is not accepted late.

This module knows neither messages nor headers, and no clock: `now` is given, in Unix seconds.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any, Final, Literal, cast, get_args

from nacl.encoding import RawEncoder
from nacl.hash import blake2b

from backwater_tornado.errors import InvalidKey, KeyNotValid, UnknownKey

Algorithm = Literal["blake2b-256", "hmac-sha256"]

#: The shortest secret taken, in bytes.
MIN_SECRET: Final = 16

_LAST_MOMENT: Final = 1e15  # beyond it a float has no room for tenths of a second; it also keeps infinity out
_BLAKE2B_KEY: Final = 64  # the longest key that BLAKE2b takes; longer secrets are hashed first
_ID: Final = re.compile(r"[ !#-\[\]-~]{1,128}")  # what fits between the quotes of a structured field, without escapes
_FORM: Final = re.compile(r"[a-z0-9]{1,16}:")
_FIELDS: Final = ("id", "secret", "algorithm", "not_before", "not_after", "scopes")


@dataclass(frozen=True)
class Scopes:
    """What a key may do; each field is a tuple of shell patterns (`*`, `?`, `[ab]`), an empty one allows nothing.

    `call` holds `module.function`, `module.*` or `*`. The part behind the last dot stands for the function, so that
    `tasks.*` allows the functions of `tasks`, and those of `tasks.admin` only with `tasks.admin.*`.
    `publish` and `consume` hold names of queues.
    """

    call: tuple[str, ...] = ("*",)
    publish: tuple[str, ...] = ("*",)
    consume: tuple[str, ...] = ("*",)

    def __post_init__(self) -> None:
        for field in fields(self):
            patterns = getattr(self, field.name)
            # A bare text would be taken letter by letter, and the "*" in "tasks.*" would then allow everything.
            if not isinstance(patterns, (tuple, list)) or not all(isinstance(one, str) and one for one in patterns):
                raise InvalidKey(f"scopes.{field.name} must be a list of patterns")
            object.__setattr__(self, field.name, tuple(patterns))
        for pattern in self.call:
            if pattern != "*" and "." not in pattern:
                raise InvalidKey(f"scopes.call: {pattern!r} must be 'module.function', 'module.*' or '*'")

    def allows_call(self, module: str, function: str) -> bool:
        """Whether the function may be called."""
        for pattern in self.call:
            if pattern == "*":
                return True
            of_module, _, of_function = pattern.rpartition(".")
            if fnmatchcase(module, of_module) and fnmatchcase(function, of_function):
                return True
        return False

    def allows_publish(self, queue: str) -> bool:
        """Whether messages may be sent to the queue."""
        return any(fnmatchcase(queue, pattern) for pattern in self.publish)

    def allows_consume(self, queue: str) -> bool:
        """Whether messages may be received from the queue."""
        return any(fnmatchcase(queue, pattern) for pattern in self.consume)


class Key:
    """A secret with its id, algorithm, time of validity and scopes.

    Args:
        secret: at least 16 bytes; text stands for its UTF-8 bytes.
        id: what the wire calls the key; by default derived from the secret.
        algorithm: `blake2b-256`, or `hmac-sha256` for callers that have only an RFC 9421 library.
        not_before: when it becomes valid, in Unix seconds.
        not_after: the last moment it is valid, in Unix seconds.
        scopes: what it may do.
    """

    __slots__ = ("_frame", "_request", "_response", "_secret", "algorithm", "id", "not_after", "not_before", "scopes")

    def __init__(
        self,
        secret: bytes | str,
        id: str | None = None,
        *,
        algorithm: Algorithm = "blake2b-256",
        not_before: float | None = None,
        not_after: float | None = None,
        scopes: Scopes = Scopes(),
    ) -> None:
        self._secret: Final = _checked_secret(secret)
        self.id: Final = _checked_id(_thumbprint(self._secret) if id is None else id)
        if algorithm not in get_args(Algorithm):
            raise InvalidKey(f"algorithm must be one of {', '.join(get_args(Algorithm))}")
        self.algorithm: Final[Algorithm] = algorithm
        self.not_before: Final = _checked_moment("not_before", not_before)
        self.not_after: Final = _checked_moment("not_after", not_after)
        if self.not_before is not None and self.not_after is not None and self.not_before > self.not_after:
            raise InvalidKey("not_before must not be later than not_after")
        if not isinstance(scopes, Scopes):
            raise InvalidKey("scopes must be Scopes(...)")
        self.scopes: Final = scopes
        self._request, self._response, self._frame = _MACS[algorithm](self._secret)

    def __repr__(self) -> str:
        return f"Key(id={self.id!r}, algorithm={self.algorithm!r}, secret=...)"

    def mac_request(self, data: bytes) -> bytes:
        """32 bytes that authenticate a request."""
        return self._request(data)

    def mac_response(self, data: bytes) -> bytes:
        """32 bytes that authenticate a response."""
        return self._response(data)

    def mac_frame(self, data: bytes) -> bytes:
        """32 bytes that authenticate one frame of a streamed answer."""
        return self._frame(data)

    def mac_plain(self, data: bytes) -> bytes:
        """32 bytes of HMAC-SHA-256 with the secret itself: all that version 1 of the wire knows."""
        return hmac.digest(self._secret, data, "sha256")

    @staticmethod
    def verify(expected: bytes, got: bytes) -> bool:
        """Whether both are the same, found in a time that does not tell where they differ."""
        return hmac.compare_digest(expected, got)

    def starts_after(self, now: float) -> bool:
        """Whether the key is not valid yet."""
        return self.not_before is not None and now < self.not_before

    def retired(self, now: float) -> bool:
        """Whether the key is not valid any more."""
        return self.not_after is not None and now > self.not_after


class KeyRing:
    """Several keys, oldest to newest."""

    __slots__ = ("_keys",)

    def __init__(self, keys: Iterable[Key]) -> None:
        ring: dict[str, Key] = {}
        scopes: dict[bytes, Key] = {}
        for key in keys:
            if not isinstance(key, Key):
                raise InvalidKey(f"a key ring holds keys, not {type(key).__name__}")
            if key.id in ring:
                raise InvalidKey(f"two keys have the id {key.id!r}")
            # Whoever holds the one could sign as the other, and so take its scopes.
            twin = scopes.setdefault(key._secret, key)
            if twin.scopes != key.scopes:
                raise InvalidKey(f"the keys {twin.id!r} and {key.id!r} have one secret and different scopes")
            ring[key.id] = key
        if not ring:
            raise InvalidKey("a key ring needs at least one key")
        self._keys: Final = ring

    @classmethod
    def of(cls, secret: bytes | str | Key | KeyRing | Iterable[bytes | str | Key]) -> KeyRing:
        """The ring that a secret, a key, a ring or several of the first two stand for."""
        if isinstance(secret, KeyRing):
            return secret
        if isinstance(secret, (bytes, str, Key)):
            secret = (secret,)
        given: object = secret
        if not isinstance(given, Iterable) or isinstance(given, (bytearray, memoryview, Mapping)):
            raise InvalidKey(f"a secret is bytes, text, a Key, a KeyRing or a list, not {type(given).__name__}")
        return cls(one if isinstance(one, Key) else Key(one) for one in given)

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(map(repr, self._keys))})"

    def __iter__(self) -> Iterator[Key]:
        return iter(self._keys.values())

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids, oldest to newest."""
        return tuple(self._keys)

    def get(self, id: str) -> Key | None:
        """The key with this id, valid or not."""
        return self._keys.get(id)

    def accept(self, key_id: str, now: float, tolerance: float) -> Key:
        """The key with this id if a message signed by it may be believed.

        Raises: UnknownKey, KeyNotValid.
        """
        key = self._keys.get(key_id)
        if key is None:
            raise UnknownKey(f"The key {key_id[:128]!r} is not known here")
        if key.starts_after(now + tolerance):
            raise KeyNotValid(f"The key {key_id!r} is not valid yet")
        if key.retired(now):
            raise KeyNotValid(f"The key {key_id!r} is not valid any more")
        return key

    def signing_key(self, now: float) -> Key:
        """The newest key that is valid.

        Raises: InvalidKey when there is none.
        """
        for key in reversed(self._keys.values()):
            if not key.starts_after(now) and not key.retired(now):
                return key
        raise InvalidKey(f"none of the keys is valid now: {', '.join(map(repr, self._keys))}")


# How a message is authenticated --------------------------------------------------------------------------------------

_Mac = Callable[[bytes], bytes]


def _blake2b_macs(secret: bytes) -> tuple[_Mac, _Mac, _Mac]:
    material = secret if len(secret) <= _BLAKE2B_KEY else blake2b(secret, digest_size=64, encoder=RawEncoder)
    request, response, frame = (
        blake2b(b"", digest_size=32, key=material, person=person.ljust(16, b"\0"), encoder=RawEncoder)
        for person in (b"bw2-request", b"bw2-response", b"bw2-frame")
    )
    return _blake2b_mac(request), _blake2b_mac(response), _blake2b_mac(frame)


def _blake2b_mac(subkey: bytes) -> _Mac:
    # The same bytes as nacl.hash.blake2b, and 7 times faster: the keyed state is prepared once and copied.
    prepare = hashlib.blake2b(key=subkey, digest_size=32).copy

    def mac(data: bytes) -> bytes:
        state = prepare()
        state.update(data)
        return state.digest()

    return mac


def _hmac_macs(secret: bytes) -> tuple[_Mac, _Mac, _Mac]:
    frame = hmac.digest(secret, b"bw2-frame", "sha256")
    return _hmac_mac(secret), _hmac_mac(secret), _hmac_mac(frame)


def _hmac_mac(subkey: bytes) -> _Mac:
    return lambda data: hmac.digest(subkey, data, "sha256")


_MACS: Final[Mapping[str, Callable[[bytes], tuple[_Mac, _Mac, _Mac]]]] = {
    "blake2b-256": _blake2b_macs,
    "hmac-sha256": _hmac_macs,
}


def _thumbprint(secret: bytes) -> str:
    return "k" + hashlib.blake2b(secret, digest_size=6, person=b"bw2-key-id").hexdigest()


# What a key may be made of -------------------------------------------------------------------------------------------


def _checked_secret(secret: object) -> bytes:
    if isinstance(secret, str):
        try:
            secret = secret.encode()
        except UnicodeEncodeError:
            raise InvalidKey("the secret holds a character that UTF-8 cannot express") from None  # it quotes the secret
    if not isinstance(secret, bytes):
        raise InvalidKey(f"a secret must be bytes or text, not {type(secret).__name__}")
    if len(secret) < MIN_SECRET:
        raise InvalidKey(f"a secret must have {MIN_SECRET} bytes or more, not {len(secret)}")
    return secret


def _checked_id(id: object) -> str:
    if not isinstance(id, str) or not _ID.fullmatch(id):
        raise InvalidKey("id must be 1 to 128 printable ASCII characters without quotes and backslashes")
    return id


def _checked_moment(name: str, moment: object) -> float | None:
    if moment is None:
        return None
    if isinstance(moment, (int, float)) and not isinstance(moment, bool) and abs(moment) < _LAST_MOMENT:
        return float(moment)
    raise InvalidKey(f"{name} must be a time in Unix seconds")


# Files of keys -------------------------------------------------------------------------------------------------------


def parse_keys(text: str) -> KeyRing:
    """The ring that a file of keys describes: TOML, one `[[key]]` per key, oldest first.

    A secret is written `base64:…` (either alphabet), `hex:…`, `text:…`, or bare, which is the same as `text:`
    for a secret that does not begin like a form.

    Raises: InvalidKey, naming the entry and the field, and never the secret.
    """
    entries = _entries(text)
    keys = []
    for number, entry in enumerate(entries, 1):
        try:
            keys.append(_parse_entry(entry))
        except InvalidKey as exc:
            raise InvalidKey(f"key {number} of {len(entries)}: {exc}") from None
    return KeyRing(keys)


def _entries(text: str) -> list[object]:
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as exc:
        # Only the place is taken over: the text of the error, or the error itself, may quote what stands there.
        place = re.search(r"\(at [a-z0-9, ]+\)", str(exc))
        raise InvalidKey(f"the file of keys is not TOML{' ' + place[0] if place else ''}") from None
    entries = document.pop("key", [])
    if document:
        raise InvalidKey(f"the file of keys may hold [[key]] entries only, not {', '.join(map(repr, document))}")
    if not isinstance(entries, list) or not entries:
        raise InvalidKey("the file of keys holds no [[key]] entry")
    return entries


def _parse_entry(entry: object) -> Key:
    if not isinstance(entry, dict):
        raise InvalidKey("an entry must be written as [[key]]")
    if unknown := [name for name in entry if name not in _FIELDS]:
        raise InvalidKey(f"unknown field {unknown[0]!r}; there are {', '.join(_FIELDS)}")
    if "secret" not in entry:
        raise InvalidKey("secret is missing")
    return Key(
        _parse_secret(entry["secret"]),
        entry.get("id"),
        algorithm=cast("Algorithm", entry.get("algorithm", "blake2b-256")),
        not_before=_parse_moment("not_before", entry.get("not_before")),
        not_after=_parse_moment("not_after", entry.get("not_after")),
        scopes=_parse_scopes(entry.get("scopes", {})),
    )


def _parse_secret(written: object) -> bytes | str:
    if not isinstance(written, str):
        raise InvalidKey("secret must be a text")
    form, _, rest = written.partition(":")
    try:
        if form == "hex":
            return bytes.fromhex(rest)
        if form == "base64":
            rest = rest.rstrip("=").replace("-", "+").replace("_", "/")
            return base64.b64decode(rest + "=" * (-len(rest) % 4), validate=True)
    except (ValueError, binascii.Error):
        raise InvalidKey(f"secret is not {form}") from None
    if form == "text":
        return rest
    if _FORM.match(written):
        raise InvalidKey("secret is written in an unknown form; there are base64:, hex: and text:")
    return written


def _parse_moment(name: str, moment: Any) -> float | None:
    if not isinstance(moment, datetime):
        return cast("float | None", moment)  # a number of seconds, or for Key to refuse
    if moment.tzinfo is None:
        raise InvalidKey(f"{name} needs its offset from UTC, as in 2026-01-31T00:00:00Z")
    return moment.timestamp()


def _parse_scopes(scopes: object) -> Scopes:
    known = [field.name for field in fields(Scopes)]
    if not isinstance(scopes, dict):
        raise InvalidKey(f"scopes must be a table with {', '.join(known)}")
    if unknown := [name for name in scopes if name not in known]:
        raise InvalidKey(f"unknown field 'scopes.{unknown[0]}'; there are {', '.join(known)}")
    return Scopes(**scopes)


def format_key(key: Key) -> str:
    """The `[[key]]` entry for a file of keys; it holds the secret."""
    written = base64.urlsafe_b64encode(key._secret).rstrip(b"=").decode()
    lines = ["[[key]]", f'id = "{key.id}"', f'secret = "base64:{written}"', f'algorithm = "{key.algorithm}"']
    for name in ("not_before", "not_after"):
        if (moment := getattr(key, name)) is not None:
            lines.append(f"{name} = {_format_moment(moment)}")
    if key.scopes != Scopes():
        patterns = (f"{field.name} = {_format_texts(getattr(key.scopes, field.name))}" for field in fields(Scopes))
        lines.append(f"scopes = {{ {', '.join(patterns)} }}")
    return "\n".join(lines) + "\n"


def _format_moment(moment: float) -> str:
    try:
        written = datetime.fromtimestamp(moment, UTC)
        if written.timestamp() == moment:
            return written.isoformat()
    except (ValueError, OverflowError, OSError):
        pass  # beyond the calendar
    return repr(moment)  # finer than a microsecond: the number keeps it


def _format_texts(texts: tuple[str, ...]) -> str:
    escaped = ("".join(c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in text) for text in texts)
    return "[" + ", ".join(f'"{text}"' for text in escaped) + "]"
