"""Terms as Erlang source has them, for a command line: `{user, <<"Ada">>, [1, 2]}`.

`parse_term` reads what an Erlang shell reads as a constant; `format_term` is the way back. Rule: a wrong text is a
ValueError that names the column and what was expected there. This module does not know the wire.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from backwater_tornado.errors import BodyUndecodable
from backwater_tornado.protocol.nesting import MAX_DEPTH

from .maps import map_of
from .printing import format_term, is_reserved
from .terms import Atom, BitString, Charlist, ImproperList

__all__ = ["format_term", "parse_term"]

#: Bits of a binary: a text of a few characters, such as `<<0:99999999999>>`, must not take all memory.
MAX_BITS = 1 << 26

_BLANK = re.compile(r"(?:\s|%[^\n]*)*")
_ATOM = re.compile(r"[a-zß-öø-ÿ][A-Za-z0-9_@À-ÖØ-öø-ÿ]*")
_QUOTED = {mark: re.compile(rf"{mark}([^{mark}\\]*(?:\\.[^{mark}\\]*)*){mark}", re.DOTALL) for mark in "'\""}
_ESCAPE = re.compile(
    r"\\(?:x\{(?P<wide>[0-9A-Fa-f]{1,8})\}|x(?P<hex>[0-9A-Fa-f]{2})|(?P<octal>[0-7]{1,3})|\^(?P<control>[@-_a-z])"
    r"|(?P<one>[^x^]))|\\",
    re.DOTALL,
)
_MEANINGS = {"b": 8, "d": 127, "e": 27, "f": 12, "n": 10, "r": 13, "s": 32, "t": 9, "v": 11}
_SIZE = re.compile("[0-9]{1,9}")
_SIGN = re.compile(r"[+-]\s*")
_NUMBER = re.compile(
    r"(?:(?P<float>D\.D(?:[eE][+-]?D)?)|(?P<base>[0-9]{1,2})#(?P<digits>[0-9A-Za-z]+(?:_[0-9A-Za-z]+)*)|(?P<int>D))"
    r"(?![0-9A-Za-z_@#])".replace("D", "[0-9]+(?:_[0-9]+)*")
)


def parse_term(text: str, *, none: str = "undefined") -> Any:
    """The value of a term in Erlang's notation; a full stop behind it is allowed.

    A "text" is a `Charlist`, a binary is bytes. Integers in a binary have to fit into their bits.

    Args:
        none: the atom that is None, as for `encode_term`.

    Raises:
        ValueError: it is no term, with the column; or it is nested deeper than `MAX_DEPTH`.
    """
    parser = _Parser(text, none)
    try:
        value = parser.read_value(MAX_DEPTH)
    except RecursionError:
        raise ValueError("the term is nested too deep for the stack that is left here") from None
    parser.take(".")
    parser.skip_blank()
    if parser.at < len(text):
        raise parser.expected("the end")
    return value


class _Parser:
    """Reads from the character `at` on; a `read_` method begins behind the mark that opens what it reads."""

    __slots__ = ("_none", "_text", "at")

    def __init__(self, text: str, none: str) -> None:
        self._text = text
        self._none = none
        self.at = 0

    def expected(self, what: str) -> ValueError:
        """The error to raise where something else stands."""
        found = self._text[self.at : self.at + 12]
        return self._wrong(f"expected {what}, not {found!r}" if found else f"expected {what}, and the text ends")

    def _wrong(self, what: str, at: int | None = None) -> ValueError:
        before = self._text[: self.at if at is None else at]
        line = before.count("\n")
        where = f"line {line + 1}, " if line else ""
        return ValueError(f"{where}column {len(before) - before.rfind(chr(10))}: {what}")

    def skip_blank(self) -> None:
        """Goes on to what is neither blank nor a comment."""
        found = _BLANK.match(self._text, self.at)
        self.at = found.end() if found else self.at

    def take(self, mark: str) -> bool:
        """Whether the mark comes next, which is then behind."""
        if not self._comes(mark):  # else there is no blank to pass over
            self.skip_blank()
            if not self._comes(mark):
                return False
        self.at += len(mark)
        return True

    def _need(self, *marks: str) -> str:
        for mark in marks:
            if self.take(mark):
                return mark
        raise self.expected(" or ".join(marks))

    def read_value(self, room: int) -> Any:
        """Any term, of at most `room` levels."""
        self.skip_blank()
        for mark, read in _CONTAINERS:
            if self._comes(mark):
                if room <= 0:
                    raise self._wrong(f"the term is nested deeper than {MAX_DEPTH} levels")
                self.at += len(mark)
                return read(self, room - 1)
        if self.take("<<"):
            return self._read_binary()
        if self._comes('"'):
            return Charlist(self._read_texts())
        if self._comes("'"):
            return self._atom(self.at, self._read_quoted("'"))
        if found := _ATOM.match(self._text, self.at):
            if is_reserved(found[0]):
                raise self._wrong(f"{found[0]} is a reserved word; as an atom it is written '{found[0]}'")
            self.at = found.end()
            return self._atom(found.start(), found[0])
        number = self._read_number()
        if number is None:
            raise self.expected("a term")
        return number

    def _comes(self, mark: str) -> bool:
        return self._text.startswith(mark, self.at)

    # Atoms and texts

    def _atom(self, at: int, text: str) -> Any:
        if text in ("true", "false"):
            return text == "true"
        try:
            return None if text == self._none else Atom(text)
        except ValueError as exc:
            raise self._wrong(str(exc), at) from exc

    def _read_texts(self) -> str:
        """One text or several, which are one: "a" "b"."""
        pieces = []
        while self._comes('"'):
            pieces.append(self._read_quoted('"'))
            self.skip_blank()
        return "".join(pieces)

    def _read_quoted(self, mark: str) -> str:
        found = _QUOTED[mark].match(self._text, self.at)
        if found is None:
            raise self._wrong(f"a {mark} that is not closed")
        self.at = found.end()
        return _ESCAPE.sub(lambda escape: self._meaning(escape, found.start(1)), found[1])

    def _meaning(self, escape: re.Match[str], offset: int = 0) -> str:
        kind = escape.lastgroup
        if kind is None:
            raise self._wrong("an escape that is not known", offset + escape.start())
        text = escape[kind]
        if kind == "one":
            return chr(_MEANINGS.get(text, ord(text)))
        if kind == "control":
            return chr(ord(text) & 31)
        return self._character(int(text, 8 if kind == "octal" else 16), offset + escape.start())

    def _character(self, code: int, at: int) -> str:
        if not 0 <= code < 0x110000 or 0xD800 <= code < 0xE000:
            raise self._wrong(f"{code} is not the number of a character", at)
        return chr(code)

    # Numbers

    def _read_number(self) -> int | float | None:
        """A number, or None where none comes."""
        start = self.at
        sign = _SIGN.match(self._text, start)
        begun = sign.end() if sign else start
        factor = -1 if sign and sign[0][0] == "-" else 1
        if self._text.startswith("$", begun):
            return factor * self._read_character(begun + 1)
        found = _NUMBER.match(self._text, begun)
        if found is None:
            return None
        self.at = found.end()
        try:
            if found["float"]:
                value = float(found["float"])
                if math.isinf(value):
                    raise ValueError("a float beyond all floats")
                return factor * value
            if found["base"]:
                return factor * int(found["digits"], int(found["base"]) or 99)  # to int() a base of 0 means: guess
            return factor * int(found["int"])
        except ValueError as exc:
            raise self._wrong(f"no number: {exc}", start) from exc

    def _read_character(self, at: int) -> int:
        self.at = at + 1
        character = self._text[at : at + 1]
        if escape := _ESCAPE.match(self._text, at):
            self.at = escape.end()
            character = self._meaning(escape)
        if not character:
            raise self._wrong("expected a character, and the text ends", at)
        return ord(character)

    # Lists, tuples, maps

    def read_list(self, room: int) -> Any:
        items: list[Any] = []
        end = "]" if self.take("]") else ","
        while end == ",":
            items.append(self.read_value(room))
            end = self._need(",", "|", "]")
        if end == "]":
            return items
        tail = self.read_value(room)
        self._need("]")
        if isinstance(tail, Charlist):
            return items + list(map(ord, tail))
        if isinstance(tail, list):
            return items + tail
        if isinstance(tail, ImproperList):
            return ImproperList((*items, *tail.items), tail.tail)
        return ImproperList(tuple(items), tail)

    def read_tuple(self, room: int) -> tuple[Any, ...]:
        items: list[Any] = []
        end = "}" if self.take("}") else ","
        while end == ",":
            items.append(self.read_value(room))
            end = self._need(",", "}")
        return tuple(items)

    def read_map(self, room: int) -> Any:
        start = self.at - 2
        keys: list[Any] = []
        values: list[Any] = []
        end = "}" if self.take("}") else ","
        while end == ",":
            keys.append(self.read_value(room))
            self._need("=>")
            values.append(self.read_value(room))
            end = self._need(",", "}")
        try:
            return map_of(keys, values)
        except (ValueError, BodyUndecodable) as exc:
            raise self._wrong(str(exc), start) from exc

    # Binaries

    def _read_binary(self) -> bytes | BitString:
        pieces: list[str] = []  # of the digits 0 and 1
        room = MAX_BITS
        end = ">>" if self.take(">>") else ","
        while end == ",":
            piece = self._read_segment(room)
            room -= len(piece)
            pieces.append(piece)
            end = self._need(",", ">>")
        bits = "".join(pieces)
        missing = -len(bits) % 8
        if not bits:
            return b""
        data = int(bits + "0" * missing, 2).to_bytes((len(bits) + missing) // 8, "big")
        return BitString(data, 8 - missing) if missing else data

    def _read_segment(self, room: int) -> str:
        self.skip_blank()
        start = self.at
        codes = self._read_codes()
        size = 8
        if self.take(":"):
            found = _SIZE.match(self._text, self.at)
            if found is None:
                raise self.expected("a number of bits")
            self.at = found.end()
            size = int(found[0])
        elif self.take("/"):
            self._need("utf8")
            codes = list("".join([self._character(code, start) for code in codes]).encode())
        if size * len(codes) > room:
            raise self._wrong(f"a binary of more than {MAX_BITS} bits", start)
        for code in codes:
            if not -(1 << size >> 1) <= code < 1 << size:
                raise self._wrong(f"{code} does not fit into {size} bits (a text may be followed by /utf8)", start)
        return "".join([f"{code & (1 << size) - 1:0{size}b}" for code in codes]) if size else ""

    def _read_codes(self) -> list[int]:
        if self._comes('"'):
            return list(map(ord, self._read_texts()))
        number = self._read_number()
        if not isinstance(number, int):
            raise self.expected("a text or an integer")
        return [number]


_CONTAINERS: tuple[tuple[str, Callable[[_Parser, int], Any]], ...] = (
    ("[", _Parser.read_list),
    ("{", _Parser.read_tuple),
    ("#{", _Parser.read_map),
)
