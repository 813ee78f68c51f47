"""The table of a task's life, and what is printed from it; whether the broker keeps to it, see tests/properties."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from backwater_tornado.tasks.states import (
    BROKER_WORDS,
    FINAL,
    OPEN,
    TRANSITIONS,
    Event,
    State,
    diagram,
    mermaid,
    next_state,
    state_of,
)

README = Path(__file__).parents[3] / "README.md"


def life(*events: Event) -> State:
    state = State.PENDING
    for event in events:
        state = next_state(state, event)
    return state


def test_the_states_are_named_as_in_celery() -> None:
    assert [str(state) for state in State] == [state.name for state in State]
    assert {"PENDING", "STARTED", "RETRY", "SUCCESS", "FAILURE", "REVOKED"} < {str(state) for state in State}


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ([Event.PUBLISHED], State.PENDING),
        ([Event.PUBLISHED, Event.DELIVERED], State.PENDING),
        ([Event.PUBLISHED, Event.DELIVERED, Event.STARTED, Event.SUCCEEDED], State.SUCCESS),
        ([Event.DELIVERED, Event.SUCCEEDED], State.SUCCESS),
        ([Event.STARTED, Event.PROGRESSED, Event.PROGRESSED], State.PROGRESS),
        ([Event.STARTED, Event.RETRIED, Event.DELIVERED], State.RETRY),
        ([Event.STARTED, Event.RETRIED, Event.STARTED, Event.FAILED], State.FAILURE),
        ([Event.PROGRESSED, Event.RETURNED], State.PROGRESS),
        ([Event.PROGRESSED, Event.RETURNED, Event.STARTED], State.STARTED),
        ([Event.STARTED, Event.RETURNED, Event.EXPIRED], State.REVOKED),
        ([Event.STARTED, Event.EXHAUSTED], State.FAILURE),
        ([Event.PARKED], State.PENDING),
        ([Event.PARKED, Event.REVOKED], State.REVOKED),
        ([Event.RETRIED, Event.PARKED, Event.REPLAYED], State.PENDING),
        ([Event.UNDELIVERABLE], State.FAILURE),
        ([Event.DROPPED], State.REVOKED),
        ([Event.FAILED, Event.REPLAYED, Event.DELIVERED], State.PENDING),
        ([Event.EXPIRED, Event.REPLAYED, Event.SUCCEEDED], State.SUCCESS),
    ],
)
def test_a_life_leads_where_the_events_lead(events: list[Event], state: State) -> None:
    assert life(*events) is state


def test_a_final_state_is_left_by_a_replay_only_and_never_for_another_final_one() -> None:
    left = {(state, event, target) for (state, event), target in TRANSITIONS.items() if state in FINAL}
    assert {event for _, event, _ in left} == {Event.REPLAYED}
    assert {target for _, _, target in left} == {State.PENDING}


def test_every_open_state_can_end_and_every_event_can_happen() -> None:
    for state in OPEN:
        assert {TRANSITIONS[state, event] for event in Event if (state, event) in TRANSITIONS} >= FINAL
    assert {event for _, event in TRANSITIONS} == set(Event)
    assert set(OPEN) | FINAL == set(State)


@pytest.mark.parametrize(
    ("state", "event"),
    [
        (State.SUCCESS, Event.FAILED),
        (State.SUCCESS, Event.REPLAYED),
        (State.REVOKED, Event.SUCCEEDED),
        (State.FAILURE, Event.DELIVERED),
        (State.STARTED, Event.PUBLISHED),
    ],
)
def test_what_cannot_happen_is_refused(state: State, event: Event) -> None:
    with pytest.raises(ValueError, match=f"a task in the state {state} cannot be {event}"):
        next_state(state, event)


def test_the_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        TRANSITIONS[State.SUCCESS, Event.FAILED] = State.FAILURE  # type: ignore[index]


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("PROGRESS", State.PROGRESS),
        ("SUCCESS", State.SUCCESS),
        ("rejected", State.FAILURE),
        ("max_deliveries", State.FAILURE),
        ("unrouted", State.FAILURE),
        ("unknown_exchange", State.FAILURE),
        ("unique_key_held", State.FAILURE),
        ("expired", State.REVOKED),
        ("dropped", State.REVOKED),
    ],
)
def test_the_word_of_an_outcome_tells_a_state(word: str, state: State) -> None:
    assert state_of(word) is state


@pytest.mark.parametrize("word", ["", "success", "parked", "published"])
def test_any_other_word_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match=f"'{word}' is not a valid State"):
        state_of(word)


def test_the_brokers_words_are_all_ends() -> None:
    assert {state_of(word) for word in BROKER_WORDS} <= FINAL


def test_the_diagram_says_all_that_the_table_says() -> None:
    said = {}
    for line in diagram().splitlines():
        event, origins, target = re.fullmatch(r"(\w+) +([A-Z ]+?) +──> (.+)", line).groups()  # type: ignore[union-attr]
        for name in origins.split():
            said[State(name), Event(event)] = State(name) if target == "the same" else State(target)
    assert said == TRANSITIONS


def test_the_mermaid_diagram_says_all_that_changes_something() -> None:
    said = {}
    for origin, target, events in re.findall(r"(\S+) --> (\S+) : (.+)", mermaid()):
        for state in OPEN if origin == "open" else [] if origin == "[*]" else [State(origin)]:
            for event in events.split(", "):
                said[state, Event(event)] = State.PENDING if target == "open" else State(target)
    assert said == {ends: target for ends, target in TRANSITIONS.items() if ends[0] is not target}
    assert "    [*] --> open : published\n" in mermaid()


def test_the_readme_shows_both_as_they_are_printed() -> None:
    between = re.search("<!-- the states of a task -->\n(.*?)<!-- end of the states -->", README.read_text(), re.DOTALL)
    assert between is not None
    assert between[1] == f"```text\n{diagram()}```\n```mermaid\n{mermaid()}```\n"
