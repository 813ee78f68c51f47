"""What running a task means: its arguments are read, its function is called, and how that ended is said.

The same in every pool; a pool gives how a plain function is called, or how an awaitable is awaited, so that it can
interrupt it.

Rule: whatever a function returns or raises, and be it `SystemExit`, there is an `Ending`; nothing is raised from here.
And one only: a process that the function has forked ends here, where it would go on as a second worker.
"""

from __future__ import annotations

import os
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Any, Final

import msgspec

from backwater_tornado.broker.values import Message, Outcome
from backwater_tornado.errors import (
    CallFailed,
    MaxRetriesExceeded,
    RemoteError,
    ResultTooLarge,
    ResultUnserializable,
    StoreError,
    TaskError,
    TaskRejected,
    Unserializable,
)
from backwater_tornado.exposure import Function
from backwater_tornado.protocol.problems import MAX_MESSAGE, describe_exception, printable
from backwater_tornado.tasks.messages import TaskHeaders, codec_of, read_arguments, read_custom
from backwater_tornado.tasks.outcomes import failed, progressed, succeeded
from backwater_tornado.tasks.request import (
    CURRENT_TASK,
    Reject,
    Retry,
    TaskContext,
    TaskRequest,
    may_retry_again,
)
from backwater_tornado.tasks.retry import delay_of, policy_of, retries_by_itself
from backwater_tornado.tasks.states import State

from .jobs import End, Ending, Job

#: Bytes of an encoded result, or of a progress: with what goes around it, it fits into a call to a broker.
MAX_RESULT: Final = 7 << 20
#: Tasks sent by one run whose ids are kept with its result.
MAX_CHILDREN: Final = 1_000

#: How progress is told, by the token of the job.
Tell = Callable[[int, Outcome], None]
#: How a plain function is called, and how an awaitable is awaited.
Call = Callable[[Callable[..., Any], Sequence[Any], Mapping[str, Any]], Any]
Await = Callable[[Awaitable[Any]], Coroutine[Any, Any, Any]]


def run_job(function: Function, job: Job, tell: Tell, call: Call) -> Ending:
    """Run a plain function, in this thread and a context (of context variables) of its own."""
    try:
        context, args, kwargs = _prepare(function, job, tell)
    except CallFailed as error:
        return _final(error)
    CURRENT_TASK.set(context)
    process = os.getpid()
    try:
        ending = _returned(job, call(function.call_in(context), args, kwargs))
    except BaseException as raised:  # noqa: BLE001 - whatever it raises is how it ended
        ending = _raised(function, job, raised)
    finally:
        _end_if_forked(process)
    return _with_children(ending, context)


async def run_job_on_loop(function: Function, job: Job, tell: Tell, wait: Await) -> Ending:
    """Run a coroutine function, in an asyncio task of its own; a cancelling is a failure, as its causer may see it."""
    try:
        context, args, kwargs = _prepare(function, job, tell)
    except CallFailed as error:
        return _final(error)
    CURRENT_TASK.set(context)
    process = os.getpid()
    try:
        ending = _returned(job, await wait(function.call_in(context)(*args, **kwargs)))
    except BaseException as raised:  # noqa: BLE001 - as above
        ending = _raised(function, job, raised)
    finally:
        _end_if_forked(process)
    return _with_children(ending, context)


def _with_children(ending: Ending, context: TaskContext) -> Ending:
    """With the ids of what it has sent, the first `MAX_CHILDREN`."""
    if not context.children or ending.outcome is None:
        return ending
    children = tuple(context.children[:MAX_CHILDREN])
    return msgspec.structs.replace(ending, outcome=msgspec.structs.replace(ending.outcome, children=children))


def _end_if_forked(process: int) -> None:
    """End this process, if it is not the one in which the function was called: its parent says how that ended."""
    if os.getpid() != process:
        os._exit(0)


def _prepare(function: Function, job: Job, tell: Tell) -> tuple[TaskContext, tuple[Any, ...], dict[str, Any]]:
    """What the task may know, and its arguments; raises `CallFailed`."""
    message = Message(job.id, job.arguments, content_type=job.content_type)
    given, named = read_arguments(message)
    args, kwargs = function.bind_arguments(given, named)
    request = TaskRequest(
        id=job.id,
        task=job.task,
        args=args,
        kwargs=kwargs,
        retries=job.retries,
        max_retries=job.max_retries,
        deliveries=job.deliveries,
        root_id=job.root or job.id,
        parent_id=job.parent,
        queue=job.queue,
        headers=read_custom(TaskHeaders(job.task, custom=job.custom)) if job.custom else {},
        soft_time_limit=job.soft_time_limit,
        time_limit=job.time_limit,
    )
    return TaskContext(request, lambda value: tell(job.token, _progress(value))), args, kwargs


def _progress(value: Any) -> Outcome:
    outcome = progressed(value)
    if len(outcome.body) > MAX_RESULT:
        raise Unserializable(f"the encoded progress has {len(outcome.body)} bytes, at most {MAX_RESULT}")
    return outcome


def _final(error: CallFailed) -> Ending:
    """It failed by what ours found, and would again."""
    return Ending(End.DONE, failed(error))


# It returned ---------------------------------------------------------------------------------------------------------


def _returned(job: Job, value: Any) -> Ending:
    if job.ignore_result:
        return Ending(End.DONE, Outcome(State.SUCCESS))
    try:
        outcome = succeeded(value, codec_of(job.content_type))
    except Unserializable as error:
        return _final(ResultUnserializable(str(error)))
    if len(outcome.body) > MAX_RESULT:
        return _final(ResultTooLarge(f"the encoded result has {len(outcome.body)} bytes, at most {MAX_RESULT}"))
    return Ending(End.DONE, outcome)


# It raised -----------------------------------------------------------------------------------------------------------


def _raised(function: Function, job: Job, raised: BaseException) -> Ending:
    try:
        if isinstance(raised, Reject):
            reason = printable(str(raised.reason))[:MAX_MESSAGE]
            return Ending(End.REJECT, failed(TaskRejected(reason)), reason=reason)
        if isinstance(raised, Retry):
            return _again(function, job, raised)
        if retries_by_itself(policy_of(function.options.task), raised):
            return _again(function, job, Retry(raised))
    except Exception as error:  # noqa: BLE001 - arguments without a form, a class that is odd about its instances
        return Ending(End.DONE, _failed(error))
    return Ending(End.DONE, _failed(raised))


def _again(function: Function, job: Job, retry: Retry) -> Ending:
    if not may_retry_again(job.retries, job.max_retries, retry.max_retries):
        error = retry.cause or MaxRetriesExceeded(f"{job.task} had {job.retries} retries")
        return Ending(End.DONE, _failed(error))
    delay = retry.countdown
    if delay is None:
        delay = delay_of(policy_of(function.options.task), job.retries, random.random())  # noqa: S311 - no secret
    arguments = None
    if retry.arguments is not None:
        arguments = codec_of(job.content_type).encode(list(retry.arguments))
    return Ending(End.RETRY, _failed(retry.cause or retry, State.RETRY), delay=delay, arguments=arguments)


def _failed(raised: BaseException, state: State = State.FAILURE) -> Outcome:
    """What is told of an exception; one that cannot be described is still told."""
    if isinstance(raised, TaskError | StoreError):
        return failed(raised, state)
    try:
        return failed(
            describe_exception(raised, with_traceback=True, skip=_frames_of_ours(raised.__traceback__)), state
        )
    except Exception as error:  # noqa: BLE001 - its class is the user's, and may do anything
        text = f"<describing the exception raised {type(error).__name__}>"
        return failed(RemoteError(type=str(type(raised).__name__), message=text), state)


def _frames_of_ours(trace: TracebackType | None) -> int:
    """How many frames stand above the function's own."""
    count = 0
    while trace is not None and trace.tb_frame.f_globals.get("__package__") == __package__:
        count, trace = count + 1, trace.tb_next
    return count
