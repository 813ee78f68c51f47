"""Erlang's terms, for callers and functions that meet nodes of Erlang's backwater.

    from backwater_tornado.erlang import Atom, Charlist

    client = backwater.Client("erlang+https://node.example:8443", secret)
    client.call("string", "to_upper", Charlist("hello"))

What each term is in Python stands in the README, "Moving an Erlang cluster".
"""

from __future__ import annotations

from .errors import ErlangError
from .options import ErlangOptions, ErlangTerms
from .protocol.erlang.decoding import decode_term
from .protocol.erlang.encoding import encode_term
from .protocol.erlang.maps import ErlangMap
from .protocol.erlang.notation import parse_term
from .protocol.erlang.printing import format_term
from .protocol.erlang.terms import Atom, BitString, Charlist, Fun, ImproperList, Pid, Port, Reference, text_of

__all__ = [
    "Atom",
    "BitString",
    "Charlist",
    "ErlangError",
    "ErlangMap",
    "ErlangOptions",
    "ErlangTerms",
    "Fun",
    "ImproperList",
    "Pid",
    "Port",
    "Reference",
    "decode_term",
    "encode_term",
    "format_term",
    "parse_term",
    "text_of",
]
