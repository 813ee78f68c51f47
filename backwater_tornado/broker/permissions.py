"""Who may what at a broker: the caller's key, its scopes, and the sessions that are its own.

* Publishing asks for the scope `publish` of the queue that a publication names or, if it names one, of its exchange.
* Receiving, and whatever is done to a queue, asks for `consume` of the queue; a binding for that of its exchange too,
  as it takes a copy of what others publish there.
* An exchange may be declared by whoever may publish to it or receive from it.
* What concerns all queues asks for the pattern `*` itself.
* Ids of messages are capabilities: whoever knows one may cancel the message and read its result. They are random, and
  shown to those only who may receive from the message's queue.
* A session is its key's alone.
* Whoever asks within the broker's own process, and not on behalf of a call, may do everything.

Rule: says no, with the name that was asked for; does nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from backwater_tornado.context import current_call
from backwater_tornado.errors import QueueNotInScope
from backwater_tornado.protocol.keys import Scopes

from .values import Binding, Publication

Allows = Callable[[str], bool]
_EVERYTHING = Scopes()


class Permissions:
    """See the head of this module.

    Args:
        scopes: what a key may do, by its id; None: everybody may do everything.
    """

    def __init__(self, scopes: Callable[[str], Scopes] | None) -> None:
        self._scopes_of = scopes

    @staticmethod
    def caller() -> str:
        """The id of the key that signed the call; empty in the same process."""
        call = current_call()
        return "" if call is None else call.key_id

    def own(self, session: str) -> str:
        """A session as the store knows it: with its owner in front, so that nobody can name another's."""
        return f"{self.caller()}\n{session}"

    def allows_publish(self) -> Allows:
        """Where the caller may publish; good wherever the store is asked."""
        return self._scopes().allows_publish

    def allows_consume(self) -> Allows:
        """Where the caller may receive."""
        return self._scopes().allows_consume

    def allows_all(self) -> bool:
        """Whether the caller may receive from every queue; a pattern that happens to fit a name is not enough."""
        return "*" in self._scopes().consume

    def allows_either(self) -> Allows:
        """Where the caller may publish, or receive."""
        scopes = self._scopes()
        return lambda name: scopes.allows_publish(name) or scopes.allows_consume(name)

    def check_publish(self, publications: Iterable[Publication]) -> None:
        """Raise `QueueNotInScope` for the first that may not be published."""
        check(dict.fromkeys(map(target, publications)), self.allows_publish(), "publish to")

    def check_consume(self, names: Iterable[str]) -> None:
        """Raise `QueueNotInScope` for the first queue that may not be received from."""
        check(names, self.allows_consume(), "receive from")

    def check_bindings(self, bindings: Iterable[Binding]) -> None:
        """Raise `QueueNotInScope` for the first queue, or exchange, that may not be received from."""
        self.check_consume(name for each in bindings for name in (each.queue, each.exchange))

    def check_exchanges(self, names: Iterable[str]) -> None:
        """Raise `QueueNotInScope` for the first that may be neither published to nor received from."""
        check(names, self.allows_either(), "use")

    def check_all(self) -> None:
        """Raise `QueueNotInScope` unless the caller may receive from every queue."""
        if not self.allows_all():
            raise QueueNotInScope("the key may not receive from every queue")

    def _scopes(self) -> Scopes:
        if self._scopes_of is None or current_call() is None:
            return _EVERYTHING
        return self._scopes_of(self.caller())


def target(publication: Publication) -> str:
    """The name by which a publication is allowed."""
    return publication.exchange or publication.routing_key


def check(names: Iterable[str], allows: Allows, verb: str) -> None:
    """Raise `QueueNotInScope` for the first name that is not allowed."""
    for name in names:
        if not allows(name):
            raise QueueNotInScope(f"the key may not {verb} {name[:100]!r}")
