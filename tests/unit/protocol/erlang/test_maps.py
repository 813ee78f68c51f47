"""Maps that no dict can hold: told apart, compared, and never the same key twice."""

from __future__ import annotations

import enum
from typing import Any

import pytest

from backwater_tornado.errors import BodyUndecodable, Unserializable
from backwater_tornado.protocol.erlang.maps import ErlangMap, map_of
from backwater_tornado.protocol.erlang.terms import Atom, BitString, Charlist, Fun, ImproperList, Pid, Port, Reference


class Level(enum.IntEnum):
    LOW = 1


#: Terms that are all different in Erlang.
DIFFERENT = [
    None,
    True,
    False,
    Atom("a"),
    b"a",
    "b",
    [97],
    [1, 256],
    [-1],
    [2**63],
    [-(2**63)],
    [2**64],
    [1, 2**64],
    [True],
    [[97]],
    [],
    (),
    (97,),
    {},
    {1: 2},
    {2: 1},
    {1: 2, 2: 1},
    {1.0: 2},
    1,
    2,
    1.0,
    0.0,
    -0.0,
    -1,
    2**80,
    -(2**80),
    255,
    256,
    BitString(b"a", 3),
    BitString(b"a", 4),
    ImproperList((97,), 98),
    ImproperList((97, 98), 99),
    ErlangMap([([1], 2)]),
    ErlangMap([([1], 3)]),
    ErlangMap([([2], 2)]),
    Pid(b"Xa"),
    Pid(b"Xb"),
    Port(b"Ya"),
    Reference(b"Za"),
    Fun(b"qa", ""),
]


def test_different_terms_are_different_keys() -> None:
    made = ErlangMap((key, index) for index, key in enumerate(DIFFERENT))
    assert len(made) == len(DIFFERENT)
    assert made.pairs[3] == (Atom("a"), 3)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *((key, key) for key in DIFFERENT),
        ("a", b"a"),
        (bytearray(b"a"), memoryview(b"a")),
        (BitString(b"a", 8), b"a"),
        (Charlist("a"), [97]),
        (Charlist("ł"), [0x142]),
        (Charlist(""), []),
        (Atom("true"), True),
        (Level.LOW, 1),
        ({1: 2}, ErlangMap([(1, 2)])),
        ({1: 2, 3: 4}, {3: 4, 1: 2}),
        ({"a": 2}, {b"a": 2}),
    ],
)
def test_the_same_key_twice_is_refused(one: Any, other: Any) -> None:
    with pytest.raises(ValueError, match="a map has the same key twice"):
        ErlangMap([(one, 1), (other, 2)])


def test_maps_are_equal_in_whatever_order() -> None:
    one = ErlangMap([([1], "a"), ({}, 1)])
    other = ErlangMap([({}, 1), ([1], "a")])
    assert one == other
    assert hash(one) == hash(other)
    assert {one, other} == {one}
    assert one != ErlangMap([({}, 1.0), ([1], "a")])
    assert one != {}
    assert repr(ErlangMap([([1], 2)])) == "ErlangMap([([1], 2)])"


@pytest.mark.parametrize("key", [{1}, [{1}], (object,), {1: {2}}])
def test_a_key_that_is_no_term_is_refused(key: Any) -> None:
    with pytest.raises(Unserializable, match="has no form as an Erlang term"):
        ErlangMap([(key, 1)])


@pytest.mark.parametrize("wrap", [lambda key: [key], lambda key: ErlangMap([(1, key)]), lambda key: {1: key}])
def test_a_key_is_nested_only_so_deep(wrap: Any) -> None:
    def key(levels: int) -> Any:
        made: Any = None
        for _ in range(levels):
            made = wrap(made)
        return made

    assert ErlangMap([(key(254), 1)]) == ErlangMap([(key(254), 1)])
    with pytest.raises(Unserializable, match="a key is nested too deep, or holds itself"):
        ErlangMap([(key(256), 1)])


def test_a_key_that_holds_itself_is_refused() -> None:
    key: list[Any] = []
    key.append(key)
    with pytest.raises(Unserializable, match="holds itself"):
        ErlangMap([(key, 1)])


def test_what_a_dict_can_hold_is_a_dict() -> None:
    assert map_of([1, b"a"], [2, 3]) == {1: 2, b"a": 3}
    assert map_of([], []) == {}


@pytest.mark.parametrize("keys", [[[1], 2], [1, 1.0], [True, 1, 1.0], [(1,), (1.0,)], [{}, 1], [0.0, -0.0]])
def test_what_no_dict_can_hold_is_a_map_of_its_own(keys: list[Any]) -> None:
    made = map_of(keys, keys)
    assert isinstance(made, ErlangMap)
    assert made == ErlangMap(zip(keys, keys, strict=True))


@pytest.mark.parametrize("keys", [[1, 1], [[1], [1]], [{1: 2}, {1: 2}]])
def test_a_map_is_made_of_no_key_twice(keys: list[Any]) -> None:
    with pytest.raises(ValueError, match="the same key twice"):
        map_of(keys, [1, 2])


def test_too_many_keys_of_one_hash_are_refused() -> None:
    keys: list[Any] = [number * (2**61 - 1) for number in range(400)]
    with pytest.raises(BodyUndecodable, match="too many items of the same hash"):
        map_of(keys, keys)
    assert len(map_of([*keys, []], [*keys, []])) == 401  # told apart by digests
