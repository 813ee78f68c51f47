"""HTTP Message Signatures (RFC 9421) in the one profile that this protocol uses.

A request's signature has the label `bw` and covers, always, `REQUEST_COVERED` and, where the request has them, every
field in `ACTED_ON`; it carries `created`, `expires`, `nonce` and `keyid`. A response's signature covers `@status`, the
fields that describe its content, and the request that it answers: `@method`, `@path` and `signature`, each with `req`.

Rule: what is not covered cannot be read; `verify_request` hands out covered fields only. The MAC itself is the key's
business (`keys`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hmac import compare_digest

import msgspec

from backwater_tornado.errors import (
    ResponseAltered,
    ResponseMismatched,
    ResponseUnsigned,
    SignatureFromFuture,
    SignatureIncomplete,
    SignatureInvalid,
    SignatureMalformed,
    SignatureMissing,
    SignatureStale,
)

from .headers import decode_bytes, dictionary_members, encode_bytes
from .keys import Key, KeyRing

LABEL = "bw"
DERIVED = ("@method", "@authority", "@path", "@query")
#: What every request's signature covers.
REQUEST_COVERED = frozenset({*DERIVED, "content-type", "content-length", "content-digest"})
#: Fields that must be covered where they are present. Others (accept, traceparent) may be there uncovered, as proxies
#: and plain curl add them; then they are not read.
ACTED_ON = (
    "content-type",
    "content-encoding",
    "content-length",
    "content-digest",
    "idempotency-key",
    "backwater-timeout",
)
#: What every response's signature covers; and the fields that it must cover where they are present.
RESPONSE_COVERED = frozenset({'"@status"', '"content-type"', '"@method";req', '"@path";req', '"signature";req'})
RESPONSE_FIELDS = ("content-type", "content-encoding", "content-digest", "retry-after", "allow")
_BOUND = '"@method";req "@path";req "signature";req'

#: Clocks may differ by this much before it counts, seconds.
CLOCK_SLACK = 5.0
MAX_NONCE = 128
#: Characters of a list of covered components; it is looked at, and cached, before its sender is known.
MAX_COVERED = 1024
_COMPONENT = re.compile(r'"([a-z0-9@_*.-]+)"((?:;[a-z]+)*)', re.ASCII)
#: The parameters as this package writes them: one match in place of four.
_USUAL = re.compile(
    r';created=([0-9]{1,15})(?:;expires=([0-9]{1,15}))?;nonce="([!#-\[\]-~]*)";keyid="([!#-\[\]-~]*)"', re.ASCII
)
_PARAMETER = re.compile(r';([a-z*][a-z0-9_.*-]*)=(?:"([\x20-\x21\x23-\x5b\x5d-\x7e]*)"|([0-9]{1,15}))', re.ASCII)


@dataclass(frozen=True, slots=True)
class RequestHead:
    """The parts of a request that are signed, beside its fields (names in lower case, values as received)."""

    method: str
    authority: str
    path: str
    query: str
    fields: Mapping[str, str]


class Parameters(msgspec.Struct, frozen=True):
    """A signature's own parameters; moments in Unix seconds."""

    covered: str
    text: str
    created: int
    keyid: str
    expires: int | None = None
    nonce: str | None = None
    alg: str | None = None


class Verified(msgspec.Struct, frozen=True):
    """A request whose signature is good: nothing but what the signature covers."""

    key: Key
    parameters: Parameters
    signature: bytes
    fields: Mapping[str, str]


def normal_authority(host: str, scheme: str) -> str:
    """`@authority` for a Host field (RFC 9421, 2.2.3): lower case, without the scheme's own port."""
    return host.lower().removesuffix(":443" if scheme == "https" else ":80")


def short_nonce(nonce: str) -> str:
    """What a response repeats of its request's nonce: the part behind the last dot, a number among ours."""
    return nonce.rpartition(".")[2]


# Writing -------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _request_components(names: tuple[str, ...]) -> str:
    return "(" + " ".join(f'"{name}"' for name in (*DERIVED, *names)) + ")"


def sign_request(key: Key, head: RequestHead, *, created: int, expires: int, nonce: str) -> tuple[str, str]:
    """Sign a request over all of its fields; gives the values of Signature-Input and Signature."""
    covered = _request_components(tuple(head.fields))
    params = f'{covered};created={created};expires={expires};nonce="{nonce}";keyid="{key.id}"'
    lines = [
        f'"@method": {head.method}',
        f'"@authority": {head.authority}',
        f'"@path": {head.path}',
        f'"@query": ?{head.query}',
        *[f'"{name}": {value}' for name, value in head.fields.items()],
        f'"@signature-params": {params}',
    ]
    base = _signature_base(lines)
    assert base is not None
    mac = key.mac_request(base)
    return f"{LABEL}={params}", f"{LABEL}={encode_bytes(mac)}"


@lru_cache(maxsize=256)
def _response_components(names: tuple[str, ...]) -> str:
    return '("@status" ' + " ".join(f'"{name}"' for name in names) + f" {_BOUND})"


def sign_response(
    key: Key, head: RequestHead, status: int, fields: Mapping[str, str], *, created: int, nonce: str
) -> tuple[str, str]:
    """Sign a response over its fields and over the request that it answers.

    The digest says all that Content-Length does, so that is left out; each byte here is sent with every answer.
    """
    names = tuple(name for name in fields if name != "content-length")
    covered = _response_components(names)
    params = f'{covered};created={created};nonce="{short_nonce(nonce)}";keyid="{key.id}"'
    base = _response_base(status, fields, head, params, [f'"{name}"' for name in names])
    assert base is not None
    return f"{LABEL}={params}", f"{LABEL}={encode_bytes(key.mac_response(base))}"


def _response_base(
    status: int, fields: Mapping[str, str], head: RequestHead, params: str, names: Sequence[str]
) -> bytes | None:
    lines = [
        f'"@status": {status}',
        *[f"{name}: {fields[name[1:-1]]}" for name in names],
        f'"@method";req: {head.method}',
        f'"@path";req: {head.path}',
        f'"signature";req: {head.fields["signature"]}',
        f'"@signature-params": {params}',
    ]
    return _signature_base(lines)


def _signature_base(lines: Sequence[str]) -> bytes | None:
    """The signed text, one line for each component; None where it would not be ASCII, or have more lines than that."""
    text = "\n".join(lines)
    return text.encode() if text.isascii() and text.count("\n") == len(lines) - 1 else None


# Reading -------------------------------------------------------------------------------------------------------------


def read_parameters(fields: Mapping[str, str]) -> tuple[Parameters, bytes]:
    """The signature labelled `bw` and its parameters, not yet verified.

    Raises:
        SignatureMissing: there is none.
        SignatureMalformed: it cannot be read, or occurs twice.
    """
    text = _labelled(fields.get("signature-input"))
    mac = decode_bytes(_labelled(fields.get("signature")))
    if mac is None:
        raise SignatureMalformed("the value of Signature is not a byte sequence such as bw=:aGk=:")
    end = text.find(")") + 1
    if not text.startswith("(") or not end:
        raise SignatureMalformed("Signature-Input does not begin with a list of components")
    usual = _USUAL.fullmatch(text, end)
    if usual is not None:
        created, expires, nonce, keyid = usual.groups()
        until = None if expires is None else int(expires)
        return Parameters(text[:end], text, int(created), keyid, until, nonce), mac
    found: dict[str, str | int] = {}
    at = end
    while at < len(text):
        match = _PARAMETER.match(text, at)
        if match is None or match[1] in found:
            raise SignatureMalformed(f"Signature-Input has a parameter that cannot be read at character {at}")
        found[match[1]] = match[2] if match[3] is None else int(match[3])
        at = match.end()
    return _parameters(text, text[:end], found), mac


def _labelled(field: str | None) -> str:
    if field is None:
        raise SignatureMissing("the request is not signed: Signature-Input or Signature is missing")
    if field.startswith("bw=") and "," not in field:
        return field[3:]
    found = [value for label, value in dictionary_members(field) if label == LABEL]
    if not found:
        raise SignatureMissing(f"none of the signatures has the label {LABEL}")
    if len(found) > 1:
        raise SignatureMalformed(f"there are two signatures with the label {LABEL}")
    return found[0]


_KINDS: Mapping[str, type] = {"created": int, "expires": int, "nonce": str, "keyid": str, "alg": str, "tag": str}


def _parameters(text: str, covered: str, found: Mapping[str, str | int]) -> Parameters:
    for name, value in found.items():
        kind = _KINDS.get(name)
        if kind is None or not isinstance(value, kind):
            raise SignatureMalformed(f"the signature's parameter {name!r} is unknown or of the wrong kind")
    created, keyid = found.get("created"), found.get("keyid")
    if not isinstance(created, int) or not isinstance(keyid, str):
        raise SignatureMalformed("the signature needs the parameters created and keyid")
    expires, nonce, alg = found.get("expires"), found.get("nonce"), found.get("alg")
    return Parameters(
        covered=covered,
        text=text,
        created=created,
        keyid=keyid,
        expires=expires if isinstance(expires, int) else None,
        nonce=nonce if isinstance(nonce, str) else None,
        alg=alg if isinstance(alg, str) else None,
    )


@lru_cache(maxsize=256)
def _read_components(covered: str) -> tuple[str, ...] | None:
    """Component identifiers as written, or None when the list cannot be read. The cache spares a parse per request."""
    inner = covered[1:-1]
    parts = inner.split(" ") if inner else []
    if len(set(parts)) != len(parts) or len(parts) > 32:
        return None
    return tuple(parts) if all(_COMPONENT.fullmatch(part) for part in parts) else None


def _components(parameters: Parameters) -> tuple[str, ...] | None:
    return _read_components(parameters.covered) if len(parameters.covered) <= MAX_COVERED else None


@lru_cache(maxsize=1024)
def _missing_coverage(covered: tuple[str, ...], present: tuple[str, ...]) -> tuple[str, ...]:
    names = {part[1:-1] for part in covered}
    return tuple(sorted((REQUEST_COVERED | set(present)) - names))


def check_coverage(head: RequestHead, parameters: Parameters) -> tuple[str, ...]:
    """The covered components, when they are all that the profile demands.

    Raises:
        SignatureMalformed: the list cannot be read, or names what this profile does not have.
        SignatureIncomplete: a component, or one of the parameters expires and nonce, is missing.
    """
    covered = _components(parameters)
    if covered is None or any(";" in part for part in covered):
        raise SignatureMalformed("the list of covered components is not one of plain, distinct names")
    missing = _missing_coverage(covered, tuple(name for name in ACTED_ON if name in head.fields))
    if missing:
        raise SignatureIncomplete(f"the signature does not cover {', '.join(missing)}")
    if parameters.expires is None or parameters.nonce is None:
        raise SignatureIncomplete("the signature needs the parameters expires and nonce")
    if not 0 < len(parameters.nonce) <= MAX_NONCE:
        raise SignatureMalformed(f"the nonce has between 1 and {MAX_NONCE} characters")
    return covered


def verify_request(head: RequestHead, keys: KeyRing, now: float, tolerance: float) -> Verified:
    """Check a request's signature: key, coverage, MAC. Freshness and replay come after (`check_freshness`).

    Raises:
        SignatureMissing, SignatureMalformed, UnknownKey, KeyNotValid, SignatureIncomplete, SignatureInvalid.
    """
    parameters, mac = read_parameters(head.fields)
    key = keys.accept(parameters.keyid, now, tolerance)
    if parameters.alg is not None and parameters.alg != key.algorithm:
        raise SignatureMalformed(f"the key signs with {key.algorithm}, the signature names {parameters.alg!r}")
    derived = {
        '"@method"': head.method,
        '"@authority"': head.authority,
        '"@path"': head.path,
        '"@query"': f"?{head.query}",
    }
    covered = check_coverage(head, parameters)
    lines: list[str] = []
    fields: dict[str, str] = {}
    for part in covered:
        value = derived.get(part)
        if value is None:
            name = part[1:-1]
            value = head.fields.get(name)
            if value is None:
                raise SignatureIncomplete(f"the signature covers {name}, which the request does not have")
            fields[name] = value
        lines.append(f"{part}: {value}")
    lines.append(f'"@signature-params": {parameters.text}')
    base = _signature_base(lines)
    if base is None:
        raise SignatureMalformed("a covered component has a line break or a character beyond ASCII")
    if not compare_digest(key.mac_request(base), mac):
        raise SignatureInvalid("the signature does not fit the request: another secret, or altered on its way")
    return Verified(key, parameters, mac, fields)


def check_freshness(parameters: Parameters, now: float, tolerance: float) -> None:
    """Refuse a signature made too long ago, expired, or made in the future (all beyond the tolerance)."""
    expires = parameters.expires or 0
    if parameters.created > now + tolerance:
        raise SignatureFromFuture(
            f"signed {parameters.created - now:.0f} s in the future; {tolerance:.0f} s are tolerated: check the clocks"
        )
    if parameters.created < now - tolerance or expires < now - tolerance:
        raise SignatureStale(
            f"signed {now - parameters.created:.0f} s ago; {tolerance:.0f} s are tolerated: check the clocks"
        )


def verify_response(key: Key, head: RequestHead, nonce: str, status: int, fields: Mapping[str, str]) -> Parameters:
    """Check that a response is the server's and answers this request (`head.fields` has its `signature`).

    Raises:
        ResponseUnsigned: no signature, or one by a key that is not the request's.
        ResponseMismatched: it answers another request.
        ResponseAltered: the signature covers too little, or does not fit.
    """
    try:
        parameters, mac = read_parameters(fields)
    except SignatureMissing as error:
        raise ResponseUnsigned("the answer is not signed") from error
    except SignatureMalformed as error:
        raise ResponseAltered(f"the answer's signature cannot be read: {error}") from error
    if parameters.keyid != key.id:
        raise ResponseUnsigned("the answer is signed by another key than the request")
    if parameters.nonce != short_nonce(nonce):
        raise ResponseMismatched("the answer belongs to another request")
    covered = parameters.covered
    present = tuple(name for name in RESPONSE_FIELDS if name in fields)
    names = covered_fields(covered, present) if len(covered) <= MAX_COVERED else None
    if names is None:
        raise ResponseAltered("the answer's signature does not cover all it has to")
    if any(name[1:-1] not in fields for name in names):
        raise ResponseAltered("the answer's signature covers a field that is missing")
    base = _response_base(status, fields, head, parameters.text, names)
    if base is None:
        raise ResponseAltered("a covered component of the answer has a line break or a character beyond ASCII")
    if not compare_digest(key.mac_response(base), mac):
        raise ResponseAltered("the answer's signature does not fit: another secret, or altered on its way")
    return parameters


@lru_cache(maxsize=256)
def covered_fields(text: str, present: tuple[str, ...]) -> tuple[str, ...] | None:
    """The fields that a response's signature covers, quoted; None when it covers less than it must."""
    covered = _read_components(text)
    if covered is None or not set(covered) >= RESPONSE_COVERED | {f'"{name}"' for name in present}:
        return None
    return tuple(part for part in covered if part not in ('"@status"', *_BOUND.split(" ")))
