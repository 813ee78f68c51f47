"""The protocol, pure: what is on the wire and what it means. No module here opens a socket or looks at a clock.

Version 2, byte for byte. Test vectors for every form are in `tests/vectors`; what is written here is tested there.

**Request.** `POST {base}/backwater/2/{module}/{function}`, both names percent-encoded UTF-8. The body is
`[[argument, …], {name: argument, …}]` in the media type that Content-Type names: `application/msgpack`,
`application/json`, or `application/x-python-pickle` where both ends switched it on. The fields, names in any case:

* `content-type`, `content-length` (needed; no Transfer-Encoding), `content-digest: sha-256=:base64:` (RFC 9530) over
  the body as it travels. `content-encoding: zstd` where the body is one zstd frame with a window up to 8 MiB.
* `idempotency-key: "stream.number";settled=n;age=seconds` (optional, see below).
* `backwater-timeout`: seconds that the caller still waits, up to 7 digits and 3 decimals (optional). 0 is too late.
* `traceparent` (W3C), `accept`, `accept-encoding` (optional): read only where the signature covers them.
* `signature-input`, `signature`: RFC 9421, label `bw`. Other labels beside it are passed over.

**Request signature.** Covers, in any order, `@method`, `@authority`, `@path`, `@query`, `content-type`,
`content-length`, `content-digest`, always; `content-encoding`, `idempotency-key`, `backwater-timeout` where they are
present; and whatever else the caller likes, at most 32 components in 1024 characters, each a plain name once. What is
not covered is not read. Parameters: `created`, `expires`, `nonce` (1 to 128 characters), `keyid`; `alg` and `tag` may
be there, and `alg` must be the key's. The signed text is that of RFC 9421, 2.5: a line `"name": value` for each
component, then `"@signature-params": ` and the value as in Signature-Input; lines end in one LF, the last in none; all
of it ASCII. `@authority` is the Host field in lower case without the scheme's own port, `@query` is `?` where there is
none, the lines of one field are joined by `, `.

**Keys and MACs.** A key has an id, a secret of 16 bytes or more, and an algorithm; `alg` is not sent. All MACs have 32
bytes. With `blake2b-256` each direction has a subkey, BLAKE2b-256 of nothing, keyed by the secret (its BLAKE2b-512 if
it is longer than 64 bytes), with the person `bw2-request`, `bw2-response` or `bw2-frame`, padded with zero bytes to
16; the MAC is BLAKE2b-256 keyed by the subkey. With `hmac-sha256` requests and responses use HMAC-SHA256 with the
secret itself, as any RFC 9421 library does, and frames with the subkey HMAC-SHA256(secret, `bw2-frame`).

**Nonces.** `stream.number`: the stream is 11 random characters of base64url for each client, the number counts its
requests. A nonce is taken once; in a stream, one that is 4096 or more behind the highest is refused too. A nonce of
another form is a stream of its own. It is remembered for as long as its signature passes.

**Clocks.** `created` may be off by the server's tolerance (300 s) either way, and `expires` may be past by it; it may
not be more than 5 s older than the server's memory. A refusal is signed; its `created` tells the client the server's
time, by which it corrects its own clock (from 5 s on) and signs again, once.

**Idempotency keys.** The number counts the calls of the stream and is the same on every attempt, each of which has a
nonce of its own. `settled`: all calls of the stream with a smaller number have been answered or given up; the server
drops their records, and refuses stragglers. `age`: seconds since an earlier attempt may have reached the server, left
out on the first; the server adds the time since `created` beyond a second. If it does not remember that far, it tells
`outcome_unknown` and does not run the function. A number is written without leading zeros. Any other text, such as
`"order-17"`, is a stream of its own, named by the text with its quotes, with the number 0. The same key for other
names or arguments (compared as encoded) is a conflict. Without a key a call runs each time that it arrives.

**Response.** 200 and the result as body, in the media type that `accept` asks for, or else in that of the request.
Fields: `content-type`, `content-length`, `content-digest`, perhaps `content-encoding: zstd`, `retry-after`, `allow`.
Its signature covers `@status`, all these fields that it has but `content-length`, and the request that it answers:
`@method`, `@path` and `signature`, each with `;req`, in this order. Parameters: `created`, `nonce` (what is behind the
last dot of the request's), `keyid` (the request's).
Every response is signed once the request's signature was good; any other is a hint that a client must not act upon.
It is compressed where the caller accepts zstd; one that does not say takes it, unless its request is JSON.

**Problems.** Any other status has RFC 9457 problem details, as `application/problem+msgpack` or `+json`: a table with
`type` (`urn:backwater:problem:CODE`), `title`, `status`, `detail`, perhaps `retry_after` (seconds) and members of the
error's own. `errors.WIRE_ERRORS` is the table of codes. `remote_exception` says that the function raised, in
`exception`: `type`, `message`, `traceback` (text or null), `args` (a list or null). Where the request's signature was
not good, they are JSON and unsigned.

**Many calls.** `POST {base}/backwater/2`, the body `[stream, settled, [call, …]]` in msgpack or JSON, a call being
`[number, module, function, arguments, timeout, age, traceparent]`; the last three may be null, or left out from the
end. No idempotency key and no timeout in fields. A refusal of the whole request is an ordinary response. Otherwise
the response is 200, `content-type: application/vnd.backwater.answers+msgpack` (or `+json`), without length and digest,
signed as above, and its body is frames, sent as calls end. A frame::

    4 bytes   length of what follows, big endian, from 33 on
    1 byte    flags: 1 = the payload is one zstd frame, 2 = this is the last frame
    32 bytes  MAC over: the request's MAC (32 bytes), the frame's number (4 bytes, big endian, from 0), flags, payload
    n bytes   payload: a list of answers [number, status, value or problem]; an empty one shows that the link lives

Nothing follows the last frame; a body without one was cut. A frame may be compressed whatever the caller accepts.

**Limits.** The server's, by default: 8 MiB for a request's body, as it travels and decompressed, and for a result;
10 000 calls in a request; names of 1 to 255 characters in a request of many calls; 128 levels of nesting; 16 KiB of
headers. A frame has at most one result and 1 MiB.

**Order of checks.** On the head alone, before the body is read: method, path, length (unsigned refusals so far), key,
coverage, MAC (unsigned as well), authority, clock, nonce, media types, encoding. On the body: digest, decompression,
shape. For each call: exposure, scope, arguments, idempotency, room; then the function runs.

A worked example, `tasks.add(1, 2)`. A line that is too long goes on further to the right, after one blank. The key
has the id `vectors`, the algorithm `blake2b-256`, and as secret (hexadecimal) the 32 bytes

    000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f

    POST /backwater/2/tasks/add HTTP/1.1
    host: example.com:8080
    content-type: application/msgpack
    content-length: 5
    content-digest: sha-256=:7ps1zGpobT4teQ/nlSupIO3am/hnatOg8GXE3Y2d400=:
    idempotency-key: "AbCdEfGhIjK.0";settled=0
    backwater-timeout: 13
    signature-input: bw=("@method" "@authority" "@path" "@query" "content-type" "content-length" "content-digest"
        "idempotency-key"
        "backwater-timeout");created=1700000000;expires=1700000060;nonce="AbCdEfGhIjK.1";keyid="vectors"
    signature: bw=:cFbBo6471/klQez99w3BjZv4ly9SNdCqERCC0x0aFDQ=:

    (body, 5 bytes, hexadecimal) 9292010280

The signed text, whose MAC is
    7056c1a3ae3bd7f92541ecfdf70dc18d9bf8972f5235d0aa111082d31d1a1434:

    "@method": POST
    "@authority": example.com:8080
    "@path": /backwater/2/tasks/add
    "@query": ?
    "content-type": application/msgpack
    "content-length": 5
    "content-digest": sha-256=:7ps1zGpobT4teQ/nlSupIO3am/hnatOg8GXE3Y2d400=:
    "idempotency-key": "AbCdEfGhIjK.0";settled=0
    "backwater-timeout": 13
    "@signature-params": ("@method" "@authority" "@path" "@query" "content-type" "content-length" "content-digest"
        "idempotency-key"
        "backwater-timeout");created=1700000000;expires=1700000060;nonce="AbCdEfGhIjK.1";keyid="vectors"

The answer:

    HTTP/1.1 200 OK
    content-type: application/msgpack
    content-length: 1
    content-digest: sha-256=:CE/tCLl4r019GWp0RqhrWACeY2thHbFiEbZamq3/KcU=:
    signature-input: bw=("@status" "content-type" "content-digest" "@method";req "@path";req
        "signature";req);created=1700000000;nonce="1";keyid="vectors"
    signature: bw=:GBxJnA2wRdwAOPqzRxJoq86a7YHE+s40foKU33+prHc=:

    (body, 1 byte, hexadecimal) 03

The signed text, whose MAC is
    181c499c0db045dc0038fab3471268abce9aed81c4face347e8294df7fa9ac77:

    "@status": 200
    "content-type": application/msgpack
    "content-digest": sha-256=:CE/tCLl4r019GWp0RqhrWACeY2thHbFiEbZamq3/KcU=:
    "@method";req: POST
    "@path";req: /backwater/2/tasks/add
    "signature";req: bw=:cFbBo6471/klQez99w3BjZv4ly9SNdCqERCC0x0aFDQ=:
    "@signature-params": ("@status" "content-type" "content-digest" "@method";req "@path";req
        "signature";req);created=1700000000;nonce="1";keyid="vectors"

"""
