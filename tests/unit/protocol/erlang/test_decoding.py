"""Terms to values: all that a VM writes is read; every lie, cut and excess is refused."""

from __future__ import annotations

import re
from typing import Any

import pytest

from backwater_tornado.errors import BodyUndecodable, NestedTooDeep
from backwater_tornado.protocol.erlang import decoding
from backwater_tornado.protocol.erlang.decoding import MAX_PARTS, decode_term
from backwater_tornado.protocol.erlang.encoding import encode_term
from backwater_tornado.protocol.erlang.maps import ErlangMap
from backwater_tornado.protocol.erlang.printing import format_term
from backwater_tornado.protocol.erlang.terms import Atom, BitString, Fun, ImproperList, Pid, Port, Reference

NODE = "64000d6e6f6e6f6465406e6f686f7374"
PID = f"58{NODE}000000090000000000000000"

#: What a VM of OTP 25 answered, written with {minor_version, 1}: {return, ...}.
ANSWERS = {
    "83680264000672657475726e68056d000000006d000000036162636d0000000300ff804d0000000103a04d0000000305010238": (
        b"",
        b"abc",
        b"\x00\xff\x80",
        BitString(b"\xa0", 3),
        BitString(b"\x01\x02\x38", 5),
    ),
    "83680264000672657475726e6805460000000000000000463ff800000000000046c002000000000000467e37e43c8800759c"
    "46400921fb54442d18": (0.0, 1.5, -2.25, 1e300, 3.141592653589793),
    "83680264000672657475726e68076a6b00036162636c00000002610162000001006a6c0000000164000161640001626c00000002"
    "6a6c000000016a6a6a6c000000026101610261036c00000002620000014261f36a": (
        [],
        [97, 98, 99],
        [1, 256],
        ImproperList((Atom("a"),), Atom("b")),
        [[], [[]]],
        ImproperList((1, 2), 3),
        [0x142, 0xF3],
    ),
    "83680264000672657475726e740000000461016400036f6e6564000461746f6d740000000164000178463ff00000000000006801"
    "640001746400036e696c6d000000016b6b00020102": {
        1: Atom("one"),
        Atom("atom"): {Atom("x"): 1.0},
        (Atom("t"),): Atom("nil"),
        b"k": [1, 2],
    },
    f"83680264000672657475726e6802{PID}5a0003{NODE}000000000000a761e8280002e994e2a0": (
        Pid(bytes.fromhex(PID)),
        Reference(bytes.fromhex(f"5a0003{NODE}000000000000a761e8280002e994e2a0")),
    ),
}


@pytest.mark.parametrize(("answer", "value"), ANSWERS.items())
def test_an_answer_of_a_vm_is_read(answer: str, value: Any) -> None:
    found = decode_term(bytes.fromhex(answer))
    assert found == (Atom("return"), value)
    assert repr(found) == repr((Atom("return"), value))


@pytest.mark.parametrize(
    ("term", "value"),
    [
        ("6105", 5),
        ("62fffffffe", -2),
        ("6e040000000080", 2**31),
        ("6e020103 01", -259),
        ("6e0000", 0),
        ("6e020003 00", 3),
        ("6e010703", -3),
        ("6f00000002 01 0301", -259),
        ("463ff8000000000000", 1.5),
        ("468000000000000000", -0.0),
        ("63" + b"1.00000000000000000000e+00".hex() + "0000000000", 1.0),
        ("63" + b"-1.5e5".hex() + "00" * 25, -1.5e5),
        ("63" + b"+1.5".hex() + "00" * 27, 1.5),
        ("63" + b"1.5000000000000000000000000e-05".hex(), 1.5e-5),
        ("64000474727565", True),
        ("730566616c7365", False),
        ("7709756e646566696e6564", None),
        ("640009756e646566696e6564", None),
        ("77026f6b", Atom("ok")),
        ("7600026f6b", Atom("ok")),
        ("640001e9", Atom("é")),
        ("7301e9", Atom("é")),
        ("7702c3a9", Atom("é")),
        ("7700", Atom("")),
        ("76" + "01fe" + "c3a9" * 255, Atom("é" * 255)),
        ("77036e696c", Atom("nil")),
        ("6d00000000", b""),
        ("6d00000002c3a9", b"\xc3\xa9"),
        ("4d0000000108ff", b"\xff"),
        ("4d0000000103ff", BitString(b"\xe0", 3)),
        ("4d0000000000", b""),
        ("6a", []),
        ("6b00020001", [0, 1]),
        ("6b0000", []),
        ("6c0000000161016a", [1]),
        ("6c00000000" + "6a", []),
        ("6c00000000" + "6101", 1),
        ("6c000000016101" + "6b00020203", [1, 2, 3]),
        ("6c000000016101" + "6c000000016102" + "6a", [1, 2]),
        ("6c000000016101" * 300 + "6103", ImproperList((1,) * 300, 3)),
        ("6c000000016101" + "6801" + "6102", ImproperList((1,), (2,))),
        ("6800", ()),
        ("68026101" + "6a", (1, [])),
        ("69000000016101", (1,)),
        ("7400000000", {}),
        ("740000000161016102", {1: 2}),
        ("740000000261016102463ff00000000000006103", ErlangMap([(1, 2), (1.0, 3)])),
        ("74000000026a61016801" + "61016102", ErlangMap([([], 1), ((1,), 2)])),
        ("7400000001" + "7400000000" + "6101", ErlangMap([({}, 1)])),
    ],
)
def test_a_term_is_read(term: str, value: Any) -> None:
    found = decode_term(bytes.fromhex("83" + term))
    assert found == value
    assert repr(found) == repr(value)
    assert type(found) is type(value)


def sized(fun: str) -> str:
    """A closure with its size put right."""
    return f"70{len(fun) // 2 - 1:08x}{fun[10:]}"


CLOSURE = sized(
    "70000000000106" + "5361aa461590d1bdf1eb62d1a6eb08" + "0000002a" + "00000002"
    "6400086572" + f"6c5f6576616c612a6200329b0d{PID}6a6801610a"
)
OPAQUE = [
    (PID, Pid, "<0.9.0>"),
    ("67770161000000090000000203", Pid, "<0.9.2>"),
    ("667701610000000900", Port, "#Port<0.9>"),
    ("597701610000000900000000", Port, "#Port<0.9>"),
    ("78770161000000090000000900000001", Port, "#Port<0.38654705673>"),
    ("657701610000000900", Reference, "#Ref<0.9>"),
    ("720002770161000000000100000002", Reference, "#Ref<0.2.1>"),
    ("5a0005770161" + "00000000" + "00000001" * 5, Reference, "#Ref<0.1.1.1.1.1>"),
    ("7164000665726c616e676400036162736101", Fun, "fun erlang:abs/1"),
    ("71770a456c697869722e466f6f770161" + "6200000100", Fun, "fun 'Elixir.Foo':a/256"),
    (CLOSURE, Fun, "#Fun<erl_eval.42.3316493>"),
    (f"7500000001{PID}7701616103" + "6e0400000000ff" + "6b000101", Fun, "#Fun<a.3.4278190080>"),
]


@pytest.mark.parametrize(("term", "kind", "text"), OPAQUE)
def test_an_opaque_value_is_kept_byte_for_byte(term: str, kind: type, text: str) -> None:
    data = bytes.fromhex("83" + term)
    found = decode_term(data + b"\x61")
    assert type(found) is kind
    assert found.data == data[1:]
    assert format_term(found) == text
    assert encode_term(found) == data
    assert decode_term(b"\x83h\x02" + data[1:] + data[1:]) == (found, found)


def test_what_stands_behind_the_term_is_ignored() -> None:
    assert decode_term(b"\x83a\x01garbage") == 1


def test_none_is_the_atom_that_it_is_told_to_be() -> None:
    data = encode_term([Atom("nil"), Atom("undefined")])
    assert repr(decode_term(data)) == "[Atom('nil'), None]"
    assert repr(decode_term(data, none="nil")) == "[None, Atom('undefined')]"


def test_an_atom_is_built_once() -> None:
    found = decode_term(encode_term([Atom("a"), Atom("b"), Atom("a")]))
    assert found[0] is found[2]


@pytest.mark.parametrize("known", [{"ok"}, frozenset({"ok"}), ["ok"], {"ok": 1}])
def test_known_atoms_pass_and_others_are_refused(known: Any) -> None:
    plain = [True, False, None, Atom("nil"), Atom("ok"), Atom("ok")]
    assert decode_term(encode_term(plain), known_atoms=known) == plain
    with pytest.raises(BodyUndecodable, match=r"the atom 'N o' is not known here, at byte 6"):
        decode_term(encode_term([Atom("N o")]), known_atoms=known)
    with pytest.raises(BodyUndecodable, match="the atom a is not known here"):
        decode_term(encode_term({Atom("a"): 1}), known_atoms=known)


def test_no_atom_is_known_of_an_empty_list() -> None:
    with pytest.raises(BodyUndecodable, match="the atom ok is not known"):
        decode_term(encode_term(Atom("ok")), known_atoms=())


@pytest.mark.parametrize(("term", "kind", "text"), OPAQUE)
def test_the_atoms_of_a_fun_are_known_or_refused_and_those_of_nodes_pass(term: str, kind: type, text: str) -> None:
    data = bytes.fromhex("83" + term)
    names = {"erlang", "abs", "Elixir.Foo", "a", "erl_eval"}
    assert decode_term(data, known_atoms=names)
    if kind is not Fun:
        assert decode_term(data, known_atoms=())
        return
    for name in names:
        if re.search(rf"\b{name}\b", text):
            with pytest.raises(BodyUndecodable, match="is not known here"):
                decode_term(data, known_atoms=names - {name})


def test_an_atom_as_the_name_of_a_node_is_not_known_by_that() -> None:
    with pytest.raises(BodyUndecodable, match="the atom nonode@nohost is not known"):
        decode_term(bytes.fromhex(f"836802{PID}{NODE}"), known_atoms=())


@pytest.mark.parametrize(
    ("term", "message"),
    [
        ("8250", "its first byte is 130, not 131, at byte 0"),
        ("8350000000046a", "a compressed term, at byte 1"),
        ("836c000000015000", "a compressed term, at byte 6"),
        ("834400", "a distribution header, at byte 1"),
        ("834500", "a fragment of a distribution message"),
        ("835200", "a reference to an atom cache"),
        ("83790000", "a term that only the VM which wrote it can read"),
        ("83ff", "the unknown tag 255, at byte 1"),
        ("8300", "the unknown tag 0"),
        ("83467ff8000000000000", "a float that is not finite, at byte 1"),
        ("8346fff0000000000000", "a float that is not finite"),
        ("8363" + b"nan".hex() + "00" * 28, "a text that is no float, at byte 1"),
        ("8363" + b"1e5".hex() + "00" * 28, "a text that is no float"),
        ("8363" + b" 1.5".hex() + "00" * 27, "a text that is no float"),
        ("8363" + b"1.5".hex() + "00" * 27 + "31", "a text that is no float"),
        ("8363" + b"1_0.5".hex() + "00" * 26, "a text that is no float"),
        ("8363" + b"1.0e999".hex() + "00" * 24, "a text that is no float"),
        ("834d0000000100ff", "a bit string of 1 bytes with 0 bits in the last, at byte 1"),
        ("834d0000000109ff", "a bit string of 1 bytes with 9 bits"),
        ("834d0000000003", "a bit string of 0 bytes with 3 bits"),
        ("837702c328", "an atom that is not UTF-8, at byte 1"),
        ("837703eda080", "an atom that is not UTF-8"),
        ("83760100" + "61" * 256, "an atom of 256 characters, at byte 1"),
        ("83640100" + "61" * 256, "an atom of 256 characters"),
        ("83740000000261016101" + "61016102", "a map has the same key twice, at byte 1"),
        ("837400000002" + "6101" * 2 + "6200000001" + "6102", "a map has the same key twice"),
        ("837400000002" + "6a6101" + "6b00006102", "a map has the same key twice"),
        ("83586101" + "00" * 12, "no atom where there has to be one, at byte 2"),
        ("83720000770161" + "00" * 9, "a reference of 0 words, at byte 1"),
        ("83720006770161" + "00" * 30, "a reference of 6 words"),
        ("835a0006770161" + "00" * 30, "a reference of 6 words"),
        ("83716101770161" + "6101", "no atom where there has to be one, at byte 2"),
        ("83717701616101" + "6101", "no atom where there has to be one, at byte 5"),
        ("8371770161770161" + "770161", "no number where there has to be one, at byte 8"),
        ("837500000000" + "7701616101", "no pid where there has to be one, at byte 6"),
        (f"837500000000{PID}770161" + "6a", "no number where there has to be one"),
    ],
)
def test_what_is_no_term_is_refused_with_its_place(term: str, message: str) -> None:
    with pytest.raises(BodyUndecodable, match=f"the body is not an Erlang term: {message}"):
        decode_term(bytes.fromhex(term))


@pytest.mark.parametrize("change", [-1, 1, 2**31])
def test_a_fun_whose_size_lies_is_refused(change: int) -> None:
    size = int(CLOSURE[2:10], 16)
    with pytest.raises(BodyUndecodable, match=f"a fun of {size} bytes that claims to have {size + change}, at byte 1"):
        decode_term(bytes.fromhex(f"8370{size + change:08x}{CLOSURE[10:]}aabb"))


def test_what_a_fun_has_captured_is_looked_at() -> None:
    assert CLOSURE.endswith("610a")
    with pytest.raises(BodyUndecodable, match="the unknown tag 0"):
        decode_term(bytes.fromhex(f"83{CLOSURE[:-4]}000a"))


WHOLE = [
    *ANSWERS,
    *("83" + term for term, _, _ in OPAQUE),
    "836200000001",
    "836e020001ff",
    "836f00000002000101",
    "8363" + b"1.5".hex() + "00" * 28,
    "83730161",
    "8376000161",
    "836900000001" + "6b000161",
    "836c000000016101" + "6b000161",
]


@pytest.mark.parametrize("term", WHOLE)
def test_a_cut_is_refused_wherever_it_is(term: str) -> None:
    data = bytes.fromhex(term)
    decode_term(data)
    for end in range(len(data)):
        with pytest.raises(BodyUndecodable, match=f"it ends too early, at byte {end}"):
            decode_term(data[:end])


@pytest.mark.parametrize("head", ["6c", "69", "74", "6d", "6f", "4d"])
def test_a_count_that_lies_is_refused(head: str) -> None:
    with pytest.raises(BodyUndecodable, match="it ends too early"):
        decode_term(bytes.fromhex(f"83{head}ffffffff00"))


def test_a_count_beyond_what_remains_is_refused_before_anything_is_read() -> None:
    with pytest.raises(BodyUndecodable, match="it ends too early"):
        decode_term(bytes.fromhex("836c00000004" + "00" * 3))  # else: the unknown tag 0


LEVELS = {
    "lists": ("6c00000001", "6a"),
    "tuples": ("6801", ""),
    "long tuples": ("6900000001", ""),
    "values of maps": ("74000000016101", ""),
    "keys of maps": ("7400000001", "6101"),
    "tails": ("6c000000016101" + "6801", ""),
    "old funs": (f"7500000001{PID}77016161036101", ""),
}


@pytest.mark.parametrize("name", LEVELS)
def test_255_levels_are_read_and_not_one_more(name: str) -> None:
    head, end = LEVELS[name]
    each = 2 if name == "tails" else 1
    fits, over = 255 // each, 256 // each
    assert decode_term(bytes.fromhex("83" + head * fits + "6101" + end * fits)) is not None
    for levels in (over, 5000):
        with pytest.raises(NestedTooDeep, match="nested deeper than 255 levels"):
            decode_term(bytes.fromhex("83" + head * levels + "6101" + end * levels))


def test_closures_are_levels_too() -> None:
    term = "6101"
    for _ in range(255):
        term = sized(f"7000000000{'00' * 21}00000001770161" + f"61016101{PID}{term}")
    decode_term(bytes.fromhex("83" + term))
    with pytest.raises(NestedTooDeep):
        decode_term(bytes.fromhex("8368016801" + term))


@pytest.mark.parametrize("innermost", ["6a", "6b000101", "6800", "7400000000", "6c000000016101" + "6a"])
def test_an_empty_list_and_a_list_of_bytes_are_levels_too(innermost: str) -> None:
    decode_term(bytes.fromhex("83" + "6801" * 254 + innermost))
    with pytest.raises(NestedTooDeep):
        decode_term(bytes.fromhex("83" + "6801" * 255 + innermost))


def test_a_number_in_a_fun_is_no_list() -> None:
    with pytest.raises(BodyUndecodable, match="no number"):
        decode_term(bytes.fromhex("8371770161770161" + "6a"))


def test_a_stack_that_is_nearly_full_is_told() -> None:
    data = bytes.fromhex("83" + "6801" * 250 + "6101")

    def dive() -> None:
        try:
            dive()
        except RecursionError:
            decode_term(data)

    with pytest.raises(NestedTooDeep, match="the stack that is left here"):
        dive()


@pytest.mark.parametrize(
    "item", [b"j", b"k\0\0", b"h\0", b"t\0\0\0\0", bytes.fromhex(f"7500000000{PID}77016161036101"), None]
)
def test_there_are_only_so_many_parts(item: bytes | None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_PARTS == 1_000_000  # tests/faults/test_bombs_terms.py tells what so many take
    monkeypatch.setattr(decoding, "MAX_PARTS", 1000)

    def data(count: int) -> bytes:
        atoms = b"".join([b"w\x05%05x" % number for number in range(count)])
        return b"\x83l" + count.to_bytes(4, "big") + (item * count if item else atoms) + b"j"

    assert len(decode_term(data(999))) == 999
    with pytest.raises(BodyUndecodable, match="it has more than 1000 lists, tuples, maps, funs and atoms"):
        decode_term(data(1000))


def test_too_many_keys_of_one_hash_are_refused() -> None:
    keys = b"".join([encode_term(number * (2**61 - 1))[1:] + b"a\x01" for number in range(9, 409)])
    with pytest.raises(BodyUndecodable, match="too many items of the same hash"):
        decode_term(b"\x83t" + (400).to_bytes(4, "big") + keys)
