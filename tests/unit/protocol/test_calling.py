from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from backwater_tornado.errors import (
    CallFailed,
    DeadlineExceeded,
    DigestMismatch,
    Draining,
    InternalError,
    InvalidArguments,
    MemoryFull,
    OutcomeUnknown,
    Overloaded,
    RemoteError,
    Replayed,
    ResponseAltered,
    ResponseMismatched,
    ResponseUndecodable,
    SignatureFromFuture,
    SignatureStale,
    TLSFailed,
    Unreachable,
)
from backwater_tornado.options import ClientOptions, Endpoint
from backwater_tornado.protocol.breakers import State
from backwater_tornado.protocol.calling import (
    Answer,
    Attempt,
    Outgoing,
    Pause,
    Target,
    call_flow,
    decode_answer,
    decode_problem,
    lost,
)
from backwater_tornado.protocol.codec import JSON, MSGPACK, PICKLE, Codec
from backwater_tornado.protocol.problems import PROBLEM_MEDIA_TYPES, describe
from tests.wire import outgoing

GOOD = Answer(200, "application/msgpack", MSGPACK.encode(3))


def refusal(error: CallFailed, codec: Codec = MSGPACK) -> Answer:
    """What the server answers with."""
    return Answer(error.status, PROBLEM_MEDIA_TYPES[codec.media_type], codec.encode(describe(error)))


class Life:
    """A call and all that happens to it: each attempt takes `takes` seconds, and gets the next of its fates."""

    def __init__(
        self, *fates: object, targets: int = 1, takes: float = 0.0, call: Outgoing | None = None, **more: Any
    ) -> None:
        self.now = 0.0
        self.targets = [Target(Endpoint("http", f"host{number}", 8080)) for number in range(targets)]
        self.call = call or outgoing()
        self.attempts: list[int] = []
        self.fresh: list[bool] = []
        self.pauses: list[float] = []
        self.sent_since: list[float | None] = []
        self._fates: Iterator[object] = iter(fates)
        self._takes = takes
        self._dice: Callable[[], float] = more.pop("dice", lambda: 0.5)
        self.options = ClientOptions(**{"backoff": 0.1, "max_backoff": 5.0, **more})

    def run(self) -> Answer:
        """To its end."""
        flow = call_flow(self.call, self.targets, self.options, lambda: self.now, self._dice)
        try:
            step = next(flow)
            while True:
                step = self._take(flow, step)
        except StopIteration as stop:
            answer: Answer = stop.value
            return answer

    def _take(self, flow: Any, step: Attempt | Pause) -> Attempt | Pause:
        if isinstance(step, Pause):
            self.pauses.append(step.seconds)
            self.now += step.seconds
            return flow.send(None)  # type: ignore[no-any-return]
        assert step.call is self.call
        self.attempts.append(self.targets.index(step.target))
        self.fresh.append(step.fresh)
        self.sent_since.append(self.call.sent_since)
        self.now += self._takes
        fate = next(self._fates)
        if isinstance(fate, Exception):
            return flow.throw(fate)  # type: ignore[no-any-return]
        return flow.send(fate)  # type: ignore[no-any-return]

    def fails(self, kind: type[CallFailed]) -> CallFailed:
        """Run; gives the error, which is of exactly that class."""
        with pytest.raises(CallFailed) as caught:
            self.run()
        assert type(caught.value) is kind, repr(caught.value)
        return caught.value


def outage(seconds: float | None = None, kind: type[CallFailed] = Overloaded) -> Answer:
    """A refusal that names a time to wait."""
    error = kind("later")
    error.retry_after = seconds
    return refusal(error)


# What ends a call


def test_an_answer_ends_it() -> None:
    life = Life(GOOD)
    assert life.run() is GOOD
    assert (life.attempts, life.fresh, life.pauses) == ([0], [False], [])


@pytest.mark.parametrize(
    "error",
    [InvalidArguments("no"), RemoteError("no"), InternalError("no"), OutcomeUnknown("no"), DeadlineExceeded("no")],
)
def test_what_the_server_tells_for_good_ends_it(error: CallFailed) -> None:
    assert Life(refusal(error)).fails(type(error)).detail == "no"


@pytest.mark.parametrize("error", [TLSFailed("no"), ResponseUndecodable("no"), DeadlineExceeded("no")])
def test_what_no_repetition_mends_ends_it(error: CallFailed) -> None:
    assert Life(error, targets=2).fails(type(error)) is error


def test_an_answer_that_cannot_be_decoded_ends_it() -> None:
    assert "cannot be decoded" in Life(Answer(500, "application/problem+json", b"x")).fails(ResponseUndecodable).detail


def test_other_exceptions_pass_through() -> None:
    with pytest.raises(KeyboardInterrupt):
        call = call_flow(outgoing(), [Target(Endpoint("http", "host", 80))], ClientOptions(), lambda: 0.0, lambda: 0.0)
        next(call)
        call.throw(KeyboardInterrupt())


def test_the_number_of_attempts_is_bounded() -> None:
    life = Life(*[Unreachable("no")] * 9, max_attempts=3, backoff=0.0)
    assert life.fails(Unreachable).detail == "no"
    assert len(life.attempts) == 3
    assert Life(Unreachable("no"), max_attempts=1).fails(Unreachable)


# What is tried again


@pytest.mark.parametrize(
    "failure",
    [
        Unreachable(),
        lost("no"),
        ResponseAltered(),
        ResponseMismatched(),
        refusal(Overloaded()),
        refusal(Draining()),
        refusal(Replayed()),
        refusal(DigestMismatch()),
        refusal(MemoryFull()),
        refusal(SignatureStale()),
    ],
)
def test_what_passes_is_tried_again_on_a_fresh_connection(failure: object) -> None:
    life = Life(failure, GOOD)
    assert life.run() is GOOD
    assert life.fresh == [False, True]


def test_clocks_are_corrected_once() -> None:
    assert Life(refusal(SignatureStale()), GOOD).run() is GOOD
    for second in (SignatureStale, SignatureFromFuture):
        life = Life(refusal(SignatureStale()), refusal(second()), GOOD)
        life.fails(second)
        assert life.pauses == []


def test_pauses_grow_are_drawn_and_are_bounded() -> None:
    life = Life(*[Unreachable()] * 8, GOOD, max_backoff=1.0, call=outgoing(deadline=100.0))
    life.run()
    assert life.pauses == [0.05, 0.1, 0.2, 0.4, 0.5, 0.5, 0.5, 0.5]
    assert Life(Unreachable(), GOOD, dice=lambda: 0.0).run() is GOOD


def test_very_many_attempts_do_not_overflow() -> None:
    life = Life(*[Unreachable()] * 1500, GOOD, max_attempts=2000, max_backoff=1e-6)
    assert life.run() is GOOD


def test_a_call_is_repeated_at_once_where_the_server_is_not_the_trouble() -> None:
    life = Life(refusal(Replayed()), refusal(DigestMismatch()), refusal(SignatureStale()), GOOD)
    life.run()
    assert life.pauses == []


def test_a_busy_server_is_left_alone_for_a_while() -> None:
    life = Life(refusal(Overloaded()), GOOD)
    life.run()
    assert life.pauses == [0.05]


def test_the_servers_word_on_when_to_come_again_is_kept() -> None:
    life = Life(outage(3.0), outage(0.01), outage(2.0, Replayed), GOOD)
    life.run()
    assert life.pauses == [3.0, 0.1, 2.0]


# Time


def test_nothing_is_sent_at_the_deadline() -> None:
    for deadline in (0.0, -1.0):
        life = Life(GOOD, call=outgoing(deadline=deadline))
        assert "over before it was sent" in life.fails(DeadlineExceeded).detail
        assert life.attempts == []


def test_a_pause_that_would_reach_the_deadline_ends_the_call_at_once() -> None:
    life = Life(outage(10.0))
    assert life.fails(Overloaded).retry_after == 10.0
    assert (life.now, life.pauses) == (0.0, [])
    assert Life(outage(9.9), GOOD).run() is GOOD


def test_the_time_of_the_attempts_counts() -> None:
    life = Life(*[Unreachable("no")] * 9, takes=4.0)
    assert life.fails(Unreachable).detail == "no"
    assert len(life.attempts) == 3


def test_a_pause_that_takes_too_long_ends_in_the_last_failure() -> None:
    life = Life(lost("first"), GOOD)
    flow = call_flow(life.call, life.targets, ClientOptions(), lambda: life.now, lambda: 0.5)
    next(flow)
    assert isinstance(flow.throw(lost("first")), Pause)
    life.now = 10.0
    with pytest.raises(DeadlineExceeded, match="after 1 attempts; the function may have run; last failure: first"):
        flow.send(None)


def test_at_the_deadline_the_caller_learns_whether_the_function_may_have_run() -> None:
    assert (
        "after 3 attempts; the function may have run"
        in Life(*[lost("no")] * 3, takes=4.0).fails(DeadlineExceeded).detail
    )
    failed = Life(lost("first"), Unreachable("last"), takes=6.0).fails(DeadlineExceeded)
    assert "the function may have run; last failure: last" in failed.detail
    assert isinstance(failed.__cause__, Unreachable)
    assert Life(Unreachable("no"), takes=11.0).fails(Unreachable).detail == "no"
    assert Life(refusal(Draining("no")), takes=11.0).fails(Draining).detail == "no"


# Whether an attempt may have run


@pytest.mark.parametrize("failure", [lost("no"), ResponseAltered(), ResponseMismatched(), refusal(Replayed())])
def test_an_attempt_that_may_have_run_is_noted_with_its_beginning(failure: object) -> None:
    life = Life(failure, failure, GOOD, takes=1.0)
    life.run()
    assert life.sent_since == [None, 0.0, 0.0]


@pytest.mark.parametrize(
    "failure", [Unreachable(), refusal(Overloaded()), refusal(SignatureStale()), refusal(DigestMismatch())]
)
def test_an_attempt_that_did_not_run_is_not_noted(failure: object) -> None:
    life = Life(failure, GOOD)
    life.run()
    assert life.call.sent_since is None


@pytest.mark.parametrize(
    "last", [Unreachable("last"), TLSFailed("last"), refusal(Overloaded("last")), refusal(Replayed("last"))]
)
def test_that_nothing_ran_is_never_told_after_an_attempt_that_may_have_run(last: object) -> None:
    error = Life(lost("first"), last, max_attempts=2).fails(OutcomeUnknown)
    assert error.detail == "an earlier attempt may have run; the last one failed: last"
    assert isinstance(error.__cause__, CallFailed)
    assert not error.retryable


def test_a_refusal_that_does_not_pass_is_told_as_it_is() -> None:
    """The first attempt met the same refusal, or the arguments would not have been wrong in the second."""
    assert Life(lost("first"), refusal(InvalidArguments("no"))).fails(InvalidArguments).detail == "no"
    assert Life(lost("first"), ResponseAltered("no"), max_attempts=2).fails(ResponseAltered).detail == "no"


def test_a_request_that_the_network_doubled_may_have_run() -> None:
    Life(refusal(Replayed()), max_attempts=1).fails(OutcomeUnknown)


# Several endpoints


def test_the_first_endpoint_is_asked_first() -> None:
    life = Life(GOOD, targets=3)
    life.run()
    assert life.attempts == [0]


def test_calls_are_spread_where_that_is_wanted() -> None:
    for dice, first in ((0.0, 0), (0.4, 1), (0.99, 2)):
        life = Life(GOOD, targets=3, spread=True, dice=lambda dice=dice: dice)
        life.run()
        assert life.attempts == [first]


def test_another_endpoint_is_asked_at_once_where_nothing_was_sent() -> None:
    life = Life(Unreachable(), refusal(Overloaded()), GOOD, targets=3)
    life.run()
    assert (life.attempts, life.pauses) == ([0, 1, 2], [])


def test_after_one_round_there_are_pauses_again() -> None:
    for failure in (Unreachable(), refusal(Overloaded())):
        life = Life(*[failure] * 5, GOOD, targets=2)
        life.run()
        assert life.attempts == [0, 1, 0, 1, 0, 1]
        assert life.pauses == [0.1, 0.2, 0.4, 0.8]


def test_a_long_wait_for_one_endpoint_is_none_for_another() -> None:
    life = Life(outage(3600.0), GOOD, targets=2)
    life.run()
    assert (life.attempts, life.pauses) == ([0, 1], [])


def test_after_an_attempt_that_may_have_run_no_other_endpoint_is_asked() -> None:
    life = Life(lost("no"), Unreachable(), refusal(Draining()), ResponseAltered(), GOOD, targets=3)
    life.run()
    assert life.attempts == [0] * 5


def test_an_idempotent_call_may_go_elsewhere() -> None:
    life = Life(lost("no"), ResponseAltered(), GOOD, targets=3, call=outgoing(idempotent=True))
    life.run()
    assert life.attempts == [0, 1, 2]


@pytest.mark.parametrize("error", [SignatureStale(), DigestMismatch(), Replayed()])
def test_what_is_between_the_two_stays_between_them(error: CallFailed) -> None:
    life = Life(refusal(error), GOOD, targets=2, call=outgoing(idempotent=True))
    life.run()
    assert life.attempts == [0, 0]


def opened(life: Life, *numbers: int) -> Life:
    """With breakers that are open until 99, the first until 98."""
    for number in numbers:
        breaker = life.targets[number].breaker
        breaker.note_failure(0.0, 0.0, (99.0 - (number == 0), 99.0), 1.0, unreachable=True)
    return life


def test_an_endpoint_that_is_down_is_passed_over_for_a_while() -> None:
    first = Life(Unreachable(), GOOD, targets=3)
    first.run()
    assert [target.breaker.state for target in first.targets] == [State.OPEN, State.CLOSED, State.CLOSED]
    for now, begins in ((0.7, 1), (0.75, 0), (0.8, 1)):
        life = Life(GOOD, targets=3, call=outgoing(deadline=100.0))
        life.targets, life.now = first.targets, now
        flow = call_flow(life.call, life.targets, life.options, lambda: life.now, lambda: 0.5)  # noqa: B023
        attempt = next(flow)
        assert isinstance(attempt, Attempt)
        assert first.targets.index(attempt.target) == begins


def test_how_long_it_is_left_alone_is_an_option() -> None:
    life = Life(Unreachable(), GOOD, targets=2, endpoint_rest=10.0, max_endpoint_rest=8.0)
    life.run()
    assert life.targets[0].breaker.retry_at == 6.0


def test_an_endpoint_that_answers_again_is_asked_again() -> None:
    life = opened(Life(GOOD, targets=2, call=outgoing(deadline=200.0)), 0)
    life.now = 98.0
    life.run()
    assert (life.attempts, life.targets[0].breaker.state) == ([0], State.CLOSED)


def test_refusals_are_answers_and_those_of_who_has_no_time_are_failures() -> None:
    life = Life(*[refusal(Overloaded())] * 3, refusal(InvalidArguments()))
    life.fails(InvalidArguments)
    assert life.targets[0].breaker.state is State.CLOSED
    life = Life(*[refusal(Overloaded())] * 3, max_attempts=3)
    life.fails(Overloaded)
    assert life.targets[0].breaker.state is State.OPEN


@pytest.mark.parametrize("failure", [TLSFailed(), ResponseAltered(), refusal(SignatureStale()), ResponseUndecodable()])
def test_what_no_other_endpoint_would_mend_is_not_counted(failure: object) -> None:
    life = Life(*[failure] * 3, max_attempts=3)
    with pytest.raises(CallFailed):
        life.run()
    assert life.targets[0].breaker.failures == 0


def test_silence_says_nothing_where_a_function_may_take_long_and_everything_where_it_is_a_poll() -> None:
    for waits, state in ((0.0, State.CLOSED), (6.0, State.OPEN)):
        call = outgoing(deadline=100.0)
        call.waits = waits
        life = Life(*[lost("no", silent=True)] * 4, GOOD, call=call)
        flow = call_flow(call, life.targets, life.options, lambda: 0.0, lambda: 0.5)
        next(flow)
        for _ in range(3):
            flow.throw(lost("no", silent=True))
        assert life.targets[0].breaker.state is state
        assert life.targets[0].patience.limit is None


def test_an_endpoint_is_known_to_be_down_even_when_the_call_ends_with_it() -> None:
    life = Life(Unreachable(), takes=11.0)
    life.fails(Unreachable)
    assert life.targets[0].breaker.retry_at == 11.75


def test_where_all_are_down_the_one_that_is_due_first_is_asked() -> None:
    for number, begins in ((0, [0]), (1, [0])):
        life = opened(Life(GOOD, targets=2, spread=True, dice=lambda number=number: number / 2), 0, 1)
        life.run()
        assert life.attempts == begins


def test_one_endpoint_alone_is_always_asked() -> None:
    life = opened(Life(GOOD), 0)
    life.run()
    assert life.attempts == [0]


def test_what_is_down_is_passed_over_on_the_way_to_another() -> None:
    life = opened(Life(Unreachable(), GOOD, targets=3), 1)
    life.run()
    assert life.attempts == [0, 2]


def test_a_busy_endpoint_is_left_alone_for_a_while_where_all_others_are_down() -> None:
    life = opened(Life(refusal(Overloaded()), GOOD, targets=2), 1)
    life.run()
    assert (life.attempts, life.pauses) == ([0, 0], [0.05])


# Polls


def polled(*fates: object, takes: float) -> Life:
    """A poll that may wait 6 s."""
    call = outgoing(deadline=100.0)
    call.waits = 6.0
    return Life(*fates, takes=takes, call=call, backoff=0.0)


def test_polls_that_die_at_the_same_age_tell_how_long_they_may_wait() -> None:
    life = polled(lost("no"), lost("no"), GOOD, takes=4.0)
    life.run()
    assert life.targets[0].patience.limit == pytest.approx(3.2)


def test_one_that_is_answered_later_tells_that_they_may() -> None:
    life = polled(lost("no"), lost("no"), takes=4.0)
    flow = call_flow(life.call, life.targets, life.options, lambda: life.now, lambda: 0.0)
    next(flow)
    for seconds, fate in ((4.0, lost("no")), (4.0, lost("no")), (5.9, None)):
        life.now += seconds
        if fate is not None:
            flow.throw(fate)
    with pytest.raises(StopIteration):
        flow.send(GOOD)
    assert life.targets[0].patience.limit is None


def test_other_calls_tell_nothing_of_polls() -> None:
    life = Life(lost("no"), lost("no"), GOOD, takes=4.0, call=outgoing(deadline=100.0))
    life.run()
    assert life.targets[0].patience.limit is None


# Answers


@pytest.mark.parametrize("codec", [MSGPACK, JSON])
def test_an_answer_is_decoded_by_its_media_type(codec: Codec) -> None:
    assert decode_answer(Answer(200, codec.media_type, codec.encode([1])), unsafe=False) == [1]


def test_pickle_is_read_only_where_it_was_switched_on() -> None:
    answer = Answer(200, PICKLE.media_type, PICKLE.encode((1, 2)))
    assert decode_answer(answer, unsafe=True) == (1, 2)
    with pytest.raises(ResponseUndecodable, match="x-python-pickle"):
        decode_answer(answer, unsafe=False)


@pytest.mark.parametrize("media_type", ["", "text/html", "application/vnd.backwater.answers+msgpack"])
def test_an_answer_in_another_media_type_is_undecodable(media_type: str) -> None:
    with pytest.raises(ResponseUndecodable, match="media type"):
        decode_answer(Answer(200, media_type, b""), unsafe=True)


@pytest.mark.parametrize("codec", [MSGPACK, JSON])
def test_a_problem_is_decoded_to_its_error(codec: Codec) -> None:
    assert type(decode_problem(refusal(Overloaded(), codec))) is Overloaded


def test_a_lost_answer_is_an_unknown_outcome_that_may_be_asked_for_again() -> None:
    error = lost("no")
    assert type(error) is OutcomeUnknown
    assert error.retryable
    assert not OutcomeUnknown().retryable


def test_silence_does_not_count_as_an_attempt_and_needs_no_pause() -> None:
    """A function may take longer than `recv_timeout`: the call is asked for again until its own deadline."""
    silence = [lost("nothing was heard", silent=True) for _ in range(30)]
    life = Life(*silence, GOOD, takes=5.0, call=outgoing(deadline=1000.0), max_attempts=2)
    assert life.run() is GOOD
    assert life.pauses == []
    assert life.now == 155.0


def test_other_failures_between_silences_are_counted() -> None:
    silence = lost("nothing was heard", silent=True)
    life = Life(silence, lost("cut"), silence, lost("cut"), call=outgoing(deadline=1000.0), max_attempts=2)
    assert life.fails(OutcomeUnknown).detail == "cut"
    assert len(life.attempts) == 4


def test_what_the_response_asks_to_wait_is_waited_where_the_problem_says_nothing() -> None:
    answer = refusal(Overloaded("later"))
    life = Life(Answer(answer.status, answer.media_type, answer.body, 3.0), GOOD)
    assert life.run() is GOOD
    assert life.pauses == [3.0]


@pytest.mark.parametrize("failure", [lost("cut"), ResponseAltered("x"), Replayed("x")])
def test_what_nobody_remembers_is_not_sent_again_once_it_may_have_arrived(failure: CallFailed) -> None:
    life = Life(failure, GOOD, targets=2, call=outgoing(repeatable=False))
    with pytest.raises(CallFailed) as raised:
        life.run()
    assert raised.value is failure
    assert life.attempts == [0]


@pytest.mark.parametrize("failure", [Unreachable("x"), Overloaded("x")])
def test_what_has_not_arrived_is_sent_again_all_the_same(failure: CallFailed) -> None:
    fate = failure if isinstance(failure, Unreachable) else refusal(failure)
    life = Life(fate, GOOD, targets=2, call=outgoing(repeatable=False))
    assert life.run() is GOOD
    assert len(life.attempts) == 2


def test_another_wires_problems_are_read_as_it_says() -> None:
    seen: list[Answer] = []

    def problem(answer: Answer) -> CallFailed:
        seen.append(answer)
        return InvalidArguments("mine")

    flow = call_flow(outgoing(), [Target(Endpoint.parse("host"))], ClientOptions(), lambda: 0.0, lambda: 0.5, problem)
    next(flow)
    answer = Answer(418, "text/x-odd", b"")
    with pytest.raises(InvalidArguments, match="mine"):
        flow.send(answer)
    assert seen == [answer]
