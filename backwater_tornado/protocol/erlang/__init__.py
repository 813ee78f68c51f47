"""Version 1 of the wire: the one of Erlang's backwater, spoken with genuine nodes of it as they are.

A call is one request, `POST …/backwater/1/MODULE/FUNCTION/ARITY`, names percent-encoded UTF-8, arity a decimal number
up to 255. The body is the list of arguments as one term of the external term format (version byte 131, never
compressed within), gzipped from `compression_threshold` on. Fields of a request::

    accept, content-type   application/x-erlang-etf
    accept-encoding        gzip
    content-encoding       gzip, where the body is
    content-length         of the body as sent
    digest                 SHA-256=… of the body as sent, base64
    x-request-id           any text; the response repeats it
    authorization          Signature algorithm="hmac-sha256",headers="…",keyId="default",signature="…"

The signature is HMAC-SHA-256 with the shared secret over one line `name: value` for each name in `headers`, joined by
line feeds. `(request-target)` stands for the method in lower case, a blank and the path as sent; `(response-status)`
for the status. It must cover that, `digest` and `x-request-id`, and of accept, accept-encoding, content-encoding,
content-length and content-type what is there. For example, with the secret 00 01 … 1f::

    POST /backwater/1/string/to_upper/1 HTTP/1.1
    ...
    (request-target): post /backwater/1/string/to_upper/1
    accept: application/x-erlang-etf
    accept-encoding: gzip
    content-length: 15
    content-type: application/x-erlang-etf
    digest: SHA-256=hkadAz1TxNviZ3CbAs7syhltiMOGJNaOVB6IO8Bm3ow=
    x-request-id: uWjrOLYzRDF0I/b59t8hrQ==

A response to a good signature is signed in a field `signature`, the same parameters without the word in front. Status
200 carries `{return, Value}` or `{exception, {error | exit | throw, Reason, Stack}}`, gzipped where the request takes
it and it is worth it; any other status a word as text/plain. There is no date, nonce or deadline, and no key but one:
version 1 is for peers that know no other.

`terms`, `maps`, `tags` are values, `encoding` and `decoding` bytes, `notation` and `printing` Erlang's source text of
terms; `signatures` and `http` are what both ends need, `serving` and `forms` the server's end, `sealing` the
caller's.
"""
