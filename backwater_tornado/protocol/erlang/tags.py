"""The first bytes of Erlang's external term format: which kind of term follows.

The numbers are those of the Erlang/OTP documentation, "External Term Format"; `BIG` is SMALL_BIG_EXT and so on. This
module is a table and knows nothing else.
"""

from __future__ import annotations

#: The byte before every term.
VERSION = 131

SMALL_INTEGER, INTEGER, SMALL_BIG, LARGE_BIG = 97, 98, 110, 111
OLD_FLOAT, FLOAT = 99, 70
LATIN1_ATOM, SMALL_LATIN1_ATOM, UTF8_ATOM, SMALL_UTF8_ATOM = 100, 115, 118, 119
BINARY, BITS = 109, 77
NIL, STRING, LIST = 106, 107, 108
SMALL_TUPLE, LARGE_TUPLE, MAP = 104, 105, 116
OLD_PID, PID = 103, 88
OLD_PORT, NEW_PORT, PORT = 102, 89, 120
OLDEST_REFERENCE, OLD_REFERENCE, REFERENCE = 101, 114, 90
OLD_FUN, FUN, EXPORT = 117, 112, 113

#: What is refused on purpose, and its name in messages.
REFUSED = {
    68: "a distribution header",
    69: "a fragment of a distribution message",
    80: "a compressed term",
    82: "a reference to an atom cache",
    121: "a term that only the VM which wrote it can read",
}
