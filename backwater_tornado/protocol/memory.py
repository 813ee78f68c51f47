"""What a server remembers: the nonces it has seen, and the calls it has run.

From the first comes that a captured request is refused when it is sent again, from the second that a call runs at most
once however often its caller tries. `CallMemory` is the contract; `InProcessMemory` keeps it in this process, and
loses it with the process. (A request captured before a restart can then be played once more while its signature
lasts; where that matters, or where several processes serve one address, the memory has to live outside of them.)

What the memory is told:

* A client has a *stream*, a random name, and counts in it: its nonces are `<stream>.<number>`, and so are its calls.
* Every call says below which number all calls of its stream are *settled*: answered, or given up for good. Their
  records are dropped then, and a straggler among them is refused. So what is kept is what is outstanding.
* `expires`, for a nonce: the last moment at which this signature would still be accepted. For a call: the moment from
  which on nothing that was signed before `now` would be accepted any more, or later. Both from the caller's clock.

Rules:

* **Forgetting is never silent.** Nothing is evicted for want of room: a full memory refuses. Only `sweep` forgets
  (`admit` and `begin` sweep when there is no room), and what it forgets is covered by one of these:

  - A nonce goes when every signature of its stream that was accepted has expired, so a repetition is refused as stale
    before it gets here. Should the clock be set back, those signatures become fresh again; therefore the latest
    expiry of all that was forgotten is kept, and a nonce of a stream unknown by now is not admitted below it.
  - The settled mark of a stream goes once its latest call has expired. A straggler was signed before that call was,
    hence it is stale too. Here as well the latest expiry forgotten is kept, and until the clock is past it (it always
    is, unless it was set back) no call begins that is not on record.
  - A record that nobody settled goes when it expires. The moment it began is kept as the end of what the memory
    *reaches back* to: a later attempt whose predecessor may be as old as that gets OutcomeUnknown, never a second run.

* A call that runs is never forgotten, however long it takes. Its answer is kept after its end as long as it would have
  been kept after its beginning.
* All limits and all marks are per key: one key can never make the calls of another fail.
* A nonce without a stream (of another make of client) is taken as a stream of its own.

This module knows no clock, no server and no file.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, fields
from hashlib import blake2b
from typing import Final, Protocol

import msgspec

from backwater_tornado.errors import (
    AlreadySettled,
    IdempotencyConflict,
    InvalidOption,
    MemoryFull,
    OutcomeUnknown,
    Replayed,
    RequestMalformed,
)

#: The length of a stream's name. A nonce of another shape is not counted in a stream: a foreign client's
#: `0.8471290` would otherwise pass for number 8471290 of a stream `0`, and every smaller one for a repetition.
STREAM_LENGTH: Final = 11

#: How far behind the highest number of its stream a nonce may arrive.
WINDOW: Final = 4096

#: The largest number of a call or a nonce, so that it fits anywhere.
MAX_NUMBER: Final = 2**63 - 1

_WINDOW_MASK: Final = (1 << WINDOW) - 1
_LONGEST_NAME: Final = 64  # in characters
#: Seconds between two sweeps for want of room, so that a full memory is not a slow one as well.
SWEEP_PAUSE: Final = 1.0


class CallId(msgspec.Struct, frozen=True):
    """Which call of which client a request belongs to.

    Attributes:
        stream, number: the call; the same on every attempt.
        settled: every call of the stream with a smaller number is settled.
        age: at most how many seconds ago an earlier attempt may have reached the server; None when there was none.
            It should include the time that the request itself may have spent on its way.
    """

    stream: str
    number: int
    settled: int = 0
    age: float | None = None

    def __post_init__(self) -> None:
        if not (0 <= self.number <= MAX_NUMBER and 0 <= self.settled <= MAX_NUMBER):
            raise RequestMalformed("The number of the call is out of range")
        if self.age is not None and not self.age >= 0:
            raise RequestMalformed("The age of the call is out of range")


class Begin(enum.Enum):
    """What to do with a call that has just arrived."""

    RUN = enum.auto()  #: it is new: run it, then finish or abandon it
    WAIT = enum.auto()  #: an earlier attempt is running: ask again when that may be over


class Recorded(msgspec.Struct, frozen=True):
    """The encoded answer of a call: a value, or problem details."""

    ok: bool
    status: int
    media_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class MemoryLimits:
    """How much is remembered for each key."""

    streams: int = 100_000  #: clients whose nonces are known, and clients whose calls are
    records: int = 1_000_000  #: calls running, or finished and not settled
    answer_bytes: int = 256 * 1024 * 1024  #: bodies of answers; what is running may go beyond it

    def __post_init__(self) -> None:
        for option in fields(self):
            limit = getattr(self, option.name)
            if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
                raise InvalidOption(f"{option.name} must be a whole number above 0")


DEFAULT_LIMITS: Final = MemoryLimits()


class CallMemory(Protocol):
    """The contract. `now` and `expires` are Unix seconds."""

    @property
    def started(self) -> float:
        """From when on it remembers."""
        ...

    def admit(self, key_id: str, nonce: str, expires: float, now: float) -> None:
        """Take note of a nonce.

        Raises: Replayed, MemoryFull.
        """

    def begin(self, key_id: str, call: CallId, digest: bytes, expires: float, now: float) -> Begin | Recorded:
        """What to do with a call; on RUN it is on record as running. `digest` stands for what is called.

        Raises: IdempotencyConflict, AlreadySettled, OutcomeUnknown, MemoryFull.
        """

    def finish(self, key_id: str, call: CallId, answer: Recorded, now: float) -> None:
        """Keep the answer of a running call; of any other call, nothing."""

    def abandon(self, key_id: str, call: CallId) -> None:
        """Forget a running call, since the function was not started after all."""

    def sweep(self, now: float) -> None:
        """Forget what has expired."""

    def close(self) -> None:
        """Give back what the memory holds open."""


# What every implementation shares ------------------------------------------------------------------------------------


def short_name(name: str) -> str:
    """The name, or a hash of it if it is long or odd: names come from the peers, and are kept."""
    if len(name) <= _LONGEST_NAME and name.isascii():
        return name
    return "#" + blake2b(name.encode("utf-8", "surrogatepass"), digest_size=32).hexdigest()


def split_nonce(nonce: str) -> tuple[str, int]:
    """The stream and the number of a nonce; one of another shape is number 0 of a stream of its own."""
    if nonce[STREAM_LENGTH : STREAM_LENGTH + 1] == ".":
        digits = nonce[STREAM_LENGTH + 1 :]
        if len(digits) <= 18 and digits.isdecimal() and digits.isascii():
            return nonce[:STREAM_LENGTH], int(digits)
    return short_name(nonce), 0


def slide(highest: int, seen: int, number: int) -> tuple[int, int]:
    """The window of a stream after a nonce: the highest number, and a bit for each of the WINDOW numbers up to it.

    Raises: Replayed when the number was seen, or is too far behind to tell.
    """
    ahead = number - highest
    if ahead > 0:
        # Never shifted by more than the window: the peer chooses the number.
        return number, (seen << ahead & _WINDOW_MASK | 1) if ahead < WINDOW else 1
    if ahead <= -WINDOW:
        raise Replayed("The request is too far behind others of its client to tell it from a repetition")
    bit = 1 << -ahead
    if seen & bit:
        raise Replayed
    return highest, seen | bit


def forgotten_nonce() -> Replayed:
    """What a nonce gets that may be among those forgotten."""
    return Replayed("The request is too old to tell it from a repetition")


def check_new(call: CallId, now: float, settled: int, reach: float, forgotten: float) -> None:
    """Whether a call without a record is known never to have run.

    Args:
        call: the call.
        now: the moment.
        settled: the stream's mark.
        reach: the memory knows all calls that began later.
        forgotten: the latest expiry of a call or stream that was forgotten.

    Raises: AlreadySettled, OutcomeUnknown, MemoryFull.
    """
    if call.number < settled:
        raise AlreadySettled
    if call.age is not None and reach >= now - call.age:
        raise OutcomeUnknown("An earlier attempt may have run before the server's memory begins")
    if now <= forgotten:
        full = MemoryFull("The server's clock was set back; it cannot tell new calls from old ones yet")
        full.retry_after = forgotten - now
        raise full


def shortage(limits: MemoryLimits, streams: int, records: int, answer_bytes: int) -> str:
    """Why there is no room for one more, or an empty text."""
    if streams >= limits.streams:
        return "Too many clients of this key at the same time"
    if records >= limits.records:
        return "Too many calls of this key are running or not settled"
    if answer_bytes >= limits.answer_bytes:
        return "Too many bytes of answers to this key are not settled"
    return ""


# In this process -----------------------------------------------------------------------------------------------------


class _Window:
    __slots__ = ("expires", "highest", "seen")

    def __init__(self, highest: int, expires: float) -> None:
        self.highest = highest
        self.seen = 1
        self.expires = expires


class _Record:
    __slots__ = ("answer", "begun", "digest", "expires", "kept")

    def __init__(self, digest: bytes, begun: float, expires: float) -> None:
        self.digest = digest
        self.begun = begun
        self.expires = expires
        self.kept = expires - begun
        self.answer: Recorded | None = None  # None: it runs


class _Stream:
    __slots__ = ("expires", "records", "settled")

    def __init__(self, settled: int, expires: float) -> None:
        self.settled = settled
        self.expires = expires
        self.records: dict[int, _Record] = {}


@dataclass(slots=True)
class _Of:
    """All that is remembered of one key."""

    reach: float
    windows: dict[str, _Window] = field(default_factory=dict)
    streams: dict[str, _Stream] = field(default_factory=dict)
    records: int = 0
    answer_bytes: int = 0
    nonces_forgotten: float = float("-inf")
    calls_forgotten: float = float("-inf")
    swept: float = float("-inf")


class InProcessMemory:
    """The memory of one process; to be used by one thread at a time.

    Args:
        started: from when on it remembers.
        limits: how much it remembers for each key.
    """

    def __init__(self, started: float, limits: MemoryLimits = DEFAULT_LIMITS) -> None:
        self._started = started
        self._limits = limits
        self._keys: dict[str, _Of] = {}  # as many as the ring has had; never dropped, for their marks

    @property
    def started(self) -> float:
        """See `CallMemory.started`."""
        return self._started

    def _of(self, key_id: str) -> _Of:
        return self._keys.setdefault(key_id, _Of(reach=self._started))

    def admit(self, key_id: str, nonce: str, expires: float, now: float) -> None:
        """See `CallMemory.admit`."""
        of = self._keys.get(key_id) or self._of(key_id)
        stream, number = split_nonce(nonce)
        window = of.windows.get(stream)
        if window is None:
            if expires <= of.nonces_forgotten:
                raise forgotten_nonce()
            if len(of.windows) >= self._limits.streams:
                _sweep_for_room(of, now)
                if reason := shortage(self._limits, len(of.windows), 0, 0):
                    raise MemoryFull(reason)
            of.windows[stream] = _Window(number, expires)
            return
        window.highest, window.seen = slide(window.highest, window.seen, number)
        if expires > window.expires:  # noqa: PLR1730  (a tenth of all that admit takes)
            window.expires = expires

    def begin(self, key_id: str, call: CallId, digest: bytes, expires: float, now: float) -> Begin | Recorded:
        """See `CallMemory.begin`."""
        of = self._keys.get(key_id) or self._of(key_id)
        name = short_name(call.stream)
        expires = max(expires, now)  # so that no sweep on the way drops what this call stands on
        stream = of.streams.get(name)
        settled = call.settled
        if stream is not None:
            if settled > stream.settled:
                _settle(of, stream, settled)
            settled = stream.settled
            stream.expires = max(stream.expires, expires)
            record = stream.records.get(call.number)
            if record is not None:
                if record.digest != digest:
                    raise IdempotencyConflict
                record.expires = max(record.expires, expires)
                return record.answer or Begin.WAIT
        check_new(call, now, settled, of.reach, of.calls_forgotten)
        self._make_room(of, stream is None, now)
        if stream is None:
            stream = of.streams[name] = _Stream(settled, expires)
        stream.records[call.number] = _Record(digest, now, expires)
        of.records += 1
        return Begin.RUN

    def finish(self, key_id: str, call: CallId, answer: Recorded, now: float) -> None:
        """See `CallMemory.finish`."""
        running = self._running(key_id, call)
        if running is None:
            return
        of, stream, record = running
        if call.number < stream.settled:
            _drop(of, stream, call.number)
            return
        record.answer = answer
        record.expires = max(record.expires, now + record.kept)
        of.answer_bytes += len(answer.body)

    def abandon(self, key_id: str, call: CallId) -> None:
        """See `CallMemory.abandon`."""
        running = self._running(key_id, call)
        if running is not None:
            of, stream, _ = running
            _drop(of, stream, call.number)

    def sweep(self, now: float) -> None:
        """See `CallMemory.sweep`."""
        for of in self._keys.values():
            _sweep(of, now)

    def close(self) -> None:
        """See `CallMemory.close`: nothing is open."""

    def _running(self, key_id: str, call: CallId) -> tuple[_Of, _Stream, _Record] | None:
        of = self._keys.get(key_id)
        stream = of.streams.get(short_name(call.stream)) if of else None
        record = stream.records.get(call.number) if stream else None
        if of is None or stream is None or record is None or record.answer is not None:
            return None
        return of, stream, record

    def _make_room(self, of: _Of, for_stream: bool, now: float) -> None:
        if self._shortage(of, for_stream):
            _sweep_for_room(of, now)
            if reason := self._shortage(of, for_stream):
                raise MemoryFull(reason)

    def _shortage(self, of: _Of, for_stream: bool) -> str:
        return shortage(self._limits, len(of.streams) if for_stream else 0, of.records, of.answer_bytes)


def _settle(of: _Of, stream: _Stream, settled: int) -> None:
    numbers = range(stream.settled, settled)
    # A mark that rises by one must not cost a walk over all that is outstanding, nor a jump of it one over all numbers.
    for number in numbers if len(numbers) < len(stream.records) else list(stream.records):
        record = stream.records.get(number)
        if record is not None and record.answer is not None and number < settled:
            _drop(of, stream, number)
    stream.settled = settled


def _drop(of: _Of, stream: _Stream, number: int) -> None:
    record = stream.records.pop(number)
    of.records -= 1
    if record.answer is not None:
        of.answer_bytes -= len(record.answer.body)


def _sweep_for_room(of: _Of, now: float) -> None:
    if abs(now - of.swept) >= SWEEP_PAUSE:  # abs: the clock may have been set back
        _sweep(of, now)


def _sweep(of: _Of, now: float) -> None:
    of.swept = now
    for name, window in [(name, window) for name, window in of.windows.items() if window.expires < now]:
        del of.windows[name]
        of.nonces_forgotten = max(of.nonces_forgotten, window.expires)
    for name, stream in list(of.streams.items()):
        expired = [
            (number, record)
            for number, record in stream.records.items()
            if record.expires < now and record.answer is not None
        ]
        for number, record in expired:
            _drop(of, stream, number)
            of.reach = max(of.reach, record.begun)
            of.calls_forgotten = max(of.calls_forgotten, record.expires)
        if stream.expires < now and not stream.records:
            del of.streams[name]
            of.calls_forgotten = max(of.calls_forgotten, stream.expires)
