"""Version 1's signature: HMAC-SHA-256 over a list of headers, after draft-cavage-http-signatures-07.

A request has it in `authorization`, a response in `signature`. It names what it covers; what must be covered is checked
here, by name. There is one key, `default`, and no date: what keeps a message from being played again is the server's
memory (`serving`), not the signature.

Rule: what a function refuses it names in the words of version 1, since those are what a peer shows its user.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from backwater_tornado.protocol.keys import Key

REQUEST_TARGET: Final = "(request-target)"
RESPONSE_STATUS: Final = "(response-status)"
ALGORITHM: Final = "hmac-sha256"
KEY_ID: Final = "default"
#: Always signed, in either direction.
MANDATORY: Final = ("digest", "x-request-id")
#: Signed where they are present.
SIGNED_IF_PRESENT: Final = ("accept", "content-encoding", "content-length", "content-type")
#: Characters of a signature's parameters; they are read before their sender is known.
MAX_PARAMETERS: Final = 4096
#: Characters of what is signed. A name may be listed often, and its field be long: without a bound a small request of
#: anybody's would have to be hashed as many megabytes.
MAX_SIGNED: Final = 65536
_BLANKS: Final = " \t\r\n\v\f"


class Unsigned(Exception):
    """A message without a good signature; the argument says why, in version 1's words."""

    @property
    def word(self) -> str:
        """What version 1 calls it."""
        return str(self.args[0])


@dataclass(frozen=True, slots=True)
class Signature:
    """The parameters of a signature: what it covers, in order, and its MAC."""

    names: tuple[str, ...]
    mac: bytes


def read_signature(parameters: str) -> Signature:
    """Read `algorithm="…",headers="…",keyId="…",signature="…"`; raises `Unsigned`."""
    found = _pairs(parameters)
    if found is None:
        raise Unsigned("invalid_header_params")
    if found.get("keyId") != KEY_ID:
        raise Unsigned("unknown_key")
    if found.get("algorithm") != ALGORITHM:
        raise Unsigned("unknown_algorithm")
    names = found.get("headers")
    if names is None:
        raise Unsigned("missing_signed_header_list")
    try:
        mac = base64.b64decode(found.get("signature", ""), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Unsigned("invalid_header_params") from error
    return Signature(tuple(name for name in names.split(" ") if name), mac)


def _pairs(parameters: str) -> dict[str, str] | None:
    if len(parameters) > MAX_PARAMETERS:
        return None
    found: dict[str, str] = {}
    for piece in parameters.split(","):
        if not piece:
            continue
        name, _, value = piece.partition("=")
        if len(value) < 2 or value[0] != '"' or value[-1] != '"':
            return None
        found[name] = value[1:-1]
    return found


def write_signature(names: Sequence[str], mac: bytes) -> str:
    """The parameters as version 1 writes them."""
    encoded = base64.b64encode(mac).decode()
    return f'algorithm="{ALGORITHM}",headers="{" ".join(names)}",keyId="{KEY_ID}",signature="{encoded}"'


def check_names(names: Sequence[str], pseudo: str, fields: Mapping[str, str], present: Sequence[str]) -> None:
    """Whether a signature covers all it has to, and nothing that is not there; raises `Unsigned`.

    Args:
        names: what it covers.
        pseudo: the pseudo-header that it has to cover.
        fields: the message's.
        present: the fields that have to be covered where the message has them.
    """
    for name in (pseudo, *MANDATORY):
        if name not in names:
            raise Unsigned(f'{{missing_mandatory_header,<<"{name}">>}}')
    for name in present:
        if name in fields and name not in names:
            raise Unsigned(f'{{missing_mandatorily_signed_header,<<"{name}">>}}')
    for name in names:
        if name != pseudo and name not in fields:
            raise Unsigned(f'{{missing_header,<<"{_printable(name)}">>}}')
    if sum(len(name) + len(fields.get(name, "")) for name in names) > MAX_SIGNED:
        raise Unsigned("invalid_header_params")


def _printable(name: str) -> str:
    return name[:100].encode("ascii", "replace").decode()


def signing_text(names: Sequence[str], pseudo: tuple[str, str], fields: Mapping[str, str]) -> bytes:
    """The text that is signed: a line `name: value` for each name."""
    values = {**fields, pseudo[0]: pseudo[1]}
    lines = [f"{name}: {trimmed(values[name])}" for name in names]
    # Fields come as latin1, which keeps every byte as it was on the wire.
    return "\n".join(lines).encode("latin-1", "replace")


def trimmed(value: str) -> str:
    """A field's value as it is signed, and as it is to be read: without the blanks around it, which are ASCII's."""
    return value.strip(_BLANKS)


def request_pseudo(method: str, path: str) -> tuple[str, str]:
    """`(request-target)` with its value. A query has no place in it, see `serving`."""
    return REQUEST_TARGET, f"{method.lower()} {path}"


def response_pseudo(status: int) -> tuple[str, str]:
    """`(response-status)` with its value."""
    return RESPONSE_STATUS, str(status)


def sign(key: Key, pseudo: tuple[str, str], fields: Mapping[str, str]) -> tuple[str, bytes]:
    """Sign over all fields; gives the parameters and the MAC."""
    names = sorted((pseudo[0], *fields))
    mac = key.mac_plain(signing_text(names, pseudo, fields))
    return write_signature(names, mac), mac
