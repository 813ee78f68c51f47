"""Whether a message's routing key fits a binding, for each kind of exchange.

* direct: the key is the pattern.
* fanout: always.
* topic: words split by dots; in the pattern `*` stands for one word, `#` for none or more.

Rule: patterns and keys come from anybody, so the time is at most the product of their lengths, whatever they say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .values import ExchangeKind


def equal(pattern: str, key: str) -> bool:
    """For a direct exchange."""
    return pattern == key


def anything(pattern: str, key: str) -> bool:
    """For a fanout exchange."""
    return True


def topic(pattern: str, key: str) -> bool:
    """For a topic exchange."""
    wanted, words = pattern.split("."), key.split(".")
    place = word = 0
    # Where the last `#` stands, and how far the words reach that it stands for. No earlier one needs to be tried again:
    # what it could take over, the last one can as well.
    last, taken = -1, 0
    while word < len(words):
        if place < len(wanted) and wanted[place] == "#":
            last, taken = place, word
            place += 1
        elif place < len(wanted) and wanted[place] in ("*", words[word]):
            place += 1
            word += 1
        elif last >= 0:
            taken += 1
            place, word = last + 1, taken
        else:
            return False
    return all(rest == "#" for rest in wanted[place:])


_FITS: Mapping[ExchangeKind, Callable[[str, str], bool]] = {"direct": equal, "fanout": anything, "topic": topic}


def fits(kind: ExchangeKind, pattern: str, key: str) -> bool:
    """Whether a binding of such an exchange takes messages with this routing key."""
    return _FITS[kind](pattern, key)
