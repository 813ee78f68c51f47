"""What the broker keeps and hands out: plain frozen values.

A message is bytes with a little around them that the broker acts on; headers and body it never opens. Moments are Unix
seconds, spans seconds, sizes bytes.

Rule: values only; what is done with them is the store's (`store`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final, Literal, TypeVar

import msgspec

from backwater_tornado.errors import BodyUndecodable

from .bounds import Count, Life, Moment, Name, NewName, Priority, Rate, Span, Text

#: The exchange that everybody has: its routing key is the name of a queue.
DEFAULT_EXCHANGE: Final = ""


# Topology ------------------------------------------------------------------------------------------------------------

ExchangeKind = Literal["direct", "topic", "fanout"]


class Exchange(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where messages are published to; bindings say into which queues they go."""

    name: NewName
    kind: ExchangeKind = "direct"
    #: Gone with its last binding.
    auto_delete: bool = False


class Queue(msgspec.Struct, frozen=True, omit_defaults=True):
    """A queue and its limits; None means none."""

    name: NewName
    #: A higher priority counts as this.
    max_priority: Priority = 9
    #: A message that waits longer expires; counted from its publication or, if that is later, its `not_before`.
    message_ttl: Span | None = None
    #: Deleted when it had no receiving session and nobody declared it for so long.
    expires: Span | None = None
    #: Messages waiting, delayed ones included.
    max_length: Count | None = None
    #: What a full queue does: refuse the new message, or drop the one that would be received next.
    overflow: Literal["refuse", "drop_head"] = "refuse"
    #: The session that has it for itself; deleted with it.
    exclusive: str | None = None
    #: Deleted when its last receiving session has gone; one that has polled for it is receiving as long as it lives.
    auto_delete: bool = False
    #: A message that comes back after so many deliveries is put aside as dead.
    max_deliveries: Count | None = 20
    #: Deliveries out at the same time, over all sessions.
    max_running: Count | None = None
    #: Deliveries in a second, over all sessions: evenly, with at most a tenth of a second's worth (and one) at once.
    rate: Rate | None = None
    #: Whether what is put aside is kept among the dead; if not, it is dropped (events, replies).
    keep_dead: bool = True
    #: Nothing is handed out.
    paused: bool = False
    #: Gone when the broker restarts, with all that is in it; so nobody waits until the disk has its messages.
    transient: bool = False


class Binding(msgspec.Struct, frozen=True, omit_defaults=True):
    """Messages of an exchange whose routing key fits `pattern` go into a queue; see `routing`."""

    exchange: Name
    queue: Name
    pattern: Name = ""


# Messages ------------------------------------------------------------------------------------------------------------


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message as its publisher made it."""

    #: Unique for ever; a second publish with the same id is the first one's repetition. It has the same body, headers,
    #: content type and encoding, exchange and routing key; priority and times may differ, they are often made anew.
    id: Name
    body: bytes
    #: Encoded by the publisher, for the receiver.
    headers: bytes = b""
    content_type: Name = ""
    content_encoding: Name = ""
    priority: Priority = 0
    #: Not handed out before; its place is that of its publication all the same.
    not_before: Moment | None = None
    #: Put aside (reason `expired`) if not handed out by then, or if it comes back later than that.
    expires: Moment | None = None
    #: While a message with this key waits or runs, no other with it is accepted.
    unique: Name | None = None
    #: The key is free after this in any case.
    unique_until: Moment | None = None
    #: The joins that its end counts for, once for each.
    joins: tuple[Name, ...] = ()
    #: How long its result is kept; None: it has none.
    keep_result: Span | None = None


def replaced(message: Message, by: Message) -> Message:
    """Another message in the place of one: what others know it by stays."""
    return msgspec.structs.replace(
        by, id=message.id, unique=message.unique, unique_until=message.unique_until, joins=message.joins
    )


class Publication(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message on its way into queues."""

    message: Message
    routing_key: Name
    exchange: Name = DEFAULT_EXCHANGE
    #: Seconds from its publication, by the broker's clock: until its `not_before`, and until it expires. What a join or
    #: a settlement publishes is published then. They go before the message's own moments.
    delay: Span = 0.0
    lifetime: Span | None = None


def timed(publication: Publication, now: float) -> Publication:
    """A publication at the moment of it, with moments in place of spans."""
    if not publication.delay and publication.lifetime is None:
        return publication
    message, delay, lifetime = publication.message, publication.delay, publication.lifetime
    message = msgspec.structs.replace(
        message,
        not_before=now + delay if delay else message.not_before,
        expires=message.expires if lifetime is None else now + lifetime,
    )
    return msgspec.structs.replace(publication, message=message, delay=0.0, lifetime=None)


class Join(msgspec.Struct, frozen=True, omit_defaults=True):
    """Publishes all of `then` once `size` different messages that name it have ended, however they ended.

    An ACK, and a cancelling, has failed if its outcome says so; whatever is put aside or dropped has failed. What is
    put aside has ended, unless it is parked. A message with several copies ends with the last of them, and has failed
    if one of them has. Messages that end before the join is known are counted when it comes.
    """

    id: Name
    size: Count
    then: tuple[Publication, ...]
    #: Instead of `then` when one of them failed; None: `then` in any case.
    otherwise: tuple[Publication, ...] | None = None
    #: Forgotten after this if it has not come together by then.
    expires: Moment | None = None


class PublishState(StrEnum):
    """What became of a publication."""

    ACCEPTED = "accepted"
    #: It was accepted before; nothing was done.
    DUPLICATE = "duplicate"
    #: No queue is bound for it; it is dropped, as AMQP has it.
    UNROUTED = "unrouted"
    REFUSED = "refused"


class Published(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer to one publication; `queues` are those it is in."""

    state: PublishState
    queues: tuple[str, ...] = ()
    #: Why it was refused.
    reason: Literal["", "unknown_exchange", "queue_full", "unique_key_held", "id_of_another_message"] = ""


# Deliveries ----------------------------------------------------------------------------------------------------------


class Session(msgspec.Struct, frozen=True, omit_defaults=True):
    """A receiver. What it holds goes back when it has not been heard of for `ttl`."""

    id: str
    #: Of the key that opened it; no other may use it.
    owner: str
    ttl: Life = 30.0


class Poll(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a session asks for, and what it tells by asking.

    It speaks for the deliveries up to `confirmed` only, so one that was overtaken by another takes nothing away.
    """

    #: Queues, in order of preference, with how many more messages are wanted from each at most.
    wants: tuple[tuple[Name, Count], ...]
    #: Messages wanted in all, at most.
    credit: Count
    #: The number of the last batch that arrived; an older one makes the store hand out the last batch again.
    confirmed: Count = 0
    #: The deliveries that it still holds, of confirmed batches; any other goes back. None: not told.
    held: tuple[Count, ...] | None = None


class Delivery(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message handed to a session."""

    #: The lease's own number, higher than any before: what settles it. An older lease cannot.
    token: int
    queue: str
    message: Message
    #: The routing of its publication.
    exchange: str
    routing_key: str
    #: Deliveries so far, this one included.
    count: int
    published_at: float


class Batch(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer to a poll."""

    #: Higher than that of every earlier batch of the session, and not below the tokens in it.
    number: int
    deliveries: tuple[Delivery, ...] = ()
    #: Of the deliveries it holds: those whose message was cancelled; told with every poll.
    cancelled: tuple[int, ...] = ()
    #: The broker's time as it goes out, Unix seconds.
    now: float = 0.0


class Verdict(StrEnum):
    """How a delivery ends."""

    #: Done; the message is gone.
    ACK = "ack"
    #: Back to its old place, after `delay`, perhaps as another message (a task's retry; deliveries count from 0 then).
    REQUEUE = "requeue"
    #: Back to its old place, after `delay`: its receiver has not begun, so this delivery does not count.
    RETURN = "return"
    #: Put aside among the dead.
    REJECT = "reject"
    #: Put aside until somebody says that it is known now. It has not ended: its unique key is held, no join counts it.
    PARK = "park"
    #: It goes on; only its result changes (progress).
    KEEP = "keep"


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known of a message's end, or of its way there; the body is opaque."""

    state: Name
    body: bytes = b""
    content_type: Name = ""
    #: It counts as failed for a join.
    failed: bool = False
    #: Messages that it has published, as its receiver has it.
    children: tuple[Name, ...] = ()


class Settlement(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a session says of one delivery."""

    token: Count
    verdict: Verdict = Verdict.ACK
    outcome: Outcome | None = None
    #: For KEEP: it has begun, and must not begin again. If it comes back, other than for a retry, it is put aside as
    #: dead (reason `lost`).
    once: bool = False
    #: For REQUEUE and RETURN: not handed out again before so many seconds have passed.
    delay: Span = 0.0
    #: For REQUEUE: what goes back in its place, with the id, the unique key and the joins of the first.
    replacement: Message | None = None
    #: For REJECT and PARK.
    reason: Text = ""
    #: Published in the same transaction (links, the next of a chain).
    then: tuple[Publication, ...] = ()


class SettleState(StrEnum):
    """What became of a settlement."""

    DONE = "done"
    #: The lease has passed on, or never was: nothing was done.
    STALE = "stale"


# Afterwards ----------------------------------------------------------------------------------------------------------


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """The last that was said of a message."""

    id: str
    outcome: Outcome
    #: It will not change any more.
    final: bool
    at: float


class DeadLetter(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message put aside."""

    #: Its number in the list.
    number: int
    queue: str
    message: Message
    exchange: str
    routing_key: str
    #: `rejected`, `expired`, `max_deliveries`, `lost`, `parked`, `dropped`, and what its receiver said.
    reason: str
    detail: str
    at: float
    count: int


class QueueStats(msgspec.Struct, frozen=True, omit_defaults=True):
    """A queue at one moment; the totals are since the store began."""

    queue: Queue
    ready: int = 0
    delayed: int = 0
    leased: int = 0
    dead: int = 0
    #: When the oldest of the ready ones was published.
    oldest: float | None = None
    sessions: int = 0
    published: int = 0
    delivered: int = 0
    acked: int = 0


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the schedule: what is published next, and when. What repeats it is in `spec`, opaque to the store."""

    name: Name
    due: Moment
    publication: Publication
    spec: bytes = b""


class Lease(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message that is out: who has it."""

    session: str
    #: Of the key whose session it is.
    key_id: str
    token: int
    #: Of the message.
    id: str
    #: Its queue and since when; unknown of what was handed out before the broker's start.
    queue: str = ""
    since: float | None = None


class Receiver(msgspec.Struct, frozen=True, omit_defaults=True):
    """A session as others see it."""

    session: str
    key_id: str
    #: What it says of itself (host, process, what it serves); opaque here.
    about: bytes
    ttl: float
    #: When it was opened, or first heard of after the broker's start, and when last heard of.
    opened: float
    heard: float
    #: Messages that were handed to it since then, and that it has neither settled nor let go.
    held: int = 0


class QueueRates(msgspec.Struct, frozen=True, omit_defaults=True):
    """What went through a queue in the last minute, per second."""

    queue: str
    published: float = 0.0
    delivered: float = 0.0
    acked: float = 0.0
    #: How long the oldest of the ready ones has waited, seconds by the broker's clock; None: none is ready.
    waited: float | None = None


class SiteCounts(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came and went by one key since the broker's start: messages, and bytes of their bodies and headers."""

    key_id: str
    published: int = 0
    received: int = 0
    settled: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    #: When it was last heard of.
    heard: float = 0.0


class Observation(msgspec.Struct, frozen=True):
    """All there is to see of a broker at one moment."""

    now: float
    queues: list[QueueStats]
    sites: list[SiteCounts]
    receivers: list[Receiver]


class Effects(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whom a transaction concerns, so that the broker can wake them when it is committed."""

    #: Queues that may have something to hand out.
    queues: frozenset[str] = frozenset()
    #: Messages whose result is new.
    results: frozenset[str] = frozenset()
    #: Sessions that hold something cancelled.
    sessions: frozenset[str] = frozenset()

    def __or__(self, other: Effects) -> Effects:
        return Effects(self.queues | other.queues, self.results | other.results, self.sessions | other.sessions)


# Packed --------------------------------------------------------------------------------------------------------------

T = TypeVar("T")


def pack(values: Any) -> bytes:
    """Values of this module as one binary, MessagePack of their fields by name."""
    return _encode(values)


def unpack(data: bytes, kind: type[T]) -> T:
    """What `pack` was given; raises `BodyUndecodable` for anything else."""
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BodyUndecodable(f"the binary is not {kind}: {error}") from error


_encode = msgspec.msgpack.Encoder().encode
