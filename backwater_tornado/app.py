"""An application: whoever sends tasks. `App` blocks, `AsyncApp` is awaited.

Both plan what to send (`tasks.workflow`), drive the same flows (`tasks.flows`), and perform each ask of a flow as a
call of the broker, which is an ordinary module on an ordinary server.

    app = backwater.App("https://broker.example:8443", secret)
    add.delay(1, 2).get(timeout=10)
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable, Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar, overload

import msgspec

from .broker.values import Entry, unpack
from .client import AsyncClient, Client
from .driving import drive, drive_async
from .errors import InvalidOption
from .outbox.amounts import Bounds, WhenFull
from .outbox.parcels import Parcel, make_parcels
from .outbox.spool import Spool
from .outbox.stores import open_outbox
from .outbox.within import Within
from .results import AsyncResult, AwaitableResult, GroupResult, make_awaitable, make_result
from .sharing import Sharing
from .tasks.asks import Ask
from .tasks.companions import Companions
from .tasks.current import enter_block, leave_block, set_default_sender
from .tasks.entries import make_entry, pattern_of
from .tasks.flows import Flow, Nap, revoke_flow, send_flow
from .tasks.messages import DEFAULT_QUEUE, RESULT_EXPIRES
from .tasks.options import make_send_options
from .tasks.outcomes import revoked
from .tasks.request import TaskRequest, current_task
from .tasks.schedule import Schedule, schedule_of
from .tasks.signatures import Canvas, Chain, Group, Signature, signature
from .tasks.workflow import Context, Order, plan_canvas

T = TypeVar("T")

#: Silence after which a link counts as dead, seconds; an ask waits at the broker for less.
RECV_TIMEOUT = 8.0
#: How long sending may take until it raises, with all attempts, seconds.
SEND_TIMEOUT = 15.0
#: Tasks that threads send in one request, at most.
TOGETHER = 500
#: As `RECV_TIMEOUT`, where an outbox is forwarded: that never waits at the broker.
FORWARD_TIMEOUT = 3.0
_MODULE = "broker"


class AppOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What an application does where a task says nothing; seconds wherever time is meant."""

    queue: str = DEFAULT_QUEUE
    result_expires: float = RESULT_EXPIRES
    #: Sending raises when the broker has not answered by then.
    send_timeout: float = SEND_TIMEOUT
    #: Raise a remote exception as its own class where that is a builtin or one of `exceptions`.
    rethrow_remote_exceptions: bool = False
    exceptions: tuple[type[Exception], ...] = ()
    #: Where tasks are kept until the broker has them, `sqlite:///var/lib/myapp/outbox.db` or `postgresql://…`.
    #: None: they are sent at once.
    outbox: str | None = None
    #: How much that holds, refused tasks included: messages, and bytes of their bodies.
    outbox_messages: int = 1_000_000
    outbox_bytes: int = 1 << 30
    #: When that is reached sending raises, waits for room (`send_timeout` at most), or drops the oldest tasks.
    outbox_full: WhenFull = "refuse"

    def __post_init__(self) -> None:
        make_send_options({"queue": self.queue, "result_expires": self.result_expires})
        timeout: Any = self.send_timeout
        if not isinstance(timeout, int | float) or not 0 < timeout < float("inf"):
            raise InvalidOption(f"send_timeout is a number above 0, not {timeout!r}")


class _Application:
    """What both have in common."""

    #: The handle of what was sent.
    _make: ClassVar[staticmethod[[Order, Any], Any]]

    def __init__(self, endpoints: object, secret: object, options: dict[str, Any]) -> None:
        names = msgspec.structs.fields(AppOptions)
        own = {each.name: options.pop(each.name) for each in names if each.name in options}
        self.options = AppOptions(**own)
        self.endpoints, self.secret = endpoints, secret
        # A poll is nearly always in flight: nothing waits for the next one.
        self.client_options = {"recv_timeout": RECV_TIMEOUT, "coalesce_delay": 0.0, **options}
        recv_timeout = self.client_options["recv_timeout"]
        if not isinstance(recv_timeout, int | float) or not recv_timeout > 0:
            raise InvalidOption(f"recv_timeout is a number above 0, not {recv_timeout!r}")
        #: How long an ask may wait at the broker.
        self.poll_wait = 0.75 * recv_timeout
        self.clock = time.monotonic
        self._entries: dict[str, Entry] = {}
        self.rethrow, self.exceptions = self.options.rethrow_remote_exceptions, self.options.exceptions
        self._bounds = Bounds(self.options.outbox_messages, self.options.outbox_bytes, self.options.outbox_full)
        self.spool = None if self.options.outbox is None else self._open_spool(self.options.outbox)

    def _open_spool(self, url: str) -> Spool:
        # A forwarder tries again by itself, and wants to know soon that it has to.
        given = {**self.client_options, "max_attempts": 1}
        given["recv_timeout"] = min(given["recv_timeout"], FORWARD_TIMEOUT)
        options = {"send_timeout": self.options.send_timeout, **given}
        return Spool(
            open_outbox(url, self._bounds),
            lambda: AsyncApp(self.endpoints, self.secret, **options),
            patience=self.options.send_timeout if self._bounds.when_full == "wait" else 0.0,
        )

    def plan(self, canvases: Iterable[Canvas]) -> list[Order]:
        """What the broker is told to make of each canvas."""
        task = current_task()
        context = self._context(time.time(), None if task is None else task.request)
        return [plan_canvas(canvas, context) for canvas in canvases]

    def outbox_in(self, connection: object) -> Within:
        """Send within a transaction of your own: what is sent is there when you commit, and only then.

        Its database has the tables of an outbox: it is what `outbox` names, or `backwater forward` is pointed at it.
        Sending only writes, so it does not wait for a link, and there is nothing to await::

            with sqlite3.connect("/var/lib/myapp/app.db") as connection, app.outbox_in(connection):
                connection.execute("INSERT INTO orders …")
                confirm.delay(7)

        Args:
            connection: of `sqlite3` or psycopg, or a `Connection` or `Session` of SQLAlchemy for SQLite or PostgreSQL.

        Raises:
            InvalidOption: it is none of these.
            ConfigurationError: the file of SQLite has no outbox.
        """
        if self.spool is not None:
            self.spool.start()
        return Within(connection, self._pack, self._handle, self._bounds)

    def _handle(self, order: Order) -> Any:
        _adopt([order])
        return self._make(order, self)

    def _pack(self, canvases: Iterable[Canvas]) -> tuple[list[Order], list[Parcel]]:
        orders = self.plan(canvases)
        return orders, make_parcels(orders, time.time())

    def _context(self, now: float, request: TaskRequest | None = None) -> Context:
        return Context(
            now=now,
            new_id=new_id,
            queue=self.options.queue,
            result_expires=self.options.result_expires,
            root="" if request is None else request.root_id or request.id,
            parent="" if request is None else request.id,
        )

    def periodic(self, name: str, schedule: Schedule | str | float | timedelta, call: Canvas) -> None:
        """Have a task sent again and again: workers of this application see to it, any number of them, once each time.

        Args:
            name: of the entry in the broker's schedule; a later one of the same name takes its place.
            schedule: `Every(…)` or seconds, `Cron(…)` or its text, such as `"*/5 8-18 * * mon-fri"` (UTC).
            call: what is sent; without links, and its options as spans (`countdown`, `expires` in seconds).

        Raises:
            InvalidOption: the name or the schedule is wrong, or the call is none that can be sent again and again.
        """
        entry = make_entry(name, schedule_of(schedule), pattern_of(call, self._context(0.0)), time.time())
        self._entries[name] = entry

    def entries(self) -> list[Entry]:
        """The periodic tasks as entries of the broker's schedule."""
        return list(self._entries.values())

    def _options_for(self, ask: Ask[Any]) -> dict[str, Any]:
        timeout = ask.wait + self.options.send_timeout if ask.within is None else ask.within
        returns = None if ask.packed else ask.returns
        return {"returns": returns, "idempotent": True, "timeout": timeout, "waits": ask.wait}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.endpoints!r})"


def _adopt(orders: Iterable[Order]) -> None:
    """The task that runs, if one does, knows what it has sent."""
    task = current_task()
    if task is not None:
        task.children.extend(each for order in orders for each in order.ids)


def new_id() -> str:
    """An id that nobody can guess: who has it may ask for the result. It begins with its time in milliseconds.

    (So the broker writes what belongs together side by side: a drain writes a quarter of what random ids cost.)
    """
    return f"{time.time_ns() // 1_000_000:012x}{os.urandom(10).hex()}"


def _opened(ask: Ask[T], answer: Any) -> T:
    return unpack(answer, ask.returns) if ask.packed else answer  # type: ignore[no-any-return]


class App(_Application):
    """Sends tasks to a broker and waits for their results.

    Args:
        endpoints, secret: the broker's, as of a `Client`.
        default: `add.delay(…)` sends with the application that was made last; False: not with this one.
        options: fields of `AppOptions`, and of a client: `ClientOptions` and `Limits`.

    Safe to use from many threads, and after a fork. What was sent has been accepted and is on the broker's disk; with
    an outbox it is on this host's, and the broker has it as soon as the link lets it through.
    """

    _make = staticmethod(make_result)

    def __init__(self, endpoints: object, secret: object, *, default: bool = True, **options: Any) -> None:
        super().__init__(endpoints, secret, dict(options))
        self._client = Client(endpoints, secret, **self.client_options)
        self._sharing: Sharing[Order] = Sharing(lambda orders: self.drive(send_flow(orders)), TOGETHER)
        self._twin: AsyncApp | None = None
        self.companions = Companions()
        self._given = {name: value for name, value in options.items() if not name.startswith("outbox")}
        self._faces: dict[tuple[str, float], Client] = {}
        if default:
            set_default_sender(self)

    @overload
    def send(self, canvas: Signature) -> AsyncResult[Any]: ...
    @overload
    def send(self, canvas: Group) -> GroupResult: ...
    @overload
    def send(self, canvas: Chain) -> Any: ...
    def send(self, canvas: Canvas) -> Any:
        """Send a signature, chain or group; gives an `AsyncResult`, or a `GroupResult` if its result is a list.

        Raises:
            TaskNotAccepted: the broker refused it, by its reason.
            Unreachable, DeadlineExceeded, …: it could not be handed over; sending it again under the same id is safe.
            OutboxFull, StorageFailed: with an outbox, instead: there is no room in it, or its disk has failed.
        """
        return self.send_many([canvas])[0]

    def send_many(self, canvases: Iterable[Canvas]) -> list[Any]:
        """Send many in as few requests as possible; their results in their order. Errors as `send`."""
        orders = self.plan(canvases)
        if self.spool is None:
            self._sharing.send(orders)
        else:
            self.spool.put(orders)
        _adopt(orders)
        return [make_result(order, self) for order in orders]

    def send_task(
        self, name: str, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> AsyncResult[Any]:
        """Send a task that is known by its name only, `module.name`."""
        return self.send(signature(name, args, kwargs, **options))

    def result(self, id: str) -> AsyncResult[Any]:
        """The handle of a task that was sent by anybody."""
        return AsyncResult(id, self)

    def revoke(self, *ids: str) -> None:
        """End tasks wherever they are, see `AsyncResult.revoke`."""
        self.drive(revoke_flow(ids, revoked()))

    def flush(self, timeout: float | None = None) -> None:
        """Wait until the broker has all that is in the outbox now, or has refused it.

        Raises:
            DeadlineExceeded: not all of it within `timeout` seconds; it stays there.
        """
        if self.spool is not None:
            self.drive(self.spool.flush(timeout, self.clock))

    def ask(self, ask: Ask[T]) -> T:
        """Ask the broker."""
        ask = ask.waiting(self._client.patience(ask.wait)) if ask.wait else ask
        face = self._faces.get((ask.verb, ask.wait)) if ask.within is None else None
        if face is None:
            face = self._client.with_options(**self._options_for(ask))
            if ask.within is None and ask.wait in (0.0, self.poll_wait):  # others are many
                self._faces[ask.verb, ask.wait] = face
        return _opened(ask, face.call(_MODULE, ask.verb, *ask.args))

    def drive(self, flow: Flow[T]) -> T:
        """Run a flow to its end in this thread."""
        return drive(flow, self._perform)

    async def drive_async(self, flow: Flow[T]) -> T:
        """Run a flow to its end on the loop."""
        if self._twin is None:
            self._twin = AsyncApp(self.endpoints, self.secret, **self._given)
        return await self._twin.drive(flow)

    def _perform(self, step: Ask[Any] | Nap) -> Any:
        if isinstance(step, Nap):
            time.sleep(step.seconds)
            return None
        return self.ask(step)

    def close(self) -> None:
        """Close the connections of this thread, and forward no more.

        What is in an outbox is given a moment to go while the link is up. What does not is forwarded by whoever opens
        the outbox next.
        """
        if self.spool is not None:
            self.drive(self.spool.linger(self.clock))
            self.spool.close()
        self._client.close()

    def __enter__(self) -> Self:
        enter_block(self)
        return self

    def __exit__(self, *error: object) -> None:
        leave_block()
        self.close()


class AsyncApp(_Application):
    """Sends tasks to a broker; every verb is awaited. Arguments as `App`; it is never the default of `delay`."""

    _make = staticmethod(make_awaitable)

    def __init__(self, endpoints: object, secret: object, **options: Any) -> None:
        super().__init__(endpoints, secret, options)
        self._client = AsyncClient(endpoints, secret, **self.client_options)

    async def send(self, canvas: Canvas) -> AwaitableResult[Any]:
        """See `App.send`."""
        return (await self.send_many([canvas]))[0]

    async def send_many(self, canvases: Iterable[Canvas]) -> list[AwaitableResult[Any]]:
        """See `App.send_many`."""
        orders = self.plan(canvases)
        if self.spool is None:
            await self.drive(send_flow(orders))
        else:
            await asyncio.to_thread(self.spool.put, orders)
        _adopt(orders)
        return [make_awaitable(order, self) for order in orders]

    async def send_task(
        self, name: str, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> AwaitableResult[Any]:
        """See `App.send_task`."""
        return await self.send(signature(name, args, kwargs, **options))

    def result(self, id: str) -> AwaitableResult[Any]:
        """See `App.result`."""
        return AwaitableResult(id, self)

    async def revoke(self, *ids: str) -> None:
        """See `App.revoke`."""
        await self.drive(revoke_flow(ids, revoked()))

    async def flush(self, timeout: float | None = None) -> None:
        """See `App.flush`."""
        if self.spool is not None:
            await self.drive(self.spool.flush(timeout, self.clock))

    async def ask(self, ask: Ask[T]) -> T:
        """Ask the broker."""
        ask = ask.waiting(self._client.patience(ask.wait)) if ask.wait else ask
        face = self._client.with_options(**self._options_for(ask))
        return _opened(ask, await face.call(_MODULE, ask.verb, *ask.args))

    async def drive(self, flow: Flow[T]) -> T:
        """Run a flow to its end on the loop."""
        return await drive_async(flow, self._perform)

    async def _perform(self, step: Ask[Any] | Nap) -> Any:
        if isinstance(step, Nap):
            await asyncio.sleep(step.seconds)
            return None
        return await self.ask(step)

    def close(self) -> None:
        """Close all connections, and forward no more; what is in an outbox stays there."""
        if self.spool is not None:
            self.spool.close()
        self._client.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.spool is not None:
            await self.drive(self.spool.linger(self.clock))
        self.close()
