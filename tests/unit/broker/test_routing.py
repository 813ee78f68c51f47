"""Which routing keys fit which bindings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backwater_tornado.broker import routing
from backwater_tornado.broker.routing import fits


def test_a_direct_binding_takes_its_key_only() -> None:
    assert fits("direct", "a.b", "a.b")
    assert not fits("direct", "a.*", "a.b")
    assert not fits("direct", "", "a")


def test_a_fanout_binding_takes_everything() -> None:
    assert fits("fanout", "a", "b")


@pytest.mark.parametrize(
    ("pattern", "key", "fit"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.c", False),
        ("a.b", "a", False),
        ("a", "a.b", False),
        ("*", "a", True),
        ("*", "a.b", False),
        ("*.b", "a.b", True),
        ("a.*", "a", False),
        ("#", "", True),
        ("#", "a", True),
        ("#", "a.b.c", True),
        ("a.#", "a", True),
        ("a.#", "a.b.c", True),
        ("a.#", "b", False),
        ("#.z", "z", True),
        ("#.z", "a.z.z", True),
        ("#.z", "a.z.y", False),
        ("a.#.z", "a.z", True),
        ("a.#.z", "a.b.c.z", True),
        ("a.#.b.#.c", "a.b.x.b.c", True),
        ("#.*", "a", True),
        ("*.#", "a", True),
        ("*.#.*", "a", False),
        ("#.#", "a", True),
        ("a#", "a", False),
        ("a#", "a#", True),
        ("", "", True),
        ("", "a", False),
        ("*", "", True),  # the empty key is one word of no letters, as in AMQP
        ("a..b", "a..b", True),
        ("a.*.b", "a..b", True),
    ],
)
def test_a_topic_binding_takes_what_fits_its_pattern(pattern: str, key: str, fit: bool) -> None:
    assert fits("topic", pattern, key) is fit


def naive(wanted: list[str], words: list[str]) -> bool:
    """As AMQP says it, whatever it costs."""
    if not wanted:
        return not words
    if wanted[0] == "#":
        return any(naive(wanted[1:], words[taken:]) for taken in range(len(words) + 1))
    return bool(words) and wanted[0] in ("*", words[0]) and naive(wanted[1:], words[1:])


@given(
    st.lists(st.sampled_from("ab*#"), min_size=1, max_size=7), st.lists(st.sampled_from("ab"), min_size=1, max_size=7)
)
def test_any_pattern_fits_as_the_naive_reading_says(wanted: list[str], words: list[str]) -> None:
    assert fits("topic", ".".join(wanted), ".".join(words)) is naive(wanted, words)


class Words(list[str]):
    """A list that counts how often it is looked into."""

    looks = 0

    def __getitem__(self, place: object) -> str:  # type: ignore[override]
        Words.looks += 1
        return super().__getitem__(place)  # type: ignore[index,return-value]


class Text(str):
    __slots__ = ()

    def split(self, *separator: object) -> Words:  # type: ignore[override]
        return Words(super().split("."))


@pytest.mark.parametrize("part", ["#.", "#.a.", "#.*.", "*.#.a."])
def test_a_hostile_pattern_takes_no_longer_than_the_product_of_lengths(part: str) -> None:
    pattern, key = Text(part * (250 // len(part)) + "z"), Text(".".join("a" * 128))
    Words.looks = 0
    assert not routing.topic(pattern, key)
    assert Words.looks < 4 * len(pattern) * len(key)
