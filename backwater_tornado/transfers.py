"""One request on one curl handle: what is set, what curl calls, and its failures as ours.

`Unreachable` when nothing was sent, `OutcomeUnknown` when something was.

Rule: nothing here waits; `curl` performs. No handle is touched but the one that is given.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import pycurl

from .errors import CallFailed, InvalidOption, ResponseUndecodable, TLSFailed, Unreachable
from .options import ClientOptions
from .protocol.calling import lost
from .protocol.messages import HttpRequest, HttpResponse

#: Headers that curl would add by itself.
_UNWANTED = ["Accept:", "User-Agent:"]
#: Room for a response's head and frames beside one result, bytes.
_ROOM = 2 << 20

#: Failures of a certificate, theirs or ours.
CERTIFICATE_CODES = frozenset(
    {
        pycurl.E_PEER_FAILED_VERIFICATION,
        pycurl.E_SSL_CERTPROBLEM,
        pycurl.E_SSL_CIPHER,
        pycurl.E_SSL_CACERT_BADFILE,
        pycurl.E_SSL_ISSUER_ERROR,
        pycurl.E_SSL_PINNEDPUBKEYNOTMATCH,
    }
)


class Transfer:
    """What one request has received so far. The handle calls it, it does not know the handle.

    So a client that nobody uses any more is freed at once, with its connections, and not when the garbage collector
    comes by, which does not see what curl holds.
    """

    __slots__ = (
        "_chunks",
        "_lines",
        "_moved",
        "_moved_at",
        "_patience",
        "failure",
        "on_data",
        "received",
        "sent",
    )

    def __init__(self, patience: float) -> None:
        self._lines: list[bytes] = []
        self._chunks: list[bytes] = []
        #: Takes the body's bytes as they come, in place of keeping them.
        self.on_data: Callable[[bytes], None] | None = None
        self.failure: CallFailed | None = None
        self.received = 0
        #: How often curl has come to the point of sending the request.
        self.sent = 0
        #: Bytes so far as curl counts them, and when that last changed (`time.monotonic()`).
        self._moved = 0
        self._moved_at = 0.0
        self._patience = patience

    def clear(self) -> None:
        """Forget everything: another request begins, or this one has ended."""
        self._lines.clear()
        self._chunks.clear()
        self.on_data = None
        self.failure = None
        self.received = 0
        self.sent = 0

    def head(self) -> HttpResponse:
        """Status and fields as far as received; the last block counts, interim ones (100) are dropped."""
        fields: dict[str, str] = {}
        status = 0
        for line in b"".join(self._lines).decode("latin-1").split("\n"):
            name, colon, value = line.partition(":")
            if colon:
                name, value = name.lower(), value.strip()
                fields[name] = f"{fields[name]}, {value}" if name in fields else value
            elif line.startswith("HTTP/"):
                fields.clear()
                status = int(line.split(None, 2)[1])
        return HttpResponse(status, fields, b"")

    def response(self) -> HttpResponse:
        """The whole response."""
        head = self.head()
        body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        return HttpResponse(head.status, head.fields, body)

    def verdict(self) -> CallFailed | None:
        """What is wrong with a transfer that curl calls good: to it, a head that was cut is one that ended."""
        if self._lines and self._lines[-1] in (b"\r\n", b"\n"):
            return None
        return lost("the connection was closed within the head of the answer")

    def translate(self, code: int, text: str) -> CallFailed:
        """curl's error as ours."""
        if self.failure is not None:
            return self.failure
        if code == pycurl.E_FILESIZE_EXCEEDED:
            return ResponseUndecodable("the answer is larger than max_encoded_result_size allows")
        if self.sent > 1:
            return lost("the connection was closed before an answer came")
        if self.sent:
            return lost(f"{text} (curl {code})")
        if code in CERTIFICATE_CODES:
            return TLSFailed(f"{text}: check the certificate, or name its authority with ca_file")
        return Unreachable(f"{text} (curl {code})")

    def on_request(self, *addresses: object) -> int:
        """Once per transfer: where a kept connection dies without an answer, curl would send the request again itself.

        The first copy may have reached a server that has been restarted since; only a new attempt of ours says so.
        """
        self.sent += 1
        self._moved_at = time.monotonic()
        return int(pycurl.PREREQFUNC_OK if self.sent == 1 else pycurl.PREREQFUNC_ABORT)

    def silent(self, expected: int, received: int, to_send: int, sent: int) -> bool:
        """Whether the request was sent and these counts of bytes have not moved for `recv_timeout`.

        curl's own limit of speed is no help: it takes five seconds more, and is not looked at while others are busy.
        """
        moved = received + sent + len(self._lines)
        if moved != self._moved:
            self._moved = moved
            self._moved_at = time.monotonic()
        elif self.sent and time.monotonic() - self._moved_at >= self._patience:
            self.failure = lost(f"nothing was heard for {self._patience:g} s", silent=True)
            return True
        return False

    def on_header(self, line: bytes) -> None:
        """A line of the head."""
        self._lines.append(line)

    def on_body(self, data: bytes) -> int | None:
        """A part of the body; -1 has curl end the transfer."""
        self.received += len(data)
        if self.on_data is None:
            self._chunks.append(data)
            return None
        try:
            self.on_data(data)
        except CallFailed as error:
            # An exception out of a callback would be printed and lost.
            self.failure = error
            return -1
        return None


def make_handle(options: ClientOptions) -> tuple[pycurl.Curl, Transfer]:
    """A new handle, with everything that stays the same for all requests of a client, and what it calls."""
    handle, transfer = pycurl.Curl(), Transfer(options.recv_timeout)
    configure(handle, options)
    handle.setopt(pycurl.PREREQFUNCTION, transfer.on_request)
    handle.setopt(pycurl.HEADERFUNCTION, transfer.on_header)
    handle.setopt(pycurl.WRITEFUNCTION, transfer.on_body)
    return handle, transfer


def watch(handle: pycurl.Curl, transfer: Transfer) -> None:
    """Have curl itself end a silent transfer; it looks about once a second, which lets Ctrl-C through, too."""
    handle.setopt(pycurl.NOPROGRESS, 0)
    handle.setopt(pycurl.XFERINFOFUNCTION, transfer.silent)


def prepare(handle: pycurl.Curl, request: HttpRequest, timeout: float, *, fresh: bool) -> None:
    """Set what differs from one request to the next."""
    setopt = handle.setopt
    setopt(pycurl.URL, request.url)
    setopt(pycurl.HTTPHEADER, [*_UNWANTED, *[f"{name}: {value}" for name, value in request.fields]])
    setopt(pycurl.POSTFIELDS, request.body)
    setopt(pycurl.TIMEOUT_MS, max(1, math.ceil(timeout * 1000)))
    setopt(pycurl.FRESH_CONNECT, 1 if fresh else 0)


def configure(handle: pycurl.Curl, options: ClientOptions) -> None:
    """Everything that stays the same for all requests of a client."""
    settings: dict[int, Any] = {
        pycurl.NOSIGNAL: 1,
        pycurl.POST: 1,
        pycurl.FOLLOWLOCATION: 0,
        pycurl.PATH_AS_IS: 1,
        pycurl.HTTP_VERSION: pycurl.CURL_HTTP_VERSION_1_1,
        pycurl.CONNECTTIMEOUT_MS: math.ceil(options.connect_timeout * 1000),
        pycurl.MAXLIFETIME_CONN: math.ceil(options.max_connection_age),
        pycurl.MAXAGE_CONN: math.ceil(min(options.max_connection_age, 60.0)),
        pycurl.MAXFILESIZE_LARGE: options.limits.max_encoded_result_size + _ROOM,
        pycurl.TCP_KEEPALIVE: 1,
    }
    named = {
        pycurl.CAINFO: options.ca_file,
        pycurl.SSLCERT: options.client_cert,
        pycurl.SSLKEY: options.client_key,
        pycurl.PROXY: options.proxy,
    }
    settings.update({option: value for option, value in named.items() if value is not None})
    settings.update(options.curl_options)
    for option, value in settings.items():
        try:
            handle.setopt(option, value)
        except (pycurl.error, TypeError) as error:
            raise InvalidOption(f"curl option {option} does not take {value!r}: {error}") from error
