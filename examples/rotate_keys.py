"""Changing the secret while calls go on: stage the new key, let it sign, retire the old one."""

from __future__ import annotations

import secrets
import time

import tasks

import backwater_tornado as backwater
from backwater_tornado.testing import running_server

old = backwater.Key(secrets.token_bytes(32), "site-2026-01")
new = backwater.Key(secrets.token_bytes(32), "site-2026-07", scopes=backwater.Scopes(call=("tasks.add",)))

with running_server([tasks], old) as server:
    before = backwater.Client(server.url, old)
    print("old key:", before.call("tasks", "add", 1, 2))

    # 1. The server accepts both (with `backwater serve`: append to the key file and send SIGHUP).
    server.run(lambda: server.server.reload_keys([old, new]))
    # 2. Callers sign with the newest key that they have.
    after = backwater.Client(server.url, [old, new])
    print("new key:", after.call("tasks", "add", 1, 2))
    # 3. The old key ends: no later than this moment, even without a restart.
    ended = backwater.Key(b"the old secret again, 32 bytes!!", "site-2026-01", not_after=time.time() - 1)
    server.run(lambda: server.server.reload_keys([ended, new]))
    try:
        before.call("tasks", "add", 1, 2)
    except backwater.ResponseUnsigned as error:
        print("old key:", error.hint.code if error.hint else error)
    try:
        after.call("tasks", "divide", 1, 2)
    except backwater.NotInScope as error:
        print("new key:", error)

# Output:
# old key: 3
# new key: 3
# old key: key_not_valid
# new key: the key site-2026-07 may not call tasks.divide
