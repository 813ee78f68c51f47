"""pycurl twice: a reused easy handle that blocks, and an engine that drives the multi handle on an event loop.

Both keep their handles, so that connections and their setup are reused. Failures are told apart:
`Unreachable` when nothing was sent, `OutcomeUnknown` when something was. A handle that a child process inherits is
never touched again, not even to free it: that would speak on its parent's connections.

Rule: knows requests and bytes, not calls. The engine asks of a loop only what `EventLoop` lists.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol
from weakref import WeakSet

import pycurl

from .errors import CallFailed, Unreachable
from .options import ClientOptions
from .protocol.calling import lost
from .protocol.messages import HttpRequest, HttpResponse
from .transfers import Transfer, make_handle, prepare, watch


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


def _keep_for_ever(inherited: object) -> None:
    """Keep what a parent process left behind, beyond the end of the interpreter too, which frees all that it can reach.

    curl would say goodbye on connections that are not this process's, and the parent would find them closed.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(inherited))


class Spent(NamedTuple):
    """What a request cost: bytes out and in, heads included, and seconds from the answer's first byte to its last."""

    sent: int
    received: int
    answering: float


class EasyTransport:
    """Blocking requests: one handle for each thread."""

    def __init__(self, options: ClientOptions) -> None:
        self._options = options
        self._local = threading.local()
        #: Those of all threads, for `abandon`.
        self._handles: WeakSet[pycurl.Curl] = WeakSet()
        self._lock = threading.Lock()

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
        handle, transfer = self._handle()
        transfer.clear()
        prepare(handle, request, timeout, fresh=fresh)
        try:
            handle.perform()
            cut = transfer.verdict()
        except pycurl.error as error:
            code, text = error.args
            if code == pycurl.E_ABORTED_BY_CALLBACK and transfer.failure is None and transfer.sent <= 1:
                # The exception of a signal's handler ends the transfer; curl cannot carry it.
                raise KeyboardInterrupt from None
            cut = transfer.translate(code, text)
            cut.__cause__ = error
        return transfer.response(), transfer.received, cut

    def spent(self) -> Spent:
        """What the last request of this thread has cost."""
        tell = self._handle()[0].getinfo
        return Spent(
            tell(pycurl.REQUEST_SIZE) + tell(pycurl.SIZE_UPLOAD_T),
            tell(pycurl.HEADER_SIZE) + tell(pycurl.SIZE_DOWNLOAD_T),
            tell(pycurl.TOTAL_TIME) - tell(pycurl.STARTTRANSFER_TIME),
        )

    def hold(self) -> list[pycurl.Curl]:
        """The handles of all threads, before a fork: a child frees what is local to threads that it does not have."""
        with self._lock:
            return list(self._handles)

    def abandon(self) -> None:
        """In a child process: never touch the parent's handles."""
        _keep_for_ever(list(self._handles))
        self._handles = WeakSet()
        self._lock = threading.Lock()
        self._local = threading.local()

    def close(self) -> None:
        """Close this thread's connections; those of other threads close with their threads."""
        found = getattr(self._local, "handle", None)
        if found is not None:
            found[0].close()
            del self._local.handle

    def _handle(self) -> tuple[pycurl.Curl, Transfer]:
        found: tuple[pycurl.Curl, Transfer] | None = getattr(self._local, "handle", None)
        if found is None:
            found = self._local.handle = make_handle(self._options)
            watch(*found)
            with self._lock:
                self._handles.add(found[0])
        return found


Done = Callable[[Transfer, CallFailed | None], None]


class MultiEngine:
    """Awaitable requests: curl's multi handle on an event loop, with handles that are kept."""

    resends = False

    def __init__(self, loop: EventLoop, options: ClientOptions) -> None:
        self._loop = loop
        self._options = options
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._on_socket)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._on_timer)
        self._multi.setopt(pycurl.M_MAXCONNECTS, options.max_connections)
        self._idle: list[tuple[pycurl.Curl, Transfer]] = []
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
        handle, transfer = self._idle.pop() if self._idle else make_handle(self._options)
        transfer.clear()
        prepare(handle, request, timeout, fresh=fresh)
        if on_data is not None:
            transfer.on_data = lambda data: on_data(transfer, data)
        self._active[handle] = transfer, done
        self._multi.add_handle(handle)
        if self._watch_timer is None:
            self._watch_later()
        return transfer

    def close(self) -> None:
        """End everything; requests in flight fail with `OutcomeUnknown`."""
        self._closed = True
        for handle in list(self._active):
            self._end(handle, lost("the client was closed"))
        for handle, _ in self._idle:
            handle.close()
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
            transfer.clear()
            self._idle.append((handle, transfer))
