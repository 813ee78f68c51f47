"""How much an outbox may hold."""

from __future__ import annotations

from typing import Any

import pytest

from backwater_tornado.errors import InvalidOption, OutboxFull
from backwater_tornado.outbox.amounts import Bounds


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"messages": 0}, "outbox_messages is"),
        ({"size": 0.5}, "outbox_bytes is"),
        ({"size": True}, "not True"),
        ({"when_full": "forget"}, "outbox_full is one of refuse, wait, drop_oldest, not 'forget'"),
    ],
)
def test_bounds_are_whole_numbers_from_one_and_a_way(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        Bounds(**given)


def test_bounds_hold_for_both() -> None:
    bounds = Bounds(2, 10)
    assert bounds.fits(2, 10)
    assert not bounds.fits(3, 1)
    assert not bounds.fits(1, 11)
    assert isinstance(bounds.full(), OutboxFull)
