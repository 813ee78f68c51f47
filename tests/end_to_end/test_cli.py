"""The command as people and scripts use it: real processes, real sockets, exit codes, one line for each error."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from backwater_tornado import Key, KeyRing
from backwater_tornado.cli import backwater
from backwater_tornado.doctor import Examination, examine
from backwater_tornado.keyfiles import read_keys
from backwater_tornado.protocol.keys import Scopes, format_key, parse_keys
from tests.end_to_end.processes import COMMAND, MODULE, PATIENCE, Serving, environment, run

# Real processes, or many seconds: once, on the source tree.
pytestmark = pytest.mark.slow

SECRET = b"a secret of the command's tests"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    (folder / "served.py").write_text(MODULE)
    (folder / "site.key").write_text(format_key(Key(SECRET)))
    (folder / "other.key").write_text(format_key(Key(b"another secret than theirs")))
    for name in ("site.key", "other.key"):
        (folder / name).chmod(0o600)
    for name in ("started", "go"):
        os.mkfifo(folder / name)
    return folder


@pytest.fixture(scope="module")
def serving(folder: Path) -> Iterator[Serving]:
    with Serving(folder, "served", "statistics:quantiles", "--secret-file", "site.key") as serving:
        serving.url()
        yield serving


def call(folder: Path, serving: Serving, *words: str) -> tuple[int, str, str]:
    done = run(folder, "call", serving.url(), *words, "--proxy", "", BACKWATER_SECRET_FILE="site.key")
    return done.returncode, done.stdout, done.stderr


# keygen --------------------------------------------------------------------------------------------------------------


def test_keygen_fills_a_new_file_and_closes_it(tmp_path: Path) -> None:
    with (tmp_path / "site.key").open("w") as file:
        os.fchmod(file.fileno(), 0o644)
        done = run(tmp_path, "keygen", "--id", "berlin", "--call", "tasks.*", "--not-after", "2027-01-31", out=file)
    assert (done.returncode, done.stderr) == (0, "")
    (key,) = read_keys(str(tmp_path / "site.key"))
    assert (key.id, key.scopes.call, key.not_after) == ("berlin", ("tasks.*",), 1_801_353_600.0)
    assert stat.S_IMODE((tmp_path / "site.key").stat().st_mode) == 0o600


def test_keygen_bounds_what_a_key_may_do_at_a_broker(tmp_path: Path) -> None:
    words = ["--call", "broker.*", "--publish", "orders", "--publish", "reports.*", "--consume", ""]
    (key,) = parse_keys(run(tmp_path, "keygen", *words).stdout)
    assert key.scopes == Scopes(call=("broker.*",), publish=("orders", "reports.*"), consume=())
    (other,) = parse_keys(run(tmp_path, "keygen", "--consume", "berlin.*").stdout)
    assert other.scopes == Scopes(consume=("berlin.*",))


def test_keygen_behind_another_key_makes_a_ring_and_keeps_the_mode(tmp_path: Path) -> None:
    path = tmp_path / "site.key"
    path.write_text(format_key(Key(SECRET)))
    path.chmod(0o640)
    with path.open("a") as file:
        run(tmp_path, "keygen", "--algorithm", "hmac-sha256", "--not-before", "2026-07-01T12:00:00+02:00", out=file)
    _, new = parse_keys(path.read_text())
    assert (new.algorithm, new.not_before) == ("hmac-sha256", 1_782_900_000.0)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--not-after", "soon"], "--not-after is a time such as 2026-07-01"),
        (["--call", "tasks"], "must be 'module.function'"),
        (["--id", 'a"b'], "id must be"),
        (["--algorithm", "md5"], "'md5' is not one of 'blake2b-256', 'hmac-sha256'"),
    ],
)
def test_keygen_refuses_what_makes_no_key(tmp_path: Path, words: list[str], complaint: str) -> None:
    done = run(tmp_path, "keygen", *words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert complaint in done.stderr


def on_terminal(folder: Path, *words: str) -> tuple[str, str]:
    """What the command prints on a terminal, and what it says beside it."""
    ours, theirs = os.openpty()
    with open(theirs, "w") as out:  # noqa: PTH123 - a descriptor
        done = run(folder, *words, out=out, TERM="xterm", COLUMNS="120")
    printed = os.read(ours, 65536).decode()
    os.close(ours)
    return printed, done.stderr


def test_keygen_on_a_terminal_asks_to_keep_it_secret(tmp_path: Path) -> None:
    printed, said = on_terminal(tmp_path, "keygen")
    assert parse_keys(printed.replace("\r", ""))
    assert said.startswith("Keep it secret")


# call ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        (["served", "add", "1", "2"], "3\n"),
        (["served", "add", "-1", "y=-2"], "-3\n"),
        (["served", "add", "--kw", "x=1", "--kw", "y=2", "--json"], "3\n"),
        (["statistics", "quantiles", "[1, 2, 3]", "n=2"], "[2.0]\n"),
    ],
)
def test_call_prints_the_result(folder: Path, serving: Serving, words: list[str], printed: str) -> None:
    assert call(folder, serving, *words) == (0, printed, "")


def test_what_the_function_raised_is_shown_with_its_traceback(folder: Path, serving: Serving) -> None:
    code, out, err = call(folder, serving, "served", "fail")
    assert (code, out) == (1, "")
    assert 'raise ValueError("as told")' in err
    assert err.endswith("\nbackwater: the remote function raised ValueError: as told\n")


def test_what_the_function_raised_may_be_had_as_json(folder: Path, serving: Serving) -> None:
    code, out, err = call(folder, serving, "served", "fail", "--json")
    error = json.loads(err)["error"]
    assert (code, out) == (1, "")
    assert (error["code"], error["type"]) == ("remote_exception", "ValueError")
    assert "as told" in error["traceback"]


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (["served", "add"], 4, "add() misses its argument 'x'"),
        (["served", "add", "one"], 4, "expected int, got str; an ARG is JSON where it can be"),
        (["served", "nope"], 4, "the module 'served' has no function 'nope'; `backwater modules"),
        (["math", "sqrt", "2"], 4, "no module 'math' is exposed here"),
        (["served", "add", "1", "--secret-file", "other.key"], 6, "unknown_key"),
        (["served", "add", "1", "--secret-file", "none.key"], 2, "'none.key' cannot be read: No such file"),
        (["served", "add", "1", "--timeout", "soon"], 2, "--timeout: timeout is a number, not 'soon'"),
        (["served", "add", "1", "--timeout", "0"], 2, "timeout is a number above 0"),
        (["served", "add", "1", "--timout", "5"], 2, "there is no option --timout; did you mean --timeout?"),
        (["served", "add", "1", "--qqqqqqqqq"], 2, "as a text it is written '\"--qqqqqqqqq\"'"),
        (["served", "add", "x=1", "x=2"], 2, "the keyword argument 'x' is given twice"),
        (["served", "add", "--kw", "x"], 2, "--kw takes NAME=VALUE, not 'x'"),
        (["served"], 2, "Missing argument 'FUNCTION'"),
        (["served", "add", "1", "--media-type", "text/plain"], 2, "media_type 'text/plain' is unknown"),
    ],
)
def test_each_kind_of_failure_has_its_exit_code_and_one_line(
    folder: Path, serving: Serving, words: list[str], code: int, complaint: str
) -> None:
    found, out, err = call(folder, serving, *words)
    assert (found, out) == (code, ""), err
    assert err.startswith("backwater: ")
    assert err.count("\n") == 1
    assert complaint in err


def test_a_call_that_takes_too_long_has_its_own_exit_code(folder: Path, serving: Serving) -> None:
    code, _, err = call(folder, serving, "served", "hold", "started", "go", "--timeout", "0.3", "--json")
    assert code == 5
    assert json.loads(err)["error"]["code"] == "deadline_exceeded"
    # Let the function go, so that the server can end.
    (folder / "started").open().close()
    (folder / "go").open("w").close()


def test_a_server_that_is_not_there_has_its_own_exit_code(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    words = ["served", "add", "1", "--secret-file", "site.key", "--proxy", "", "--max-attempts", "1"]
    done = run(folder, "call", f"http://127.0.0.1:{port}", *words)
    assert done.returncode == 3
    assert "see `backwater doctor URL`" in done.stderr


@pytest.mark.parametrize("url", ["ftp://dc1.example", "http://user:word@dc1.example", "http://dc1.example:99999"])
def test_a_wrong_url_is_a_matter_of_usage(folder: Path, url: str) -> None:
    done = run(folder, "call", url, "served", "add", "1", "--secret-file", "site.key")
    assert done.returncode == 2
    assert "user:word" not in done.stderr


def test_an_interrupted_call_has_its_own_exit_code(folder: Path, serving: Serving) -> None:
    words = ["call", serving.url(), "served", "hold", "started", "go", "--timeout", "60", "--recv-timeout", "60"]
    with subprocess.Popen(
        [*COMMAND, *words, "--secret-file", "site.key", "--proxy", ""],
        cwd=folder,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        (folder / "started").open().close()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=PATIENCE)
    assert (process.returncode, said.strip()) == (130, "backwater: interrupted")
    (folder / "go").open("w").close()


def test_settings_come_from_the_file_the_environment_and_flags(folder: Path, serving: Serving, tmp_path: Path) -> None:
    (tmp_path / "backwater.toml").write_text(f'[call]\nsecret_file = "{folder}/other.key"\nproxy = ""\n')
    words = ["call", serving.url(), "served", "add", "1"]
    assert run(tmp_path, *words).returncode == 6
    assert run(tmp_path, *words, BACKWATER_SECRET_FILE=f"{folder}/site.key").returncode == 0
    secret = ["--secret-file", f"{folder}/other.key"]
    assert run(tmp_path, *words, *secret, BACKWATER_SECRET_FILE=f"{folder}/site.key").returncode == 6


# TLS -----------------------------------------------------------------------------------------------------------------


def test_over_tls_with_certificates_of_both_sides(folder: Path, tmp_path: Path) -> None:
    authority = trustme.CA()
    ca, pem, key = (str(tmp_path / name) for name in ("ca.pem", "cert.pem", "key.pem"))
    authority.cert_pem.write_to_path(ca)
    issued = authority.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(pem)
    issued.private_key_pem.write_to_path(key)
    tls = ["--tls-cert", pem, "--tls-key", key, "--client-ca", ca]
    with Serving(folder, "served", "--secret-file", "site.key", *tls) as serving:
        assert serving.url().startswith("https://127.0.0.1:")
        assert call(folder, serving, "served", "add", "1", "--max-attempts", "1")[0] == 3
        mine = ["--ca-file", ca, "--client-cert", pem, "--client-key", key]
        assert call(folder, serving, "served", "add", "1", "2", *mine) == (0, "3\n", "")
        done = run(folder, "doctor", serving.url(), "--secret-file", "site.key", "--proxy", "", *mine)
        assert done.returncode == 0, done.stdout
        assert "TLSv1." in done.stdout


# doctor --------------------------------------------------------------------------------------------------------------


def test_the_doctor_has_a_line_for_each_check(folder: Path, serving: Serving) -> None:
    done = run(folder, "doctor", serving.url(), "--secret-file", "site.key", "--proxy", "")
    assert done.returncode == 0
    checks = ["settings", "DNS", "TCP", "TLS", "healthz", "keys", "signature", "clock", "latency", "body"]
    checks += ["link", "batches", "worker"]
    lines = [line.split()[:2] for line in done.stdout.splitlines() if "->" not in line]
    assert lines == [["ok", check] for check in checks]


def test_the_doctor_fails_with_a_wrong_key_and_says_what_to_do(folder: Path, serving: Serving) -> None:
    words = ["doctor", serving.url(), "--secret-file", "other.key", "--proxy", ""]
    done = run(folder, *words)
    assert done.returncode == 1
    *_, failed, advice = done.stdout.splitlines()
    assert failed.startswith("FAIL  signature  unknown_key")
    assert "append it to its file" in advice
    told = json.loads(run(folder, *words, "--json").stdout)
    assert told["ok"] is False
    assert told["checks"][-1]["verdict"] == "fail"


def test_the_doctor_notes_what_is_odd_in_the_settings(folder: Path, serving: Serving, tmp_path: Path) -> None:
    (tmp_path / "open.key").write_text(format_key(Key(SECRET)))
    (tmp_path / "open.key").chmod(0o644)
    words = ["doctor", serving.url(), "--proxy", "", "--calls", "0", "--body-size", "0"]
    done = run(tmp_path, *words, "--secret-file", "open.key", BACKWATER_TIMOUT="1")
    assert done.returncode == 0
    assert "chmod 600 open.key" in done.stdout
    assert "BACKWATER_TIMOUT is not read; did you mean BACKWATER_TIMEOUT?" in done.stdout
    done = run(tmp_path, *words, "--secret-file", "none.key")
    assert done.returncode == 1
    assert "FAIL  settings" in done.stdout


@pytest.mark.parametrize("apart", [-1000.0, 1000.0, 30.0])
def test_the_doctor_tells_clocks_that_differ(serving: Serving, monkeypatch: pytest.MonkeyPatch, apart: float) -> None:
    true = time.time
    monkeypatch.setattr(time, "time", lambda: true() + apart)
    asked = Examination(serving.url(), KeyRing.of(SECRET), {"proxy": ""}, calls=0, body_size=0)
    found = {each.check: each for each in examine(asked)}
    assert found["signature"].verdict.value == "ok"
    assert found["clock"].verdict.value == "warn"
    assert ("behind" if apart > 0 else "ahead of") in found["clock"].message


# modules, help and the rest ------------------------------------------------------------------------------------------


def test_modules_on_a_terminal_is_a_table(folder: Path) -> None:
    printed, _ = on_terminal(folder, "modules", "served:add")
    assert "what it does" in printed
    assert "\x1b[1mserved.add" in printed


def test_the_doctor_on_a_terminal_has_colours(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    printed, _ = on_terminal(folder, "doctor", f"http://127.0.0.1:{port}", "--proxy", "")
    assert "\x1b[32mok" in printed
    assert "\x1b[1;31mFAIL" in printed
    assert "-> is the server running" in printed


def test_modules_lists_what_would_be_exposed(folder: Path) -> None:
    done = run(folder, "modules", "served:add,fail", "statistics:mean")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "served.add(x: int, y: int = 0) -> int  The sum.",
        "served.fail() -> None",
        "statistics.mean(data)  Return the sample arithmetic mean of data.",
    ]


def test_modules_as_json_has_the_options(tmp_path: Path) -> None:
    text = "import backwater_tornado as b\n@b.expose(idempotent=True, time_limit=5)\nasync def f(): ...\n"
    (tmp_path / "marked.py").write_text(text)
    done = run(tmp_path, "modules", "marked.py", "--json")
    assert json.loads(done.stdout) == [
        {
            "module": "marked",
            "name": "f",
            "signature": "f()",
            "async": True,
            "summary": "",
            "options": {"idempotent": True, "time_limit": 5},
        }
    ]
    assert run(tmp_path, "modules", "marked.py").stdout == "async marked.f()  [idempotent, time_limit=5]\n"


@pytest.mark.parametrize("command", [[], ["keygen"], ["serve"], ["broker"], ["call"], ["doctor"], ["modules"]])
def test_every_command_has_help_with_an_example(tmp_path: Path, command: list[str]) -> None:
    done = run(tmp_path, *command, "--help")
    assert done.returncode == 0
    assert f"    backwater {' '.join(command)}" in done.stdout
    assert "serve-child" not in done.stdout


def test_every_command_is_listed_once_and_in_one_line(tmp_path: Path) -> None:
    listed = run(tmp_path, "--help").stdout.partition("Calls:")[2].partition("Exit codes")[0].splitlines()
    names = [line.split()[0] for line in listed if line.startswith("  ") and line.strip()]
    visible = [name for name, command in backwater.commands.items() if not command.hidden]
    assert sorted(names) == sorted(visible)
    assert not [line for line in listed if line.endswith("...")]


def test_exit_codes_are_in_the_help(tmp_path: Path) -> None:
    told = run(tmp_path, "--help").stdout
    assert [line.split()[0] for line in told.partition("Exit codes:")[2].splitlines() if line.strip()] == [
        "0", "1", "2", "3", "4", "5", "6", "130",
    ]  # fmt: skip


def test_the_version_is_told(tmp_path: Path) -> None:
    assert run(tmp_path, "--version").stdout.startswith("backwater 0.")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "Missing command"),
        (["sing"], "No such command 'sing'"),
        (["serve"], "name a MODULE"),
        (["serve", "math"], "give --secret-file"),
        (["serve", "math", "--secret-file", "none.key"], "none.key' cannot be read"),
        (["serve", "math", "--secret-file", "site.key", "--port", "70000"], "port is between 0 and 65535"),
        (["serve", "math", "--secret-file", "site.key", "--grace", "-1"], "grace is between"),
        (["serve", "math", "--secret-file", "site.key", "--processes", "0"], "processes is 1 or more"),
        (["serve", "math", "--secret-file", "site.key", "--log-level", "loud"], "log_level is debug"),
        (["serve", "math", "--secret-file", "site.key", "--tls-cert", "c.pem"], "tls_key is missing"),
        (["serve", "math", "--secret-file", "site.key", "--client-ca", "c.pem"], "client_ca needs TLS"),
        (["serve", "math", "--secret-file", "site.key", "--threads", "0"], "threads is a number above 0"),
        (["serve", "math", "--secret-file", "site.key", "--threds", "1"], "'--threads'"),
        (
            [
                "serve",
                "math",
                "--secret-file",
                "site.key",
                "--tls-cert",
                "c",
                "--tls-key",
                "k",
                "--client-ca",
                "none.pem",
            ],
            "none.pem' cannot be used",
        ),
        (["broker"], "give --secret-file"),
        (["broker", "--secret-file", "site.key", "--processes", "2"], "a broker is one process"),
        (["broker", "--secret-file", "site.key", "--store", "redis://there"], "there is no store redis:"),
        (["broker", "--secret-file", "site.key", "--store", "sqlite:///none/at/all.db"], "No such file or directory"),
        (["broker", "no_such_module", "--secret-file", "site.key"], "there is no module 'no_such_module'"),
        (["broker", "--secret-file", "site.key", "--erlang"], "'--erlang'"),
        (["modules", "no_such_module"], "there is no module 'no_such_module'"),
        (["modules", "math:sqroot"], "there is no 'sqroot'"),
        (["dead"], "Missing command; see `backwater dead --help`"),
        (["inspect"], "Missing command; see `backwater inspect --help`"),
        (["periodic"], "Missing command; see `backwater periodic --help`"),
    ],
)
def test_wrong_usage_is_told_in_one_line(folder: Path, words: list[str], complaint: str) -> None:
    done = run(folder, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("more", [[], ["--processes", "2"]])
def test_a_port_in_use_is_told_in_one_line(folder: Path, more: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run(
            folder, "serve", "math", "--secret-file", "site.key", "--address", "127.0.0.1", "--port", port, *more
        )
    assert done.returncode == 2
    assert f"port {port} of 127.0.0.1 cannot be used: Address already in use; choose another --port" in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_open_key_file_is_told_at_the_start(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "open.key").write_text(format_key(Key(SECRET)))
    (tmp_path / "open.key").chmod(0o644)
    with Serving(tmp_path, "math", "--secret-file", "open.key") as serving:
        assert "chmod 600" in serving.wait_for("open to every user")
        serving.url()
        serving.signal(signal.SIGTERM)
        assert serving.ended() == 0
