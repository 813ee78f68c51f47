"""What holds for every test: how hypothesis searches, and that Ctrl-C works. The time limit is in pyproject.toml."""

from __future__ import annotations

import os
import signal

from hypothesis import HealthCheck, settings

# A slow machine is not a failure, so there is no deadline for one example: the test's own time limit holds.
_COMMON = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

settings.register_profile("home", _COMMON)
settings.register_profile("ci", _COMMON, derandomize=True, database=None, print_blob=True)
settings.register_profile("thorough", _COMMON, max_examples=5_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "home"))

# A runner that was started in the background ignores SIGINT, and so would every process that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
