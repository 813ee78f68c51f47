"""Erlang's notation of terms: what is read, and what is said of a mistake."""

from __future__ import annotations

import math
from typing import Any

import pytest

from backwater_tornado.protocol.erlang.maps import ErlangMap
from backwater_tornado.protocol.erlang.notation import MAX_BITS, format_term, parse_term
from backwater_tornado.protocol.erlang.terms import Atom, BitString, Charlist, ImproperList


def same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and repr(one) == repr(other)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("ok", Atom("ok")),
        (" ok ", Atom("ok")),
        ("ok.", Atom("ok")),
        ("% a comment\nok % another\n. % and one more", Atom("ok")),
        ("ünß@_A1", Atom("ünß@_A1")),
        ("'two words'", Atom("two words")),
        ("'Elixir.Foo'", Atom("Elixir.Foo")),
        (r"'it\'s'", Atom("it's")),
        ("'say \"hi\"'", Atom('say "hi"')),
        ("''", Atom("")),
        ("'when'", Atom("when")),
        ("true", True),
        ("'false'", False),
        ("undefined", None),
        ("nil", Atom("nil")),
        ("0", 0),
        ("-5", -5),
        ("- 5", -5),
        ("+5", 5),
        ("1_000", 1000),
        ("16#FF", 255),
        ("-16#f_f", -255),
        ("2#1010", 10),
        ("36#Zz", 1295),
        ("$a", 97),
        ("$ł", 0x142),
        ("$ ", 32),
        ("-$a", -97),
        (r"$\n", 10),
        (r"$\s", 32),
        (r"$\\", 92),
        (r"$\x{142}", 0x142),
        ("1.5", 1.5),
        ("-0.0", -0.0),
        ("1.0e-10", 1e-10),
        ("1_0.2_5E+1_0", 10.25e10),
        ('"text"', Charlist("text")),
        ('""', Charlist("")),
        ('"a" "b"%c\n"d"', Charlist("abd")),
        (
            r'"\b\d\e\f\n\r\s\t\v\0\12\123\x41\x{1F600}\^A\^a\"\'\\\q"',
            Charlist("\b\x7f\x1b\f\n\r \t\v\0\nSA😀\1\1\"'\\q"),
        ),
        ('"two\nlines"', Charlist("two\nlines")),
        ("<<>>", b""),
        ("<< >>", b""),
        ('<<"text">>', b"text"),
        ('<<"te" "xt", 33>>', b"text!"),
        ('<<"é">>', b"\xe9"),
        ('<<"é"/utf8>>', b"\xc3\xa9"),
        ("<<233/utf8>>", b"\xc3\xa9"),
        ('<<""/utf8>>', b""),
        ("<<1,2,255>>", b"\x01\x02\xff"),
        ("<<-1,-128>>", b"\xff\x80"),
        ("<<$a>>", b"a"),
        ("<<5:3>>", BitString(b"\xa0", 3)),
        ("<<1,2,7:5>>", BitString(b"\x01\x02\x38", 5)),
        ("<<1:4, 2:4>>", b"\x12"),
        ("<<258:16>>", b"\x01\x02"),
        ("<<-1:16, 0:0>>", b"\xff\xff"),
        ('<<"ab":16>>', b"\0a\0b"),
        ("[]", []),
        ("[ ]", []),
        ("[1, 2 ,a]", [1, 2, Atom("a")]),
        ("[a|b]", ImproperList((Atom("a"),), Atom("b"))),
        ("[a|[]]", [Atom("a")]),
        ("[a|[b]]", [Atom("a"), Atom("b")]),
        ('[1|"a"]', [1, 97]),
        ("[1|[2|3]]", ImproperList((1, 2), 3)),
        ("{}", ()),
        ("{ }", ()),
        ("{1,{2}}", (1, (2,))),
        ("#{}", {}),
        ("#{ }", {}),
        ('#{k => "v", 1=>#{}}', {Atom("k"): Charlist("v"), 1: {}}),
        ("#{[1] => 2}", ErlangMap([([1], 2)])),
        ("#{1 => a, 1.0 => b}", ErlangMap([(1, Atom("a")), (1.0, Atom("b"))])),
        ('#{"a" => 1, a => 2}', ErlangMap([(Charlist("a"), 1), (Atom("a"), 2)])),
    ],
)
def test_a_term_is_read(text: str, value: Any) -> None:
    found = parse_term(text)
    assert same(found, value), found


def test_none_is_the_atom_that_it_is_told_to_be() -> None:
    assert parse_term("[nil,undefined]", none="nil") == [None, Atom("undefined")]
    assert format_term(parse_term("nil", none="nil"), none="nil") == "nil"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "column 1: expected a term, and the text ends"),
        ("  ", "column 3: expected a term, and the text ends"),
        ("Name", "column 1: expected a term, not 'Name'"),
        ("_", "column 1: expected a term, not '_'"),
        ("end", "column 1: end is a reserved word; as an atom it is written 'end'"),
        ("fun erlang:abs/1", "column 1: fun is a reserved word"),
        ("<0.9.0>", "column 1: expected a term, not '<0.9.0>'"),
        ("a b", "column 3: expected the end, not 'b'"),
        ("a..", "column 3: expected the end, not '.'"),
        ("1e5", "column 1: expected a term, not '1e5'"),
        ("1_", "column 1: expected a term"),
        ("1__0", "column 1: expected a term"),
        ("-", "column 1: expected a term, not '-'"),
        ("2#12", "column 1: no number: invalid literal"),
        ("1#1", "column 1: no number: int.. base must be >= 2"),
        ("0#1", "column 1: no number: int.. base must be >= 2"),
        ("1.0e400", "column 1: no number: a float beyond all floats"),
        ("9" * 5000, "column 1: no number: Exceeds the limit"),
        ("'" + "a" * 256 + "'", "column 1: an atom of 256 characters"),
        ("[" + "a" * 256, "column 2: an atom of 256 characters"),
        ("'a", "column 1: a ' that is not closed"),
        ('["a\\"', 'column 2: a " that is not closed'),
        (r'"ab\xZZ"', "column 4: an escape that is not known"),
        (r"'\^1'", "column 2: an escape that is not known"),
        (r'"\x{110000}"', "column 2: 1114112 is not the number of a character"),
        (r'"\x{D800}"', "column 2: 55296 is not the number"),
        ("$", "column 2: expected a character, and the text ends"),
        ("$\\", "column 2: an escape that is not known"),
        ("[1", "column 3: expected , or | or ], and the text ends"),
        ("[1 2]", r"column 4: expected , or | or ], not '2\]'"),
        ("[,1]", "column 2: expected a term"),
        ("[1,]", "column 4: expected a term"),
        ("[1|2,3]", "column 5: expected ], not"),
        ("[|1]", "column 2: expected a term"),
        ("{1]", "column 3: expected , or }, not"),
        ("#{a}", "column 4: expected =>, not '}'"),
        ("#{a := 1}", "column 5: expected =>"),
        ("#{a => 1", "column 9: expected , or }, and"),
        ("{#{a => 1, a => 2}}", "column 2: a map has the same key twice"),
        ("<<256>>", "column 3: 256 does not fit into 8 bits"),
        ("<<-129>>", "column 3: -129 does not fit into 8 bits"),
        ("<<8:3>>", "column 3: 8 does not fit into 3 bits"),
        ("<<1:0>>", "column 3: 1 does not fit into 0 bits"),
        ('<<"ł">>', "column 3: 322 does not fit into 8 bits .a text may be followed by /utf8"),
        ("<<1.5>>", "column 6: expected a text or an integer"),
        ("<<a>>", "column 3: expected a text or an integer"),
        ("<<1:a>>", "column 5: expected a number of bits"),
        ("<<1/float>>", "column 5: expected utf8"),
        ("<<-1/utf8>>", "column 3: -1 is not the number of a character"),
        ("<<1:8/utf8>>", "column 6: expected , or >>"),
        (f"<<0:{MAX_BITS + 1}>>", "column 3: a binary of more than 67108864 bits"),
        (f"<<1,0:{MAX_BITS}>>", "column 5: a binary of more than 67108864 bits"),
        ("<<1", "column 4: expected , or >>"),
        ("{a,\n b,\n  C}", "line 3, column 3: expected a term, not 'C}'"),
        ("#{" + ",".join(f"{number * (2**61 - 1)} => 1" for number in range(400)) + "}", "column 1: a set or map has"),
    ],
)
def test_a_mistake_is_named_with_its_column(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message.replace('|', '[|]')}"):
        parse_term(text)


@pytest.mark.parametrize(("head", "tail"), [("[", "]"), ("{", "}"), ("#{1=>", "}"), ("#{", "=>1}"), ("[1|{", "}]")])
def test_nesting_is_bounded(head: str, tail: str) -> None:
    assert parse_term(head * 127 + "1" + tail * 127)
    with pytest.raises(ValueError, match="nested deeper than 255 levels"):
        parse_term(head * 256 + "1" + tail * 256)
    with pytest.raises(ValueError, match="nested deeper than 255 levels"):
        parse_term(head * 100_000)


def test_255_levels_are_read() -> None:
    value = parse_term("[" * 255 + "]" * 255)
    assert format_term(value) == "[" * 255 + "]" * 255


def test_a_stack_that_is_nearly_full_is_told() -> None:
    def dive() -> None:
        try:
            dive()
        except RecursionError:
            parse_term("[" * 250 + "]" * 250)

    with pytest.raises(ValueError, match="the stack that is left here"):
        dive()


def test_a_huge_integer_is_read_as_it_is_printed() -> None:
    for value in (3**20_000, -(3**20_000)):
        assert parse_term(format_term(value)) == value
    assert math.isclose(parse_term("1.7976931348623157e308"), 1.7976931348623157e308)
