"""What the broker does in one transaction with several questions to its store.

Rule: called within a transaction, with the moment; whom it concerns goes back as `Effects`. No permissions beyond the
predicates given.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from backwater_tornado.errors import QueueNotInScope, UnknownQueue

from .bounds import may_be_declared
from .permissions import Allows, check, target
from .store import Store
from .values import (
    DEFAULT_EXCHANGE,
    Binding,
    DeadLetter,
    Effects,
    Entry,
    Exchange,
    Join,
    Publication,
    Published,
    PublishState,
    Queue,
)


def declare(
    store: Store, exchanges: Sequence[Exchange], queues: Sequence[Queue], bindings: Sequence[Binding], now: float
) -> Effects:
    """As `Store.declare`; a queue that is there stays paused, or not."""
    there = {stats.queue.name: stats.queue.paused for stats in store.stats([each.name for each in queues], now)}
    kept = [msgspec.structs.replace(each, paused=there.get(each.name, each.paused)) for each in queues]
    return store.declare([*exchanges, *kept, *bindings], now)


def set_paused(store: Store, names: Sequence[str], paused: bool, now: float) -> Effects:
    """Pause queues, or let them go on; raises `UnknownQueue`."""
    there = {stats.queue.name: stats.queue for stats in store.stats(names, now)}
    for name in names:
        if name not in there:
            raise UnknownQueue(f"there is no queue {name[:100]!r}")
    return store.declare([msgspec.structs.replace(queue, paused=paused) for queue in there.values()], now)


def publish_creating(
    store: Store, publications: Sequence[Publication], joins: Sequence[Join], now: float
) -> tuple[list[Published], Effects]:
    """As `Store.publish`, and queues that are missing are made; those of what the joins will publish, too.

    An unrouted publication leaves nothing behind in the store, so it may simply be published again.
    """
    later = [each for join in joins for each in joined(join)]
    effects = _make_queues(store, later, now) if later else Effects()
    found, more = store.publish(publications, now, joins)
    lost = [number for number, each in enumerate(found) if each.state is PublishState.UNROUTED]
    if lost:
        again = [publications[number] for number in lost]
        more |= _make_queues(store, again, now)
        answers, last = store.publish(again, now)
        more |= last
        for number, published in zip(lost, answers, strict=True):
            found[number] = published
    return found, effects | more


def joined(join: Join) -> tuple[Publication, ...]:
    """All that a join may publish."""
    return (*join.then, *(join.otherwise or ()))


def _make_queues(store: Store, publications: Iterable[Publication], now: float) -> Effects:
    keys = {each.routing_key for each in publications if each.exchange == DEFAULT_EXCHANGE}
    names = set(filter(may_be_declared, keys))
    names -= {stats.queue.name for stats in store.stats(sorted(names), now)}
    return store.declare([Queue(name) for name in sorted(names)], now)


def plan_creating(
    store: Store, entry: Entry, expected: float | None, now: float, publish: Publication | None
) -> tuple[bool, Effects]:
    """As `Store.plan`, and queues that are missing are made: nobody could be told that a run went nowhere."""
    effects = _make_queues(store, [entry.publication, *([] if publish is None else [publish])], now)
    planned, more = store.plan(entry, expected, now, publish)
    return planned, effects | more


def check_entry(store: Store, name: str, allows: Allows) -> None:
    """Whether the entry of that name, if there is one, may be changed; raises `QueueNotInScope`."""
    for entry in store.schedule():
        if entry.name == name and not allows(target(entry.publication)):
            raise QueueNotInScope(f"the key may not change the entry {name[:100]!r}: it publishes elsewhere")


def replay(store: Store, numbers: Sequence[int], allows: Allows | None, now: float) -> tuple[int, Effects]:
    """As `Store.replay`, of queues that are allowed; None: of all."""
    _check_dead(store, numbers, allows)
    return store.replay(numbers, now)


def drop(store: Store, numbers: Sequence[int], allows: Allows | None, now: float) -> tuple[int, Effects]:
    """As `Store.drop`, of queues that are allowed; None: of all."""
    _check_dead(store, numbers, allows)
    return store.drop(numbers, now)


def _check_dead(store: Store, numbers: Sequence[int], allows: Allows | None) -> None:
    if allows is None:
        return
    for number in numbers:
        there = [letter.queue for letter in store.dead_letters(None, number - 1, 1) if letter.number == number]
        check(there, allows, "receive from")


def without_body(letter: DeadLetter) -> DeadLetter:
    """For a list."""
    return msgspec.structs.replace(letter, message=msgspec.structs.replace(letter.message, body=b""))


def is_timed(publication: Publication) -> bool:
    """Whether something is to happen to it at a moment of its own."""
    message = publication.message
    if publication.delay > 0 or publication.lifetime is not None:
        return True
    return message.not_before is not None or message.expires is not None
