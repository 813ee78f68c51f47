"""Runs exposed functions: on the loop or in threads, at most once, within their time and number.

One `Dispatcher` serves all requests of a server. `start` takes a call and answers through a callback, so that the calls
of one request cost no task each. The order for one call: function and scope, arguments, memory (has it run before?),
room, run, encode, remember, answer.

Rule: every call that is started answers exactly once, whatever happens to it; what it holds (a place, the memory's
record) it gives back when its function has really ended, which may be after its answer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass, field
from types import MethodType
from typing import Any

from .context import CURRENT, CallContext
from .deadlines import Deadlines
from .errors import CallFailed, DeadlineExceeded, InternalError, Overloaded, StoreError
from .exposure import Function
from .protocol.forms import Form
from .protocol.keys import Key
from .protocol.memory import Begin, CallId, Recorded
from .protocol.messages import Call
from .protocol.serving import Serving, call_digest
from .threads import ThreadPool

log = logging.getLogger("backwater.server")

Answer = Callable[[Recorded], None]
#: How long to wait before asking the memory again for a call that runs in another process, seconds.
JOIN_PAUSE = 0.02
#: How often expired records are forgotten, and those of processes that died found, seconds.
SWEEP_PERIOD = 10.0
#: Encoded arguments beyond this size are decoded in a thread, bytes.
LARGE = 256 * 1024


@dataclass(slots=True, eq=False)
class Run:
    """One call from `start` to the end of its function."""

    key: Key
    call: Call
    form: Form
    answer: Answer
    function: Function
    context: CallContext
    #: On `time.monotonic()`.
    deadline: float
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    remembered: bool = False
    answered: bool = False
    task: asyncio.Task[None] | None = None
    #: Retries of the same call that came while it ran.
    joined: list[Answer] = field(default_factory=list)

    @property
    def identity(self) -> tuple[str, str, int]:
        """What a retry of this call has in common with it."""
        call_id = self.call.call_id
        assert call_id is not None
        return self.owner, call_id.stream, call_id.number

    @property
    def owner(self) -> str:
        """Whose call it is to the memory."""
        return self.call.part + self.key.id


@dataclass(slots=True)
class Places:
    """The places of a function with `max_concurrency`."""

    free: int
    waiting: deque[Run] = field(default_factory=deque)


class Dispatcher:
    """Runs calls for a `Serving`."""

    def __init__(self, serving: Serving, loop: asyncio.AbstractEventLoop) -> None:
        self._serving = serving
        self._loop = loop
        self._threads = ThreadPool(serving.options.threads, loop)
        self._deadlines: Deadlines[Run] = Deadlines(loop, self._expire)
        self._running: dict[tuple[str, str, int], Run] = {}
        self._places: dict[object, Places] = {}
        self._idle: list[asyncio.Future[None]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        #: Calls whose function has not ended.
        self.pending = 0
        self._sweeping = loop.call_later(SWEEP_PERIOD, self._sweep)

    def start(self, key: Key, call: Call, form: Form, answer: Answer) -> None:
        """Run a call; `answer` is called once, now or later, on the loop."""
        arrived = time.monotonic()
        if len(call.arguments) > LARGE:
            # Decoding them would hold up every other call: a thread does it.
            self.pending += 1
            self._threads.submit(
                lambda: self._prepare(key, call, form, answer, arrived), lambda run: self._begin_large(run, answer)
            )
        else:
            self._begin(self._prepare(key, call, form, answer, arrived), answer)

    async def drained(self) -> None:
        """Wait until no function runs."""
        while self.pending:
            waiter = self._loop.create_future()
            self._idle.append(waiter)
            await waiter

    def close(self) -> None:
        """Cancel what runs on the loop and end the threads."""
        self._sweeping.cancel()
        for task in self._tasks:
            task.cancel()
        self._threads.close()

    def _sweep(self) -> None:
        self._sweeping = self._loop.call_later(SWEEP_PERIOD, self._sweep)
        try:
            self._serving.memory.sweep(time.time())
        except CallFailed:
            log.exception("the memory of calls could not be swept")

    # Before the run --------------------------------------------------------------------------------------------------

    def _prepare(self, key: Key, call: Call, form: Form, answer: Answer, arrived: float) -> Run | Recorded:
        """The run of a call, or the problem of one that can be refused without asking the memory."""
        try:
            return self._check(key, call, form, answer, arrived)
        except CallFailed as error:
            return form.encode_problem(error)
        except Exception:
            log.exception("calling %s.%s failed", call.module, call.function)
            return form.encode_problem(InternalError())

    def _check(self, key: Key, call: Call, form: Form, answer: Answer, arrived: float) -> Run:
        function = form.find_function(key, call)
        args, kwargs = function.bind_arguments(*form.decode_arguments(call.arguments), form.readings)
        longest = self._serving.options.max_time_limit
        timeout = min(function.options.time_limit or longest, longest)
        if call.timeout is not None:
            timeout = min(call.timeout, timeout)
        deadline = arrived + timeout
        call_id = call.call_id
        context = CallContext(
            key_id=key.id,
            request_id="" if call_id is None else f"{call_id.stream}.{call_id.number}",
            module=call.module,
            function=call.function,
            deadline=deadline,
            traceparent=call.traceparent,
        )
        return Run(key, call, form, answer, function, context, deadline, args, kwargs)

    def _begin_large(self, run: Run | Recorded, answer: Answer) -> None:
        self._begin(run, answer)
        self._release()

    def _begin(self, run: Run | Recorded, answer: Answer) -> None:
        """Run the call, or answer it with what an earlier arrival of it gave or will give."""
        if isinstance(run, Recorded):
            answer(run)
            return
        try:
            self._begin_run(run)
        except CallFailed as error:
            answer(run.form.encode_problem(error))
        except Exception:
            log.exception("calling %s.%s failed", run.call.module, run.call.function)
            answer(run.form.encode_problem(InternalError()))

    def _begin_run(self, run: Run) -> None:
        call_id = run.call.call_id
        if call_id is None or run.function.options.idempotent:
            self._check_room(run)
            self._admit(run)
            return
        now = time.time()
        kept = run.call.kept
        if kept is None:
            kept = run.deadline - time.monotonic() + 2 * self._serving.options.clock_tolerance
        begun = self._serving.memory.begin(run.owner, call_id, call_digest(run.call), now + kept, now)
        if isinstance(begun, Recorded):
            run.answer(begun)
        elif begun is Begin.WAIT:
            self._join(run)
        else:
            self._remember(run, call_id)

    def _remember(self, run: Run, call_id: CallId) -> None:
        run.remembered = True
        try:
            self._check_room(run)
        except CallFailed:
            self._serving.memory.abandon(run.owner, call_id)
            raise
        self._running[run.identity] = run
        self._admit(run)

    def _join(self, run: Run) -> None:
        """Answer with what the run in progress gives; one in another process is asked for until it has ended."""
        running = self._running.get(run.identity)
        if running is not None:
            running.joined.append(run.answer)
        elif time.monotonic() < run.deadline:
            self._loop.call_later(JOIN_PAUSE, self._begin, run, run.answer)
        else:
            raise DeadlineExceeded("the call is still running at its deadline")

    def _check_room(self, run: Run) -> None:
        if time.monotonic() >= run.deadline:
            raise DeadlineExceeded("the deadline had passed before the function was started; it did not run")
        most = self._serving.options.max_pending_calls
        if self.pending >= most:
            raise Overloaded(f"{self.pending} calls are pending; max_pending_calls is {most}")

    def _admit(self, run: Run) -> None:
        """Start the run now, or when its function has a place free."""
        self.pending += 1
        self._deadlines.add(run)
        most = run.function.options.max_concurrency
        if most is not None:
            places = self._places.setdefault(_function_key(run.function.call), Places(most))
            if not places.free:
                places.waiting.append(run)
                return
            places.free -= 1
        self._run(run)

    # The run ---------------------------------------------------------------------------------------------------------

    def _run(self, run: Run) -> None:
        if run.function.is_async:
            context = copy_context()
            context.run(CURRENT.set, run.context)
            run.task = self._loop.create_task(self._run_on_loop(run), context=context)
            self._tasks.add(run.task)
            run.task.add_done_callback(self._tasks.discard)
        else:
            self._threads.submit(lambda: self._run_in_thread(run), lambda answer: self._end(run, answer))

    async def _run_on_loop(self, run: Run) -> None:
        try:
            value = await run.function.call(*run.args, **run.kwargs)
            answer = run.form.encode_result(value)
        except asyncio.CancelledError:
            answer = run.form.encode_problem(DeadlineExceeded("the function was cancelled"))
        except BaseException as raised:  # noqa: BLE001 - whatever it raises is its caller's to know
            answer = self._encode_exception(run, raised)
        self._end(run, answer)

    def _run_in_thread(self, run: Run) -> Recorded:
        """Run in a thread of the pool; the result is encoded there too, off the loop."""
        if run.answered:
            return run.form.encode_problem(DeadlineExceeded("no thread was free in time"))
        CURRENT.set(run.context)
        try:
            value = run.function.call(*run.args, **run.kwargs)
            return run.form.encode_result(value)
        except BaseException as raised:  # noqa: BLE001 - as above
            return self._encode_exception(run, raised)
        finally:
            CURRENT.set(None)

    def _encode_exception(self, run: Run, raised: BaseException) -> Recorded:
        if not isinstance(raised, StoreError):  # which its caller caused, and is told
            log.warning("%s.%s raised %s", run.call.module, run.call.function, type(raised).__name__, exc_info=raised)
        return run.form.encode_exception(raised)

    # After the run ---------------------------------------------------------------------------------------------------

    def _expire(self, run: Run) -> None:
        """The deadline: the caller is told, a coroutine is cancelled. A thread cannot be; its function runs on."""
        places = self._places.get(_function_key(run.function.call))
        queued = places is not None and run in places.waiting
        error = DeadlineExceeded("the deadline passed " + ("before a place was free" if queued else "while it ran"))
        self._answer(run, run.form.encode_problem(error))
        if queued and places is not None:
            places.waiting.remove(run)
            self._release()
        elif run.task is not None:
            # Not before its first step, which would never come then, nor what follows it.
            self._loop.call_soon(run.task.cancel)

    def _end(self, run: Run, answer: Recorded) -> None:
        """The function has ended."""
        self._answer(run, answer)
        places = self._places.get(_function_key(run.function.call))
        if places is not None:
            places.free += 1
            if places.waiting:
                places.free -= 1
                self._run(places.waiting.popleft())
        self._release()

    def _answer(self, run: Run, answer: Recorded) -> None:
        """Remember the answer, then give it to whoever waits for it; only the first one counts."""
        if run.answered:
            return
        run.answered = True
        self._deadlines.remove(run)
        if run.remembered and run.call.call_id is not None:
            self._running.pop(run.identity, None)
            try:
                self._serving.memory.finish(run.owner, run.call.call_id, run.form.record(answer), time.time())
            except Exception:
                log.exception("the answer of %s.%s could not be recorded", run.call.module, run.call.function)
        for deliver in (run.answer, *run.joined):
            try:
                deliver(answer)
            except Exception:
                log.exception("an answer of %s.%s could not be given", run.call.module, run.call.function)

    def _release(self) -> None:
        self.pending -= 1
        if not self.pending:
            waiting, self._idle = self._idle, []
            for waiter in waiting:
                if not waiter.done():
                    waiter.set_result(None)


def _function_key(call: Callable[..., Any]) -> object:
    """What stands for a function in all exposures of it: each of them binds the methods of an object anew."""
    return (id(call.__self__), call.__func__) if isinstance(call, MethodType) else id(call)
