"""What a function may know about its call, and how time runs through nested calls."""

from __future__ import annotations

import secrets
import time

import backwater_tornado as backwater
from backwater_tornado.testing import running_server

key = backwater.Key(secrets.token_bytes(32), "berlin")


class Depot:
    """The methods of an object may be exposed, too."""

    def __init__(self) -> None:
        self.upstream = ""

    def who(self) -> str:
        """The id of the key that signed the call."""
        call = backwater.current_call()
        assert call is not None
        return call.key_id

    def patience(self) -> float:
        """How long the caller still waits; a nested call inherits it without being told."""
        call = backwater.current_call()
        assert call is not None
        return call.remaining() or 0.0

    def ask_upstream(self) -> float:
        """A nested call: what is left of our caller's time bounds it."""
        return float(backwater.call((self.upstream, key), "depot", "patience", timeout=3600))

    def dawdle(self) -> None:
        """Takes longer than its caller waits."""
        time.sleep(0.4)


depot = Depot()
with running_server([backwater.Exposed(depot=depot)], key) as server:
    depot.upstream = server.url
    client = backwater.Client(server.url, key)
    print("signed by", client.call("depot", "who"))
    patient = client.with_options(timeout=20)
    print("time left is about", round(patient.call("depot", "patience")))
    print("in a nested call, too:", round(patient.call("depot", "ask_upstream")))
    try:
        client.with_options(timeout=0.2).call("depot", "dawdle")
    except backwater.DeadlineExceeded as error:
        print(type(error).__name__)

# Output:
# signed by berlin
# time left is about 20
# in a nested call, too: 20
# DeadlineExceeded
