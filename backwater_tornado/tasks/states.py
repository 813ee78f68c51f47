"""The life of a task as its caller sees it: states, the events that lead from one to the next, and their diagrams.

A state is the last that was said of a task, so it does not tell where the task is: one whose worker was lost stays
STARTED until another worker says more, and one that waits and one that nobody has heard of are both PENDING. The names
are Celery's, and so is what they mean; PROGRESS is what `update_state` is mostly used for there.

Three ends are final: SUCCESS, FAILURE (it raised, or could not be run to its end) and REVOKED (it was called off: by
somebody, by its `expires`, or with its queue). Nothing leads out of them but a replay, which begins the task anew.

Rule: the table is all there is. `diagram` and `mermaid` are printed from it, and the README repeats what they print.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class State(StrEnum):
    """What is known of a task."""

    #: Nothing is: it waits, or runs and has not said so, or was never sent.
    PENDING = "PENDING"
    STARTED = "STARTED"
    #: It runs, and has told how far it is.
    PROGRESS = "PROGRESS"
    #: A run failed, and it waits for the next one.
    RETRY = "RETRY"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    REVOKED = "REVOKED"


class Event(StrEnum):
    """What happens to a task."""

    PUBLISHED = "published"
    DELIVERED = "delivered"
    #: Its worker was lost, or gave it back: it waits in its old place.
    RETURNED = "returned"
    #: Its worker does not know the function: it waits among the dead letters until somebody replays it.
    PARKED = "parked"
    STARTED = "started"
    PROGRESSED = "progressed"
    RETRIED = "retried"
    SUCCEEDED = "succeeded"
    #: It raised, and is not retried.
    FAILED = "failed"
    #: It was returned too often; or once, where it must not run twice.
    EXHAUSTED = "exhausted"
    #: What the broker publishes by itself, a link say, found no queue, or its unique key held by another.
    UNDELIVERABLE = "undeliverable"
    REVOKED = "revoked"
    #: Its `expires` was over before it ended.
    EXPIRED = "expired"
    #: Its queue was purged, deleted, or too full.
    DROPPED = "dropped"
    #: It was put back from among the dead letters, and its result dropped.
    REPLAYED = "replayed"


#: Only a replay leads out of these.
FINAL: Final = frozenset({State.SUCCESS, State.FAILURE, State.REVOKED})
#: The others, in the order of a life.
OPEN: Final = tuple(state for state in State if state not in FINAL)

#: Which event may come in which states, and where it leads; None: its caller is told nothing, so nothing changes. What
#: a worker says may come in any open state: it need not tell of a start, and of what a lost one has told nothing is
#: taken back. A parked task is open, and replayed as a dead one is; one that has succeeded is kept nowhere.
_LIFE: Final[Mapping[Event, tuple[Sequence[State], State | None]]] = {
    Event.PUBLISHED: ([State.PENDING], State.PENDING),
    Event.DELIVERED: (OPEN, None),
    Event.RETURNED: (OPEN, None),
    Event.PARKED: (OPEN, None),
    Event.STARTED: (OPEN, State.STARTED),
    Event.PROGRESSED: (OPEN, State.PROGRESS),
    Event.RETRIED: (OPEN, State.RETRY),
    Event.SUCCEEDED: (OPEN, State.SUCCESS),
    Event.FAILED: (OPEN, State.FAILURE),
    Event.EXHAUSTED: (OPEN, State.FAILURE),
    Event.UNDELIVERABLE: ([State.PENDING], State.FAILURE),
    Event.REVOKED: (OPEN, State.REVOKED),
    Event.EXPIRED: (OPEN, State.REVOKED),
    Event.DROPPED: (OPEN, State.REVOKED),
    Event.REPLAYED: ([*OPEN, State.FAILURE, State.REVOKED], State.PENDING),
}

#: The life of a task; what is not in it cannot happen.
TRANSITIONS: Final[Mapping[tuple[State, Event], State]] = MappingProxyType(
    {(state, event): target or state for event, (origins, target) in _LIFE.items() for state in origins}
)

#: What the broker says of a message that ended without a word from a worker, see `Outcome` and `Store`.
BROKER_WORDS: Final[Mapping[str, Event]] = MappingProxyType(
    {
        "rejected": Event.FAILED,
        "expired": Event.EXPIRED,
        "max_deliveries": Event.EXHAUSTED,
        "lost": Event.EXHAUSTED,
        "dropped": Event.DROPPED,
        "unrouted": Event.UNDELIVERABLE,
        "unknown_exchange": Event.UNDELIVERABLE,
        "unique_key_held": Event.UNDELIVERABLE,
    }
)


def next_state(state: State, event: Event) -> State:
    """The state after an event; raises ValueError if that cannot happen in this state."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise ValueError(f"a task in the state {state} cannot be {event}") from None


def state_of(word: str) -> State:
    """The state that an outcome tells: a worker's own, or what the broker's word means; ValueError for any other."""
    event = BROKER_WORDS.get(word)
    return State(word) if event is None else TRANSITIONS[State.PENDING, event]


# Diagrams ------------------------------------------------------------------------------------------------------------


def diagram() -> str:
    """The table as text: a line for each event, with the states in which it may come and the one to which it leads."""
    rows = [(event.value, _names(event), _target(event)) for event in Event]
    event_width, names_width = (max(len(row[column]) for row in rows) for column in (0, 1))
    return "".join(f"{event:{event_width}}  {names:{names_width}} ──> {target}\n" for event, names, target in rows)


def _states(event: Event) -> list[State]:
    return [state for state in State if (state, event) in TRANSITIONS]


def _names(event: Event) -> str:
    return " ".join(_states(event))


def _target(event: Event) -> str:
    targets = {TRANSITIONS[state, event] for state in _states(event)}
    return targets.pop() if len(targets) == 1 else "the same"


def mermaid() -> str:
    """The table as a state diagram in Mermaid.

    The open states share a frame. What leads out of all of them leaves from the frame, what leads back into it begins
    at PENDING, and what changes nothing is left out.
    """
    arrows: dict[tuple[str, str], list[Event]] = {("[*]", "open"): [Event.PUBLISHED]}
    for (state, event), target in TRANSITIONS.items():
        if state is not target:
            events = arrows.setdefault(_arrow(state, event, target), [])
            events += [event] if event not in events else []
    drawn = {ends: f"{' --> '.join(ends)} : {', '.join(events)}" for ends, events in arrows.items()}
    inner = [line for ends, line in drawn.items() if set(ends) <= set(OPEN)]
    outer = [line for line in drawn.values() if line not in inner]
    frame = ["state open {", *(f"    {line}" for line in [f"[*] --> {State.PENDING}", *inner]), "}"]
    return "".join(f"{line}\n" for line in ["stateDiagram-v2", *(f"    {line}" for line in [*frame, *outer])])


def _arrow(state: State, event: Event, target: State) -> tuple[str, str]:
    """From where to where it is drawn."""
    if state in FINAL:
        return state, "open"
    return ("open" if target in FINAL and set(OPEN) <= set(_states(event)) else state), target
