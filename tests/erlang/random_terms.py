"""What Erlang itself thinks of terms: random ones that a VM writes, and whether it takes ours for the same.

The VM is one that is installed; without `escript` on the path there is none, and `escript()` says so.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

SCRIPT = r"""
-module(terms).
-mode(compile).
-export([main/1]).

main(["write", Seed, Count, File]) ->
    rand:seed(exsss, list_to_integer(Seed)),
    ok = file:write_file(File, [write() || _ <- lists:seq(1, list_to_integer(Count))]);
main(["compare", File]) ->
    {ok, Data} = file:read_file(File),
    lists:foreach(fun (Complaint) -> io:format("~ts~n", [Complaint]) end, compare(0, Data)).

write() ->
    Notable = rand:uniform(3) > 1,
    Term = term(rand:uniform(5), Notable),
    Text = unicode:characters_to_binary(io_lib:format("~0tp", [Term])),
    Parts = [term_to_binary(Term, [{minor_version, 1}]), term_to_binary(Term, [{minor_version, 2}]),
             case Notable of true -> Text; false -> <<>> end],
    [[<<(byte_size(Part)):32>>, Part] || Part <- Parts].

compare(_, <<>>) ->
    [];
compare(N, <<S1:32, Theirs:S1/binary, S2:32, Ours:S2/binary, S3:32, Text:S3/binary, Rest/binary>>) ->
    Term = binary_to_term(Theirs),
    Same = try binary_to_term(Ours) =:= Term catch error:badarg -> badarg end,
    Parsed = Text =:= <<>> orelse parse(Text) =:= {ok, Term},
    [io_lib:format("term ~p: ~0p, ~ts", [N, {Same, Parsed}, Text]) || {Same, Parsed} =/= {true, true}]
        ++ compare(N + 1, Rest).

parse(Text) ->
    case erl_scan:string(unicode:characters_to_list(Text) ++ ".") of
        {ok, Tokens, _} -> erl_parse:parse_term(Tokens);
        {error, Reason, _} -> {error, Reason}
    end.

term(0, true) -> leaf(rand:uniform(14));
term(0, false) -> leaf(rand:uniform(21));
term(Depth, Notable) ->
    case rand:uniform(10) of
        1 -> list(Depth, Notable);
        2 -> list(Depth, Notable) ++ list(Depth, Notable);
        3 -> [term(Depth - 1, Notable) | list(Depth, Notable)];
        4 -> [term(Depth - 1, Notable) | term(Depth - 1, Notable)];
        5 -> list_to_tuple(list(Depth, Notable));
        6 -> #{};
        N when N < 9 -> maps:from_list([{term(Depth - 1, Notable), term(Depth - 1, Notable)} || _ <- some(5)]);
        _ -> term(0, Notable)
    end.

list(Depth, Notable) -> [term(Depth - 1, Notable) || _ <- some(5)].

some(Most) -> lists:seq(1, rand:uniform(Most + 1) - 1).

leaf(1) -> rand:uniform(512) - 256;
leaf(2) -> rand:uniform(1 bsl 34) - (1 bsl 33);
leaf(3) -> (rand:uniform(1 bsl 80) - (1 bsl 79)) bsl (rand:uniform(3000) - 1);
leaf(4) -> (rand:uniform() - 0.5) * math:pow(10, rand:uniform(600) - 300);
leaf(5) -> element(rand:uniform(9), {0, 1, 255, 256, -1, 1.0, 0.0, 1.0e23, 5.0e-324});
leaf(6) -> rand:bytes(rand:uniform(20) - 1);
leaf(7) -> Size = rand:uniform(60) - 1, <<Bits:Size/bitstring, _/bitstring>> = rand:bytes(8), Bits;
leaf(8) -> [rand:uniform(256) - 1 || _ <- some(12)];
leaf(9) -> [character() || _ <- some(12)];
leaf(10) -> unicode:characters_to_binary([character() || _ <- some(12)]);
leaf(11) -> list_to_atom([character() || _ <- some(12)]);
leaf(12) -> list_to_atom([$a + rand:uniform(26) - 1 || _ <- some(4)]);
leaf(13) -> element(rand:uniform(7), {true, false, undefined, nil, '', 'end', 'Elixir.Foo'});
leaf(14) -> list_to_atom(lists:duplicate(rand:uniform(256) - 1, 16#e9));
leaf(15) -> self();
leaf(16) -> make_ref();
leaf(17) -> hd(erlang:ports());
leaf(18) -> fun erlang:abs/1;
leaf(19) -> Term = term(2, true), fun () -> Term end;
leaf(20) -> fun main/1;
leaf(21) -> alias().

character() ->
    case rand:uniform(4) of
        1 -> rand:uniform(16#d7ff);
        2 -> rand:uniform(16#2000) + 16#1f000;
        3 -> rand:uniform(256) - 1;
        4 -> 31 + rand:uniform(95)
    end.
"""


@dataclass(frozen=True)
class Written:
    """One random term as a VM writes it: in both minor versions, and as its shell prints it.

    The text is empty for a term with pids, funs and the like, which have no notation.
    """

    old: bytes
    new: bytes
    text: str


@dataclass(frozen=True)
class Rewritten:
    """A VM's bytes, our bytes of the same term, and our text of it (or an empty one)."""

    theirs: bytes
    ours: bytes
    text: str = ""


def escript() -> str | None:
    """The path of the program that runs Erlang scripts, or None where no Erlang is installed."""
    return shutil.which("escript")


def write_terms(folder: Path, seed: int, count: int) -> list[Written]:
    """Random terms from a VM; the same ones for the same seed, but for pids and the like."""
    _run(folder, "write", str(seed), str(count), "written")
    parts = iter(_split((folder / "written").read_bytes()))
    return [Written(old, new, text.decode()) for old, new, text in zip(parts, parts, parts, strict=True)]


def find_differences(folder: Path, terms: Iterable[Rewritten]) -> list[str]:
    """What a VM says of each term that it does not take for the same (=:=), or whose text it does not read as it."""
    parts = [part for term in terms for part in (term.theirs, term.ours, term.text.encode())]
    (folder / "compared").write_bytes(b"".join([len(part).to_bytes(4, "big") + part for part in parts]))
    return _run(folder, "compare", "compared").splitlines()


def _run(folder: Path, *args: str) -> str:
    program = escript()
    assert program, "no Erlang is installed"
    (folder / "terms.escript").write_text(f"#!/usr/bin/env escript\n%% -*- coding: utf-8 -*-\n{SCRIPT}")
    done = subprocess.run(
        [program, "terms.escript", *args], cwd=folder, capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _split(data: bytes) -> list[bytes]:
    parts = []
    at = 0
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "big")
        parts.append(data[at + 4 : end])
        at = end
    return parts
