"""What every memory does; one suite, run on each implementation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backwater_tornado.errors import (
    AlreadySettled,
    IdempotencyConflict,
    MemoryFull,
    OutcomeUnknown,
    Replayed,
)
from backwater_tornado.memory_sqlite import SqliteMemory
from backwater_tornado.protocol.memory import (
    STREAM_LENGTH,
    WINDOW,
    Begin,
    CallId,
    CallMemory,
    InProcessMemory,
    MemoryLimits,
    Recorded,
)

Opener = Callable[..., CallMemory]

ALICE = "a" * STREAM_LENGTH
BOB = "b" * STREAM_LENGTH
START = 1_000_000.0
LIFE = 300.0
ADD = b"add(1, 2)".ljust(32)
ANSWER = Recorded(True, 200, "application/msgpack", b"\x03")


class MemoryContract:
    """The suite; a subclass says how a memory is opened."""

    def open(self, tmp_path: Path, started: float, limits: MemoryLimits) -> CallMemory:
        raise NotImplementedError

    @pytest.fixture
    def opener(self, tmp_path: Path) -> Iterator[Opener]:
        opened = []

        def open_one(started: float = START, **limits: int) -> CallMemory:
            opened.append(self.open(tmp_path, started, MemoryLimits(**limits)))
            return opened[-1]

        yield open_one
        for memory in opened:
            memory.close()

    @pytest.fixture
    def memory(self, opener: Opener) -> CallMemory:
        return opener()

    # Nonces

    def test_a_nonce_is_admitted_once(self, memory: CallMemory) -> None:
        memory.admit("k", f"{ALICE}.1", START + LIFE, START)
        with pytest.raises(Replayed):
            memory.admit("k", f"{ALICE}.1", START + LIFE, START)

    def test_a_nonce_may_be_admitted_for_each_key_and_each_stream(self, memory: CallMemory) -> None:
        for key in ("k", "l"):
            for stream in (ALICE, BOB):
                memory.admit(key, f"{stream}.1", START + LIFE, START)
        with pytest.raises(Replayed):
            memory.admit("l", f"{BOB}.1", START + LIFE, START)

    def test_nonces_may_overtake_each_other_within_the_window(self, memory: CallMemory) -> None:
        for number in (WINDOW + 5, 6, 7, 100, WINDOW + 4, WINDOW + 6, 8):
            memory.admit("k", f"{ALICE}.{number}", START + LIFE, START)
            with pytest.raises(Replayed):
                memory.admit("k", f"{ALICE}.{number}", START + LIFE, START)

    @pytest.mark.parametrize("ahead", [1, 2, WINDOW - 1, WINDOW, WINDOW + 1, 10**17])
    def test_a_jump_of_any_length_forgets_no_nonce(self, memory: CallMemory, ahead: int) -> None:
        for number in (8, 9, 10, 10 + ahead):
            memory.admit("k", f"{ALICE}.{number}", START + LIFE, START)
        for number in (8, 9, 10, 10 + ahead):
            with pytest.raises(Replayed):
                memory.admit("k", f"{ALICE}.{number}", START + LIFE, START)

    def test_a_nonce_behind_the_window_is_refused_though_never_seen(self, memory: CallMemory) -> None:
        memory.admit("k", f"{ALICE}.{WINDOW + 10}", START + LIFE, START)
        memory.admit("k", f"{ALICE}.11", START + LIFE, START)
        with pytest.raises(Replayed, match="too far behind"):
            memory.admit("k", f"{ALICE}.10", START + LIFE, START)

    @pytest.mark.parametrize(
        "foreign",
        [
            "3f1c9c06-77a2-4b2e-9a55-2f0b9f5f0a2e",
            "0.8471290",
            "",
            f"{ALICE}.",
            f"{ALICE}.x",
            f"{ALICE}.-1",
            f"{ALICE}.1.5",
            f"{ALICE}.\u0661\u0662",
            f"{ALICE}.\u00b2",
            ALICE,
            f"{ALICE}.{10**18}",
            "\ud800",
            "long" * 10_000,
        ],
    )
    def test_a_nonce_of_another_shape_is_admitted_once(self, memory: CallMemory, foreign: str) -> None:
        memory.admit("k", f"{ALICE}.10", START + LIFE, START)
        memory.admit("k", foreign, START + LIFE, START)
        with pytest.raises(Replayed):
            memory.admit("k", foreign, START + LIFE, START)
        memory.admit("k", f"{foreign}'", START + LIFE, START)

    def test_foreign_nonces_need_no_order(self, memory: CallMemory) -> None:
        memory.admit("k", "0.8471290", START + LIFE, START)
        memory.admit("k", "0.1471290", START + LIFE, START)

    def test_nonces_are_remembered_to_the_last_moment_of_the_latest(self, memory: CallMemory) -> None:
        memory.admit("k", f"{ALICE}.1", START + LIFE, START)
        memory.admit("k", f"{ALICE}.2", START + 10, START)
        memory.sweep(START + LIFE)
        for number in (1, 2):
            with pytest.raises(Replayed):
                memory.admit("k", f"{ALICE}.{number}", START + LIFE, START + LIFE)

    def test_a_later_nonce_keeps_the_earlier_ones_remembered(self, memory: CallMemory) -> None:
        memory.admit("k", f"{ALICE}.1", START + 10, START)
        memory.admit("k", f"{ALICE}.2", START + LIFE, START)
        memory.sweep(START + 20)
        with pytest.raises(Replayed):
            memory.admit("k", f"{ALICE}.1", START + LIFE, START + 20)

    def test_a_forgotten_nonce_is_not_admitted_when_the_clock_is_set_back(self, memory: CallMemory) -> None:
        memory.admit("k", f"{ALICE}.1", START + LIFE, START)
        memory.sweep(START + LIFE + 1)
        with pytest.raises(Replayed, match="too old"):
            memory.admit("k", f"{ALICE}.1", START + LIFE, START + LIFE - 1)
        memory.admit("k", f"{ALICE}.2", START + LIFE + 0.1, START + LIFE - 1)
        memory.admit("l", f"{ALICE}.1", START + LIFE, START)  # the other key is not concerned

    def test_a_full_memory_refuses_nonces_and_forgets_none(self, opener: Opener) -> None:
        memory = opener(streams=3)
        for nonce in ("one", "two", f"{ALICE}.1"):
            memory.admit("k", nonce, START + LIFE, START)
        with pytest.raises(MemoryFull):
            memory.admit("k", "three", START + LIFE, START)
        for nonce in ("one", "two", f"{ALICE}.1"):
            with pytest.raises(Replayed):
                memory.admit("k", nonce, START + LIFE, START)
        memory.admit("k", f"{ALICE}.2", START + LIFE, START)
        memory.admit("l", "three", START + LIFE, START)

    def test_a_full_memory_makes_room_by_itself_when_nonces_have_expired(self, opener: Opener) -> None:
        memory = opener(streams=2)
        memory.admit("k", "one", START + 10, START)
        memory.admit("k", "two", START + LIFE, START)
        memory.admit("k", "three", START + LIFE, START + 10.1)
        with pytest.raises(MemoryFull):
            memory.admit("k", "four", START + LIFE, START + 12)

    def test_a_full_memory_looks_for_room_once_a_second(self, opener: Opener) -> None:
        memory = opener(streams=2)
        memory.admit("k", "one", START + 10.5, START)
        memory.admit("k", "two", START + LIFE, START)
        with pytest.raises(MemoryFull):
            memory.admit("k", "three", START + LIFE, START + 10)
        with pytest.raises(MemoryFull):
            memory.admit("k", "three", START + LIFE, START + 10.9)
        memory.admit("k", "three", START + LIFE, START + 11)

    # Calls

    def test_a_call_runs_once_and_is_answered_from_then_on(self, memory: CallMemory) -> None:
        call = CallId(ALICE, 1)
        assert memory.begin("k", call, ADD, START + LIFE, START) is Begin.RUN
        assert memory.begin("k", call, ADD, START + LIFE, START + 1) is Begin.WAIT
        memory.finish("k", call, ANSWER, START + 2)
        assert memory.begin("k", call, ADD, START + LIFE, START + 3) == ANSWER
        assert memory.begin("k", CallId(ALICE, 1, 0, 3), ADD, START + LIFE, START + 4) == ANSWER

    @pytest.mark.parametrize(
        "answer",
        [
            Recorded(False, 500, "application/problem+json", b"{}"),
            Recorded(True, 200, "", b""),
            Recorded(True, 200, "x", bytes(range(256)) * 4000),
        ],
    )
    def test_an_answer_comes_back_as_it_was(self, memory: CallMemory, answer: Recorded) -> None:
        memory.begin("k", CallId(ALICE, 1), ADD, START + LIFE, START)
        memory.finish("k", CallId(ALICE, 1), answer, START)
        assert memory.begin("k", CallId(ALICE, 1), ADD, START + LIFE, START) == answer

    def test_calls_are_told_apart_by_key_stream_and_number(self, memory: CallMemory) -> None:
        for key in ("k", "l"):
            for stream in (ALICE, BOB, "a foreign one", "long" * 10_000, "\ud800"):
                for number in (0, 1, 2**63 - 1):
                    call = CallId(stream, number)
                    assert memory.begin(key, call, ADD, START + LIFE, START) is Begin.RUN
                    memory.finish(key, call, Recorded(True, 200, key, b"%d %d" % (len(stream), number)), START)
        call = CallId("long" * 10_000, 1)
        assert memory.begin("l", call, ADD, START + LIFE, START) == Recorded(True, 200, "l", b"40000 1")

    @pytest.mark.parametrize("finished", [False, True])
    def test_a_number_used_for_another_call_is_a_conflict(self, memory: CallMemory, finished: bool) -> None:
        memory.begin("k", CallId(ALICE, 1), ADD, START + LIFE, START)
        if finished:
            memory.finish("k", CallId(ALICE, 1), ANSWER, START)
        with pytest.raises(IdempotencyConflict):
            memory.begin("k", CallId(ALICE, 1), ADD[::-1], START + LIFE, START)

    def test_settled_calls_are_forgotten_and_never_run_again(self, memory: CallMemory) -> None:
        for number in (1, 2, 3):
            memory.begin("k", CallId(ALICE, number), ADD, START + LIFE, START)
            memory.finish("k", CallId(ALICE, number), ANSWER, START)
        memory.begin("k", CallId(ALICE, 4, settled=3), ADD, START + LIFE, START)
        for number in (0, 1, 2):  # number 0 never arrived before: its sender has given it up all the same
            with pytest.raises(AlreadySettled):
                memory.begin("k", CallId(ALICE, number), ADD, START + LIFE, START)
        assert memory.begin("k", CallId(ALICE, 3), ADD, START + LIFE, START) == ANSWER
        assert memory.begin("k", CallId(BOB, 1), ADD, START + LIFE, START) is Begin.RUN
        assert memory.begin("l", CallId(ALICE, 1), ADD, START + LIFE, START) is Begin.RUN

    def test_the_settled_mark_only_rises(self, memory: CallMemory) -> None:
        memory.begin("k", CallId(ALICE, 9, settled=5), ADD, START + LIFE, START)
        memory.begin("k", CallId(ALICE, 8, settled=2), ADD, START + LIFE, START)
        with pytest.raises(AlreadySettled):
            memory.begin("k", CallId(ALICE, 4), ADD, START + LIFE, START)
        assert memory.begin("k", CallId(ALICE, 5), ADD, START + LIFE, START) is Begin.RUN

    def test_the_mark_of_the_first_call_of_a_stream_counts(self, memory: CallMemory) -> None:
        memory.begin("k", CallId(ALICE, 9, settled=9), ADD, START + LIFE, START)
        with pytest.raises(AlreadySettled):
            memory.begin("k", CallId(ALICE, 8), ADD, START + LIFE, START)

    def test_a_call_that_says_it_is_settled_itself_does_not_run(self, memory: CallMemory) -> None:
        with pytest.raises(AlreadySettled):
            memory.begin("k", CallId(ALICE, 1, settled=2), ADD, START + LIFE, START)
        memory.begin("k", CallId(ALICE, 2), ADD, START + LIFE, START)
        with pytest.raises(AlreadySettled):
            memory.begin("k", CallId(ALICE, 1, settled=2), ADD, START + LIFE, START)

    def test_a_mark_counts_also_when_it_comes_with_a_known_call(self, memory: CallMemory) -> None:
        for number in (1, 2):
            memory.begin("k", CallId(ALICE, number), ADD, START + LIFE, START)
            memory.finish("k", CallId(ALICE, number), ANSWER, START)
        assert memory.begin("k", CallId(ALICE, 2, settled=2), ADD, START + LIFE, START) == ANSWER
        with pytest.raises(AlreadySettled):
            memory.begin("k", CallId(ALICE, 1), ADD, START + LIFE, START)

    @pytest.mark.parametrize("settled", [2, 2**63 - 1])
    def test_a_settled_call_that_still_runs_is_known_until_its_end(self, memory: CallMemory, settled: int) -> None:
        memory.begin("k", CallId(ALICE, 1), ADD, START + LIFE, START)
        with pytest.raises(AlreadySettled):
            memory.begin("k", CallId(ALICE, 0, settled), ADD, START + LIFE, START)
        assert memory.begin("k", CallId(ALICE, 1), ADD, START + LIFE, START) is Begin.WAIT
        memory.finish("k", CallId(ALICE, 1), ANSWER, START)
        with pytest.raises(AlreadySettled):
            memory.begin("k", CallId(ALICE, 1), ADD, START + LIFE, START)

    def test_an_abandoned_call_may_run(self, memory: CallMemory) -> None:
        memory.begin("k", CallId(ALICE, 1), ADD, START + LIFE, START)
        memory.abandon("k", CallId(ALICE, 1))
        assert memory.begin("k", CallId(ALICE, 1, age=1), ADD[::-1], START + LIFE, START + 2) is Begin.RUN

    def test_only_a_running_call_can_be_finished_or_abandoned(self, memory: CallMemory) -> None:
        other = Recorded(False, 500, "", b"")
        for key, stream, number in (("k", ALICE, 1), ("l", ALICE, 1), ("k", BOB, 1), ("k", ALICE, 2)):
            memory.finish(key, CallId(stream, number), other, START)
            memory.abandon(key, CallId(stream, number))
            if (key, stream, number) == ("k", ALICE, 1):
                memory.begin(key, CallId(ALICE, 1), ADD, START + LIFE, START)
                memory.finish(key, CallId(ALICE, 1), ANSWER, START)
        memory.finish("k", CallId(ALICE, 1), other, START)
        memory.abandon("k", CallId(ALICE, 1))
        assert memory.begin("k", CallId(ALICE, 1), ADD, START + LIFE, START) == ANSWER
        for key, stream, number in (("l", ALICE, 1), ("k", BOB, 1), ("k", ALICE, 2)):
            assert memory.begin(key, CallId(stream, number), ADD, START + LIFE, START) is Begin.RUN

    # The end of memory

    def test_a_later_attempt_from_before_the_memory_began_has_an_unknown_outcome(self, memory: CallMemory) -> None:
        now = START + 10
        for age in (10, 10.1, float("inf")):
            with pytest.raises(OutcomeUnknown):
                memory.begin("k", CallId(ALICE, 1, age=age), ADD, now + LIFE, now)
        assert memory.begin("k", CallId(ALICE, 1, age=9.9), ADD, now + LIFE, now) is Begin.RUN
        assert memory.begin("k", CallId(ALICE, 2), ADD, now + LIFE, now) is Begin.RUN

    def test_a_settled_call_is_refused_as_such_however_old(self, memory: CallMemory) -> None:
        memory.begin("k", CallId(ALICE, 9, settled=9), ADD, START + LIFE, START)
        with pytest.raises(AlreadySettled):
            memory.begin("k", CallId(ALICE, 1, age=1000), ADD, START + LIFE, START)

    def test_an_answer_is_kept_to_the_last_moment(self, memory: CallMemory) -> None:
        memory.begin("k", CallId(ALICE, 1), ADD, START + LIFE, START)
        memory.finish("k", CallId(ALICE, 1), ANSWER, START)
        memory.sweep(START + LIFE)
        assert memory.begin("k", CallId(ALICE, 1), ADD, START + LIFE, START + LIFE) == ANSWER

    def test_a_call_whose_answer_expired_never_runs_again(self, memory: CallMemory) -> None:
        begun = START + 10
        memory.begin("k", CallId(ALICE, 1), ADD, begun + LIFE, begun)
        memory.finish("k", CallId(ALICE, 1), ANSWER, begun)
        now = begun + LIFE + 1
        memory.sweep(now)
        with pytest.raises(OutcomeUnknown):
            memory.begin("k", CallId(ALICE, 1, age=now - begun), ADD, now + LIFE, now)
        # Whoever called after that began is safe, and so is whoever has another key.
        assert memory.begin("k", CallId(BOB, 1, age=LIFE), ADD, now + LIFE, now) is Begin.RUN
        assert memory.begin("l", CallId(BOB, 1, age=now - START - 0.1), ADD, now + LIFE, now) is Begin.RUN

    def test_a_settled_answer_takes_nothing_from_the_reach_of_the_memory(self, memory: CallMemory) -> None:
        begun = START + 10
        memory.begin("k", CallId(ALICE, 1), ADD, begun + LIFE, begun)
        memory.finish("k", CallId(ALICE, 1), ANSWER, begun)
        with pytest.raises(AlreadySettled):
            memory.begin("k", CallId(ALICE, 1, settled=2), ADD, begun + LIFE, begun)
        now = begun + LIFE + 1
        memory.sweep(now)
        assert memory.begin("k", CallId(BOB, 1, age=now - START - 1), ADD, now + LIFE, now) is Begin.RUN

    def test_a_repeated_attempt_keeps_the_answer_longer(self, memory: CallMemory) -> None:
        memory.begin("k", CallId(ALICE, 1), ADD, START + LIFE, START)
        memory.finish("k", CallId(ALICE, 1), ANSWER, START)
        memory.begin("k", CallId(ALICE, 1), ADD, START + 100 + LIFE, START + 100)
        memory.begin("k", CallId(ALICE, 1), ADD, START + LIFE, START + 100)
        memory.sweep(START + 100 + LIFE)
        assert memory.begin("k", CallId(ALICE, 1), ADD, START + LIFE, START + 100 + LIFE) == ANSWER

    def test_a_running_call_is_never_forgotten(self, memory: CallMemory) -> None:
        memory.begin("k", CallId(ALICE, 1), ADD, START + LIFE, START)
        now = START + 100 * LIFE
        memory.sweep(now)
        assert memory.begin("k", CallId(ALICE, 1, age=100 * LIFE), ADD, START + LIFE, now) is Begin.WAIT

    def test_the_answer_of_a_long_call_is_kept_as_long_as_that_of_a_short_one(self, memory: CallMemory) -> None:
        memory.begin("k", CallId(ALICE, 1), ADD, START + LIFE, START)
        ended = START + 100 * LIFE
        memory.finish("k", CallId(ALICE, 1), ANSWER, ended)
        memory.sweep(ended + LIFE)
        assert memory.begin("k", CallId(ALICE, 1), ADD, ended + LIFE, ended + LIFE) == ANSWER
        memory.sweep(ended + LIFE + 0.1)
        with pytest.raises(OutcomeUnknown):
            memory.begin("k", CallId(ALICE, 1, age=101 * LIFE + 1), ADD, START, ended + LIFE + 0.1)

    def test_a_settled_mark_is_kept_as_long_as_a_straggler_could_come(self, memory: CallMemory) -> None:
        memory.begin("k", CallId(ALICE, 5, settled=5), ADD, START + LIFE, START)
        memory.abandon("k", CallId(ALICE, 5))
        memory.sweep(START + LIFE)
        with pytest.raises(AlreadySettled):
            memory.begin("k", CallId(ALICE, 4), ADD, START + LIFE, START + LIFE)
        memory.sweep(START + LIFE + 0.1)
        assert memory.begin("k", CallId(ALICE, 4), ADD, START + 2 * LIFE, START + LIFE + 0.1) is Begin.RUN

    def test_a_refused_call_keeps_the_settled_mark_longer_too(self, memory: CallMemory) -> None:
        memory.begin("k", CallId(ALICE, 5, settled=5), ADD, START + LIFE, START)
        memory.abandon("k", CallId(ALICE, 5))
        with pytest.raises(AlreadySettled):
            memory.begin("k", CallId(ALICE, 4), ADD, START + 2 * LIFE, START + LIFE)
        memory.sweep(START + 2 * LIFE)
        with pytest.raises(AlreadySettled):
            memory.begin("k", CallId(ALICE, 4), ADD, START + 2 * LIFE, START + 2 * LIFE)

    @pytest.mark.parametrize("settled", [False, True])
    def test_no_straggler_runs_when_the_clock_is_set_back(self, memory: CallMemory, settled: bool) -> None:
        memory.begin("k", CallId(ALICE, 1), ADD, START + LIFE, START)
        memory.finish("k", CallId(ALICE, 1), ANSWER, START)
        if settled:
            memory.begin("k", CallId(ALICE, 2, settled=2), ADD, START + LIFE, START)
            memory.abandon("k", CallId(ALICE, 2))
        else:
            memory.begin("k", CallId(ALICE, 2), ADD, START + 3 * LIFE, START)  # so that the stream stays
        memory.sweep(START + LIFE + 1)
        with pytest.raises(MemoryFull, match="clock was set back") as caught:
            memory.begin("k", CallId(ALICE, 1), ADD, START + LIFE, START + 10)
        assert caught.value.retry_after == LIFE - 10
        assert memory.begin("l", CallId(ALICE, 1), ADD, START + LIFE, START + 10) is Begin.RUN
        assert memory.begin("k", CallId(BOB, 1), ADD, START + 3 * LIFE, START + LIFE + 0.1) is Begin.RUN

    # Limits

    def fill(self, memory: CallMemory, count: int, body: bytes = b"") -> None:
        for number in range(1, count + 1):
            memory.begin("k", CallId(ALICE, number), ADD, START + LIFE, START)
            memory.finish("k", CallId(ALICE, number), Recorded(True, 200, "", body), START)

    def test_a_memory_full_of_records_refuses_new_calls_and_answers_old_ones(self, opener: Opener) -> None:
        memory = opener(records=3)
        self.fill(memory, 3)
        with pytest.raises(MemoryFull, match="calls"):
            memory.begin("k", CallId(BOB, 1), ADD, START + LIFE, START)
        for number in (1, 2, 3):
            assert memory.begin("k", CallId(ALICE, number), ADD, START + LIFE, START) != Begin.RUN
        assert memory.begin("l", CallId(BOB, 1), ADD, START + LIFE, START) is Begin.RUN
        # The client frees its records itself, with the very call that was refused before.
        assert memory.begin("k", CallId(ALICE, 4, settled=2), ADD, START + LIFE, START) is Begin.RUN
        with pytest.raises(MemoryFull):
            memory.begin("k", CallId(ALICE, 5), ADD, START + LIFE, START)

    def test_a_memory_full_of_answers_refuses_new_calls(self, opener: Opener) -> None:
        memory = opener(answer_bytes=100)
        self.fill(memory, 3, bytes(33))
        self.fill(memory, 4, bytes(33))
        with pytest.raises(MemoryFull, match="bytes"):
            memory.begin("k", CallId(ALICE, 5), ADD, START + LIFE, START)
        assert memory.begin("l", CallId(ALICE, 5), ADD, START + LIFE, START) is Begin.RUN
        assert memory.begin("k", CallId(ALICE, 5, settled=2), ADD, START + LIFE, START) is Begin.RUN

    def test_a_memory_full_of_streams_refuses_new_clients(self, opener: Opener) -> None:
        memory = opener(streams=2)
        for stream in (ALICE, BOB):
            memory.begin("k", CallId(stream, 1), ADD, START + LIFE, START)
        with pytest.raises(MemoryFull, match="clients"):
            memory.begin("k", CallId("other", 1), ADD, START + LIFE, START)
        assert memory.begin("k", CallId(BOB, 2), ADD, START + LIFE, START) is Begin.RUN
        assert memory.begin("l", CallId("other", 1), ADD, START + LIFE, START) is Begin.RUN

    def test_a_refused_call_takes_no_room(self, opener: Opener) -> None:
        memory = opener(streams=1, records=1)
        with pytest.raises(OutcomeUnknown):
            memory.begin("k", CallId(BOB, 1, age=1), ADD, START + LIFE, START)
        with pytest.raises(AlreadySettled):
            memory.begin("k", CallId(BOB, 1, settled=2), ADD, START + LIFE, START)
        assert memory.begin("k", CallId(ALICE, 1), ADD, START + LIFE, START) is Begin.RUN

    def test_room_is_given_back_by_every_way_out(self, opener: Opener) -> None:
        memory = opener(streams=1, records=1, answer_bytes=1)
        now = START
        for number in range(1, 10):
            assert memory.begin("k", CallId(ALICE, number, number), ADD, now + LIFE, now) is Begin.RUN
            if number % 3 == 0:
                memory.abandon("k", CallId(ALICE, number))
            else:
                memory.finish("k", CallId(ALICE, number), ANSWER, now)
            if number % 3 == 1:
                now += LIFE + 1
                memory.sweep(now)

    def test_a_full_memory_makes_room_by_itself_when_answers_have_expired(self, opener: Opener) -> None:
        memory = opener(streams=1, records=1)
        self.fill(memory, 1)
        now = START + LIFE + 1
        assert memory.begin("k", CallId(BOB, 1), ADD, now + LIFE, now) is Begin.RUN
        memory.finish("k", CallId(BOB, 1), ANSWER, now)
        with pytest.raises(OutcomeUnknown):
            memory.begin("k", CallId(ALICE, 1, age=LIFE + 1), ADD, now + LIFE, now)

    def test_a_full_memory_looks_for_expired_answers_once_a_second(self, opener: Opener) -> None:
        memory = opener(records=1)
        self.fill(memory, 1)
        with pytest.raises(MemoryFull):
            memory.begin("k", CallId(BOB, 1), ADD, START + 2 * LIFE, START + LIFE - 0.5)
        with pytest.raises(MemoryFull):
            memory.begin("k", CallId(BOB, 1), ADD, START + 2 * LIFE, START + LIFE + 0.4)
        assert memory.begin("k", CallId(BOB, 1), ADD, START + 2 * LIFE, START + LIFE + 0.5) is Begin.RUN

    def test_a_call_survives_the_sweep_that_makes_room_for_it(self, opener: Opener) -> None:
        memory = opener(records=1)
        memory.begin("k", CallId(ALICE, 1), ADD, START, START)
        memory.finish("k", CallId(ALICE, 1), ANSWER, START)
        # Told to expire at once, which no server does; the call must be on record all the same.
        assert memory.begin("k", CallId(ALICE, 2), ADD, START + 1, START + 5) is Begin.RUN
        assert memory.begin("k", CallId(ALICE, 2), ADD, START + 1, START + 5) is Begin.WAIT


class TestInProcessMemory(MemoryContract):
    def open(self, tmp_path: Path, started: float, limits: MemoryLimits) -> CallMemory:
        return InProcessMemory(started, limits)


class TestSqliteMemory(MemoryContract):
    def open(self, tmp_path: Path, started: float, limits: MemoryLimits) -> CallMemory:
        return SqliteMemory(tmp_path / "memory.db", started, limits)
