"""Sending with a Tornado `AsyncHTTPClient` that the user has configured, in place of our own engine.

It costs two to three times the CPU of `curl.MultiEngine` and cannot tell a request that was never sent from one whose
answer was lost, so every failure counts as `OutcomeUnknown` (which is safe: the server's memory decides). And where a
kept connection dies without an answer, Tornado's curl sends the request again by itself (`resends`): a call that must
not arrive twice has to be `fresh`.

Rule: the same face as `curl.MultiEngine`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.httpclient import HTTPResponse as TornadoResponse
from tornado.httputil import HTTPHeaders

from .errors import CallFailed
from .options import ClientOptions
from .protocol.calling import lost
from .protocol.messages import HttpRequest, HttpResponse


class Received:
    """A response on its way, or complete."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._response: HttpResponse | None = None
        self.received = 0

    def add_header(self, line: str) -> None:
        """A line of the head."""
        if line.startswith("HTTP/"):
            self._lines.clear()
        self._lines.append(line)

    @property
    def has_head(self) -> bool:
        """Whether the final head has come to its end; to curl, one that was cut has ended, too."""
        return bool(self._lines) and not self._lines[-1].strip() and self._status() >= 200

    def complete(self, response: TornadoResponse) -> None:
        """The whole response."""
        self._response = HttpResponse(response.code, _fields(response.headers), response.body or b"")
        self.received = self.received or len(self._response.body)

    def head(self) -> HttpResponse:
        """Status and fields."""
        if self._response is not None:
            return self._response
        return HttpResponse(self._status(), _fields(HTTPHeaders.parse("".join(self._lines[1:]))), b"")

    def response(self) -> HttpResponse:
        """The whole response."""
        return self.head()

    def _status(self) -> int:
        words = self._lines[0].split(None, 2) if self._lines else []
        return int(words[1]) if len(words) > 1 and words[1].isdecimal() else 0


def _fields(headers: HTTPHeaders) -> dict[str, str]:
    return {name.lower(): value.strip() for name, value in headers.items()}


class _Parts:
    """Hands on the body as it comes, though never before its head.

    Tornado's clients do not promise that order: the curl client of 6.6 may give body that came with the head first.
    """

    def __init__(self, received: Received, on_data: Callable[[Received, bytes], None] | None) -> None:
        self._received = received
        self._on_data = on_data
        self._waiting: list[bytes] = []
        self.failure: CallFailed | None = None

    def take_line(self, line: str) -> None:
        """A line of the head."""
        self._received.add_header(line)
        self._hand_on()

    def take(self, data: bytes) -> None:
        """A part of the body."""
        self._received.received += len(data)
        self._waiting.append(data)
        self._hand_on()

    def fail(self, error: CallFailed) -> None:
        """Only the first failure counts, and ends the handing on."""
        self.failure = self.failure or error

    def _hand_on(self) -> None:
        if not self._received.has_head:
            return
        due, self._waiting = self._waiting, []
        try:
            for data in due:
                if self._on_data is not None and self.failure is None:
                    self._on_data(self._received, data)
        except CallFailed as error:
            self.fail(error)


class TornadoEngine:
    """See the head of this module."""

    resends = True

    def __init__(self, client: AsyncHTTPClient, options: ClientOptions) -> None:
        self._client = client
        self._options = options
        self._tasks: set[asyncio.Task[None]] = set()

    def send(
        self,
        request: HttpRequest,
        timeout: float,
        done: Callable[[Received, CallFailed | None], None],
        *,
        fresh: bool = False,
        on_data: Callable[[Received, bytes], None] | None = None,
    ) -> None:
        """Start a request; `done` is called with the response, or what went wrong."""
        task = asyncio.get_running_loop().create_task(self._fetch(request, timeout, done, on_data, fresh))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _fetch(
        self,
        request: HttpRequest,
        timeout: float,
        done: Callable[[Received, CallFailed | None], None],
        on_data: Callable[[Received, bytes], None] | None,
        fresh: bool,
    ) -> None:
        received = Received()
        parts = _Parts(received, on_data)
        wanted = HTTPRequest(
            request.url,
            method="POST",
            headers=HTTPHeaders(dict(request.fields)),
            body=request.body,
            connect_timeout=self._options.connect_timeout,
            request_timeout=timeout,
            follow_redirects=False,
            decompress_response=False,
            ca_certs=self._options.ca_file,
            client_cert=self._options.client_cert,
            client_key=self._options.client_key,
            header_callback=parts.take_line,
            streaming_callback=parts.take if on_data is not None else None,
            # Of Tornado's two clients only the one on curl keeps connections, and looks at this.
            prepare_curl_callback=lambda curl: curl.setopt(curl.FRESH_CONNECT, int(fresh)),
        )
        try:
            # Tornado's own limit leaves out the time in its queue.
            response = await asyncio.wait_for(self._client.fetch(wanted, raise_error=False), timeout)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - whatever a client of the user's raises
            done(received, lost(f"the HTTP client failed: {type(error).__name__} {error}"))
            return
        if response.code == 599:
            parts.fail(lost(f"the HTTP client failed: {response.error}"))
        elif not received.has_head:
            parts.fail(lost("the connection was closed within the head of the answer"))
        received.complete(response)
        done(received, parts.failure)

    def close(self) -> None:
        """End the requests in flight; the HTTP client itself is its owner's."""
        for task in self._tasks:
            task.cancel()

    def abandon(self) -> None:
        """Nothing to do: the HTTP client is its owner's."""
