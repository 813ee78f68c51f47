"""Files of keys, as `backwater keygen` writes them.

Rule: an error names the file and what is wrong in it, and never a secret.
"""

from __future__ import annotations

import stat
from pathlib import Path

from .errors import InvalidKey
from .protocol.keys import KeyRing, parse_keys


def read_keys(path: str | None) -> KeyRing:
    """The keys of a file; raises `InvalidKey` that names the file, and never a secret."""
    if not path:
        raise InvalidKey(
            "no keys: give --secret-file, or set BACKWATER_SECRET_FILE; `backwater keygen > site.key` makes one"
        )
    try:
        return parse_keys(Path(path).read_text("utf-8"))
    except OSError as error:
        raise InvalidKey(f"the secret file {path!r} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise InvalidKey(f"the secret file {path!r} is not text") from None
    except InvalidKey as error:
        raise InvalidKey(f"the secret file {path!r}: {error}") from None


def exposed_secret(path: str) -> str | None:
    """A warning when others on this machine may read or write a file of keys."""
    try:
        mode = Path(path).stat().st_mode
    except OSError:
        return None  # whoever reads it will say so
    if stat.S_ISREG(mode) and mode & (stat.S_IROTH | stat.S_IWOTH):
        return f"{path} is open to every user of this machine; close it: chmod 600 {path}"
    return None
