"""The stores by their URLs: which there are, and how each is asked.

    memory://                               nothing outlives the process: for tests
    sqlite:///var/lib/backwater/broker.db   a file, by its absolute path
    sqlite:broker.db                        a file, from the current directory

Rule: a new store is one line in `_OPENERS`, and its driver is imported only when it is asked for. An error never
quotes a URL, which may hold a password.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import SplitResult, unquote, urlsplit

from backwater_tornado.errors import InvalidOption

from .performers import Direct, Grouped, Performer


def open_store(url: str) -> Performer:
    """Open the store that a URL names.

    Raises:
        ConfigurationError: the URL is none of a store, or the store cannot be used: another broker has it, it is
            damaged, not a store at all, or was made by a newer version.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise InvalidOption(f"the URL of the store cannot be read: {error}") from None
    opener = _OPENERS.get(parts.scheme)
    if opener is None:
        named = f"{parts.scheme}:" if parts.scheme else "one without a scheme"
        raise InvalidOption(f"there is no store {named}; there are: {', '.join(_FORMS)}")
    if parts.query or parts.fragment:
        raise InvalidOption(f"the URL of a {parts.scheme} store ends with its path: write ? as %3F and # as %23")
    return opener(parts)


def _memory(url: SplitResult) -> Performer:
    from .memory_store import MemoryStore  # noqa: PLC0415 - only the one that is asked for

    if url.netloc or url.path.strip("/"):
        raise InvalidOption("a store in memory has neither a host nor a path: memory://")
    return Direct(MemoryStore())


def _sqlite(url: SplitResult) -> Performer:
    from .sqlite_store import SqliteStore  # noqa: PLC0415 - as above

    path = unquote(url.path)
    if url.netloc or not path or path.endswith("/") or "\0" in path:
        raise InvalidOption(
            "a store in a file is named sqlite:///var/lib/backwater/broker.db, by its absolute path, or"
            " sqlite:broker.db, from the current directory"
        )
    return Grouped(SqliteStore(path))


_OPENERS: Mapping[str, Callable[[SplitResult], Performer]] = {"memory": _memory, "sqlite": _sqlite}
_FORMS = ("sqlite:///absolute/path.db", "sqlite:relative.db", "memory://")
