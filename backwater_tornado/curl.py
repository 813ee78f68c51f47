"""pycurl twice: a reused easy handle that blocks, and an engine that drives the multi handle on an event loop.

Both keep their handles, so that connections and their setup are reused; both translate curl's failures once, here:
`Unreachable` when nothing was sent, `OutcomeUnknown` when something was. A handle that a child process inherits is
never touched again, not even to free it: that would speak on its parent's connections.

Rule: knows requests and bytes, not calls. The engine asks of a loop only what `EventLoop` lists.
"""

from __future__ import annotations

import ctypes
import math
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol
from weakref import WeakSet

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


class EventLoop(Protocol):
    """What the engine needs of a loop; asyncio's loops have it."""

    def add_reader(self, fd: int, callback: Callable[..., Any], *args: Any) -> None:
        """Call when the descriptor can be read."""

    def remove_reader(self, fd: int) -> bool:
        """Stop that."""

    def add_writer(self, fd: int, callback: Callable[..., Any], *args: Any) -> None:
        """Call when the descriptor can be written."""

    def remove_writer(self, fd: int) -> bool:
        """Stop that."""

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> Any:
        """Call after some seconds; gives something with `cancel()`."""


class Transfer:
    """One request on one handle, from its start to its end."""

    __slots__ = (
        "__weakref__",
        "_chunks",
        "_lines",
        "_moved",
        "_moved_at",
        "_patience",
        "failure",
        "handle",
        "on_data",
        "received",
        "sent",
    )

    def __init__(self, options: ClientOptions) -> None:
        self.handle = pycurl.Curl()
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
        self._patience = options.recv_timeout
        configure(self.handle, options)
        self.handle.setopt(pycurl.PREREQFUNCTION, self._on_request)
        self.handle.setopt(pycurl.HEADERFUNCTION, self._on_header)
        self.handle.setopt(pycurl.WRITEFUNCTION, self._on_body)

    def prepare(self, request: HttpRequest, timeout: float, *, fresh: bool) -> None:
        """Set what differs from one request to the next."""
        setopt = self.handle.setopt
        setopt(pycurl.URL, request.url)
        setopt(pycurl.HTTPHEADER, [*_UNWANTED, *[f"{name}: {value}" for name, value in request.fields]])
        setopt(pycurl.POSTFIELDS, request.body)
        setopt(pycurl.TIMEOUT_MS, max(1, math.ceil(timeout * 1000)))
        setopt(pycurl.FRESH_CONNECT, 1 if fresh else 0)
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

    def _on_request(self, *addresses: object) -> int:
        """Once per transfer: where a kept connection dies without an answer, curl would send the request again itself.

        The first copy may have reached a server that has been restarted since; only a new attempt of ours says so.
        """
        self.sent += 1
        self._moved_at = time.monotonic()
        return int(pycurl.PREREQFUNC_OK if self.sent == 1 else pycurl.PREREQFUNC_ABORT)

    def watch(self) -> None:
        """Have curl itself end a silent transfer; it looks about once a second, which lets Ctrl-C through, too."""
        self.handle.setopt(pycurl.NOPROGRESS, 0)
        self.handle.setopt(pycurl.XFERINFOFUNCTION, self.silent)

    def silent(self, expected: int, received: int, to_send: int, sent: int) -> bool:
        """Whether the request was sent and these counts of bytes have not moved for `recv_timeout`.

        curl's own limit of speed is no help: it takes five seconds more, and is not looked at while others are busy.
        """
        moved = received + sent
        if moved != self._moved:
            self._moved = moved
            self._moved_at = time.monotonic()
        elif self.sent and time.monotonic() - self._moved_at >= self._patience:
            self.failure = lost(f"nothing was heard for {self._patience:g} s")
            return True
        return False

    def _on_header(self, line: bytes) -> None:
        self._lines.append(line)

    def _on_body(self, data: bytes) -> int | None:
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


def _keep_for_ever(inherited: object) -> None:
    """Keep what a parent process left behind, beyond the end of the interpreter too, which frees all that it can reach.

    curl would say goodbye on connections that are not this process's, and the parent would find them closed.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(inherited))


class EasyTransport:
    """Blocking requests: one handle for each thread."""

    def __init__(self, options: ClientOptions) -> None:
        self._options = options
        self._local = threading.local()
        #: Those of all threads, for `abandon`.
        self._transfers: WeakSet[Transfer] = WeakSet()

    def send(self, request: HttpRequest, timeout: float, *, fresh: bool) -> tuple[HttpResponse, int]:
        """Send and wait; gives the response and the bytes of its body.

        Raises:
            Unreachable, lost, TLSFailed, ResponseUndecodable.
        """
        response, received, cut = self.send_partly(request, timeout, fresh=fresh)
        if cut is not None:
            raise cut
        return response, received

    def send_partly(
        self, request: HttpRequest, timeout: float, *, fresh: bool
    ) -> tuple[HttpResponse, int, CallFailed | None]:
        """As `send`; a response that was cut is given as far as it came, with what cut it."""
        transfer = self._transfer()
        transfer.prepare(request, timeout, fresh=fresh)
        try:
            transfer.handle.perform()
            cut = transfer.verdict()
        except pycurl.error as error:
            code, text = error.args
            if code == pycurl.E_ABORTED_BY_CALLBACK and transfer.failure is None and transfer.sent <= 1:
                # The exception of a signal's handler ends the transfer; curl cannot carry it.
                raise KeyboardInterrupt from None
            cut = transfer.translate(code, text)
            cut.__cause__ = error
        return transfer.response(), transfer.received, cut

    def abandon(self) -> None:
        """In a child process: never touch the parent's handles."""
        # The threads of the parent are gone, and what was local to them with them, but for these references.
        _keep_for_ever(list(self._transfers))
        self._transfers = WeakSet()
        self._local = threading.local()

    def close(self) -> None:
        """Close this thread's connections; those of other threads close with their threads."""
        transfer = getattr(self._local, "transfer", None)
        if transfer is not None:
            transfer.handle.close()
            del self._local.transfer

    def _transfer(self) -> Transfer:
        transfer: Transfer | None = getattr(self._local, "transfer", None)
        if transfer is None:
            transfer = self._local.transfer = Transfer(self._options)
            transfer.watch()
            self._transfers.add(transfer)
        return transfer


Done = Callable[[Transfer, CallFailed | None], None]


class MultiEngine:
    """Awaitable requests: curl's multi handle on an event loop, with handles that are kept."""

    def __init__(self, loop: EventLoop, options: ClientOptions) -> None:
        self._loop = loop
        self._options = options
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._on_socket)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._on_timer)
        self._multi.setopt(pycurl.M_MAXCONNECTS, options.max_connections)
        self._idle: list[Transfer] = []
        self._active: dict[pycurl.Curl, tuple[Transfer, Done]] = {}
        self._watched: dict[int, int] = {}
        self._timer: Any = None
        #: Looks for silent transfers while there are any at all.
        self._watch_timer: Any = None
        self._closed = False

    @property
    def active(self) -> int:
        """Requests in flight."""
        return len(self._active)

    def send(
        self,
        request: HttpRequest,
        timeout: float,
        done: Done,
        *,
        fresh: bool = False,
        on_data: Callable[[Transfer, bytes], None] | None = None,
    ) -> Transfer:
        """Start a request; `done` is called on the loop with the transfer and what went wrong, if anything.

        After `done` returns the transfer belongs to the next request.
        """
        if self._closed:
            raise Unreachable("the client is closed")
        transfer = self._idle.pop() if self._idle else Transfer(self._options)
        transfer.prepare(request, timeout, fresh=fresh)
        if on_data is not None:
            transfer.on_data = lambda data: on_data(transfer, data)
        self._active[transfer.handle] = transfer, done
        self._multi.add_handle(transfer.handle)
        if self._watch_timer is None:
            self._watch_later()
        return transfer

    def close(self) -> None:
        """End everything; requests in flight fail with `OutcomeUnknown`."""
        self._closed = True
        for handle in list(self._active):
            self._end(handle, lost("the client was closed"))
        for transfer in self._idle:
            transfer.handle.close()
        self._idle.clear()
        for timer in (self._timer, self._watch_timer):
            if timer is not None:
                timer.cancel()
        for fd in list(self._watched):
            self._watch(fd, pycurl.POLL_REMOVE)
        self._multi.close()

    def abandon(self) -> None:
        """In a child process: never touch the parent's handles."""
        _keep_for_ever(self.__dict__.copy())
        self._closed = True

    # What curl asks for ----------------------------------------------------------------------------------------------

    def _on_socket(self, what: int, fd: int, multi: object, data: object) -> None:
        # A multi handle that is closed still wants to say goodbye to its peers, on a loop that may have ended.
        if not self._closed:
            self._watch(fd, what)

    def _watch(self, fd: int, what: int) -> None:
        before = self._watched.pop(fd, 0)
        if what == pycurl.POLL_REMOVE:
            what = 0
        else:
            self._watched[fd] = what
        for flag, add, remove, action in (
            (pycurl.POLL_IN, self._loop.add_reader, self._loop.remove_reader, pycurl.CSELECT_IN),
            (pycurl.POLL_OUT, self._loop.add_writer, self._loop.remove_writer, pycurl.CSELECT_OUT),
        ):
            if what & flag and not before & flag:
                add(fd, self._act, fd, action)
            elif before & flag and not what & flag:
                remove(fd)

    def _on_timer(self, milliseconds: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if milliseconds >= 0 and not self._closed:
            self._timer = self._loop.call_later(milliseconds / 1000, self._on_timeout)

    def _on_timeout(self) -> None:
        self._timer = None
        self._act(pycurl.SOCKET_TIMEOUT, 0)
        if self._timer is None and not self._closed:
            # curl tells of a timeout when it changes. Should it have thought this one early, it will not tell again.
            self._on_timer(self._multi.timeout())

    def _watch_later(self) -> None:
        self._watch_timer = self._loop.call_later(min(0.5, self._options.recv_timeout / 4), self._end_silent)

    def _end_silent(self) -> None:
        self._watch_timer = None
        for handle, (transfer, _) in list(self._active.items()):
            received = handle.getinfo(pycurl.HEADER_SIZE) + handle.getinfo(pycurl.SIZE_DOWNLOAD_T)
            if transfer.silent(0, received, 0, handle.getinfo(pycurl.SIZE_UPLOAD_T)):
                self._end(handle, transfer.failure)
        if self._active:
            self._watch_later()

    # What came of it -------------------------------------------------------------------------------------------------

    def _act(self, fd: int, action: int) -> None:
        self._multi.socket_action(fd, action)
        while not self._closed:
            left, succeeded, failed = self._multi.info_read()
            for handle in succeeded:
                self._end(handle, self._active[handle][0].verdict())
            for handle, code, text in failed:
                self._end(handle, self._active[handle][0].translate(code, text))
            if not left:
                return

    def _end(self, handle: pycurl.Curl, error: CallFailed | None) -> None:
        transfer, done = self._active.pop(handle)
        self._multi.remove_handle(handle)
        try:
            done(transfer, error)
        finally:
            self._idle.append(transfer)
