"""Python's answer to the Erlang functions that the captured messages call, under the same names."""

from __future__ import annotations

import itertools
from typing import Any

from backwater_tornado import expose
from backwater_tornado.errors import ErlangError
from backwater_tornado.exposure import Exposed
from backwater_tornado.protocol.erlang.terms import Atom, Charlist

_NUMBERS = itertools.count(1)


def _raise(error_class: str, reason: Any, stack: Any = ()) -> Any:
    raise ErlangError(error_class=error_class, reason=reason, stack=stack)


class Erlang:
    """Some of the module `erlang`."""

    @expose(name="+")
    def plus(self, a: int, b: int) -> int:
        return a + b

    @expose(name="*")
    def times(self, a: int, b: int) -> int:
        return a * b

    @expose(name="/")
    def divide(self, a: int, b: int) -> float:
        if b == 0:
            _raise("error", Atom("badarith"))
        return a / b

    @expose(name="-")
    def negate(self, a: int) -> int:
        return -a

    @expose
    def node(self) -> Atom:
        return Atom("nonode@nohost")

    @expose(name="abs")
    def absolute(self, a: int) -> int:
        return abs(a)

    @expose
    def atom_to_binary(self, atom: str, encoding: str) -> bytes:
        return atom.encode()

    @expose
    def byte_size(self, data: bytes) -> int:
        return len(data)

    @expose
    def length(self, items: list[Any]) -> int:
        return len(items)

    @expose
    def list_to_binary(self, items: list[Any]) -> bytes:
        return b"".join(
            self.list_to_binary(item) if isinstance(item, list) else bytes([item]) if isinstance(item, int) else item
            for item in items
        )

    @expose
    def error(self, reason: Any) -> None:
        _raise("error", reason)

    @expose
    def exit(self, reason: Any) -> None:
        _raise("exit", reason)

    @expose
    def throw(self, reason: Any) -> None:
        _raise("throw", reason)

    @expose
    def apply(self, module: str, function: str, args: list[Any]) -> None:
        _raise("error", Atom("undef"))

    @expose
    def unique_integer(self) -> int:
        return next(_NUMBERS)


class Lists:
    """Some of the module `lists`."""

    @expose
    def last(self, items: list[Any]) -> Any:
        return items[-1]

    @expose
    def nth(self, place: int, items: list[Any]) -> Any:
        return items[place - 1] if place <= len(items) else _raise("error", Atom("function_clause"))

    @expose
    def reverse(self, items: list[Any]) -> list[Any]:
        return items[::-1]


class String:
    """Some of the module `string`."""

    @expose
    def copies(self, text: str, count: int) -> Charlist:
        return Charlist(text * count)


class MoreString(String):
    """And what the servers with an export list do not show."""

    @expose
    def to_upper(self, text: str) -> Charlist:
        return Charlist(text.upper())


class LabMod:
    """The module that was made for the capture."""

    @expose
    def id(self, value: Any) -> Any:
        return value

    @expose
    def big(self, size: int) -> bytes:
        return b"x" * size

    @expose
    def deep_error(self, depth: int) -> None:
        _raise("error", (Atom("deep"), Charlist("reason")))

    @expose(name="a+b")
    def plus(self) -> Atom:
        return Atom("plus")

    @expose(name="a b")
    def space(self) -> Atom:
        return Atom("space")

    @expose(name="héé")
    def latin1(self) -> Atom:
        return Atom("latin1_name")

    @expose(name="a/b")
    def slash(self, number: int) -> tuple[Atom, int]:
        return Atom("slash"), number

    @expose(name="%41")
    def percent(self) -> Atom:
        return Atom("percent")

    @expose(name="a*b!$(c)@d~e")
    def punctuation(self) -> Atom:
        return Atom("punct")


EXPOSED = {
    "default": Exposed(erlang=Erlang(), lists=Lists(), string=MoreString()),
    "nostack": Exposed(erlang=Erlang(), lists=Lists(), string=MoreString()),
    "tuned": Exposed(erlang=Erlang(), lists=Lists(), string=String(), lab_mod=LabMod()),
}
