"""One call with any history of failures, on a clock and with dice of the test's own."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from backwater_tornado.errors import (
    CallFailed,
    DigestMismatch,
    Draining,
    InvalidArguments,
    OutcomeUnknown,
    Overloaded,
    Refused,
    RemoteError,
    Replayed,
    ResponseAltered,
    ResponseMismatched,
    ResponseUndecodable,
    SignatureStale,
    TLSFailed,
    Unreachable,
    Unverified,
)
from backwater_tornado.options import ClientOptions, Endpoint
from backwater_tornado.protocol.calling import Answer, Attempt, Outgoing, Pause, Target, call_flow, lost
from backwater_tornado.protocol.codec import MSGPACK
from backwater_tornado.protocol.problems import describe
from tests.wire import outgoing

GOOD = Answer(200, "application/msgpack", MSGPACK.encode(3))

refusals = st.builds(
    lambda kind, retry_after: (kind, retry_after),
    st.sampled_from([Overloaded, Draining, Replayed, DigestMismatch, SignatureStale, InvalidArguments, RemoteError]),
    st.none() | st.floats(0, 20),
)
failures = st.sampled_from(
    [Unreachable, TLSFailed, lost, OutcomeUnknown, ResponseAltered, ResponseMismatched, ResponseUndecodable]
)
#: What happens to an attempt, and how long that takes.
fates = st.tuples(st.one_of(st.just("answer"), refusals, failures, failures), st.floats(0, 4))
configurations = st.builds(
    ClientOptions,
    max_attempts=st.integers(1, 6),
    spread=st.booleans(),
    backoff=st.floats(0, 1),
    max_backoff=st.floats(0, 9),
)


@dataclass
class History:
    """All that was seen from outside of one call."""

    targets: list[Target]
    call: Outgoing
    options: ClientOptions
    now: float = 0.0
    attempts: list[tuple[float, int, int]] = field(default_factory=list)
    #: For each attempt, whether the function may have run in it.
    may_have_run: list[bool] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    end: Answer | CallFailed | None = None

    def live(self, dealt: list[tuple[object, float]], dice: float) -> None:
        """From the beginning to the end; what comes after what was dealt is an answer."""
        flow = call_flow(self.call, self.targets, self.options, lambda: self.now, lambda: dice)
        coming = iter(dealt)
        step: Attempt | Pause = next(flow)
        try:
            while True:
                if isinstance(step, Pause):
                    self.pauses.append(step.seconds)
                    self.now += step.seconds
                    step = flow.send(None)
                    continue
                self.attempts.append((self.now, self.targets.index(step.target), step.call.number))
                fate, takes = next(coming, ("answer", 0.0))
                self.now += takes
                outcome = _outcome(fate)
                self.may_have_run.append(_may_have_run(outcome))
                step = flow.send(outcome) if isinstance(outcome, Answer) else flow.throw(outcome)
        except StopIteration as stop:
            self.end = stop.value
        except CallFailed as error:
            self.end = error


def _outcome(fate: object) -> Answer | CallFailed:
    if fate == "answer":
        return GOOD
    if isinstance(fate, tuple):
        kind, retry_after = fate
        error = kind("refused")
        error.retry_after = retry_after
        return Answer(error.status, "application/problem+msgpack", MSGPACK.encode(describe(error)))
    assert callable(fate)
    made: CallFailed = fate("failed")
    return made


def _may_have_run(outcome: Answer | CallFailed) -> bool:
    if isinstance(outcome, Answer):
        return b"problem:replayed" in outcome.body or outcome is GOOD or b"remote_exception" in outcome.body
    return isinstance(outcome, OutcomeUnknown | Unverified)


def lived(
    dealt: list[tuple[object, float]],
    options: ClientOptions,
    targets: int,
    dice: float,
    *,
    idempotent: bool,
    deadline: float,
) -> History:
    endpoints = [Target(Endpoint("http", f"host{number}", 8080)) for number in range(targets)]
    history = History(endpoints, outgoing(7, idempotent=idempotent, deadline=deadline), options)
    history.live(dealt, dice)
    return history


histories = st.builds(
    lived,
    st.lists(fates, max_size=8),
    configurations,
    st.integers(1, 4),
    st.floats(0, 0.999),
    idempotent=st.booleans(),
    deadline=st.floats(0.5, 20),
)


@given(histories)
def test_nothing_is_sent_after_the_deadline_and_no_pause_reaches_it(history: History) -> None:
    deadline = history.call.deadline
    assert all(at < deadline for at, _, _ in history.attempts)
    assert history.attempts
    assert all(pause > 0 for pause in history.pauses)


@given(histories)
def test_the_number_of_attempts_is_bounded(history: History) -> None:
    assert 1 <= len(history.attempts) <= history.options.max_attempts


@given(histories)
def test_every_attempt_has_the_number_of_the_call(history: History) -> None:
    assert {number for _, _, number in history.attempts} == {7}


@given(histories)
def test_after_an_attempt_that_may_have_run_no_other_endpoint_is_asked_unless_the_call_may_run_twice(
    history: History,
) -> None:
    for index, may_have_run in enumerate(history.may_have_run):
        if may_have_run and not history.call.idempotent:
            assert {target for _, target, _ in history.attempts[index:]} == {history.attempts[index][1]}


@given(histories)
def test_every_call_ends_and_never_claims_that_nothing_ran_when_something_may_have(history: History) -> None:
    assert history.end is not None
    if any(history.may_have_run):
        assert not isinstance(history.end, Unreachable)
        if isinstance(history.end, Refused):
            assert not history.end.retryable


@given(histories)
def test_an_answer_is_given_exactly_where_the_last_attempt_had_one(history: History) -> None:
    if isinstance(history.end, Answer):
        assert history.end is GOOD
        assert history.may_have_run[-1]


@given(histories)
def test_since_when_an_attempt_may_have_run_is_the_beginning_of_the_first_of_them(history: History) -> None:
    first = next((at for at, _, _ in _failed_and_may_have_run(history)), None)
    assert history.call.sent_since == first


def _failed_and_may_have_run(history: History) -> list[tuple[float, int, int]]:
    answered = isinstance(history.end, Answer | RemoteError)
    pairs = list(zip(history.attempts, history.may_have_run, strict=True))
    return [attempt for attempt, may in (pairs[:-1] if answered else pairs) if may]


@given(histories)
def test_pauses_are_bounded_unless_the_server_asked_for_more(history: History) -> None:
    asked = 20.0
    assert all(pause <= max(history.options.max_backoff, asked) for pause in history.pauses)
