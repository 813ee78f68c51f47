"""The variants by name. A process imports only the one it runs."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from rivals.contract import Variant

#: Name in the tables, and the module here whose table VARIANTS has it.
MODULES: dict[str, str] = {
    "ours-blocking": "ours",
    "ours-awaitable": "ours",
    "ours-blocking-threads": "ours",
    "ours-awaitable-threads": "ours",
    "grpc-sync": "grpc_blocking",
    "grpc-sync-struct": "grpc_blocking",
    "grpc-aio": "grpc_asyncio",
    "grpc-aio-struct": "grpc_asyncio",
    "grpc-aio-gzip": "grpc_asyncio",
    "aiohttp": "aiohttp_json",
    "aiohttp-uvloop": "aiohttp_json",
    "pyro5-serpent": "pyro",
    "pyro5-msgpack": "pyro",
    "rpyc": "rpyc_json",
    "xmlrpc": "xml_rpc",
    "xmlrpc-http11": "xml_rpc",
}

#: What each module needs to be imported at all.
NEEDS: dict[str, tuple[str, ...]] = {
    "ours": ("backwater_tornado",),
    "grpc_blocking": ("grpc", "google.protobuf"),
    "grpc_asyncio": ("grpc", "google.protobuf"),
    "aiohttp_json": ("aiohttp",),
    "pyro": ("Pyro5",),
    "rpyc_json": ("rpyc",),
    "xml_rpc": (),
}

#: And what one variant needs beside that.
EXTRAS: dict[str, tuple[str, ...]] = {"aiohttp-uvloop": ("uvloop",), "pyro5-msgpack": ("msgpack",)}


def missing(name: str) -> list[str]:
    """The packages without which this variant cannot run here."""
    return [package for package in (*NEEDS[MODULES[name]], *EXTRAS.get(name, ())) if not _found(package)]


def load(name: str) -> Variant:
    """The variant itself."""
    table: dict[str, Variant] = import_module(f"rivals.{MODULES[name]}").VARIANTS
    return table[name]


def _found(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:
        return False
