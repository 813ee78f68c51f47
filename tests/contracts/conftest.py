"""What the suites of the store contract share: each of their tests runs on every store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backwater_tornado.broker.store import REMEMBER
from tests.stores import STORES, Hand, StoreKind


@pytest.fixture(params=STORES, ids=lambda kind: kind.name)
def store_kind(request: pytest.FixtureRequest) -> StoreKind:
    kind: StoreKind = request.param
    return kind


@pytest.fixture
def make_store(store_kind: StoreKind, tmp_path: Path) -> Iterator[Callable[..., Hand]]:
    made: list[Hand] = []

    def make(remember: float = REMEMBER) -> Hand:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(Hand(store_kind, folder, remember))
        return made[-1]

    yield make
    for hand in made:
        hand.store.close()


@pytest.fixture
def hand(make_store: Callable[..., Hand]) -> Hand:
    """A store with a queue `q` and a session `s`."""
    hand = make_store()
    hand.queue()
    hand.open()
    return hand
