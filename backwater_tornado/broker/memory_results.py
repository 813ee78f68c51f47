"""What is known of messages' ends in memory: results, and the joins that count them.

Rule: told that something has ended, they say what follows from it; they neither route nor queue.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from .alarms import Alarms
from .values import Join, Publication, Result


class Results:
    """The last known of each message that keeps it."""

    def __init__(self) -> None:
        self._results: dict[str, tuple[Result, float]] = {}
        self._expiring: Alarms[str] = Alarms()

    def write(self, result: Result, keep: float | None) -> bool:
        """Keep a result for so long, unless a final one is there; whether it is new."""
        if keep is None:
            return False
        there = self.read(result.id, result.at)
        if there is not None and there.final:
            return False
        self._results[result.id] = result, keep
        self._expiring.set(result.id, result.at + keep)
        return True

    def read(self, id: str, now: float) -> Result | None:
        """The result, if it has not expired."""
        found = self._results.get(id)
        return found[0] if found is not None and now < found[0].at + found[1] else None

    def until(self, id: str) -> float | None:
        """How long the result is kept, if there is one."""
        found = self._results.get(id)
        return None if found is None else found[0].at + found[1]

    def forget(self, ids: Iterable[str]) -> None:
        """Drop them."""
        for forgotten in ids:
            self._results.pop(forgotten, None)
            self._expiring.cancel(forgotten)

    def sweep(self, now: float) -> None:
        """Drop what has expired."""
        for expired in self._expiring.due(now):
            del self._results[expired]

    def set_back(self, now: float) -> None:
        """Let none be from the future, so that it ends after its span."""
        for result, keep in list(self._results.values()):
            if result.at > now:
                self._results[result.id] = replace(result, at=now), keep
                self._expiring.set(result.id, now + keep)


class _Tally:
    """A join, or what has ended of one that has yet to come."""

    __slots__ = ("closed", "failed", "join", "members")

    def __init__(self) -> None:
        self.join: Join | None = None
        self.members: set[str] = set()
        self.failed = False
        self.closed = False


class Joins:
    """Each counts a message once, and comes together once.

    Args:
        remember: for how long one that is closed, or has yet to come, is known.
    """

    def __init__(self, remember: float) -> None:
        self._remember = remember
        self._tallies: dict[str, _Tally] = {}
        self._expiring: Alarms[str] = Alarms()
        self._forgetting: Alarms[str] = Alarms()

    def add(self, join: Join, now: float) -> Sequence[Publication]:
        """Begin to wait, if it is new; gives what to publish if all has ended already."""
        tally = self._tally(join.id, now)
        if tally.join is not None:
            return ()
        tally.join = join
        self._forgetting.cancel(join.id)
        if join.expires is not None:
            self._expiring.set(join.id, join.expires)
        return self._together(tally, join, now)

    def count(self, id: str, member: str, failed: bool, now: float) -> Sequence[Publication]:
        """A message has ended; gives what to publish if that was the last."""
        tally = self._tally(id, now)
        if tally.closed:
            return ()
        tally.members.add(member)
        tally.failed |= failed
        return () if tally.join is None else self._together(tally, tally.join, now)

    def sweep(self, now: float) -> None:
        """Close what did not come together in time, forget what was closed long ago."""
        for expired in self._expiring.due(now):
            self._close(self._tallies[expired], expired, now)
        for forgotten in self._forgetting.due(now):
            del self._tallies[forgotten]

    def next(self) -> float | None:
        """When the next expires."""
        return self._expiring.next()

    def set_back(self, now: float) -> None:
        """Let nothing be remembered for longer than it should."""
        self._forgetting.cap(now + self._remember)

    def _tally(self, id: str, now: float) -> _Tally:
        tally = self._tallies.get(id)
        if tally is None:
            tally = self._tallies[id] = _Tally()
            self._forgetting.set(id, now + self._remember)
        return tally

    def _together(self, tally: _Tally, join: Join, now: float) -> Sequence[Publication]:
        if len(tally.members) < join.size:
            return ()
        self._close(tally, join.id, now)
        return join.otherwise if tally.failed and join.otherwise is not None else join.then

    def _close(self, tally: _Tally, id: str, now: float) -> None:
        tally.closed = True
        tally.members = set()
        self._expiring.cancel(id)
        self._forgetting.set(id, now + self._remember)
