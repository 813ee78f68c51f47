"""Many calls at once for the blocking client: all flows advance together, and what they ask for shares requests."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from .curl import EasyTransport
from .driving import Flow
from .errors import CallFailed
from .protocol.calling import Answer, Attempt, Pause, lost
from .protocol.messages import HttpResponse
from .protocol.sealing import answers_reader, verify_head
from .session import Session

_ENVELOPE_ROOM = 600
Outcome = Answer | CallFailed | None


def gather_blocking(
    session: Session, transport: EasyTransport, flows: Sequence[Flow[Any]], return_exceptions: bool
) -> list[Any]:
    """Drive the flows to their ends; the results in their order."""
    results: list[Any] = [None] * len(flows)
    steps: dict[int, Attempt | Pause] = {}

    def advance(at: int, outcome: Outcome) -> None:
        flow = flows[at]
        try:
            steps[at] = flow.throw(outcome) if isinstance(outcome, CallFailed) else flow.send(outcome)
        except StopIteration as done:
            results[at] = done.value
        except Exception as error:
            if not return_exceptions:
                raise
            results[at] = error

    try:
        for at in range(len(flows)):
            advance(at, None)
        while steps:
            due, steps = steps, {}
            for group in _grouped(session, due):
                for at, outcome in zip(group, _perform(session, transport, [due[at] for at in group]), strict=True):
                    advance(at, outcome)
        return results
    finally:
        for flow in flows:
            flow.close()


def _grouped(session: Session, due: dict[int, Attempt | Pause]) -> list[list[int]]:
    """Steps that are performed together: one pause for all that pause, and attempts by target, number and size."""
    options = session.options
    groups: list[list[int]] = []
    room: dict[tuple[int, str | None], tuple[list[int], int]] = {}
    pausing = [at for at, step in due.items() if isinstance(step, Pause)]
    for at, step in due.items():
        if isinstance(step, Pause):
            continue
        size = len(step.call.arguments) + _ENVELOPE_ROOM
        together = id(step.target), step.call.key_id
        group, left = room.get(together, ([], 0))
        if not group or size > left or len(group) >= session.calls_per_request:
            group, left = [], options.limits.max_encoded_args_size
            groups.append(group)
        group.append(at)
        room[together] = group, left - size
    return [*groups, pausing] if pausing else groups


def _perform(session: Session, transport: EasyTransport, steps: list[Any]) -> list[Outcome]:
    """What came of each step of a group."""
    if isinstance(steps[0], Pause):
        time.sleep(max(step.seconds for step in steps))
        return [None] * len(steps)
    try:
        return _send(session, transport, steps)
    except CallFailed as error:
        return [error] * len(steps)


def _send(session: Session, transport: EasyTransport, attempts: list[Attempt]) -> list[Outcome]:
    sealed = session.seal(attempts)
    timeout = max(attempt.call.deadline for attempt in attempts) - time.monotonic()
    fresh = any(attempt.fresh for attempt in attempts)
    response, received, cut = transport.send_partly(sealed.request, timeout, fresh=fresh)
    session.count_response(received)
    target = attempts[0].target
    limit = session.options.limits.max_encoded_result_size
    reader = answers_reader(sealed, response, limit) if len(attempts) > 1 else None
    if reader is None:
        if cut is not None:
            raise cut
        return [session.open(sealed, target, response)] * len(attempts)
    session.note_clock(target, verify_head(sealed, HttpResponse(response.status, response.fields, b"")))
    media_type = session.sealer.media_type
    found: dict[int, Outcome] = {}
    failure: CallFailed = cut or lost("the answer ended too soon")
    try:
        for answer in reader.feed(response.body):
            found[answer.number] = Answer(answer.status, media_type, bytes(answer.body))
    except CallFailed as error:
        failure = error
    return [found.get(attempt.call.number, failure) for attempt in attempts]
