"""From what a broker hands out to a job, and from how a job ended to what the broker is told.

A delivery that cannot become a job is settled without a run: one that cannot be read is put aside among the dead, one
whose function nobody knows here is parked until somebody replays it, one whose inputs have failed ends as failed.

Rule: values only. What is not said by the sender is as the function has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from backwater_tornado.broker.values import Delivery, Message, Result, Settlement, Verdict
from backwater_tornado.errors import (
    CallFailed,
    NotExposed,
    UnknownFunction,
    UnknownModule,
    UnsupportedEncoding,
    UpstreamFailed,
)
from backwater_tornado.exposure import Exposure, Function
from backwater_tornado.tasks.messages import (
    Inputs,
    TaskHeaders,
    codec_of,
    encode_headers,
    input_ids,
    read_arguments,
    read_headers,
)
from backwater_tornado.tasks.outcomes import error_of, failed, read_outcome, revoked

from .jobs import End, Ending, Job

#: How often a task is retried where neither its sender nor its function says.
MAX_RETRIES = 3


class Task(NamedTuple):
    """A delivery that can be read, and the function that it is for."""

    delivery: Delivery
    headers: TaskHeaders
    function: Function

    @property
    def needs(self) -> tuple[str, ...]:
        """The ids of the results that have to be known before it can run, or end."""
        return needs_of(self.headers)


def needs_of(headers: TaskHeaders) -> tuple[str, ...]:
    """See `Task.needs`."""
    if headers.upstream_failed or not headers.inputs_by_id:
        return tuple(input_ids(headers.inputs))
    return ()


def read_delivery(delivery: Delivery, exposure: Exposure) -> Task | Settlement:
    """The task in a delivery, or how it is settled without one."""
    try:
        headers = read_headers(delivery.message)
        if delivery.message.content_encoding:
            raise UnsupportedEncoding(
                f"tasks have no content encoding, and this has {delivery.message.content_encoding!r}"
            )
    except CallFailed as error:
        return rejection(delivery, error)
    module, _, name = headers.task.rpartition(".")
    try:
        function = exposure.find(module, name)
    except (UnknownModule, UnknownFunction, NotExposed):
        return Settlement(delivery.token, Verdict.PARK, reason=f"unknown_task: {headers.task:.200}")
    return Task(delivery, headers, function)


def rejection(delivery: Delivery, error: CallFailed) -> Settlement:
    """It cannot be run, now or ever: put aside, with the error for an outcome."""
    return Settlement(delivery.token, Verdict.REJECT, failed(error), reason=f"{error.code}: {error}")


def make_job(task: Task, results: Mapping[str, Result | None]) -> Job | Settlement:
    """What a pool is told, with the results that it `needs`; or how it is settled where they are not all there."""
    delivery, headers, function = task
    arguments = arguments_of(delivery, headers, results)
    if isinstance(arguments, Settlement):
        return arguments
    said = function.options.task
    return Job(
        token=delivery.token,
        id=delivery.message.id,
        task=headers.task,
        arguments=arguments,
        content_type=delivery.message.content_type,
        retries=headers.retries,
        deliveries=delivery.count,
        root=headers.root or delivery.message.id,
        parent=headers.parent,
        queue=delivery.queue,
        custom=headers.custom,
        soft_time_limit=_first(headers.soft_time_limit, said.get("soft_time_limit")),
        time_limit=_first(headers.time_limit, function.options.time_limit),
        max_retries=said.get("max_retries", MAX_RETRIES) if headers.max_retries == -1 else headers.max_retries,
    )


def _first(sent: float | None, own: float | None) -> float | None:
    return own if sent is None else sent


# Inputs --------------------------------------------------------------------------------------------------------------


def arguments_of(delivery: Delivery, headers: TaskHeaders, results: Mapping[str, Result | None]) -> bytes | Settlement:
    """The body with the results that it needs before its own arguments; or how it is settled without them."""
    try:
        if headers.upstream_failed:
            return Settlement(delivery.token, outcome=failed(upstream_failure(needs_of(headers), results)))
        if headers.inputs is None:
            return delivery.message.body
        return _with_inputs(delivery.message, _filled(headers, results))
    except UpstreamFailed as error:
        return Settlement(delivery.token, outcome=failed(error))
    except CallFailed as error:
        return rejection(delivery, error)


def upstream_failure(ids: tuple[str, ...], results: Mapping[str, Result | None]) -> UpstreamFailed:
    """Which of these has failed; where that one was told of another, the other."""
    for each in ids:
        result = results.get(each)
        if result is not None and result.outcome.failed:
            error = error_of(result.outcome)
            if isinstance(error, UpstreamFailed):
                return UpstreamFailed(error.detail, task_id=error.extra.get("task_id", each))
            return UpstreamFailed(f"the task {each}, whose result it needs: {error}", task_id=each)
    return UpstreamFailed("a task whose result it needs has failed, and nothing more is known of it any more")


def _filled(headers: TaskHeaders, results: Mapping[str, Result | None]) -> Any:
    return headers.inputs if headers.inputs_by_id else _value(headers.inputs, results)


def _value(inputs: Inputs, results: Mapping[str, Result | None]) -> Any:
    if not isinstance(inputs, str):
        return [_value(each, results) for each in inputs]
    result = results.get(inputs)
    if result is None:
        raise UpstreamFailed(
            f"the result of the task {inputs}, which it needs, is not kept any more; see `result_expires`",
            task_id=inputs,
        )
    if result.outcome.failed:
        raise upstream_failure((inputs,), results)
    return read_outcome(result.outcome)


def _with_inputs(message: Message, inputs: Any) -> bytes:
    args, kwargs = read_arguments(message)
    return codec_of(message.content_type).encode([[inputs, *args], kwargs])


# Afterwards ----------------------------------------------------------------------------------------------------------


def settlement_of(task: Task, job: Job, ending: Ending) -> Settlement:
    """What the broker is told of a run."""
    return _SETTLED[ending.end](task, job, ending)


def _done(task: Task, job: Job, ending: Ending) -> Settlement:
    return Settlement(job.token, outcome=ending.outcome)


def _rejected(task: Task, job: Job, ending: Ending) -> Settlement:
    return Settlement(job.token, Verdict.REJECT, ending.outcome, reason=ending.reason)


def _returned(task: Task, job: Job, ending: Ending) -> Settlement:
    return Settlement(job.token, Verdict.REQUEUE, delay=ending.delay)


def _retried(task: Task, job: Job, ending: Ending) -> Settlement:
    """The next run has the inputs of this one among its arguments: they may not be kept until then."""
    headers = msgspec.structs.replace(task.headers, retries=job.retries + 1, inputs=None, inputs_by_id=False)
    arguments = job.arguments if ending.arguments is None else ending.arguments
    message = msgspec.structs.replace(
        task.delivery.message, body=arguments, headers=encode_headers(headers), not_before=None
    )
    return Settlement(job.token, Verdict.REQUEUE, ending.outcome, delay=ending.delay, replacement=message)


_SETTLED = {End.DONE: _done, End.RETRY: _retried, End.REJECT: _rejected, End.RETURN: _returned}


def revocation(token: int) -> Settlement:
    """Somebody cancelled it before it began."""
    return Settlement(token, outcome=revoked("it was revoked before it began"))


def returned(token: int, delay: float = 0.0) -> Settlement:
    """It has not begun here."""
    return Settlement(token, Verdict.RETURN, delay=delay)


def noted(token: int) -> Settlement:
    """It begins now, and must not begin anywhere else."""
    return Settlement(token, Verdict.KEEP, once=True)


def unfit(settlement: Settlement, error: CallFailed) -> Settlement:
    """The end of a delivery of which the broker does not take what was to be told: it is larger than may be, say."""
    return Settlement(settlement.token, outcome=failed(error))
