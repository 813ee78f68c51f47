"""Terms as an Erlang shell prints them, on one line.

Rule: what is printed is read again by `notation.parse_term` as an equal term, but for pids, ports, references and funs,
which have no notation. A list of printable characters is a text in quotation marks, as in the shell. This module does
not know the wire.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

from backwater_tornado.errors import Unserializable
from backwater_tornado.protocol.extensions import type_name
from backwater_tornado.protocol.nesting import MAX_DEPTH

from .maps import ErlangMap
from .terms import Atom, BitString, Charlist, Fun, ImproperList, Pid, Port, Reference

__all__ = ["format_term", "is_reserved", "quote_atom"]

#: Bits of an integer that is printed in decimal; CPython converts about as many (`sys.set_int_max_str_digits`), and
#: those beyond are printed to base 16.
_MAX_DECIMAL_BITS = 14_000
#: What an Erlang shell prints by an escape.
_CONTROLS = dict.fromkeys(map(ord, "\b\t\n\v\f\r\x1b"))
_PLAIN_ATOM = re.compile(r"[a-z][A-Za-z0-9_@]*")
_RESERVED = re.compile(
    "after|and|andalso|band|begin|bnot|bor|bsl|bsr|bxor|case|catch|cond|div|else|end|fun|if|let|maybe|not|of|or|orelse|"
    "receive|rem|try|when|xor"
)
_ESCAPES = {"\b": "b", "\t": "t", "\n": "n", "\v": "v", "\f": "f", "\r": "r", "\x1b": "e", "\\": "\\"}


def format_term(value: Any, *, none: str = "undefined") -> str:
    """The value in Erlang's notation, on one line.

    Args:
        none: the atom that None stands for.

    Raises:
        Unserializable: a part of it is no term, or it is nested deeper than `MAX_DEPTH`.
    """
    try:
        return _show(value, none, MAX_DEPTH)
    except RecursionError as exc:
        raise Unserializable("the value is nested too deep for the stack that is left here") from exc


def _show(value: Any, none: str, room: int) -> str:
    if isinstance(value, Charlist):
        value = list(map(ord, value))
    if not isinstance(value, list | tuple | dict | ErlangMap | ImproperList):
        return _show_leaf(value, none)
    if room <= 0:
        raise Unserializable("the value is nested too deep, or holds itself")
    if isinstance(value, list):
        text = _text_in(value)
        return _quote(text) if text else f"[{','.join(_show_each(value, none, room))}]"
    if isinstance(value, tuple):
        return f"{{{','.join(_show_each(value, none, room))}}}"
    if isinstance(value, ImproperList):
        return f"[{','.join(_show_each(value.items, none, room))}|{_show(value.tail, none, room - 1)}]"
    pairs = value.pairs if isinstance(value, ErlangMap) else value.items()
    parts = _show_each([part for pair in pairs for part in pair], none, room)
    return f"#{{{','.join(map('{} => {}'.format, parts[::2], parts[1::2]))}}}"


def _show_each(values: Iterable[Any], none: str, room: int) -> list[str]:
    shown = []
    for value in values:
        shown.append(_show(value, none, room - 1))
    return shown


def _show_leaf(value: Any, none: str) -> str:
    match value:
        case None:
            return quote_atom(none)
        case bool():
            return "true" if value else "false"
        case Atom():
            return quote_atom(value)
        case str():
            return _show_bytes(_utf8(value))
        case bytes() | bytearray() | memoryview():
            return _show_bytes(bytes(value))
        case int():
            small = value.bit_length() <= _MAX_DECIMAL_BITS
            return f"{value:d}" if small else f"{'-' if value < 0 else ''}16#{abs(value):X}"
        case float():
            return _show_float(value)
        case BitString(data=data, bits=bits):
            # the last byte on its own; with all of its bits it is as any other
            return _show_numbers([*data[:-1], data[-1] >> 8 - bits], "" if bits == 8 else f":{bits}")
        case Pid() | Port() | Reference() | Fun():
            return str(value)
    raise Unserializable(f"{type_name(type(value))} has no form as an Erlang term")


def _show_float(value: float) -> str:
    if not math.isfinite(value):
        raise Unserializable(f"the float {value} has no form as an Erlang term")
    number, e, exponent = float.__repr__(value).partition("e")
    return f"{number}{'' if '.' in number else '.0'}{e}{int(exponent) if e else ''}"


def _show_bytes(data: bytes) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return _show_numbers(data)
    if not data or not _is_printable(text):
        return _show_numbers(data)
    kind = "" if text.isascii() else "/utf8"
    return f"<<{_quote(text)}{kind}>>"


def _show_numbers(numbers: Iterable[int], end: str = "") -> str:
    return f"<<{','.join(map(str, numbers))}{end}>>"


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise Unserializable("a str with a lone surrogate has no form as an Erlang term") from None


def _text_in(values: list[Any]) -> str:
    """The text that a list would be printed as, or an empty one."""
    if set(map(type, values)) != {int} or not all(0 <= value < 0x110000 for value in values):
        return ""
    text = "".join(map(chr, values))
    return text if _is_printable(text) else ""


def _is_printable(text: str) -> bool:
    return text.translate(_CONTROLS).isprintable()


def is_reserved(text: str) -> bool:
    """Whether it is a word of the language, which is no atom unless in quotation marks."""
    return _RESERVED.fullmatch(text) is not None


def quote_atom(text: str) -> str:
    """An atom as Erlang source has it: `ok`, `'two words'`."""
    if _PLAIN_ATOM.fullmatch(text) and not is_reserved(text):
        return text
    return _quote(text, "'")


def _quote(text: str, mark: str = '"') -> str:
    """The text between two quotation marks, with all escaped that would not show or end it."""
    return f"{mark}{''.join([_escaped(character, mark) for character in text])}{mark}"


def _escaped(character: str, mark: str) -> str:
    if character == mark or character in _ESCAPES:
        return "\\" + _ESCAPES.get(character, mark)
    return character if character.isprintable() else f"\\x{{{ord(character):X}}}"
