"""What names and numbers may be that come from elsewhere; they are held wherever values are read.

So a store never meets a moment that is no number (which SQLite would keep as nothing at all), a whole number beyond 64
bits or a span below zero. Whoever sends one is told which field it was.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

from msgspec import Meta

#: Priorities go from 0 to this; higher is sooner.
MAX_PRIORITY: Final = 255
#: Characters of a name: of a queue, an exchange, a message, a session.
MAX_NAME: Final = 255
#: Seconds: some 3000 years, and what is neither a number nor finite is beyond.
_EVER: Final = 1e11
_LARGEST: Final = 2**63 - 1
_PRINTABLE: Final = r"\A[^\x00-\x1f\x7f-\x9f]+\Z"

#: A name that is looked for: what nobody declared is not found.
Name = Annotated[str, Meta(max_length=MAX_NAME)]
#: A name of what is made.
NewName = Annotated[str, Meta(max_length=MAX_NAME, pattern=_PRINTABLE)]
#: A short text about something.
Text = Annotated[str, Meta(max_length=100_000)]
#: Unix seconds.
Moment = Annotated[float, Meta(ge=-_EVER, le=_EVER)]
#: Seconds.
Span = Annotated[float, Meta(ge=0, le=_EVER)]
#: How long a session may be silent, seconds.
Life = Annotated[float, Meta(ge=0.1, le=_EVER)]
#: Per second.
Rate = Annotated[float, Meta(ge=1e-6, le=1e9)]
Count = Annotated[int, Meta(ge=0, le=_LARGEST)]
Priority = Annotated[int, Meta(ge=0, le=MAX_PRIORITY)]


def may_be_declared(name: str) -> bool:
    """Whether it may be the name of a queue."""
    return len(name) <= MAX_NAME and re.search(_PRINTABLE, name) is not None
