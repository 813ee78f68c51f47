"""What the broker is told to make of a canvas: which messages are published now, and which when others have ended.

Everything that follows something is a join in the broker, which knows its publications from the start. So nothing
depends on the sender, nor on the worker that runs a task, being there afterwards, and whatever ends a task (a worker
that dies too often, an expiry, a cancelling) is counted in the transaction that ends it.

For each call that others wait for, the join publishes either the calls that follow, or, when it has failed, the same
calls marked as `upstream_failed`: they end as failed without a run, which fails what follows them, and so on to the
last. Nobody waits for ever. An empty group has ended well as soon as what is before it has.

Rule: pure; moments and new ids are given. The order of ids is that of the canvas.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgspec

from backwater_tornado.broker.values import Join, Message, Publication
from backwater_tornado.errors import InvalidOption, Unserializable
from backwater_tornado.protocol.codec import MSGPACK, Codec

from .messages import (
    DEFAULT_QUEUE,
    MAX_INPUTS_DEPTH,
    RESULT_EXPIRES,
    Inputs,
    TaskHeaders,
    codec_of,
    encode_headers,
    input_ids,
)
from .options import SendOptions, media_type_of
from .signatures import Canvas, Chain, Group, Signature

#: A join that has not come together by then is forgotten: longer than any result is kept, seconds.
JOIN_EXPIRES: Final = 30 * 86_400.0
#: Groups within chains within groups, and links of links: what is deeper is a mistake, and no worker would read it.
MAX_NESTING: Final = MAX_INPUTS_DEPTH


@dataclass(frozen=True, kw_only=True)
class Context:
    """What is the same for all of one sending."""

    #: The broker's time, Unix seconds.
    now: float
    new_id: Callable[[], str]
    queue: str = DEFAULT_QUEUE
    result_expires: float = RESULT_EXPIRES
    #: The task that sends, if one does.
    root: str = ""
    parent: str = ""
    #: Headers that were written: for a task with these options (by identity, kept beside) and this root.
    written: dict[tuple[str, int], tuple[SendOptions, str, bytes]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Order:
    """What is published, and what the result is made of."""

    publications: tuple[Publication, ...]
    joins: tuple[Join, ...]
    #: The ids whose results are the result, see `messages.Inputs`.
    result: Inputs
    #: The ids of all its messages, in the order of the canvas.
    ids: tuple[str, ...]
    #: The results of a chain's steps before its last.
    before: tuple[Inputs, ...] = ()
    #: Whether all of the result is kept (`ignore_result`).
    is_kept: bool = True


@dataclass(slots=True)
class _Placed:
    """A part of a canvas: what starts it, what starts it when what it waits for has failed, and what its result is."""

    start: list[Publication] = field(default_factory=list)
    abort: list[Publication] = field(default_factory=list)
    result: Inputs = None
    #: How many of its messages count for the joins that wait for it.
    size: int = 0
    #: Of a chain: the results of the steps before its last.
    before: list[Inputs] = field(default_factory=list)


def plan_canvas(canvas: Canvas, context: Context) -> Order:
    """What to publish for a canvas.

    Raises:
        Unserializable: an argument, or a header of the sender's.
        InvalidOption: this is no canvas; `unique_for` without `unique`; two calls with the same `task_id`; more than
            `MAX_NESTING` levels.
    """
    if isinstance(canvas, Signature) and not canvas.options.link and not canvas.options.link_error:
        publication = _publication(canvas, context, canvas.options.task_id or context.new_id(), (), _NOTHING)
        own = publication.message.id
        return Order((publication,), (), own, (own,), is_kept=publication.message.keep_result is not None)
    planner = _Planner(context)
    placed = planner.place(canvas, _NOTHING, ())
    is_kept = planner.ignored.isdisjoint(input_ids(placed.result))
    before = tuple(placed.before)
    return Order(tuple(placed.start), tuple(planner.joins), placed.result, tuple(planner.ids), before, is_kept)


@dataclass(frozen=True, slots=True)
class _Before:
    """What a call waits for, and whether it is given the ids instead of the results."""

    inputs: Inputs = None
    by_id: bool = False


_NOTHING = _Before()


class _Planner:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._depth = 0
        self.joins: list[Join] = []
        #: As keys, in their order.
        self.ids: dict[str, None] = {}
        #: Those whose results are kept for nobody.
        self.ignored: set[str] = set()

    def place(self, canvas: Canvas, before: _Before, joins: tuple[str, ...]) -> _Placed:
        """Place a canvas behind what it waits for; the messages that it ends with count for `joins`."""
        if self._depth == MAX_NESTING:
            raise InvalidOption(f"calls are nested in more than {MAX_NESTING} levels of groups, chains and links")
        self._depth += 1
        match canvas:
            case Signature():
                placed = self._place_call(canvas, before, joins)
            case Chain(steps):
                placed = self._place_chain(steps, before, joins)
            case Group(members):
                placed = self._place_group(members, before, joins)
            case _:
                raise InvalidOption(f"{canvas!r} cannot be sent; a call is made by .s(…), .si(…) or signature(…)")
        self._depth -= 1
        return placed

    def _place_call(self, call: Signature, before: _Before, joins: tuple[str, ...]) -> _Placed:
        options, context = call.options, self._context
        own = options.task_id or context.new_id()
        if own in self.ids:  # it would be sent once, and waited for twice
            raise InvalidOption(f"two calls have the same task_id {own!r}")
        self.ids[own] = None
        if not context.root:
            self._context = context = replace(context, root=own)
        if options.link or options.link_error:
            joins = (*joins, f"{own}:links")
        publication = _publication(call, context, own, joins, before)
        if publication.message.keep_result is None:
            self.ignored.add(own)
        if options.link or options.link_error:
            well = [self._follow(each, _Before(own)) for each in options.link]
            badly = [self._follow(each, _Before(own, by_id=True)) for each in options.link_error]
            self._join(f"{own}:links", 1, well, badly)
        return _Placed([publication], [_aborted(publication, before)], own, 1)

    def _follow(self, call: Signature, before: _Before) -> Publication:
        (publication,) = self.place(call, before, ()).start
        return publication

    def _place_chain(self, steps: tuple[Canvas, ...], before: _Before, joins: tuple[str, ...]) -> _Placed:
        whole = _Placed()
        last = max((number for number, step in enumerate(steps) if not _is_empty(step)), default=-1)
        waited_for: tuple[str, ...] = ()
        for number, step in enumerate(steps):
            own = joins if number == last else (self._context.new_id(),)
            placed = self.place(step, before, own)
            whole.before += [whole.result] if number else []
            whole.result, before = placed.result, _Before(placed.result)
            if not placed.size:
                continue
            if whole.size:
                self._join(waited_for[0], whole.size, placed.start, placed.abort)
            else:
                whole.start, whole.abort = placed.start, placed.abort
            whole.size, waited_for = placed.size, own
        return whole

    def _place_group(self, members: tuple[Canvas, ...], before: _Before, joins: tuple[str, ...]) -> _Placed:
        placed = _Placed(result=[])
        for member in members:
            each = self.place(member, before, joins)
            placed.start.extend(each.start)
            placed.abort.extend(each.abort)
            placed.result.append(each.result)
            placed.size += each.size
        return placed

    def _join(self, id: str, size: int, then: list[Publication], otherwise: list[Publication]) -> None:
        expires = self._context.now + JOIN_EXPIRES
        self.joins.append(Join(id, size, tuple(then), tuple(otherwise), expires=expires))


def _is_empty(canvas: Canvas) -> bool:
    """Whether there is no call in it."""
    match canvas:
        case Chain(steps):
            return all(map(_is_empty, steps))
        case Group(members):
            return all(map(_is_empty, members))
    return False


def _publication(call: Signature, context: Context, own: str, joins: tuple[str, ...], before: _Before) -> Publication:
    options = call.options
    if options.unique_for is not None and options.unique is None:
        raise InvalidOption(
            f"unique_for of {call.task} says how long a key is held, and there is none: give unique, too"
        )
    media_type = media_type_of(options.serializer)
    message = Message(
        own,
        _encoded(codec_of(media_type), [list(call.args), call.kwargs], f"[args, kwargs] of {call.task}"),
        headers=_headers(call, context, before),
        content_type=media_type,
        priority=options.priority or 0,
        not_before=options.eta,
        expires=options.expires_at,
        unique=options.unique,
        unique_until=None if options.unique_for is None else context.now + options.unique_for,
        joins=joins,
        keep_result=_keep_result(options, context, joins),
    )
    return Publication(
        message, options.queue or context.queue, delay=options.countdown or 0.0, lifetime=options.expires
    )


def _encoded(codec: Codec, value: Any, what: str) -> bytes:
    try:
        return codec.encode(value)
    except Unserializable as error:
        raise Unserializable(f"the {what}: {error}") from error


def _headers(call: Signature, context: Context, before: _Before) -> bytes:
    """The headers, encoded; those of like calls are alike, and many like calls are sent at once."""
    plain = before is _NOTHING
    known = context.written.get((call.task, id(call.options))) if plain else None
    if known is not None and known[0] is call.options and known[1] == context.root:
        return known[2]
    options = call.options
    written = encode_headers(
        TaskHeaders(
            call.task,
            root=context.root,
            parent=context.parent,
            inputs=None if call.immutable else before.inputs,
            inputs_by_id=before.by_id,
            time_limit=options.time_limit,
            soft_time_limit=options.soft_time_limit,
            max_retries=options.max_retries,
            custom=_encoded(MSGPACK, options.headers, f"headers of {call.task}") if options.headers else b"",
        )
    )
    if plain:
        context.written[call.task, id(options)] = (options, context.root, written)
    return written


def _keep_result(options: SendOptions, context: Context, joins: tuple[str, ...]) -> float | None:
    """How long: what others wait for is kept in any case."""
    kept = context.result_expires if options.result_expires is None else options.result_expires
    if options.ignore_result and not joins:
        return None
    return max(kept, context.result_expires) if joins else kept


def _aborted(publication: Publication, before: _Before) -> Publication:
    """The same message, to end as failed: at once, and whoever holds its unique key."""
    message = publication.message
    headers = msgspec.msgpack.decode(message.headers, type=TaskHeaders)
    marked = msgspec.structs.replace(headers, inputs=before.inputs, upstream_failed=True)
    ended = msgspec.structs.replace(
        message, headers=encode_headers(marked), body=b"", not_before=None, expires=None, unique=None, unique_until=None
    )
    return Publication(ended, publication.routing_key)
