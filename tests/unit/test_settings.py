from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backwater_tornado.errors import InvalidOption
from backwater_tornado.options import ClientOptions, Limits, ListenerOptions, ServerOptions
from backwater_tornado.settings import COMMANDS, Kind, field_notes, load, resolve


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def serve(flags: dict[str, Any] | None = None, config: str | None = None, **environ: str) -> Any:
    return resolve("serve", flags or {}, environ, config)


# Who is believed -----------------------------------------------------------------------------------------------------


def test_a_flag_goes_before_a_variable_before_the_file_before_the_default(empty_folder: Path) -> None:
    assert serve()["threads"] == 32
    (empty_folder / "backwater.toml").write_text("threads = 1")
    assert serve()["threads"] == 1
    assert serve(BACKWATER_THREADS="2")["threads"] == 2
    assert serve({"threads": "3"}, BACKWATER_THREADS="2")["threads"] == 3


def test_a_table_of_the_command_goes_before_the_top_of_the_file(empty_folder: Path) -> None:
    (empty_folder / "backwater.toml").write_text("max_attempts = 1\n[call]\nmax_attempts = 2")
    assert resolve("call", {}, {})["max_attempts"] == 2
    assert resolve("doctor", {}, {})["max_attempts"] == 1


def test_the_top_of_the_file_may_hold_what_only_other_commands_read(empty_folder: Path) -> None:
    (empty_folder / "backwater.toml").write_text("port = 1")
    assert "port" not in resolve("call", {}, {}).values


def test_a_file_may_say_how_the_broker_serves_and_where_the_others_find_it(empty_folder: Path) -> None:
    (empty_folder / "backwater.toml").write_text('[broker]\nurl = "http://here"\nstore = "memory://"\n')
    assert resolve("queues", {}, {})["broker"] == "http://here"
    assert resolve("broker", {}, {})["store"] == "memory://"
    (empty_folder / "backwater.toml").write_text('broker = "http://there"\n')
    assert resolve("queues", {}, {})["broker"] == "http://there"


def test_a_flag_names_the_file_before_a_variable_does(empty_folder: Path) -> None:
    for name, threads in (("one.toml", 1), ("two.toml", 2), ("backwater.toml", 3)):
        (empty_folder / name).write_text(f"threads = {threads}")
    assert serve(config="one.toml", BACKWATER_CONFIG="two.toml")["threads"] == 1
    assert serve(BACKWATER_CONFIG="two.toml")["threads"] == 2
    assert str(serve(BACKWATER_CONFIG="two.toml").config) == "two.toml"


def test_what_is_empty_is_not_given() -> None:
    settings = serve({"authorities": (), "threads": None}, BACKWATER_THREADS="")
    assert settings["threads"] == 32
    assert settings.origins == {}


def test_an_empty_flag_is_given() -> None:
    assert resolve("call", {"proxy": ""}, {}).given(ClientOptions) == {"proxy": ""}


def test_a_switch_may_be_switched_off_again() -> None:
    assert serve({"access_log": False}, BACKWATER_ACCESS_LOG="yes")["access_log"] is False


def test_load_reads_the_environment_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKWATER_THREADS", "7")
    assert load("serve", {})["threads"] == 7


def test_only_what_was_given_goes_to_the_options() -> None:
    settings = serve(BACKWATER_THREADS="7", BACKWATER_PORT="1", BACKWATER_COMPRESSION_LEVEL="9")
    assert settings.given(ServerOptions, Limits) == {"threads": 7, "compression_level": 9}


def test_paths_in_a_file_begin_at_its_folder_and_others_do_not(empty_folder: Path) -> None:
    folder = empty_folder / "etc"
    folder.mkdir()
    (folder / "b.toml").write_text('secret_file = "site.key"\ntls_cert = "/cert.pem"\naddress = "::1"')
    settings = serve(config="etc/b.toml", BACKWATER_TLS_KEY="key.pem")
    assert settings["secret_file"] == str(Path("etc/site.key"))
    assert settings["tls_cert"] == "/cert.pem"
    assert settings["tls_key"] == "key.pem"
    assert settings["address"] == "::1"


# What is wrong -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("threads", "many"),
        ("threads", True),
        ("threads", 1.5),
        ("grace", "long"),
        ("grace", True),
        ("access_log", "maybe"),
        ("access_log", 1),
        ("address", 127),
        ("state", 1),
        ("authorities", 1),
        ("authorities", [1]),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(InvalidOption, match=rf"^--{name.replace('_', '-')}: {name} is .*{value}"):
        serve({name: value})


def test_the_origin_of_a_wrong_value_is_named(empty_folder: Path) -> None:
    with pytest.raises(InvalidOption, match="^BACKWATER_PORT: port is a whole number, not 'x'"):
        serve(BACKWATER_PORT="x")
    (empty_folder / "backwater.toml").write_text("port = 'x'")
    with pytest.raises(InvalidOption, match=r"^backwater.toml: port is a whole number"):
        serve()


@pytest.mark.parametrize(
    ("kind", "given", "read"),
    [
        (Kind.WHOLE, "12", 12),
        (Kind.WHOLE, 12, 12),
        (Kind.NUMBER, "1.5", 1.5),
        (Kind.NUMBER, 2, 2.0),
        (Kind.SWITCH, "ON", True),
        (Kind.SWITCH, " 0 ", False),
        (Kind.SWITCH, True, True),
        (Kind.TEXT, "a b", "a b"),
        (Kind.TEXTS, "a b", ("a", "b")),
        (Kind.TEXTS, ["a b"], ("a b",)),
    ],
)
def test_texts_and_values_are_read_alike(kind: Kind, given: object, read: object) -> None:
    setting = next(each for each in COMMANDS["serve"].values() if each.kind is kind)
    assert setting.read(given, "here") == read


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("threds = 1", r"backwater.toml: there is no setting 'threds'; did you mean 'threads'\?"),
        ("[serv]\n", r"there is no setting 'serv'; did you mean 'serve'\?"),
        ("[call]\nport = 1", r"backwater.toml \[call\]: there is no setting 'port'"),
        ("qqqqqqqqqqq = 1", "there are: .*threads"),
        ("threads = ", "is not TOML"),
    ],
)
def test_a_file_with_something_unknown_is_refused(empty_folder: Path, text: str, complaint: str) -> None:
    (empty_folder / "backwater.toml").write_text(text)
    with pytest.raises(InvalidOption, match=complaint):
        serve()


def test_a_named_file_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidOption, match="'no.toml' cannot be read: No such file"):
        serve(config="no.toml")


def test_a_variable_that_nobody_reads_is_noted() -> None:
    notes = serve(BACKWATER_SECRETFILE="x", BACKWATER_THREADS="1", BACKWATER_CONFIG="", OTHER="x").notes
    assert notes == ("the variable BACKWATER_SECRETFILE is not read; did you mean BACKWATER_SECRET_FILE?",)
    assert serve(BACKWATER_QQQQQQQQQQQQQQQQ="x").notes == ("the variable BACKWATER_QQQQQQQQQQQQQQQQ is not read",)


# What there is -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ServerOptions, ListenerOptions, Limits])
def test_every_option_of_a_server_is_a_setting_of_serve(kind: Any) -> None:
    assert set(kind.__slots__) - {"limits"} <= set(COMMANDS["serve"])


@pytest.mark.parametrize("kind", [ClientOptions, Limits])
@pytest.mark.parametrize("command", ["call", "doctor"])
def test_every_option_of_a_client_that_has_a_form_in_text_is_a_setting(command: str, kind: Any) -> None:
    assert set(kind.__slots__) - {"limits", "terms", "exceptions", "curl_options"} <= set(COMMANDS[command])


def test_every_setting_has_help_and_the_default_of_its_class() -> None:
    assert [each.name for settings in COMMANDS.values() for each in settings.values() if not each.help] == []
    assert COMMANDS["serve"]["max_keepalive"].default == ListenerOptions().max_keepalive
    assert COMMANDS["call"]["timeout"].kind is Kind.NUMBER
    assert COMMANDS["call"]["ca_file"].kind is Kind.PATH


def test_a_note_stands_right_above_its_field() -> None:
    class Noted:
        #: One,
        #: and more.
        one: int = 1
        two: int = 2

        #: Lost.

        three: int = 3

    assert field_notes(Noted) == {"one": "One, and more."}


def test_without_source_there_are_no_notes() -> None:
    assert field_notes(type("Made", (), {"__module__": "nowhere"})) == {}
