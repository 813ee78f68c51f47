"""Random histories of calls and nonces, against a model that forgets nothing it is not told to."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from backwater_tornado.errors import (
    AlreadySettled,
    BackwaterError,
    IdempotencyConflict,
    MemoryFull,
    OutcomeUnknown,
    Replayed,
)
from backwater_tornado.memory_sqlite import SqliteMemory
from backwater_tornado.protocol.memory import (
    WINDOW,
    Begin,
    CallId,
    CallMemory,
    InProcessMemory,
    MemoryLimits,
    Recorded,
    slide,
)

START = 1_000.0
LIFE = 50.0
LIMITS = MemoryLimits(streams=3, records=6, answer_bytes=12)

KEYS = st.sampled_from(["k", "l"])
STREAMS = st.sampled_from(["a" * 11, "b" * 11, "foreign", "another", "one more"])
NUMBERS = st.integers(0, 8)
NONCES = st.one_of(st.integers(0, 6), st.sampled_from([WINDOW - 1, WINDOW, WINDOW + 1, 3 * WINDOW, 10**17]))
AGES = st.none() | st.integers(0, 200).map(float)


@dataclass
class Call:
    digest: bytes
    begun: float
    expires: float
    answer: Recorded | None = None
    ended: float = 0.0


@dataclass
class Of:
    """One key, as the contract tells it, with plain lists and no thought of cost."""

    seen: dict[str, dict[int, float]] = field(default_factory=dict)
    calls: dict[tuple[str, int], Call] = field(default_factory=dict)
    settled: dict[str, int] = field(default_factory=dict)
    latest: dict[str, float] = field(default_factory=dict)
    reach: float = START
    nonces_gone: float = 0.0
    calls_gone: float = 0.0


class Model:
    def __init__(self) -> None:
        self.keys = {"k": Of(), "l": Of()}

    def admit(self, key: str, stream: str, number: int, expires: float) -> object:
        of = self.keys[key]
        seen = of.seen.get(stream)
        if seen is None:
            if expires <= of.nonces_gone:
                return Replayed
            if len(of.seen) >= LIMITS.streams:
                return MemoryFull
        elif number in seen or number <= max(seen) - WINDOW:
            return Replayed
        of.seen.setdefault(stream, {})[number] = expires
        return None

    def begin(self, key: str, call: CallId, digest: bytes, expires: float, now: float) -> object:
        of = self.keys[key]
        known = call.stream in of.settled
        settled = max(of.settled.get(call.stream, 0), call.settled)
        if known:
            of.settled[call.stream] = settled
            of.latest[call.stream] = max(of.latest[call.stream], expires)
            for (stream, number), record in list(of.calls.items()):
                if stream == call.stream and number < settled and record.answer:
                    del of.calls[stream, number]
        record = of.calls.get((call.stream, call.number))
        if record:
            if record.digest != digest:
                return IdempotencyConflict
            record.expires = max(record.expires, expires)
            return record.answer or Begin.WAIT
        if call.number < settled:
            return AlreadySettled
        if call.age is not None and of.reach >= now - call.age:
            return OutcomeUnknown
        if now <= of.calls_gone or self.full(of, known):
            return MemoryFull
        of.settled[call.stream] = settled
        of.latest[call.stream] = max(of.latest.get(call.stream, 0.0), expires)
        of.calls[call.stream, call.number] = Call(digest, now, expires)
        return Begin.RUN

    def full(self, of: Of, known: bool) -> bool:
        bodies = sum(len(call.answer.body) for call in of.calls.values() if call.answer)
        return (
            (not known and len(of.settled) >= LIMITS.streams)
            or len(of.calls) >= LIMITS.records
            or bodies >= LIMITS.answer_bytes
        )

    def end(self, key: str, call: CallId, answer: Recorded | None, now: float) -> None:
        of = self.keys[key]
        record = of.calls.get((call.stream, call.number))
        if record is None or record.answer:
            return
        if answer is None or call.number < of.settled[call.stream]:
            del of.calls[call.stream, call.number]
            return
        record.answer = answer
        record.expires = max(record.expires, now + LIFE)

    def sweep(self, now: float) -> None:
        for of in self.keys.values():
            for stream, seen in list(of.seen.items()):
                if max(seen.values()) < now:
                    of.nonces_gone = max(of.nonces_gone, *seen.values())
                    del of.seen[stream]
            for this, call in list(of.calls.items()):
                if call.answer and call.expires < now:
                    of.reach = max(of.reach, call.begun)
                    of.calls_gone = max(of.calls_gone, call.expires)
                    del of.calls[this]
            for stream, latest in list(of.latest.items()):
                if latest < now and not any(name == stream for name, _ in of.calls):
                    of.calls_gone = max(of.calls_gone, latest)
                    del of.latest[stream], of.settled[stream]


class Histories(RuleBasedStateMachine):
    """Every operation is done to the memory and to the model, which have to agree."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.now = START + 1
        self.memory = self.open()

    def open(self) -> CallMemory:
        return InProcessMemory(START, LIMITS)

    def teardown(self) -> None:
        self.memory.close()

    @rule(seconds=st.sampled_from([0.25, 1.0, 20.0, 49.0, 51.0, 120.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(seconds=st.sampled_from([0.25, 10.0, 60.0]))
    def the_clock_is_set_back(self, seconds: float) -> None:
        self.now = max(START + 1, self.now - seconds)

    @rule()
    def sweep(self) -> None:
        self.memory.sweep(self.now)
        self.model.sweep(self.now)

    @rule(key=KEYS, stream=STREAMS, number=NONCES, life=st.sampled_from([5.0, LIFE]))
    def admit(self, key: str, stream: str, number: int, life: float) -> None:
        self.sweep()  # a full memory sweeps by itself; so that the model need not know when
        nonce = f"{stream}.{number}"
        parts = (stream, number) if len(stream) == 11 else (nonce, 0)
        expected = self.model.admit(key, *parts, self.now + life)
        got: object = None
        try:
            self.memory.admit(key, nonce, self.now + life, self.now)
        except BackwaterError as exc:
            got = type(exc)
        assert got == expected

    @rule(
        key=KEYS,
        stream=STREAMS,
        number=NUMBERS,
        settled=st.just(0) | NUMBERS,
        age=AGES,
        digest=st.sampled_from([b"x", b"x", b"x", b"y"]),
    )
    def begin(self, key: str, stream: str, number: int, settled: int, age: float | None, digest: bytes) -> None:
        self.sweep()
        call = CallId(stream, number, settled, age)
        expected = self.model.begin(key, call, digest, self.now + LIFE, self.now)
        try:
            got: object = self.memory.begin(key, call, digest, self.now + LIFE, self.now)
        except BackwaterError as exc:
            got = type(exc)
        assert got == expected

    @precondition(lambda self: any(of.calls for of in self.model.keys.values()))
    @rule(data=st.data(), body=st.none() | st.binary(max_size=5))
    def end(self, data: st.DataObject, body: bytes | None) -> None:
        calls = [(key, *call) for key, of in self.model.keys.items() for call in of.calls]
        key, stream, number = data.draw(st.sampled_from(calls))
        call = CallId(stream, number)
        if body is None:
            self.model.end(key, call, None, self.now)
            self.memory.abandon(key, call)
        else:
            answer = Recorded(len(body) % 2 == 0, 200, "x", body)
            self.model.end(key, call, answer, self.now)
            self.memory.finish(key, call, answer, self.now)


class HistoriesInAFile(Histories):
    """The same, on SQLite; half of the operations go through another connection."""

    def open(self) -> CallMemory:
        self.folder = Path(tempfile.mkdtemp())
        self.other: CallMemory = SqliteMemory(self.folder / "memory.db", START, LIMITS)
        return SqliteMemory(self.folder / "memory.db", START, LIMITS)

    @rule()
    def the_other_process_goes_on(self) -> None:
        self.memory, self.other = self.other, self.memory

    def teardown(self) -> None:
        self.memory.close()
        self.other.close()
        shutil.rmtree(self.folder)


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=150, stateful_step_count=60)
TestHistoriesInAFile = HistoriesInAFile.TestCase
TestHistoriesInAFile.settings = settings(max_examples=30, stateful_step_count=60)


@given(
    st.lists(
        st.integers(0, 20)
        | st.integers(0, 3 * WINDOW)
        | st.integers(WINDOW - 2, WINDOW + 2)
        | st.integers(0, 10**18 - 1),
        min_size=1,
        max_size=60,
    )
)
def test_the_window_admits_each_number_at_most_once_and_all_within_it(numbers: list[int]) -> None:
    admitted = {numbers[0]}
    highest, seen = numbers[0], 1
    for number in numbers[1:]:
        fresh = number not in admitted and number > max(admitted) - WINDOW
        try:
            highest, seen = slide(highest, seen, number)
            assert fresh
            admitted.add(number)
        except Replayed:
            assert not fresh
        assert highest == max(admitted)
        assert seen.bit_length() <= WINDOW


@given(
    st.lists(
        st.tuples(
            st.integers(0, 5),  # which call
            st.floats(0, 40),  # how long its attempt is on its way
            st.sampled_from(["begin", "finish", "sweep", "restart"]),
        ),
        max_size=60,
    )
)
def test_no_call_runs_twice_whatever_happens_between_its_attempts(
    events: list[tuple[int, float, str]],
) -> None:
    """The promise itself: attempts with the ages they have, restarts that lose everything, sweeps."""
    now = START
    memory = InProcessMemory(START)
    first_sent: dict[int, float] = {}
    runs: dict[int, int] = {}
    for number, delay, event in events:
        now += delay
        if event == "finish":
            memory.finish("k", CallId("s", number), Recorded(True, 200, "", b""), now)
        elif event == "sweep":
            memory.sweep(now)
        elif event == "restart":
            memory = InProcessMemory(now)
        else:
            # An attempt; any but the first says how long ago the first was sent.
            age = now - first_sent[number] if number in first_sent else None
            first_sent.setdefault(number, now)
            try:
                if memory.begin("k", CallId("s", number, age=age), b"", now + LIFE, now) is Begin.RUN:
                    runs[number] = runs.get(number, 0) + 1
            except BackwaterError:
                pass
    assert all(count == 1 for count in runs.values())
