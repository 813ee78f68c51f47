"""What a command is told, and by whom: a flag, else the environment, else a TOML file, else the default.

Every setting has one name: `--max-keepalive`, `BACKWATER_MAX_KEEPALIVE` and `max_keepalive = 100` are the same. Most
are fields of the options classes, and their help is the `#:` comment above the field. In the file a setting stands at
the top, for all commands, or in the table of one: `[serve]`, `[broker]`, `[call]`; its paths begin at its folder. In a
file with a table `[broker]`, what the other commands know as `broker` is `url` in there.

Rule: this is the only module of the package that reads the environment. A wrong value is refused with its origin.
"""

from __future__ import annotations

import difflib
import inspect
import linecache
import os
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Any, get_type_hints

from .errors import InvalidOption
from .options import DEFAULT_STORE, CallOptions, ClientOptions, Limits, ListenerOptions, ServerOptions

PREFIX = "BACKWATER_"
CONFIG_FILE = "backwater.toml"


class Kind(Enum):
    """What a setting's value is; the value says it in words."""

    TEXT = "a text"
    PATH = "a path"
    WHOLE = "a whole number"
    NUMBER = "a number"
    SWITCH = "true or false"
    TEXTS = "texts"


_SWITCHES = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def _read_whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError
    return int(value)


def _read_number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError
    return float(value)


def _read_switch(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in _SWITCHES:
        return _SWITCHES[value.strip().lower()]
    raise ValueError


def _read_text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value


def _read_texts(value: Any) -> tuple[str, ...]:
    """A list, or one text with spaces between (as the environment has it)."""
    if isinstance(value, str):
        return tuple(value.split())
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
        raise ValueError
    return tuple(value)


_READERS: Mapping[Kind, Callable[[Any], Any]] = {
    Kind.TEXT: _read_text,
    Kind.PATH: _read_text,
    Kind.WHOLE: _read_whole,
    Kind.NUMBER: _read_number,
    Kind.SWITCH: _read_switch,
    Kind.TEXTS: _read_texts,
}
_KINDS: Mapping[object, Kind] = {int: Kind.WHOLE, float: Kind.NUMBER, bool: Kind.SWITCH, tuple[str, ...]: Kind.TEXTS}


@dataclass(frozen=True, slots=True)
class Setting:
    """One thing that may be set."""

    name: str
    kind: Kind
    help: str
    default: Any = None

    @property
    def flag(self) -> str:
        """Its name on the command line."""
        return "--" + self.name.replace("_", "-")

    def read(self, value: Any, origin: str) -> Any:
        """The value as its kind; raises `InvalidOption` that names who gave it."""
        try:
            return _READERS[self.kind](value)
        except ValueError:
            raise InvalidOption(f"{origin}: {self.name} is {self.kind.value}, not {value!r}") from None


def field_notes(kind: type) -> dict[str, str]:
    """The `#:` comments of a class, by the field that each stands above; none where the source is not at hand."""
    notes: dict[str, str] = {}
    pending: list[str] = []
    lines = linecache.getlines(getattr(sys.modules.get(kind.__module__), "__file__", None) or "")
    begun = next((n for n, line in enumerate(lines) if re.match(rf"\s*class {kind.__name__}\b", line)), None)
    if begun is None:
        return notes
    # `inspect.getsource` would parse the whole file once for each class, and every command would wait for that.
    for line in map(str.strip, inspect.getblock(lines[begun:])):
        if line.startswith("#:"):
            pending.append(line.removeprefix("#:").strip())
            continue
        field = re.match(r"(\w+): ", line)
        if field and pending:
            notes[field[1]] = " ".join(pending)
        pending = []
    return notes


_PATHS = ("ca_file", "client_cert", "client_key")
#: Fields that have no form on a command line, or are set otherwise.
_LEFT_OUT = ("limits", "terms", "exceptions", "curl_options", "returns", "address")


def settings_of(kind: type) -> list[Setting]:
    """The fields of an options class as settings."""
    notes, hints = field_notes(kind), get_type_hints(kind)
    found = []
    for field in fields(kind):
        if field.name in _LEFT_OUT:
            continue
        hint = hints[field.name]
        alone = next((each for each in getattr(hint, "__args__", ()) if type(None) in hint.__args__), hint)
        chosen = Kind.PATH if field.name in _PATHS else _KINDS.get(alone, Kind.TEXT)
        default = None if field.default is MISSING else field.default
        found.append(Setting(field.name, chosen, notes.get(field.name, ""), default))
    return found


def _unique(settings: Iterable[Setting]) -> dict[str, Setting]:
    found: dict[str, Setting] = {}
    for setting in settings:
        found.setdefault(setting.name, setting)
    return found


_SECRET = Setting("secret_file", Kind.PATH, "The file of keys, as `backwater keygen` prints it.")
_MODULES = Setting("modules", Kind.TEXTS, "What to expose, where no MODULE is given.", ())
_ERLANG_NONE = Setting("erlang_none", Kind.TEXT, "The atom that is None: undefined, or nil for Elixir.", "undefined")
_LISTENING = (
    _SECRET,
    Setting("address", Kind.TEXT, "The address to listen on; all of them by default."),
    Setting("port", Kind.WHOLE, "The port; 0 lets the system choose. 8080 by default, 8443 with TLS."),
    Setting("tls_cert", Kind.PATH, "The server's certificate with its chain, PEM: serve over TLS."),
    Setting("tls_key", Kind.PATH, "The key of the certificate, PEM."),
    Setting("client_ca", Kind.PATH, "Ask every client for a certificate of this authority, PEM."),
    Setting("state", Kind.PATH, "A file that remembers calls and nonces across restarts and between processes."),
    Setting("grace", Kind.NUMBER, "How long calls in progress may take to end after SIGTERM, seconds.", 30.0),
    Setting("log_level", Kind.TEXT, "debug, info, warning or error.", "info"),
)
_SERVE = (
    *_LISTENING,
    _MODULES,
    Setting("erlang", Kind.SWITCH, "Answer nodes of Erlang's backwater too (version 1 of the wire).", False),
    Setting("erlang_secret_file", Kind.PATH, "The file of the keys that Erlang nodes sign with; by default the same."),
    Setting("erlang_modules", Kind.TEXTS, "What Erlang nodes may call, as MODULE; by default the same.", ()),
    Setting("erlang_replay_window", Kind.NUMBER, "A repeated message gets the answer it got, seconds; 0: never.", 60.0),
    _ERLANG_NONE,
    Setting("processes", Kind.WHOLE, "Processes on the port; they share the memory of calls.", 1),
    Setting("reload", Kind.SWITCH, "Start anew when a source file of the project changes; for development.", False),
)
_BROKER = (
    Setting(
        "store",
        Kind.TEXT,
        "Where messages are kept: sqlite:///absolute/path.db, sqlite:relative.db, memory://.",
        DEFAULT_STORE,
    ),
    *_LISTENING,
    Setting("metrics_port", Kind.WHOLE, "Serve /metrics to Prometheus on this port, to whoever can reach it."),
    Setting("metrics_address", Kind.TEXT, "The address of --metrics-port.", "127.0.0.1"),
    Setting("processes", Kind.WHOLE, "Always 1: a broker is one process.", 1),
)
_ASKED = (_SECRET, Setting("broker", Kind.TEXT, "The URL of the broker."))
_LOGGING = (
    Setting("log_level", Kind.TEXT, "debug, info, warning or error.", "info"),
    Setting("json_logs", Kind.SWITCH, "Write the log as JSON, a line each.", False),
)
_SPOOL = Setting(
    "spool", Kind.PATH, "The worker's spool: a file for outcomes that the broker does not take; none by default."
)
_PROBES = (
    Setting("health_port", Kind.WHOLE, "Answer probes at /healthz on this port."),
    Setting("health_address", Kind.TEXT, "The address of --health-port.", "127.0.0.1"),
)
_WORKER = (
    *_ASKED,
    _MODULES,
    Setting("queues", Kind.TEXTS, "Queues to take from; by default `default`, and those that functions name.", ()),
    Setting(
        "pool", Kind.TEXT, "Where plain functions run: threads, processes, or async (for many coroutines).", "threads"
    ),
    Setting("concurrency", Kind.WHOLE, "Tasks that run at once; the number of processors by default, 100 with async."),
    Setting("prefetch", Kind.WHOLE, "Tasks held at a time; by default as many as it does in a second."),
    Setting("grace", Kind.NUMBER, "How long tasks that run may take to end after SIGTERM, seconds.", 30.0),
    Setting("ttl", Kind.NUMBER, "How long the broker keeps what a worker holds that is not heard of, seconds.", 30.0),
    Setting("max_tasks_per_child", Kind.WHOLE, "A process of the pool ends after so many tasks."),
    Setting("max_memory_per_child", Kind.WHOLE, "A process of the pool ends when it uses so many bytes."),
    _SPOOL,
    Setting("spool_bytes", Kind.WHOLE, "The spool holds so many bytes of outcomes at most.", 1 << 30),
    Setting("health_file", Kind.PATH, "Write how the worker is into this file, every few seconds."),
    *_PROBES,
    Setting("events", Kind.SWITCH, "Publish what happens to tasks, for `backwater events`.", False),
    Setting("reload", Kind.SWITCH, "Start anew when a source file of the project changes; for development.", False),
    *_LOGGING,
)
_OUTBOX = Setting("outbox", Kind.TEXT, "The outbox: its file, or its URL as an application names it.")
_DOCTOR = (
    _SECRET,
    Setting("calls", Kind.WHOLE, "Calls to measure.", 5),
    Setting("body_size", Kind.WHOLE, "The largest body to send, bytes.", 2 << 20),
)
_SERVER = (*settings_of(ListenerOptions), *settings_of(ServerOptions), *settings_of(Limits))
_CLIENT = (*settings_of(ClientOptions), *settings_of(Limits))
#: What means nothing where a broker is asked.
_CALLS_ONLY = ("wire", "media_type", "spread", "rethrow_remote_exceptions", "decode_unsafe_terms")
_ASKING = (*_ASKED, *(each for each in _CLIENT if each.name not in _CALLS_ONLY))
_RELAY = (
    Setting("from", Kind.TEXT, "The URL of the broker next door, from which messages are taken."),
    Setting("to", Kind.TEXT, "The URL of the broker far away, to which they go."),
    Setting("queue", Kind.TEXTS, "A queue to take from; NAME=OTHER where it has another name there.", ()),
    Setting("back", Kind.TEXTS, "A queue that goes the other way, as --queue.", ()),
    _SECRET,
    Setting("from_secret_file", Kind.PATH, "The file of keys for --from; by default --secret-file."),
    Setting("to_secret_file", Kind.PATH, "The file of keys for --to; by default --secret-file."),
    Setting("prefetch", Kind.WHOLE, "Messages of one direction that are away at a time.", 10_000),
    Setting("ttl", Kind.NUMBER, "How long a broker keeps what a relay holds that is not heard of, seconds.", 30.0),
    Setting("health_file", Kind.PATH, "Write how the relay is into this file, every few seconds."),
    *_PROBES,
    *_LOGGING,
    *(each for each in _CLIENT if each.name not in _CALLS_ONLY),
)

#: Every command that has settings.
COMMANDS: Mapping[str, Mapping[str, Setting]] = {
    "serve": _unique((*_SERVE, *_SERVER)),
    "broker": _unique((*_BROKER, *_SERVER)),
    "worker": _unique((*_WORKER, *_ASKING)),
    "call": _unique((_SECRET, *_CLIENT, *settings_of(CallOptions), _ERLANG_NONE)),
    **{
        name: _unique(_ASKING)
        for name in ("send", "result", "queues", "purge", "pause", "resume", "dead", "periodic", "inspect", "events")
    },
    "relay": _unique(_RELAY),
    "forward": _unique((_OUTBOX, *_LOGGING, *_ASKING)),
    "outbox": _unique((_OUTBOX, *_ASKING)),
    "spool": _unique((_SPOOL,)),
    "doctor": _unique((*_DOCTOR, *_CLIENT)),
    "modules": _unique((_MODULES,)),
}
_ALL = {name for settings in COMMANDS.values() for name in settings}


@dataclass(frozen=True)
class Settings:
    """What one command was told."""

    values: Mapping[str, Any]
    #: Who said so, for each value that is not the default.
    origins: Mapping[str, str]
    #: What is odd and no error.
    notes: tuple[str, ...] = ()
    #: The file that was read, if any.
    config: Path | None = None

    def __getitem__(self, name: str) -> Any:
        """A value, or its default."""
        return self.values[name]

    def broker_url(self) -> str:
        """The broker that a command asks; raises `InvalidOption`."""
        if not self.values["broker"]:
            raise InvalidOption("no broker was named: give --broker URL, BACKWATER_BROKER, or broker in backwater.toml")
        return str(self.values["broker"])

    def given(self, *kinds: type) -> dict[str, Any]:
        """What was said about fields of these options classes; what was not keeps the class's own default."""
        names = {field.name for kind in kinds for field in fields(kind)}
        return {name: self.values[name] for name in self.origins if name in names}


def load(command: str, flags: Mapping[str, Any], config: str | None = None) -> Settings:
    """The settings of a command from its flags, this process's environment and the file."""
    return resolve(command, flags, os.environ, config)


def resolve(command: str, flags: Mapping[str, Any], environ: Mapping[str, str], config: str | None = None) -> Settings:
    """As `load`, with a given environment.

    Args:
        command: a name of `COMMANDS`.
        flags: by the names of settings; None and () stand for a flag that was not given.
        environ: the environment.
        config: the file, where a flag names it.
    """
    settings = COMMANDS[command]
    path = _config_path(config or environ.get(f"{PREFIX}CONFIG"))
    filed = {} if path is None else _read_config(path, command)
    values: dict[str, Any] = {name: setting.default for name, setting in settings.items()}
    origins: dict[str, str] = {}
    for name, setting in settings.items():
        variable = PREFIX + name.upper()
        if flags.get(name) not in (None, ()):
            given, origin = flags[name], setting.flag
        elif environ.get(variable):
            given, origin = environ[variable], variable
        elif name in filed:
            given, origin = filed[name], str(path)
        else:
            continue
        values[name], origins[name] = setting.read(given, origin), origin
        if origin == str(path) and setting.kind is Kind.PATH and path is not None:
            values[name] = str(path.parent / values[name])
    return Settings(values, origins, _odd_variables(environ), path)


def _config_path(named: str | None) -> Path | None:
    if named:
        return Path(named)
    return Path(CONFIG_FILE) if Path(CONFIG_FILE).is_file() else None


def _read_config(path: Path, command: str) -> dict[str, Any]:
    """What the file says to a command: its own table over the top."""
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InvalidOption(f"the configuration {str(path)!r} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InvalidOption(f"the configuration {str(path)!r} is not TOML: {error}") from error
    tables = {name: document.pop(name) for name in list(document) if isinstance(document[name], dict)}
    if "url" in tables.get("broker", {}):  # TOML has no room for `broker` beside the table
        document["broker"] = tables["broker"].pop("url")
    _check_names(document, _ALL, str(path))
    _check_names(tables, set(COMMANDS), str(path))
    for name, table in tables.items():
        _check_names(table, set(COMMANDS[name]), f"{path} [{name}]")
    return {**document, **tables.get(command, {})}


def _check_names(given: Iterable[str], known: set[str], where: str) -> None:
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            advice = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(sorted(known))}"
            raise InvalidOption(f"{where}: there is no setting {name!r}; {advice}")


def _odd_variables(environ: Mapping[str, str]) -> tuple[str, ...]:
    known = {PREFIX + name.upper() for name in (*_ALL, "config")}
    odd = []
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            odd.append(f"the variable {name} is not read" + (f"; did you mean {near[0]}?" if near else ""))
    return tuple(odd)
