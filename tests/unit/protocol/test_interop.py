"""Our signatures and those of an independent implementation of RFC 9421, each verified by the other.

The library is told of blake2b-256 as a plug-in, and needs none for hmac-sha256.
"""

from __future__ import annotations

import datetime
import http.client
import math
import time
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from http_message_signatures import HTTPMessageSigner, HTTPMessageVerifier, HTTPSignatureAlgorithm, InvalidSignature
from http_message_signatures.algorithms import HMAC_SHA256
from http_message_signatures.resolvers import MappingKeyResolver
from nacl.encoding import RawEncoder
from nacl.hash import blake2b

from backwater_tornado.errors import SignatureInvalid
from backwater_tornado.protocol.codec import JSON
from backwater_tornado.protocol.keys import Key, KeyRing
from backwater_tornado.protocol.sealing import Sealed
from backwater_tornado.protocol.signatures import RequestHead, verify_request, verify_response
from backwater_tornado.testing import running_server
from tests.wire import answered, digest_of, outgoing, seal

SECRET = bytes(range(32))
BLAKE2B, HMAC = Key(SECRET, "interop"), Key(SECRET, "interop", algorithm="hmac-sha256")
COVERED = ("@method", "@authority", "@path", "@query", "content-type", "content-length", "content-digest")
REQUEST, RESPONSE = b"bw2-request", b"bw2-response"


def blake2b_256(person: bytes) -> type[HTTPSignatureAlgorithm]:
    """Our algorithm as the library's plug-in, for one direction; made from PyNaCl alone."""

    class Blake2b256(HTTPSignatureAlgorithm):  # type: ignore[misc]
        algorithm_id = "blake2b-256"

        def __init__(self, public_key: bytes | None = None, private_key: bytes | None = None) -> None:
            secret = public_key or private_key
            assert secret is not None
            self._key = blake2b(b"", digest_size=32, key=secret, person=person, encoder=RawEncoder)

        def sign(self, message: bytes) -> bytes:
            return blake2b(message, digest_size=32, key=self._key, encoder=RawEncoder)

        def verify(self, signature: bytes, message: bytes) -> None:
            if self.sign(message) != signature:
                raise InvalidSignature("another MAC")

    return Blake2b256


def algorithm_of(key: Key, person: bytes) -> type[HTTPSignatureAlgorithm]:
    return HMAC_SHA256 if key.algorithm == "hmac-sha256" else blake2b_256(person)


RESOLVER = MappingKeyResolver(public_keys={"interop": SECRET}, private_keys={"interop": SECRET})


class Verifier(HTTPMessageVerifier):  # type: ignore[misc]
    """The library's, for whom the vectors' clock is the clock."""

    def validate_created_and_expires(self, sig_input: Any, max_age: Any = None) -> None:
        """Freshness is not what is tested here."""


def verified(message: object, key: Key, person: bytes) -> dict[str, str]:
    """The components that the library finds covered."""
    verifier = Verifier(signature_algorithm=algorithm_of(key, person), key_resolver=RESOLVER)
    (result,) = verifier.verify(message)
    assert result.label == "bw"
    components: dict[str, str] = result.covered_components
    return components


def request_of(sealed: Sealed, **changes: str) -> SimpleNamespace:
    """A request of ours as the library takes one."""
    return SimpleNamespace(method="POST", url=sealed.request.url, headers={**dict(sealed.request.fields), **changes})


def response_of(sealed: Sealed, status: int, fields: Mapping[str, str]) -> SimpleNamespace:
    return SimpleNamespace(status_code=status, headers=dict(fields), url="", request=request_of(sealed))


keys = pytest.mark.parametrize("key", [BLAKE2B, HMAC], ids=lambda key: key.algorithm)


@keys
@pytest.mark.parametrize(
    "endpoint",
    ["http://host:8080", "https://Host.Example/base", "http://[2001:DB8::1]:8080", "http://host:80", "https://host:80"],
)
def test_the_library_verifies_our_requests(key: Key, endpoint: str) -> None:
    sealed = seal(outgoing(module="a/b", function="größe"), key=key, endpoint=endpoint)
    covered = verified(request_of(sealed), key, REQUEST)
    assert covered['"@authority"'] == sealed.head.authority
    assert covered['"@path"'].endswith("/backwater/2/a%2Fb/gr%C3%B6%C3%9Fe")
    assert covered['"@query"'] == "?"
    assert {f'"{name}"' for name in COVERED} < set(covered)
    with pytest.raises(InvalidSignature):
        verified(request_of(sealed, **{"content-length": "7"}), key, REQUEST)


@keys
def test_the_library_verifies_our_requests_for_many_calls_and_in_json(key: Key) -> None:
    arguments = JSON.encode([["x" * 1000], {}])
    verified(request_of(seal(outgoing(0), outgoing(1), key=key)), key, REQUEST)
    verified(request_of(seal(outgoing(arguments=arguments), key=key, codec=JSON)), key, REQUEST)


@keys
def test_the_library_verifies_our_responses_with_the_request_that_they_answer(key: Key) -> None:
    sealed = seal(outgoing(), key=key)
    response = answered(sealed, "x" * 1000)
    covered = verified(response_of(sealed, 200, response.fields), key, RESPONSE)
    assert covered['"@method";req'] == "POST"
    assert covered['"@path";req'] == sealed.head.path
    assert covered['"signature";req'] == sealed.head.fields["signature"]
    other = seal(outgoing(), key=key, nonce=2)
    for wrong in (response_of(other, 200, response.fields), response_of(sealed, 201, response.fields)):
        with pytest.raises(InvalidSignature):
            verified(wrong, key, RESPONSE)


def test_a_request_is_no_response_though_an_hmac_key_has_no_subkeys() -> None:
    sealed = seal(outgoing(), key=HMAC)
    assert HMAC.mac_request(b"x") == HMAC.mac_response(b"x")
    with pytest.raises(InvalidSignature):
        verified(response_of(sealed, 200, dict(sealed.request.fields)), HMAC, RESPONSE)


# Theirs with ours ----------------------------------------------------------------------------------------------------


def signed_by_library(
    key: Key, body: bytes, url: str, now: float, nonce: str, more: Mapping[str, str] = {}
) -> SimpleNamespace:
    """A request that the library has signed over our fixed set and over `more`; it makes the digest, too."""
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **more}
    message = SimpleNamespace(method="POST", url=url, headers=headers)
    signer = HTTPMessageSigner(signature_algorithm=algorithm_of(key, REQUEST), key_resolver=RESOLVER)
    created = datetime.datetime.fromtimestamp(int(now), datetime.UTC)
    signer.sign(
        message,
        key_id=key.id,
        created=created,
        expires=created + datetime.timedelta(seconds=60),
        nonce=nonce,
        label="bw",
        covered_component_ids=(*COVERED[:-1], *(name.lower() for name in more)),
        body=body,
    )
    return message


def head_of(message: SimpleNamespace, authority: str, path: str) -> RequestHead:
    return RequestHead("POST", authority, path, "", {name.lower(): value for name, value in message.headers.items()})


@keys
def test_we_verify_the_librarys_requests(key: Key) -> None:
    """It writes `alg`, too."""
    more = {"Idempotency-Key": '"order-17"', "Backwater-Timeout": "5"}
    message = signed_by_library(key, b"[[],{}]", "HTTP://Host.Example:80/backwater/2/m/f", 1.7e9, "n1", more)
    head = head_of(message, "host.example", "/backwater/2/m/f")
    got = verify_request(head, KeyRing([key]), 1.7e9, 300.0)
    assert got.parameters.alg == key.algorithm
    assert got.fields["idempotency-key"] == '"order-17"'
    with pytest.raises(SignatureInvalid):
        verify_request(head_of(message, "host.example", "/backwater/2/m/g"), KeyRing([key]), 1.7e9, 300.0)


@keys
def test_a_field_in_several_lines_is_signed_as_one(key: Key) -> None:
    headers = [("Accept", "application/json"), ("Accept", " text/plain ")]
    message = SimpleNamespace(method="POST", url="http://host/", headers=SimpleNamespace(items=lambda: headers))
    resolver = HTTPMessageSigner(signature_algorithm=HMAC_SHA256).component_resolver_class(message)
    assert resolver.headers["accept"] == "application/json, text/plain"


def ask(
    port: int, message: SimpleNamespace, body: bytes, twice: tuple[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    """Send a request over a real socket; `twice` is a header sent in a line of its own beside."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        path = "/" + message.url.split("/", 3)[3]
        connection.putrequest("POST", path, skip_accept_encoding=True)
        for name, value in message.headers.items():
            if twice is not None and name == twice[0]:
                for line in value.split(", "):
                    connection.putheader(name, line)
            else:
                connection.putheader(name, value)
        connection.endheaders(body)
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


@keys
def test_the_library_calls_our_server_and_verifies_the_answer(key: Key) -> None:
    """With nothing of ours on the caller's side but the address."""
    body = b"[[3, 4], {}]"
    with running_server([math], key) as server:
        url = f"{server.url}/backwater/2/math/hypot"
        message = signed_by_library(key, body, url, time.time(), "n1", {"Accept": "application/json"})
        status, fields, answer = ask(server.port, message, body)
        again = ask(server.port, message, body)
    assert (status, JSON.decode(answer)) == (200, 5.0)
    assert JSON.decode(again[2])["type"] == "urn:backwater:problem:replayed"
    for got_status, got_fields, got in ((status, fields, answer), again):
        response = SimpleNamespace(status_code=got_status, headers=got_fields, url="", request=message)
        covered = verified(response, key, RESPONSE)
        assert '"signature";req' in covered
        assert got_fields["content-digest"] == digest_of(got)
        head = head_of(message, f"127.0.0.1:{server.port}", "/backwater/2/math/hypot")
        assert verify_response(key, head, "n1", got_status, got_fields).keyid == key.id


def test_a_field_in_several_lines_reaches_our_server_as_one() -> None:
    body = b"[[3, 4], {}]"
    with running_server([math], HMAC) as server:
        url = f"{server.url}/backwater/2/math/hypot"
        message = signed_by_library(HMAC, body, url, time.time(), "n1", {"Accept": "text/plain, application/json"})
        status, _, answer = ask(server.port, message, body, ("Accept", ""))
    assert (status, answer) == (200, b"5.0")


def test_the_schemes_own_port_may_stand_in_the_host_field() -> None:
    """The library signs `host` where the request says `Host: host:80`, as the RFC has it."""
    body = b"[[3, 4], {}]"
    with running_server([math], HMAC) as server:
        message = signed_by_library(HMAC, body, "http://Example.com:80/backwater/2/math/hypot", time.time(), "n1")
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        connection.putrequest("POST", "/backwater/2/math/hypot", skip_host=True, skip_accept_encoding=True)
        connection.putheader("Host", "Example.com:80")
        for name, value in message.headers.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        response = connection.getresponse()
        answer = response.read()
        connection.close()
    assert (response.status, answer) == (200, b"5.0")
