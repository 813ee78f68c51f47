"""Erlang's wire on the command line: both ends of it, each a process."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from backwater_tornado import Client, Key
from backwater_tornado.protocol.keys import format_key
from tests.end_to_end.processes import Serving, run

# Real processes: once, on the source tree.
pytestmark = pytest.mark.slow

OURS, THEIRS = Key(b"the secret of our own callers"), Key(b"the secret of the Erlang nodes")
MODULE = """
from backwater_tornado.erlang import Atom, Charlist
def greet(name: str) -> Charlist:
    return Charlist("hello " + name)
def mixed() -> dict:
    return {Atom("a b"): (1, b"x"), b"bytes": b"\\xff", 1.5: [None, True], "deep": {(1, 2): Atom("ok")}}
def nothing() -> tuple:
    return Atom("nil"), None
def fail() -> None:
    raise KeyError("gone")
"""
MIXED = """#{'a b' => {1,<<"x">>},<<"bytes">> => <<255>>,1.5 => [undefined,true],<<"deep">> => #{{1,2} => ok}}\n"""
HIDDEN = "def secret() -> int:\n    return 1\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("erlang")
    (folder / "shop.py").write_text(MODULE)
    (folder / "inner.py").write_text(HIDDEN)
    for name, key in (("site.key", OURS), ("cluster.key", THEIRS)):
        (folder / name).write_text(format_key(key))
        (folder / name).chmod(0o600)
    return folder


@pytest.fixture(scope="module")
def serving(folder: Path) -> Iterator[Serving]:
    words = ["shop", "inner", "--secret-file", "site.key", "--erlang", "--erlang-modules", "shop"]
    with Serving(folder, *words, "--erlang-secret-file", "cluster.key") as serving:
        serving.url()
        yield serving


def call(folder: Path, serving: Serving, *words: str, key: str = "cluster.key") -> tuple[int, str, str]:
    done = run(folder, "call", f"erlang+{serving.url()}", *words, "--proxy", "", "--secret-file", key)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        (["greet", '["Ann"]'], '"hello Ann"\n'),
        (["greet", '[<<"J\\x{f6}rg"/utf8>>]'], '"hello Jörg"\n'),
        (["greet", "['An atom']"], '"hello An atom"\n'),
        (["mixed"], MIXED),
        (["nothing", "--erlang-none", "nil"], "{nil,undefined}\n"),
    ],
)
def test_terms_go_in_and_out_as_erlang_writes_them(
    folder: Path, serving: Serving, words: list[str], printed: str
) -> None:
    assert call(folder, serving, "shop", *words) == (0, printed, "")


def test_a_result_may_be_had_as_json(folder: Path, serving: Serving) -> None:
    code, printed, _ = call(folder, serving, "shop", "mixed", "--json")
    assert code == 0
    assert json.loads(printed) == {
        "a b": [1, "x"],
        "bytes": "<<255>>",
        "1.5": [None, True],
        "deep": {"{1,2}": "ok"},
    }


def test_the_wire_is_a_setting_too(folder: Path, serving: Serving) -> None:
    words = ["call", serving.url(), "shop", "greet", '["x"]', "--proxy", ""]
    done = run(folder, *words, BACKWATER_SECRET_FILE="cluster.key", BACKWATER_WIRE="erlang")
    assert (done.returncode, done.stdout) == (0, '"hello x"\n')


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (["shop", "fail"], 1, "{'KeyError',<<\"'gone'\">>}"),
        (["shop", "greet", "[1]"], 1, "invalid_arguments"),
        (["shop", "greet", '["a"', '"b"]'], 2, "the arguments are one ARG, a list of terms"),
        (["shop", "greet", "[a"], 2, "the arguments are no Erlang term: column 3"),
        (["shop", "greet", "{a}"], 2, "the arguments are a list of terms"),
        (["shop", "greet", "--kw", "name=x"], 2, "no named arguments"),
        (["shop", "greet"], 4, "function_not_found"),
        (["inner", "secret"], 4, "403"),
    ],
)
def test_what_goes_wrong_is_told_in_one_line(
    folder: Path, serving: Serving, words: list[str], code: int, complaint: str
) -> None:
    got, printed, errors = call(folder, serving, *words)
    assert (got, printed) == (code, "")
    assert complaint in errors.splitlines()[-1]


def test_either_side_has_its_own_keys(folder: Path, serving: Serving) -> None:
    code, _, errors = call(folder, serving, "shop", "greet", '["x"]', key="site.key")
    assert code == 6
    assert "invalid_signature" in errors
    with Client(serving.url(), OURS, proxy="") as client:
        assert client.call("inner", "secret") == 1


def test_sighup_takes_new_keys_for_erlang_nodes(folder: Path, tmp_path: Path) -> None:
    new = Key(b"what comes after for the nodes")
    for name in ("shop.py", "site.key", "cluster.key"):
        (tmp_path / name).write_text((folder / name).read_text())
    words = ["shop", "--secret-file", "site.key", "--erlang", "--erlang-secret-file", "cluster.key"]
    with Serving(tmp_path, *words) as serving:
        serving.url()
        (tmp_path / "cluster.key").write_text(format_key(new))
        serving.signal(signal.SIGHUP)
        serving.wait_for("keys reloaded")
        assert call(tmp_path, serving, "shop", "greet", '["x"]')[0] == 0


def test_without_the_flag_nothing_of_version_1_is_served(folder: Path) -> None:
    with Serving(folder, "shop", "--secret-file", "site.key") as serving:
        code, _, errors = call(folder, serving, "shop", "greet", '["x"]', key="site.key")
        assert code == 6
        assert "404" in errors


def test_settings_for_erlang_without_erlang_are_a_mistake(folder: Path) -> None:
    done = run(folder, "serve", "shop", "--secret-file", "site.key", "--erlang-secret-file", "cluster.key")
    assert done.returncode == 2
    assert "give --erlang" in done.stderr


def test_the_doctor_says_that_it_knows_version_2_only(folder: Path, serving: Serving) -> None:
    done = run(folder, "doctor", f"erlang+{serving.url()}", "--secret-file", "site.key")
    assert done.returncode == 2
    assert "version 2 only" in done.stderr
