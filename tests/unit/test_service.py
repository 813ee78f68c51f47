"""What is served: which wire a path belongs to, and what `erlang=` may be."""

from __future__ import annotations

import pytest

from backwater_tornado.errors import InvalidOption
from backwater_tornado.exposure import Exposed
from backwater_tornado.options import ErlangOptions
from backwater_tornado.service import Service, make_service
from tests.wire import KEY, OTHER_KEY, Tasks

EXPOSED = Exposed(tasks=Tasks())


def service_of(**options: object) -> Service:
    return make_service(KEY, EXPOSED, options)


@pytest.mark.parametrize(
    "path", ["/backwater/1", "/backwater/1/", "/backwater/1/m/f/1", "/base/backwater/1/m/f/1", "/backwater/1/../2/m/f"]
)
def test_a_path_of_version_1_is_served_by_it_where_that_is_wished(path: str) -> None:
    service = service_of(erlang=True)
    assert service.erlang is not None
    assert service.wire(path) is service.erlang
    assert service_of().wire(path).__class__ is service.serving.__class__


@pytest.mark.parametrize(
    "path",
    [
        "/backwater/2/m/f",
        "/backwater/10/m/f/1",
        "/backwater/%31/m/f/1",
        "/backwater/1%2Fm/f/1",
        "/backwater/2/backwater/1",
        "/backwater/2/../1/m/f/1",
        "/backwater//1/m/f/1",
        "/backwater1/m/f/1",
        "/m/f/1",
        "",
    ],
)
def test_every_other_path_is_not(path: str) -> None:
    service = service_of(erlang=True)
    assert service.wire(path) is service.serving


@pytest.mark.parametrize("given", [False, None])
def test_version_1_is_not_served_unless_that_is_said(given: object) -> None:
    assert service_of(erlang=given).erlang is None


@pytest.mark.parametrize("given", ["yes", 1, 0, {}, ErlangOptions])
def test_what_says_neither_is_refused(given: object) -> None:
    with pytest.raises(InvalidOption, match=r"erlang is True, False or ErlangOptions\(…\), not"):
        service_of(erlang=given)


def test_erlang_is_among_the_options_there_are() -> None:
    with pytest.raises(InvalidOption, match="erlang, "):
        service_of(earlang=True)


def test_version_1_shares_keys_and_functions_or_has_its_own() -> None:
    shared = service_of(erlang=True).erlang
    assert shared is not None
    assert (shared.keys, shared.exposure) == (None, None)
    own = service_of(erlang=ErlangOptions(secret=OTHER_KEY, exposed=Exposed(mine=Tasks()))).erlang
    assert own is not None
    assert own.keys is not None
    assert own.keys.ids == ("other",)
    assert ("mine", "add") in own.exposed
    assert "tasks" not in own.exposed


def test_a_replaced_ring_is_version_1s_too_unless_it_has_its_own() -> None:
    service = service_of(erlang=True)
    assert service.erlang is not None
    service.replace_keys(OTHER_KEY)
    assert service.erlang.valid_keys(0.0) == [OTHER_KEY]
