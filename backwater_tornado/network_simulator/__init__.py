"""A bad network for tests: a TCP proxy that delays, narrows, stalls, cuts and swallows; see `network`."""
