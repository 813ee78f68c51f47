"""Makes the test vectors beside it: `python -m tests.vectors.make`. Keys, clock and nonces are fixed.

Text stands as it is, bytes in hexadecimal. Whoever implements the protocol elsewhere can replay the files without us:
`base` is the signed text, `mac` its MAC under `key`, `body` what travels, `content` what is in it once decompressed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import zstandard

from backwater_tornado.errors import CallFailed, InvalidArguments, NotExposed, Overloaded, RemoteError
from backwater_tornado.options import Endpoint, Limits
from backwater_tornado.protocol.batches import BatchedAnswer, encode_answers, write_frame
from backwater_tornado.protocol.calling import Attempt, Outgoing, Target
from backwater_tornado.protocol.codec import JSON, MSGPACK, Codec
from backwater_tornado.protocol.compression import decompress
from backwater_tornado.protocol.headers import decode_bytes, encode_bytes
from backwater_tornado.protocol.keys import Algorithm, Key
from backwater_tornado.protocol.messages import HttpResponse
from backwater_tornado.protocol.sealing import Seal, Sealed, Stamp, seal_many, seal_one
from backwater_tornado.protocol.signatures import RequestHead
from tests.wire import arrive, digest_of, received, serving_of, sign_again, with_members

FOLDER = Path(__file__).parent
NOW = 1_700_000_000
STREAM = "AbCdEfGhIjK"
SECRET = bytes(range(32))
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
#: Whatever the default is: a receiver does not care, and the bytes are to stay.
LEVEL = 3
LONG = {"text": "backwater " * 100}


def key_of(algorithm: Algorithm = "blake2b-256") -> Key:
    """The key of all vectors."""
    return Key(SECRET, "vectors", algorithm=algorithm)


# Requests ------------------------------------------------------------------------------------------------------------


def request(
    calls: list[dict[str, Any]],
    *,
    endpoint: str = "http://example.com:8080",
    codec: Codec = MSGPACK,
    algorithm: Algorithm = "blake2b-256",
    nonce: int = 1,
    settled: int = 0,
) -> dict[str, Any]:
    """What is given to our writer, in the form of a vector."""
    return {
        "key": {"id": "vectors", "algorithm": algorithm, "secret": SECRET.hex()},
        "given": {
            "endpoint": endpoint,
            "media_type": codec.media_type,
            "stream": STREAM,
            "nonce": f"{STREAM}.{nonce}",
            "settled": settled,
            "unix": NOW,
            "calls": [
                {"age": None, "traceparent": None, **call, "arguments": codec.encode(list(call["arguments"])).hex()}
                for call in calls
            ],
        },
    }


def call(number: int = 0, arguments: Sequence[object] = ([1, 2], {}), **more: Any) -> dict[str, Any]:
    """One call of a request."""
    module, function = more.pop("name", ("tasks", "add"))
    return {
        "number": number,
        "module": module,
        "function": function,
        "arguments": arguments,
        "seconds_left": 13.0,
        **more,
    }


def write(vector: dict[str, Any]) -> Sealed:
    """Our writer's request for what a vector gives."""
    given = vector["given"]
    codec = JSON if given["media_type"] == JSON.media_type else MSGPACK
    seal, target = (
        Seal(given["stream"], codec, Limits(compression_level=LEVEL)),
        Target(Endpoint.parse(given["endpoint"])),
    )
    stamp = Stamp(given["nonce"], given["settled"], 100.0, float(given["unix"]))
    calls = [
        Outgoing(
            each["number"],
            each["module"],
            each["function"],
            bytes.fromhex(each["arguments"]),
            100.0 + each["seconds_left"],
            traceparent=each["traceparent"],
            sent_since=None if each["age"] is None else 100.0 - each["age"],
        )
        for each in given["calls"]
    ]
    key = key_of(vector["key"]["algorithm"])
    if len(calls) == 1:
        return seal_one(seal, key, Attempt(calls[0], target, fresh=False), stamp)
    return seal_many(seal, key, target, calls, stamp)


def base_of(head: RequestHead, fields: dict[str, str], status: int | None = None) -> str:
    """The signed text, made from the covered list as RFC 9421 says in 2.5, and not by our code."""
    parameters = fields["signature-input"].removeprefix("bw=")
    lines = []
    for part in parameters[1 : parameters.index(")")].split(" "):
        name, of_request = part.split('"')[1], part.endswith(";req")
        derived = {"@method": head.method, "@authority": head.authority, "@path": head.path, "@query": f"?{head.query}"}
        derived |= {"@status": str(status)}
        source = head.fields if of_request else fields
        lines.append(f"{part}: {derived.get(name) or source[name]}")
    return "\n".join([*lines, f'"@signature-params": {parameters}'])


def stages(fields: dict[str, str], body: bytes) -> dict[str, Any]:
    """What can be seen on the way from fields and body to a MAC and the content."""
    parameters = fields["signature-input"].removeprefix("bw=")
    mac = decode_bytes(fields["signature"].removeprefix("bw="))
    assert mac is not None
    return {
        "covered": parameters[1 : parameters.index(")")].split(" "),
        "mac": mac.hex(),
        "body": body.hex(),
        "content": (decompress(body, 1 << 20) if "content-encoding" in fields else body).hex(),
    }


def written_request(vector: dict[str, Any]) -> dict[str, Any]:
    """Everything about the request that a vector asks for."""
    sealed = write(vector)
    fields = dict(sealed.request.fields)
    head = sealed.head
    return {
        "method": head.method,
        "url": sealed.request.url,
        "authority": head.authority,
        "path": head.path,
        "query": head.query,
        "fields": fields,
        "base": base_of(head, fields),
        **stages(fields, sealed.request.body),
    }


def written_response(sealed: Sealed, response: HttpResponse) -> dict[str, Any]:
    """Everything about a response."""
    fields = dict(response.fields)
    base = base_of(sealed.head, fields, response.status)
    return {"status": response.status, "fields": fields, "base": base, **stages(fields, response.body)}


# Responses -----------------------------------------------------------------------------------------------------------


def answer(vector: dict[str, Any], outcome: object) -> dict[str, Any]:
    """The server's response to a vector's request: a value, or a problem."""
    sealed = write(vector)
    serving = serving_of(sealed.key, limits={"compression_level": LEVEL})
    exchange = arrive(serving, received(sealed), sealed.request.body, float(NOW))
    if isinstance(outcome, Overloaded):
        return written_response(sealed, serving.refuse(exchange, outcome, NOW + 0.5))
    if isinstance(outcome, CallFailed):
        recorded = serving.form(exchange).encode_problem(outcome)
    else:
        recorded = serving.form(exchange).encode_result(outcome)
    return written_response(sealed, serving.respond(exchange, recorded, NOW + 0.5, {}))


def frames(vector: dict[str, Any], groups: list[list[tuple[int, int, object]]]) -> dict[str, Any]:
    """The server's response to many calls: its head, and the frames that follow."""
    sealed = write(vector)
    serving = serving_of(sealed.key, limits={"compression_level": LEVEL})
    exchange = arrive(serving, received(sealed), sealed.request.body, float(NOW))
    head = written_response(sealed, serving.begin_stream(exchange, NOW + 0.5))
    encode = exchange.codec.encode
    written = []
    for number, group in enumerate(groups):
        listed = [BatchedAnswer(each, status, msgspec.Raw(encode(body))) for each, status, body in group]
        payload = encode_answers(exchange.codec.media_type, listed)
        last = number == len(groups) - 1
        frame = write_frame(sealed.key, sealed.mac, number, payload, last=last, threshold=300, level=LEVEL)
        answers = [[each, status, encode(body).hex()] for each, status, body in group]
        written.append({"frame": frame.hex(), "content": payload.hex(), "answers": answers})
    return {**head, "frames": written}


# The vectors ---------------------------------------------------------------------------------------------------------


def good() -> dict[str, dict[str, Any]]:
    """Requests that are accepted, with a response to each."""
    one, many = [call()], [call(0), call(1, ([LONG], {}), age=2.5), call(2, name=("a/b", "größe"), traceparent=TRACE)]
    groups = [[(2, 200, 3)], [], [(0, 422, {"type": "urn:backwater:problem:invalid_arguments"}), (1, 200, LONG)]]
    remote = RemoteError(
        type="ValueError", message="no", traceback="Traceback\nValueError: no\n", exception_args=("no",)
    )
    found: dict[str, dict[str, Any]] = {}
    for name, vector, outcome in (
        ("one call", request(one), 3),
        ("one call, hmac-sha256", request(one, algorithm="hmac-sha256"), 3),
        ("one call in JSON", request(one, codec=JSON), 3),
        ("compressed both ways", request([call(arguments=([LONG], {"y": None}))]), LONG),
        ("compressed both ways in JSON", request([call(arguments=([LONG], {}))], codec=JSON), LONG),
        ("default port and a base path", request(one, endpoint="https://Example.COM/my/base/"), None),
        ("IPv6", request(one, endpoint="http://[2001:DB8::1]:8080"), [1, "two"]),
        ("names that need percent-encoding", request([call(name=("a/b.c", "größe %?"))]), b"\x00\xff"),
        ("a later attempt", request([call(17, age=2.5, traceparent=TRACE)], nonce=9, settled=12), 1.5),
        ("a little time left", request([call(seconds_left=0.25)]), "soon"),
        ("refused before the arguments were read", request(one), Overloaded("10000 calls are pending")),
        ("refused", request(one), InvalidArguments("add() argument 'x': expected int, got str")),
        ("refused in JSON", request(one, codec=JSON), NotExposed("tasks.add is not exposed")),
        ("an exception", request(one), remote),
    ):
        found[name] = {**vector, "request": written_request(vector), "response": answer(vector, outcome)}
    for name, vector in (
        ("many calls", request(many, settled=0)),
        ("many calls, hmac-sha256", request(many, algorithm="hmac-sha256")),
        ("many calls in JSON", request(many, codec=JSON)),
    ):
        found[name] = {**vector, "request": written_request(vector), "response": frames(vector, groups)}
    return found


def hostile() -> dict[str, dict[str, Any]]:
    """Requests that are refused, each with the code it gets."""
    head = received(write(request([call()])))
    body = MSGPACK.encode([[1, 2], {}])
    signature, text = head.fields["signature"], head.fields["signature-input"]

    def with_field(name: str, value: str | None) -> RequestHead:
        fields = {**head.fields, name: value}
        return with_members(head, fields={each: text for each, text in fields.items() if text is not None})

    def signed_with(name: str, value: str) -> RequestHead:
        return sign_again(with_field(name, value), key_of(), created=NOW, nonce=f"{STREAM}.1")

    def refused(code: str, odd: RequestHead, content: bytes = body, after: float = 0.0) -> dict[str, Any]:
        shown = {"method": odd.method, "authority": odd.authority, "path": odd.path, "query": odd.query}
        return {"code": code, "now": NOW + after, **shown, "fields": dict(odd.fields), "body": content.hex()}

    bomb = zstandard.ZstdCompressor().compress(bytes(9 << 20))
    bombed = with_members(head, fields={**head.fields, "content-encoding": "zstd", "content-length": str(len(bomb))})
    bombed = sign_again(with_digest(bombed, bomb), key_of(), created=NOW, nonce=f"{STREAM}.1")
    return {
        "another method": refused("method_not_allowed", with_members(head, method="PUT")),
        "another path": refused("signature_invalid", with_members(head, path="/backwater/2/tasks/sub")),
        "another version": refused("path_not_found", with_members(head, path="/backwater/1/tasks/add")),
        "a query": refused("signature_invalid", with_members(head, query="x=1")),
        "another authority": refused("signature_invalid", with_members(head, authority="example.com")),
        "no length": refused("length_required", with_field("content-length", None)),
        "an odd length": refused("request_malformed", with_field("content-length", "0x4")),
        "a length beyond the limit": refused("body_too_large", with_field("content-length", "99999999")),
        "no signature": refused("signature_missing", with_field("signature", None)),
        "no signature input": refused("signature_missing", with_field("signature-input", None)),
        "another label": refused("signature_missing", with_field("signature-input", "sig1" + text[2:])),
        "two signatures": refused("signature_malformed", with_field("signature", f"{signature}, {signature}")),
        "an unknown parameter": refused("signature_malformed", with_field("signature-input", text + ";x=1")),
        "a parameter twice": refused("signature_malformed", with_field("signature-input", text + ";created=1")),
        "an unknown key": refused("unknown_key", with_field("signature-input", text.replace("vectors", "nobody"))),
        "a component less": refused(
            "signature_incomplete", with_field("signature-input", text.replace(' "@query"', ""))
        ),
        "a component twice": refused(
            "signature_malformed", with_field("signature-input", text.replace('"@query"', '"@query" "@query"'))
        ),
        "a field that is not covered": refused("signature_incomplete", with_field("content-encoding", "zstd")),
        "another field": refused("signature_invalid", with_field("backwater-timeout", "99")),
        "a component with a line break": refused("signature_malformed", with_field("content-type", 'a\n"@path": /b')),
        "another mac": refused("signature_invalid", with_field("signature", f"bw={encode_bytes(bytes(32))}")),
        "too old": refused("signature_stale", head, after=301.0),
        "from the future": refused("signature_from_future", head, after=-301.0),
        "an unknown media type": refused("unsupported_media_type", signed_with("content-type", "text/plain")),
        "an unknown encoding": refused("unsupported_encoding", signed_with("content-encoding", "gzip")),
        "nothing that is served is accepted": refused("not_acceptable", signed_with("accept", "text/html")),
        "another body": refused("digest_mismatch", head, body + b"x"),
        "no digest of the known kind": refused("request_malformed", signed_with("content-digest", "md5=:aGk=:")),
        "not compressed as it says": refused("body_undecodable", signed_with("content-encoding", "zstd")),
        "a bomb": refused("body_too_large", bombed, bomb),
        "an odd time left": refused("request_malformed", signed_with("backwater-timeout", "nan")),
        "no time left": refused("deadline_exceeded", signed_with("backwater-timeout", "0")),
        "an odd idempotency key": refused("request_malformed", signed_with("idempotency-key", "order-17")),
    }


def with_digest(head: RequestHead, body: bytes) -> RequestHead:
    """The head with the digest of that body."""
    return with_members(head, fields={**head.fields, "content-digest": digest_of(body)})


def forged() -> dict[str, dict[str, Any]]:
    """Responses that a client takes for none, each with the code of its error; all to the request of `one call`."""
    vector = request([call()])
    real = answer(vector, 3)
    other = answer(request([call()], nonce=2), 3)
    fields = real["fields"]

    def told(code: str, **changes: Any) -> dict[str, Any]:
        shown = {"status": real["status"], "fields": fields, "body": real["body"], **changes}
        return {"code": code, **shown}

    def without(*names: str) -> dict[str, str]:
        return {name: value for name, value in fields.items() if name not in names}

    return {
        "not signed": told("response_unsigned", fields=without("signature", "signature-input")),
        "a gateway's": told("outcome_unknown", status=502, fields={}, body=b"Bad Gateway".hex()),
        "to another request": told("response_mismatched", fields=other["fields"], body=other["body"]),
        "another status": told("response_altered", status=500),
        "another body": told("response_altered", body="04"),
        "another media type": told("response_altered", fields={**fields, "content-type": "application/json"}),
        "an encoding that is not covered": told("response_altered", fields={**fields, "content-encoding": "zstd"}),
        "a covered field less": told("response_altered", fields=without("content-digest")),
        "by another key": told(
            "response_unsigned",
            fields={**fields, "signature-input": fields["signature-input"].replace("vectors", "nobody")},
        ),
    }


def build() -> dict[str, dict[str, Any]]:
    """All files by name."""
    return {"good": good(), "hostile": hostile(), "forged": forged()}


def main() -> None:
    """Write them."""
    for name, vectors in build().items():
        content = {"zstd": ".".join(map(str, zstandard.ZSTD_VERSION)), "vectors": vectors}
        (FOLDER / f"{name}.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
