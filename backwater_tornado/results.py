"""What sending a task gives: a handle to its state and its result.

A handle is an id; whoever has an id can ask, from any process and any host. Waiting is a long poll at the broker, which
answers the moment the task ends, and tells what has become of others, too (`tasks.companions`).

`AsyncResult` and `GroupResult` block, and can be awaited; `AwaitableResult` is what an `AsyncApp` gives, and all of it
is awaited.

Rule: every question is one line over a flow (`tasks.flows`); what an outcome means is in `tasks.outcomes`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

from .broker.values import Result
from .errors import InvalidOption, RemoteError
from .tasks.companions import Companions
from .tasks.flows import Flow, completed_flow, forget_flow, look_flow, revoke_flow, wait_flow
from .tasks.messages import Inputs, input_ids
from .tasks.outcomes import error_of, read_outcome, revoked, state_of
from .tasks.states import FINAL, State
from .tasks.workflow import Order

T = TypeVar("T")
H = TypeVar("H")
T_co = TypeVar("T_co", covariant=True)


class Reading(Protocol):
    """How results are waited for, and read."""

    #: How long one ask may wait at the broker, seconds.
    poll_wait: float
    #: Seconds, monotonic.
    clock: Callable[[], float]
    #: Raise remote exceptions as their own classes, where they are builtins or among `exceptions`.
    rethrow: bool
    exceptions: tuple[type[Exception], ...]


class Driver(Reading, Protocol):
    """Whoever runs flows to their end: an `App`."""

    #: Handles of what was sent.
    companions: Companions

    def drive(self, flow: Flow[T]) -> T:
        """In this thread."""
        ...

    async def drive_async(self, flow: Flow[T]) -> T:
        """On the loop."""
        ...


class AsyncDriver(Reading, Protocol):
    """Whoever runs flows to their end on the loop: an `AsyncApp`."""

    async def drive(self, flow: Flow[T]) -> T:
        """On the loop."""
        ...


class _Known:
    """What the broker said of one task."""

    def __init__(self, result: Result | None, app: Reading) -> None:
        self._app = app
        self.outcome = None if result is None else result.outcome
        self.state = state_of(self.outcome)
        self.at = None if result is None else result.at
        self.children = () if result is None else result.outcome.children

    @property
    def value(self) -> Any:
        """Its result or its progress; of a failed one the error; None where nothing is known."""
        if self.outcome is None:
            return None
        return self.error if self.error is not None else read_outcome(self.outcome)

    @property
    def error(self) -> Exception | None:
        """The error, of one that failed, was revoked, or is to be retried."""
        if self.outcome is None or self.state not in (State.FAILURE, State.REVOKED, State.RETRY):
            return None
        return error_of(self.outcome, self._app.exceptions, rethrow=self._app.rethrow)

    @property
    def traceback(self) -> str | None:
        """The remote traceback, of one that raised."""
        error = self.error
        while error is not None and not isinstance(error, RemoteError):
            error = error.__cause__ if isinstance(error.__cause__, Exception) else None
        return None if error is None else error.traceback

    @property
    def progress(self) -> Any:
        """What it last said of how far it is."""
        return self.value if self.state is State.PROGRESS else None

    @property
    def date_done(self) -> float | None:
        """When it ended."""
        return self.at if self.state in FINAL else None

    def result(self, *, propagate: bool) -> Any:
        """Its result; raises its error if it failed, or gives that in place of it."""
        error = self.error
        if error is not None and propagate:
            raise error
        return self.value


def _wait(handle: _Handle, timeout: float | None, propagate: bool, companions: Companions | None = None) -> Flow[Any]:
    if not handle.is_kept:
        raise InvalidOption("nobody keeps this result: the task has ignore_result")
    app, shape = handle.app, handle.shape
    known = None if companions is None else companions.take(handle)
    if known is not None:
        return _Known(known, app).result(propagate=propagate)
    found = yield from wait_flow(input_ids(shape), timeout, app.poll_wait, app.clock, companions)
    return _shaped(shape, {name: _Known(each, app) for name, each in found.items()}, propagate)


def _shaped(shape: Inputs, found: Mapping[str, _Known], propagate: bool) -> Any:
    if isinstance(shape, str):
        return found[shape].result(propagate=propagate)
    return [_shaped(each, found, propagate) for each in shape]


def _look(handle: _Handle) -> Flow[list[_Known]]:
    found = yield from look_flow(handle.ids)
    return [_Known(each, handle.app) for each in found]


class _Members:
    """Which members of a group are still to end, by the ids that each is made of."""

    def __init__(self, shape: Inputs) -> None:
        self._members: dict[str, list[int]] = {}
        for number, member in enumerate(shape):
            for each in input_ids(member):
                self._members.setdefault(each, []).append(number)
        self._left = Counter(number for numbers in self._members.values() for number in numbers)
        #: Those of nothing, which have ended.
        self.empty = [number for number in range(len(shape)) if number not in self._left]

    def wait(self, app: Reading, until: float | None) -> Flow[list[int]]:
        """The numbers of those that end next; none if all have."""
        ended: list[int] = []
        while self._members and not ended:
            timeout = None if until is None else max(until - app.clock(), 0.0)
            found = yield from completed_flow(self._members, timeout, app.poll_wait, app.clock)
            for number in [number for each in found for number in self._members.pop(each)]:
                self._left[number] -= 1
                if not self._left[number]:
                    ended.append(number)
        return ended


class _Handle:
    """Equal to any other handle of the same task.

    Attributes:
        shape: what its result is made of.
        is_kept: False: its result is not, for anybody.
    """

    def __init__(self, shape: Inputs, app: Reading, is_kept: bool) -> None:
        self.shape, self.app, self.is_kept = shape, app, is_kept
        self.ids = [shape] if isinstance(shape, str) else list(input_ids(shape))
        self.id = shape if isinstance(shape, str) else "[" + ",".join(self.ids) + "]"
        #: The final result of one task, where it came along with another's.
        self.known: Result | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Handle) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __str__(self) -> str:
        return self.id

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}>"


class AsyncResult(_Handle, Generic[T_co]):
    """One task that was sent; `get` waits for its result, and so does `await`.

    Attributes:
        id: its id; `app.result(id)` makes another handle anywhere.
        parent: of the last of a chain: the one before it.
    """

    def __init__(
        self, id: str, app: Driver, parent: AsyncResult[Any] | GroupResult | None = None, is_kept: bool = True
    ) -> None:
        super().__init__(id, app, is_kept)
        self.parent = parent
        self._app = app

    def get(self, timeout: float | None = None, *, propagate: bool = True) -> T_co:
        """Wait for the result.

        Args:
            timeout: seconds; None: as long as it takes.
            propagate: raise the task's error; if not, give it.

        Raises:
            DeadlineExceeded: it had not ended in time.
            RemoteError: it raised; the exception's own class with `rethrow_remote_exceptions`.
            TaskError: it ended otherwise, see `errors`.
            InvalidOption: its result is kept for nobody (`ignore_result`).
        """
        found: T_co = self._app.drive(_wait(self, timeout, propagate, self._app.companions))
        return found

    def __await__(self) -> Generator[Any, None, T_co]:
        return self._app.drive_async(_wait(self, None, True)).__await__()

    @property
    def state(self) -> State:
        """What is known of it now; PENDING, too, for one that nobody knows."""
        return self._look().state

    status = state

    def look(self) -> tuple[State, Any]:
        """Its state, and with it its result, its progress or its error, as of one moment."""
        found = self._look()
        return found.state, found.value

    def ready(self) -> bool:
        """Whether it has ended."""
        return self.state in FINAL

    def successful(self) -> bool:
        """Whether it has ended well."""
        return self.state is State.SUCCESS

    def failed(self) -> bool:
        """Whether it has failed; one that was revoked has not."""
        return self.state is State.FAILURE

    @property
    def result(self) -> Any:
        """Its result, its progress or its error, without waiting; None where nothing is known."""
        return self._look().value

    info = result

    @property
    def progress(self) -> Any:
        """What it last said of how far it is; None when it has not, or has ended."""
        return self._look().progress

    @property
    def traceback(self) -> str | None:
        """The remote traceback, if it raised."""
        return self._look().traceback

    @property
    def date_done(self) -> float | None:
        """When it ended, Unix seconds by the broker's clock; None while it has not."""
        return self._look().date_done

    @property
    def children(self) -> list[AsyncResult[Any]]:
        """The tasks that it sent while it ran, once it has ended, or is to be retried."""
        return [AsyncResult(each, self._app) for each in self._look().children]

    def revoke(self) -> None:
        """End it: at once where it waits; where it runs, its worker is told to stop it."""
        self._app.drive(revoke_flow([self.id], revoked()))

    def forget(self) -> None:
        """Drop its result before its time."""
        self._app.companions.take(self)
        self._app.drive(forget_flow([self.id]))

    def _look(self) -> _Known:
        return self._app.drive(_look(self))[0]


class GroupResult(_Handle):
    """Several tasks that were sent together: of a group, or of a chain that ends in one."""

    def __init__(
        self,
        shape: Sequence[Inputs],
        app: Driver,
        parent: AsyncResult[Any] | GroupResult | None = None,
        is_kept: bool = True,
    ) -> None:
        super().__init__(shape, app, is_kept)
        self.parent = parent
        self._app = app
        #: The members, in their order: each an `AsyncResult`, or a `GroupResult` of a group within.
        self.results: list[AsyncResult[Any] | GroupResult] = [_result(each, app, None, is_kept) for each in shape]

    def get(self, timeout: float | None = None, *, propagate: bool = True) -> list[Any]:
        """Wait for all of them; their results as a list. Arguments and errors as `AsyncResult.get`."""
        found: list[Any] = self._app.drive(_wait(self, timeout, propagate))
        return found

    join = get

    def __await__(self) -> Generator[Any, None, list[Any]]:
        return self._app.drive_async(_wait(self, None, True)).__await__()

    def as_completed(self, timeout: float | None = None) -> Iterator[AsyncResult[Any] | GroupResult]:
        """The members as they end, each once; raises `DeadlineExceeded` when not all have within `timeout` seconds."""
        members = _Members(self.shape)
        until = None if timeout is None else self._app.clock() + timeout
        ended = members.empty or self._app.drive(members.wait(self._app, until))
        while ended:
            yield from (self.results[number] for number in ended)
            ended = self._app.drive(members.wait(self._app, until))

    def ready(self) -> bool:
        """Whether all have ended."""
        return all(each.state in FINAL for each in self._look())

    def successful(self) -> bool:
        """Whether all have ended well."""
        return all(each.state is State.SUCCESS for each in self._look())

    def failed(self) -> bool:
        """Whether one has failed."""
        return any(each.state is State.FAILURE for each in self._look())

    def waiting(self) -> bool:
        """Whether one has not ended."""
        return not self.ready()

    def completed_count(self) -> int:
        """How many have ended well."""
        return sum(each.state is State.SUCCESS for each in self._look())

    def revoke(self) -> None:
        """End all of them, see `AsyncResult.revoke`."""
        self._app.drive(revoke_flow(self.ids, revoked()))

    def forget(self) -> None:
        """Drop their results before their time."""
        self._app.drive(forget_flow(self.ids))

    def __iter__(self) -> Iterator[AsyncResult[Any] | GroupResult]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def __getitem__(self, index: int) -> AsyncResult[Any] | GroupResult:
        return self.results[index]

    def _look(self) -> list[_Known]:
        return self._app.drive(_look(self))


def _result(
    shape: Inputs, app: Driver, parent: AsyncResult[Any] | GroupResult | None, is_kept: bool
) -> AsyncResult[Any] | GroupResult:
    return (AsyncResult if isinstance(shape, str) else GroupResult)(shape, app, parent, is_kept)


def _with_parents(order: Order, make: Callable[[Inputs, H | None, bool], H]) -> H:
    parent: H | None = None
    for shape in order.before:
        parent = make(shape, parent, True)
    return make(order.result, parent, order.is_kept)


def make_result(order: Order, app: Driver) -> AsyncResult[Any] | GroupResult:
    """The handle of what was sent: of the last of a chain, with the others as its parents."""
    handle = _with_parents(order, lambda shape, parent, is_kept: _result(shape, app, parent, is_kept))
    if isinstance(handle, AsyncResult) and handle.is_kept:
        app.companions.add(handle)
    return handle


def make_awaitable(order: Order, app: AsyncDriver) -> AwaitableResult[Any]:
    """As `make_result`."""
    return _with_parents(order, lambda shape, parent, is_kept: AwaitableResult(shape, app, parent, is_kept))


class AwaitableResult(_Handle, Generic[T]):
    """What an `AsyncApp` gives: one task, or several that were sent together. `await` gives the result.

    The rest as `AsyncResult` and `GroupResult`, and awaited: their properties are methods here.
    """

    def __init__(
        self, shape: Inputs, app: AsyncDriver, parent: AwaitableResult[Any] | None = None, is_kept: bool = True
    ) -> None:
        super().__init__(shape, app, is_kept)
        self.parent = parent
        self._app = app
        members = () if isinstance(shape, str) else shape
        #: Of several: the members, in their order.
        self.results: list[AwaitableResult[Any]] = [AwaitableResult(each, app, None, is_kept) for each in members]

    def __await__(self) -> Generator[Any, None, T]:
        return self.get().__await__()

    async def get(self, timeout: float | None = None, *, propagate: bool = True) -> T:
        """See `AsyncResult.get`."""
        found: T = await self._app.drive(_wait(self, timeout, propagate))
        return found

    async def as_completed(self, timeout: float | None = None) -> AsyncIterator[AwaitableResult[Any]]:
        """See `GroupResult.as_completed`."""
        members = _Members([] if isinstance(self.shape, str) else self.shape)
        until = None if timeout is None else self._app.clock() + timeout
        ended = members.empty or await self._app.drive(members.wait(self._app, until))
        while ended:
            for number in ended:
                yield self.results[number]
            ended = await self._app.drive(members.wait(self._app, until))

    async def state(self) -> State:
        """What is known of it; of several: the worst there is (FAILURE, REVOKED, …), SUCCESS if all have ended well."""
        return (await self.look())[0]

    async def look(self) -> tuple[State, Any]:
        """See `AsyncResult.look`; of several the worst state, and a list."""
        found = await self._look()
        state = max((each.state for each in found), key=_BADNESS.index, default=State.SUCCESS)
        return state, self._one_or_all([each.value for each in found])

    async def ready(self) -> bool:
        """Whether it has ended."""
        return all(each.state in FINAL for each in await self._look())

    async def successful(self) -> bool:
        """Whether it has ended well."""
        return all(each.state is State.SUCCESS for each in await self._look())

    async def failed(self) -> bool:
        """Whether it has failed."""
        return any(each.state is State.FAILURE for each in await self._look())

    async def progress(self) -> Any:
        """See `AsyncResult.progress`; of several a list."""
        return self._one_or_all([each.progress for each in await self._look()])

    async def result(self) -> Any:
        """See `AsyncResult.result`; of several a list."""
        return (await self.look())[1]

    info = result

    async def date_done(self) -> float | None:
        """See `AsyncResult.date_done`; of several that of the last."""
        found = [each.date_done for each in await self._look()]
        return None if None in found else max((each for each in found if each is not None), default=None)

    async def waiting(self) -> bool:
        """Whether one has not ended."""
        return not await self.ready()

    async def completed_count(self) -> int:
        """How many have ended well."""
        return sum(each.state is State.SUCCESS for each in await self._look())

    async def children(self) -> list[AwaitableResult[Any]]:
        """See `AsyncResult.children`; of several those of all."""
        return [AwaitableResult(child, self._app) for each in await self._look() for child in each.children]

    async def traceback(self) -> str | None:
        """See `AsyncResult.traceback`; of several the first."""
        return next((each.traceback for each in await self._look() if each.traceback is not None), None)

    async def revoke(self) -> None:
        """See `AsyncResult.revoke`."""
        await self._app.drive(revoke_flow(self.ids, revoked()))

    async def forget(self) -> None:
        """See `AsyncResult.forget`."""
        await self._app.drive(forget_flow(self.ids))

    async def _look(self) -> list[_Known]:
        return await self._app.drive(_look(self))

    def _one_or_all(self, found: list[Any]) -> Any:
        return found[0] if isinstance(self.shape, str) else found


_BADNESS = (State.SUCCESS, State.PENDING, State.STARTED, State.PROGRESS, State.RETRY, State.REVOKED, State.FAILURE)
