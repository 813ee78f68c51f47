"""Nodes of Erlang's backwater: one server answers them and ours, and a client calls as they do."""

from __future__ import annotations

import logging
import secrets

import backwater_tornado as backwater
from backwater_tornado.erlang import Atom, Charlist, ErlangError, ErlangOptions, format_term, parse_term
from backwater_tornado.testing import running_server

logging.disable(logging.WARNING)  # the server's log tells of every exception


class Stock:
    """Exposed as `stock`, to Erlang nodes and to ours."""

    def __init__(self) -> None:
        self._pieces = {"apple": 3}

    def take(self, article: str, count: int) -> tuple[Atom, int]:
        """Erlang sees {ok, Left}, or error:{out_of_stock, Article}."""
        if self._pieces.get(article, 0) < count:
            raise ErlangError(reason=(Atom("out_of_stock"), article))
        self._pieces[article] -= count
        return Atom("ok"), self._pieces[article]

    def describe(self) -> dict[Atom, object]:
        """Erlang sees a map."""
        return {Atom("articles"): list(self._pieces), Atom("owner"): None}


cluster = secrets.token_bytes(32)  # what the Erlang nodes have; our own callers have another secret
with running_server(backwater.Exposed(stock=Stock()), erlang=ErlangOptions(secret=cluster)) as server:
    with backwater.Client(server.url, server.secret) as ours:
        print("ours:", ours.call("stock", "take", "apple", 1))

    with backwater.Client("erlang+" + server.url, cluster) as node:
        print("node:", format_term(node.call("stock", "take", Charlist("apple"), 1)))
        print("node:", format_term(node.call("stock", "describe")))
        try:
            node.call("stock", "take", *parse_term('[<<"apple">>, 5]'))
        except ErlangError as error:
            print("node:", error.error_class, format_term(error.reason))

# Output:
# ours: ('ok', 2)
# node: {ok,1}
# node: #{articles => [<<"apple">>],owner => undefined}
# node: error {out_of_stock,<<"apple">>}
