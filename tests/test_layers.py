"""Who may import whom: the table below, held against every import statement of the package.

An import inside a function, or under TYPE_CHECKING, counts as any other; so does `import_module("…")`. A module that
the table does not know is a failure: whoever adds one says first where it belongs.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

import backwater_tornado

PACKAGE = "backwater_tornado"
ROOT = Path(backwater_tornado.__file__).parent


@dataclass(frozen=True)
class May:
    """What one part may import: of ours, of others, and what of the standard library it must not."""

    ours: str = ""
    others: str = ""
    never: str = ""


#: Clock, dice, network, log: what decides takes these as arguments.
IMPURE = "time os random secrets uuid asyncio socket logging"

#: The caller's side of the wire, and the server's.
CALLING = "errors options context exposure protocol driving streams session"
SERVING = "errors options context exposure protocol threads dispatch memory_sqlite listener"

#: What Erlang's terms need: the errors, and the bounds on nesting and hashes; and what they are made of.
TERMS = "errors protocol.nesting protocol.extensions"
SHAPES = "protocol.erlang.tags protocol.erlang.terms protocol.erlang.maps"

#: What the edges, which hold everything together, choose from.
ALL_OF_OURS = (
    "__init__ marks app results tasks coalescing curl transfers gathering tornado_engine client service conversations "
    "handlers server "
    f"{CALLING} {SERVING}"
)

#: Plain values from modules that otherwise hold dice or clocks.
VALUES = {"uuid.UUID"}

#: The table. A name stands for a module, and for the folder of that name with all that is in it; `protocol.memory`
#: is just that module. The more exact name wins.
TABLE: Mapping[str, May] = {
    "errors": May(never=IMPURE),
    "options": May("errors", never=IMPURE),
    "context": May(never="os random secrets uuid asyncio socket logging"),
    "driving": May("errors", never=IMPURE),
    "arguments": May("errors", "msgspec", never=IMPURE),
    "marks": May("errors", never=IMPURE),
    "exposure": May("errors arguments marks tasks.request", "msgspec", never=IMPURE),
    "protocol": May("errors options exposure protocol", "msgspec ormsgpack zstandard nacl", never=IMPURE),
    "protocol.erlang.tags": May(never=IMPURE),
    "protocol.erlang.terms": May(f"{TERMS} protocol.erlang.tags", never=IMPURE),
    "protocol.erlang.maps": May(f"{TERMS} protocol.erlang.terms", never=IMPURE),
    "protocol.erlang.printing": May(f"{TERMS} protocol.erlang.terms protocol.erlang.maps", never=IMPURE),
    "protocol.erlang.encoding": May(f"{TERMS} {SHAPES}", never=IMPURE),
    "protocol.erlang.decoding": May(f"{TERMS} {SHAPES} protocol.erlang.printing", never=IMPURE),
    "protocol.erlang.notation": May(f"{TERMS} {SHAPES} protocol.erlang.printing", never=IMPURE),
    "broker": May("errors broker", "msgspec", never=IMPURE),
    "broker.broker": May("errors context marks protocol.keys broker", "msgspec", never="os random secrets uuid socket"),
    "broker.asking": May("protocol.keys broker", never=IMPURE.replace("time ", "")),
    "broker.administration": May("marks broker", "msgspec", IMPURE.replace("time ", "")),
    "broker.permissions": May("errors context protocol.keys broker.values", never=IMPURE),
    "broker.waiting": May("broker.values", never="time os random secrets uuid socket logging"),
    "broker.stores": May("errors broker", never=IMPURE),
    "broker_server": May(
        "errors options exposure protocol.keys server service broker metrics", "tornado", "os random secrets socket"
    ),
    "metrics": May("errors broker.values", "tornado prometheus_client", IMPURE.replace(" socket", "")),
    "broker.sqlite_file": May("errors", never="time random secrets uuid asyncio socket logging"),
    "broker.sqlite_store": May("errors broker", "msgspec", never="time random secrets uuid asyncio socket logging"),
    "broker.group_commit": May("errors", never="os random secrets uuid socket logging"),
    "tasks": May("errors broker.bounds broker.values protocol.codec tasks", "msgspec", never=IMPURE),
    "tasks.outcomes": May("errors broker.values protocol.codec protocol.problems tasks", never=IMPURE),
    "tasks.task": May("errors marks results tasks", never=IMPURE),
    "tasks.request": May("errors", "msgspec", never=IMPURE),
    "tasks.schedule": May("errors", "cronsim msgspec", never=IMPURE),
    "tasks.entries": May("errors broker.values tasks", "msgspec", never=IMPURE),
    "periodic": May("errors broker.values tasks.asks tasks.entries", never="os random secrets uuid socket"),
    "outbox": May("errors broker.values broker.store tasks outbox", "msgspec", never=IMPURE),
    "outbox.seat": May("errors", never="time random secrets uuid asyncio socket logging"),
    "outbox.amounts": May("errors", never=IMPURE),
    "outbox.within": May(
        "errors tasks outbox.amounts outbox.parcels outbox.postgres_schema outbox.sqlite_rows",
        "psycopg sqlalchemy",
        never=IMPURE,
    ),
    "outbox.sqlite_rows": May("outbox.amounts outbox.parcels", never=IMPURE),
    "outbox.postgres_schema": May("outbox.parcels", never=IMPURE),
    "outbox.postgres_rows": May("outbox.amounts outbox.parcels outbox.postgres_schema", "psycopg"),
    "outbox.store": May(
        "errors outbox.amounts outbox.parcels", never="time random secrets uuid asyncio socket logging"
    ),
    "outbox.stores": May("errors outbox", never=IMPURE),
    "outbox.sqlite_store": May("errors outbox", never="random secrets uuid asyncio socket logging"),
    "outbox.postgres_store": May("errors outbox", "psycopg", never="os random secrets uuid asyncio socket logging"),
    "outbox.forwarder": May("errors hedging tasks.flows outbox", never="os secrets uuid socket"),
    "outbox.spool": May(
        "errors tasks.flows tasks.workflow outbox.forwarder outbox.parcels outbox.store",
        never="random secrets uuid socket",
    ),
    "hedging": May(never=IMPURE.replace("asyncio ", "")),
    "worker": May("errors broker.values exposure hedging tasks worker", "msgspec", never="random secrets uuid"),
    "worker.jobs": May("broker.values", "msgspec", never=IMPURE),
    "worker.interrupts": May("errors", never="time os random secrets uuid socket logging"),
    "worker.execution": May(
        "errors exposure broker.values protocol.problems tasks worker.jobs",
        "msgspec",
        never="time secrets uuid asyncio socket logging",
    ),
    "worker.pools": May(
        "errors deadlines exposure broker.values tasks.outcomes worker.jobs", never="os random secrets uuid socket"
    ),
    "worker.async_pool": May(
        "broker.values worker.execution worker.interrupts worker.jobs worker.pools",
        never="time os random secrets uuid socket",
    ),
    "worker.thread_pool": May(
        "errors threads broker.values worker.execution worker.interrupts worker.jobs worker.pools",
        never="time os random secrets uuid socket",
    ),
    "worker.frames": May("broker.values worker.jobs", "msgspec", never=IMPURE),
    "worker.process_pool": May("worker.frames worker.jobs worker.pools", never="time random secrets uuid"),
    "worker.child": May(
        "errors app exposure keyfiles loading broker.values tasks.current tasks.outcomes worker.execution"
        " worker.frames worker.interrupts worker.jobs",
        "msgspec",
        never="time random secrets uuid",
    ),
    "worker.spool": May("errors broker.sqlite_file", never="time random secrets uuid asyncio socket logging"),
    "worker.line": May("errors hedging tasks.asks", never="os secrets uuid socket"),
    "worker.consumer": May("errors broker.values tasks.asks worker.line", never="time random uuid logging"),
    "worker.turns": May(never=IMPURE.replace("asyncio ", "")),
    "worker.pace": May(never=IMPURE),
    "worker.deliveries": May("errors broker.values exposure tasks worker.jobs", "msgspec", never=IMPURE),
    "relay": May("errors broker.values tasks worker relay", "msgspec", IMPURE),
    "relay.cargo": May("errors broker.values tasks.messages worker.deliveries", "msgspec", IMPURE),
    "relay.outward": May(
        "errors broker.values outbox.rules tasks.asks worker.line relay.cargo",
        never=IMPURE.replace("asyncio ", ""),
    ),
    "relay.homeward": May(
        "broker.values tasks.flows worker.inputs worker.line relay.cargo", never=IMPURE.replace("asyncio ", "")
    ),
    "relay.errands": May("tasks worker.line", never=IMPURE.replace("asyncio ", "")),
    "relay.carrier": May("errors broker.values tasks worker relay", never="os random secrets uuid asyncio socket"),
    "relay.relay": May("worker relay", "msgspec", never="random secrets uuid"),
    "owners": May("errors", never="time random secrets asyncio socket logging"),
    "memory_sqlite": May("errors owners protocol.memory", never="time random secrets asyncio socket logging"),
    "threads": May("errors options", never="socket"),
    "deadlines": May(never="socket"),
    "dispatch": May("errors options context deadlines exposure threads protocol", never="socket"),
    "listener": May("errors options", "tornado"),
    "service": May(f"{SERVING} protocol", never="socket"),
    "conversations": May(f"{SERVING} service", "msgspec", never="socket"),
    "handlers": May(f"{SERVING} service conversations", "tornado", never="socket"),
    "server": May(f"{SERVING} service handlers conversations", "tornado"),
    "streams": May(never="time asyncio socket logging"),
    "session": May(CALLING, "msgspec", never="asyncio socket"),
    "transfers": May("errors options protocol", "pycurl", never="os random secrets asyncio logging"),
    "curl": May("errors options protocol.calling protocol.messages transfers", "pycurl tornado"),
    "tornado_engine": May("errors options protocol.calling protocol.messages", "tornado"),
    "coalescing": May(f"{CALLING} curl deadlines"),
    "gathering": May(f"{CALLING} curl"),
    "client": May(f"{CALLING} curl tornado_engine coalescing gathering", "pycurl tornado"),
    "findings": May("errors options protocol.keys", never=IMPURE),
    "link_findings": May("findings", never=IMPURE),
    "doctor": May(f"{CALLING} app curl transfers findings link_findings worker.consumer worker.pace", "pycurl"),
    "results": May("errors broker.values tasks", never=IMPURE),
    "sharing": May(never="time random secrets uuid asyncio socket logging"),
    "app": May(
        "errors broker.values client driving outbox results sharing tasks",
        "msgspec",
        never="random secrets socket logging",
    ),
    "__init__": May(
        "errors options context exposure keyfiles protocol server client app results tasks broker_server worker.hooks"
    ),
    "erlang": May("errors options protocol.erlang", never=IMPURE),
    "network_simulator": May("errors network_simulator", never="time os secrets uuid logging"),
    "testing": May(
        f"{ALL_OF_OURS} broker_server network_simulator relay relay_process worker worker_plan worker_pools"
        " worker_process",
        "tornado",
    ),
    "fixtures": May("app tasks.current testing", "pytest", never="os random secrets uuid socket"),
    "loading": May("errors exposure", never=IMPURE.replace("os ", "")),
    "keyfiles": May("errors protocol.keys", never=IMPURE),
    "settings": May("errors options", never="time random secrets asyncio socket"),
    "flags": May("errors settings erlang", "click", never=IMPURE),
    "terminal": May("errors protocol.codec erlang findings exposure", "click rich"),
    "serve": May("errors options exposure keyfiles loading server broker_server"),
    "task_commands": May("errors app results tasks options flags keyfiles settings terminal", "click rich"),
    "supervisor": May("errors serve worker_plan"),
    "inspect_commands": May(
        "errors broker.values flags settings tables task_commands tasks.asks terminal", "click msgspec"
    ),
    "event_commands": May(
        "errors app broker.values flags settings task_commands tasks.asks tasks.events terminal",
        "click msgspec",
        never="os random uuid asyncio socket logging",
    ),
    "logs": May("errors", never=IMPURE.replace("logging", "")),
    "worker_plan": May(
        "errors app exposure keyfiles loading protocol.keys tasks.messages worker", never="time asyncio socket"
    ),
    "worker_pools": May("errors worker worker_plan", never="time asyncio"),
    "worker_process": May("errors app broker.values periodic serve tasks worker worker_plan worker_pools", "tornado"),
    "relay_process": May("errors app keyfiles relay worker worker_process", never="time random secrets uuid"),
    "relay_commands": May("app errors flags keyfiles logs options relay relay_process settings worker", "click"),
    "worker_commands": May(
        "errors flags keyfiles logs options serve settings supervisor worker_plan worker_process", "click"
    ),
    "cli": May(
        f"{ALL_OF_OURS} erlang doctor findings flags keyfiles loading outbox_commands periodic_commands queue_commands "
        "event_commands inspect_commands relay_commands serving_commands spool_commands task_commands worker_commands "
        "settings terminal",
        "click",
    ),
    "tables": May(
        "errors broker.values outbox.amounts outbox.parcels protocol.codec tasks.messages tasks.schedule worker.spool",
        "click rich",
        IMPURE,
    ),
    "outbox_commands": May("app errors flags logs outbox settings tables task_commands terminal", "click"),
    "spool_commands": May("errors flags settings tables worker.spool", "click", IMPURE),
    "periodic_commands": May("errors flags settings tables task_commands tasks.asks terminal", "click", IMPURE),
    "queue_commands": May(
        "errors broker.values client flags keyfiles options settings tables terminal", "click rich", IMPURE
    ),
    "serving_commands": May("errors flags keyfiles logs options serve settings supervisor", "click"),
    "__main__": May("cli"),
}

#: The only ones that may look at environment variables.
READS_ENVIRONMENT = {"settings"}


#: Documented parts of the standard library that begin with an underscore all the same.
PRIVATE_IN_NAME_ONLY = {"_asdict", "_current_frames", "_exit", "_fields", "_getframe", "_make", "_replace"}


@dataclass(frozen=True)
class Import:
    """One imported module: its dotted name, `backwater_tornado.x` for ours, and where the statement stands."""

    name: str
    line: int


def sources(root: Path = ROOT) -> dict[str, str]:
    """The text of every module of the package by its name within it: `errors`, `protocol.codec`, `__init__`."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
        found[name] = path.read_text()
    return found


def imports_of(module: str, text: str, modules: set[str], packages: set[str]) -> Iterator[Import]:
    """Every import in a module's text, wherever it stands, resolved to the module that it reaches."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = _origin(node, module, is_package=module in packages)
            for alias in node.names:
                if f"{origin}.{alias.name}" in VALUES:
                    continue
                inner = f"{origin}.{alias.name}".removeprefix(f"{PACKAGE}.")
                yield Import(f"{PACKAGE}.{inner}" if inner in modules else origin, node.lineno)
        elif isinstance(node, ast.Call) and _called_name(node) in {"import_module", "__import__"} and node.args:
            first = node.args[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield Import(first.value, node.lineno)


def _origin(node: ast.ImportFrom, module: str, *, is_package: bool) -> str:
    if node.level == 0:
        return node.module or ""
    parts = [PACKAGE, *(module.split(".") if module != "__init__" else [])]
    up = node.level - 1 if is_package or module == "__init__" else node.level
    return ".".join([*parts[: len(parts) - up], *([node.module] if node.module else [])])


def _called_name(node: ast.Call) -> str:
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def ours(name: str) -> str | None:
    """A module's name within the package, or None if it is not ours."""
    if name == PACKAGE:
        return "__init__"
    return name.removeprefix(f"{PACKAGE}.") if name.startswith(f"{PACKAGE}.") else None


def part_of(module: str, parts: Mapping[str, object]) -> str | None:
    """The most exact entry that speaks for a module: itself, or a folder that it is in."""
    name = module
    while name not in parts:
        name, dot, _ = name.rpartition(".")
        if not dot:
            return None
    return name


def violations(texts: Mapping[str, str], table: Mapping[str, May] = TABLE) -> list[str]:
    """Every import that the table does not allow, and every module that it does not know."""
    modules = set(texts)
    packages = {name for name in modules if any(other.startswith(f"{name}.") for other in modules)}
    found = []
    for module, text in texts.items():
        part = part_of(module, table)
        if part is None:
            found.append(f"{module} is not in the table")
            continue
        for imported in imports_of(module, text, modules, packages):
            complaint = _complaint(imported.name, part, table[part])
            if complaint:
                found.append(f"{module}, line {imported.line}: {complaint}")
    return list(dict.fromkeys(found))  # one line may import several names


def _complaint(name: str, part: str, may: May) -> str | None:
    inner = ours(name)
    if inner is not None:
        allowed = dict.fromkeys(may.ours.split())
        return None if part_of(inner, allowed) else f"{part} may not import {inner}"
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names:
        return f"{part} must never import {top}" if top in may.never.split() else None
    return None if top in may.others.split() else f"{part} may not import {top}"


def environment_reads(texts: Mapping[str, str]) -> list[str]:
    """Where environment variables are looked at, outside the command line."""
    found = []
    for module, text in texts.items():
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.Attribute | ast.Name) or module in READS_ENVIRONMENT:
                continue
            name = node.attr if isinstance(node, ast.Attribute) else node.id
            if name in {"environ", "environb", "getenv"}:
                found.append(f"{module}, line {node.lineno}")
    return found


def private_reaches(texts: Mapping[str, str]) -> list[str]:
    """Where a module uses a name with an underscore that is another module's."""
    found = []
    for module, text in texts.items():
        nodes = list(ast.walk(ast.parse(text)))
        own = {name for node in nodes for name in _bound_names(node)}
        for node in nodes:
            if isinstance(node, ast.Attribute):
                names = [node.attr]
            elif isinstance(node, ast.ImportFrom):
                names = [alias.name for alias in node.names]
            else:
                continue
            strange = [name for name in names if _is_private(name) and name not in own | PRIVATE_IN_NAME_ONLY]
            found += [f"{module}, line {node.lineno}: {name} is not its own" for name in strange]
    return found


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _bound_names(node: ast.AST) -> list[str]:
    """The names that a statement makes: functions, classes, variables, attributes of self or cls, slots."""
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
            return [name]
        case ast.Constant(value=str(name)) if _is_private(name) and name.isidentifier():
            return [name]
    return []


def cycles(texts: Mapping[str, str]) -> list[str]:
    """Modules that reach themselves through imports; a package's own `__init__` is left out."""
    modules = set(texts)
    packages = {name for name in modules if any(other.startswith(f"{name}.") for other in modules)}
    reach = {
        module: {inner for found in imports_of(module, text, modules, packages) if (inner := ours(found.name))}
        for module, text in texts.items()
    }

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            for inner in reach.get(waiting.pop(), set()) - packages - {"__init__"}:
                if inner not in seen:
                    seen.add(inner)
                    waiting.append(inner)
        return seen

    return [module for module in sorted(modules - packages - {"__init__"}) if module in reached(module)]


def test_every_import_is_in_the_table() -> None:
    assert violations(sources()) == []


def test_no_module_imports_itself_by_a_detour() -> None:
    assert cycles(sources()) == []


def test_only_the_command_line_reads_the_environment() -> None:
    assert environment_reads(sources()) == []


def test_no_module_reaches_into_anothers_private_parts() -> None:
    assert private_reaches(sources()) == []


@pytest.mark.parametrize(
    ("module", "text", "complaint"),
    [
        ("protocol.codec", "import time", "protocol must never import time"),
        ("protocol.codec", "def now():\n    from os import path", "line 2: protocol must never import os"),
        ("protocol.codec", "import asyncio.events", "protocol must never import asyncio"),
        ("protocol.codec", "from uuid import uuid4", "protocol must never import uuid"),
        ("protocol.codec", "from tornado import web", "protocol may not import tornado"),
        ("protocol.codec", "from ..server import routes", "protocol may not import server"),
        ("protocol.codec", "from .. import server", "protocol may not import server"),
        ("protocol", "from . import codec\nfrom .. import server", "line 2: protocol may not import server"),
        ("exposure", "from backwater_tornado.protocol.codec import encode", "may not import protocol.codec"),
        ("exposure", "from backwater_tornado import __version__", "exposure may not import __init__"),
        ("errors", "if TYPE_CHECKING:\n    from backwater_tornado import options", "line 2: errors may not import op"),
        ("errors", "import importlib\nimportlib.import_module('backwater_tornado.cli')", "errors may not import cli"),
        ("memory_sqlite", "import backwater_tornado.protocol.codec", "may not import protocol.codec"),
        ("server", "import requests", "server may not import requests"),
        ("__init__", "from .cli import main", "__init__ may not import cli"),
        ("helpers", "", "helpers is not in the table"),
    ],
)
def test_a_planted_violation_is_caught(module: str, text: str, complaint: str) -> None:
    known = dict.fromkeys(["errors", "options", "server", "cli", "protocol", "protocol.codec", "__init__"], "")
    found = violations({**known, module: text})
    assert len(found) == 1
    assert complaint in found[0]


def test_what_the_table_allows_passes() -> None:
    texts = {
        "__init__": "from .protocol.keys import Key",
        "errors": "import enum",
        "protocol": "",
        "protocol.keys": "from .. import errors\nfrom . import memory\nimport nacl.hash\nfrom uuid import UUID",
        "protocol.memory": "from backwater_tornado.errors import Replayed",
        "memory_sqlite": "from backwater_tornado.protocol.memory import CallMemory\nimport sqlite3",
    }
    assert violations(texts) == []


def test_a_planted_cycle_is_caught() -> None:
    texts = {"protocol.a": "from . import b", "protocol.b": "from .c import x", "protocol.c": "from .a import y"}
    assert cycles({"protocol": "", **texts}) == ["protocol.a", "protocol.b", "protocol.c"]


@pytest.mark.parametrize("text", ["import os\nos.environ['X']", "from os import getenv\ngetenv('X')"])
def test_a_planted_look_at_the_environment_is_caught(text: str) -> None:
    assert environment_reads({"client": text, "settings": text}) == ["client, line 2"]


@pytest.mark.parametrize("text", ["import server\nserver._stop()", "\nfrom .server import _stop"])
def test_a_planted_reach_into_private_parts_is_caught(text: str) -> None:
    assert private_reaches({"client": text}) == ["client, line 2: _stop is not its own"]


def test_two_classes_of_one_module_may_know_each_other() -> None:
    text = "class A:\n    def __init__(self): self._x = 1\nclass B:\n    def f(self, a): return a._x, a._replace()"
    assert private_reaches({"client": text}) == []
