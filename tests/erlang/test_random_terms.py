"""Thousands of random terms between our codec and a VM of Erlang, and between our notation and its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from backwater_tornado.protocol.erlang.decoding import decode_term
from backwater_tornado.protocol.erlang.encoding import encode_term
from backwater_tornado.protocol.erlang.notation import format_term, parse_term
from tests.erlang.random_terms import Rewritten, find_differences, write_terms

# The VM itself is not asked: the fixture installs Erlang where that is possible, or skips.
pytestmark = [pytest.mark.timeout(400), pytest.mark.usefixtures("erlang")]


@pytest.mark.parametrize("none", ["undefined", "nil"])
def test_a_vm_takes_what_we_write_for_what_it_wrote(none: str, tmp_path: Path) -> None:
    written = write_terms(tmp_path, 1, 2000)
    terms = []
    for term in written:
        value = decode_term(term.new, none=none)
        assert encode_term(value, none=none) == term.new
        text = format_term(value, none=none) if term.text else ""
        terms.append(Rewritten(term.old, encode_term(decode_term(term.old, none=none), none=none), text))
    assert find_differences(tmp_path, terms) == []


def test_what_a_shell_prints_is_read_as_the_same_term(tmp_path: Path) -> None:
    written = [term for term in write_terms(tmp_path, 2, 2000) if term.text]
    assert len(written) > 900
    assert (
        find_differences(tmp_path, [Rewritten(term.old, encode_term(parse_term(term.text))) for term in written]) == []
    )


def test_what_differs_is_told(tmp_path: Path) -> None:
    one, two = encode_term(1), encode_term(1.0)
    terms = [Rewritten(one, one, "1"), Rewritten(one, two, "1"), Rewritten(one, b"\x83", "1"), Rewritten(one, one, "2")]
    assert find_differences(tmp_path, terms) == [
        "term 1: {false,true}, 1",
        "term 2: {badarg,true}, 1",
        "term 3: {true,false}, 2",
    ]
