"""`python -m backwater_tornado` is the command `backwater`."""

from __future__ import annotations

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
