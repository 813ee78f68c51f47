"""What the blocking and the awaitable client share: keys, numbers, endpoints, counters, and every verb as a generator.

Rule: no socket and no waiting here; the clients perform what the generators yield (`driving`). Safe across threads.
"""

from __future__ import annotations

import contextlib
import logging
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from threading import Lock
from typing import Any

import msgspec

from .context import current_call
from .driving import Flow
from .errors import (
    BodyTooLarge,
    CallFailed,
    InvalidEndpoint,
    InvalidOption,
    RemoteError,
    ResponseUndecodable,
)
from .exposure import Readings
from .options import CallOptions, ClientOptions, Endpoint, Limits, make_options
from .protocol.breakers import Breaker, State
from .protocol.calling import Answer, Attempt, Outgoing, Target, call_flow
from .protocol.codec import codec_for
from .protocol.erlang.sealing import ErlangSealer
from .protocol.keys import Key, KeyRing
from .protocol.messages import HttpResponse
from .protocol.problems import original_exception
from .protocol.sealing import CodecSealer, Sealed, Sealer, Stamp, check_names, clock_offset
from .protocol.signatures import Parameters
from .streams import Stream

log = logging.getLogger("backwater.client")


@dataclass(slots=True)
class Counters:
    """What a client has done since it was made; bytes are those of bodies."""

    calls: int = 0
    failures: int = 0
    requests: int = 0
    retries: int = 0
    bytes_out: int = 0
    bytes_in: int = 0


class Session:
    """The state of one client."""

    def __init__(self, endpoints: object, secret: object, given: dict[str, Any]) -> None:
        limits = {name: given.pop(name) for name in list(given) if name in Limits.__slots__}
        self.options = make_options(ClientOptions, {**given, "limits": make_options(Limits, limits)})
        self.keys = KeyRing.of(secret)  # type: ignore[arg-type]
        self.stream = Stream()
        wires, self.targets = _read_endpoints(endpoints, self.options.wire)
        if len(wires) > 1:
            raise InvalidEndpoint("the endpoints of one client speak one wire: all of them erlang+http(s)://, or none")
        self.sealer = _SEALERS[wires.pop()](self.options)
        self.calls_per_request = self.sealer.calls_per_request
        self.closed = False
        self.counters = Counters()
        self._lock = Lock()

    def renew(self) -> None:
        """In a child process: numbers and locks of its own."""
        self.stream.renew()
        self._lock = Lock()

    def count_call(self) -> None:
        """A call was begun."""
        with self._lock:
            self.counters.calls += 1

    def count_failure(self) -> None:
        """A call ended with an error."""
        with self._lock:
            self.counters.failures += 1

    def count_request(self, size: int, retries: int) -> None:
        """A request was sealed, with a body of `size` bytes and so many calls that were tried before."""
        with self._lock:
            self.counters.requests += 1
            self.counters.retries += retries
            self.counters.bytes_out += size

    def count_response(self, size: int) -> None:
        """A response came, or a part of one."""
        with self._lock:
            self.counters.bytes_in += size

    def counted(self) -> dict[str, int]:
        """The counters as they are now."""
        with self._lock:
            return asdict(self.counters)

    def endpoints(self) -> list[dict[str, Any]]:
        """What is known of each endpoint."""
        now = time.monotonic()
        return [
            {
                "url": target.endpoint.url,
                "state": target.breaker.state.value,
                "failures": target.breaker.failures,
                "retry_in": max(0.0, target.breaker.retry_at - now),
                "clock_offset": target.offset,
                "longest_wait": target.patience.limit,
            }
            for target in self.targets
        ]

    def patience(self, wait: float) -> float:
        """How long a poll should wait, that would like to wait so long, at the endpoint that is asked next."""
        closed = (target for target in self.targets if target.breaker.state is State.CLOSED)
        return next(closed, self.targets[0]).patience.allow(wait, time.monotonic())

    # Verbs -----------------------------------------------------------------------------------------------------------

    def calling(
        self, module: str, function: str, args: Sequence[Any], kwargs: dict[str, Any], own: CallOptions
    ) -> Flow[Any]:
        """One call, from its arguments to its result or error."""
        call = self._begin(module, function, args, kwargs, own)
        try:
            flow = call_flow(call, self.targets, self.options, time.monotonic, random.random, self.sealer.problem)
            answer = yield from flow
            value = self.sealer.decode(answer)
            return value if own.returns is None else _convert(value, own.returns, self.sealer.readings)
        except RemoteError as error:
            self.count_failure()
            original = original_exception(error, self.options.exceptions)
            if self.options.rethrow_remote_exceptions and original is not None:
                raise original from error
            raise
        except CallFailed:
            self.count_failure()
            raise
        finally:
            self.stream.settle(call.number)

    def _begin(
        self, module: str, function: str, args: Sequence[Any], kwargs: dict[str, Any], own: CallOptions
    ) -> Outgoing:
        check_names(module, function)
        arguments = self.sealer.encode_arguments(args, kwargs)
        limit = self.options.limits.max_encoded_args_size
        if len(arguments) > limit:
            raise BodyTooLarge(f"the encoded arguments have {len(arguments)} bytes; max_encoded_args_size is {limit}")
        timeout = self.options.call_timeout if own.timeout is None else own.timeout
        deadline = time.monotonic() + timeout
        traceparent = own.traceparent
        serving = current_call()
        if serving is not None:
            deadline = min(deadline, serving.deadline or deadline)
            traceparent = traceparent or serving.traceparent
        self.count_call()
        call = Outgoing(self.stream.begin(), module, function, arguments, deadline, own.idempotent, traceparent)
        call.arity, call.waits = len(args), own.waits
        call.repeatable = self.sealer.remembered or own.idempotent
        return call

    # One request -----------------------------------------------------------------------------------------------------

    def seal(self, attempts: Sequence[Attempt]) -> Sealed:
        """A signed request for these calls, all to the same target."""
        stamp = Stamp(*self.stream.draw(), time.monotonic(), time.time())
        key = self._key_for(attempts[0].call, stamp.unix)
        for attempt in attempts:
            attempt.call.key_id = key.id
        retries = sum(attempt.fresh for attempt in attempts)
        sealed = self.sealer.seal(key, attempts, stamp)
        self.count_request(len(sealed.request.body), retries)
        return sealed

    def _key_for(self, call: Outgoing, unix: float) -> Key:
        """The newest valid key; for another attempt of a call the key of the first, also over a rotation."""
        signed = None if call.key_id is None else self.keys.get(call.key_id)
        return self.keys.signing_key(unix) if signed is None else signed

    def open(self, sealed: Sealed, target: Target, response: HttpResponse) -> Answer:
        """The verified answer; what it says of the server's clock is kept."""
        answer, parameters = self.sealer.open(sealed, response)
        if parameters is not None:
            self.note_clock(target, parameters)
        return answer

    @staticmethod
    def note_clock(target: Target, parameters: Parameters) -> None:
        """Remember how far the server's clock is from ours."""
        target.offset = clock_offset(parameters, time.time())


def _codec_sealer(options: ClientOptions) -> Sealer:
    codec = codec_for(options.media_type, unsafe=options.limits.decode_unsafe_terms)
    if codec is None:
        raise InvalidOption(f"media_type {options.media_type!r} is unknown, or needs decode_unsafe_terms")
    return CodecSealer(codec, options.limits, options.max_calls_per_request)


def _erlang_sealer(options: ClientOptions) -> Sealer:
    return ErlangSealer(options.limits, options.terms)


_SEALERS = {"backwater": _codec_sealer, "erlang": _erlang_sealer}
_ERLANG = "erlang+"


def _read_endpoints(endpoints: object, wire: str) -> tuple[set[str], list[Target]]:
    """The wires that endpoints speak, and the targets that they are."""
    wires: set[str] = set()
    targets: list[Target] = []
    for given in _listed(endpoints):
        plain = given.removeprefix(_ERLANG) if isinstance(given, str) else given
        wires.add(wire if plain == given else "erlang")
        targets.append(Target(Endpoint.parse(plain)))
    if len(targets) > 1:  # where there is no choice nothing changes, and callers hear of failures themselves
        for target in targets:
            target.breaker = Breaker(partial(_tell, target.endpoint.url))
    return wires, targets


def _tell(url: str, state: State) -> None:
    if state is State.OPEN:
        log.warning("%s fails, and is left alone for a while: calls go to others", url)
    else:
        log.info("%s answers again", url)


def _listed(endpoints: object) -> Iterable[object]:
    if isinstance(endpoints, list | set | frozenset):
        if not endpoints:
            raise InvalidEndpoint("no endpoint was given")
        return endpoints
    # A pair (host, port) is one endpoint; any other tuple is several.
    if isinstance(endpoints, tuple) and not (len(endpoints) == 2 and isinstance(endpoints[1], int)):
        return _listed(list(endpoints))
    return [endpoints]


def _convert(value: Any, wanted: Any, readings: Readings | None) -> Any:
    try:
        return msgspec.convert(value, wanted)
    except (msgspec.ValidationError, TypeError) as error:
        for other in readings(value) if readings is not None else ():
            with contextlib.suppress(msgspec.ValidationError, TypeError):
                return msgspec.convert(other, wanted)
        raise ResponseUndecodable(f"the result is not what `returns` says: {error}") from error
