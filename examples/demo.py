"""What the package does, in one minute: `make demo`.

This process starts a second one that exposes `examples/tasks.py` and two modules of the standard library, over HTTP and
over HTTPS, and calls them. It makes keys and certificates of its own in a temporary folder and ends by itself.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import trustme

import backwater_tornado as backwater

HERE = Path(__file__).parent


async def serve(folder: Path) -> None:
    """The second process: one secret, two listeners, three modules."""
    sys.path.insert(0, str(HERE))
    import tasks

    secret = (folder / "secret").read_bytes()
    exposed = [tasks, math, (statistics, ["mean", "median"])]
    clear = backwater.start_clear_server(secret, exposed, port=0, address="127.0.0.1")
    tls = backwater.start_tls_server(
        secret, exposed, port=0, address="127.0.0.1", certfile=str(folder / "cert.pem"), keyfile=str(folder / "key.pem")
    )
    print(clear.port, tls.port, flush=True)
    # The parent holds the other end of stdin: when it is gone, so are we.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await backwater.stop_server()


def show_calls(url: str, secret: bytes) -> None:
    """Calls, blocking, as a script makes them."""
    print("\n-- calls over HTTP, signed both ways")
    client = backwater.Client(url, secret)
    tasks = client.module("tasks")
    print("tasks.add(1, 2)                 ->", tasks.add(1, 2))
    print("math.hypot(3, 4)                ->", client.call("math", "hypot", 3, 4))
    print("statistics.median([1, 5, 2])    ->", client.call("statistics", "median", [1, 5, 2]))

    print("\n-- a large call: compressed on the way")
    before = client.counters()
    text = "all work and no play makes a dull boy " * 20_000
    print(f"tasks.count_words({len(text):,} characters) ->", tasks.count_words(text))
    print(f"bytes on the way                ->  {client.counters()['bytes_out'] - before['bytes_out']:,}")

    print("\n-- a remote exception, with its traceback")
    try:
        tasks.divide(1, 0)
    except backwater.RemoteError as error:
        print(f"{type(error).__name__}: {error}")
        print("".join(f"   | {line}\n" for line in (error.traceback or "").splitlines()), end="")

    print("\n-- refused before anything runs")
    for function, arguments in [("add", ["one", 2]), ("not_exposed", []), ("missing", [])]:
        try:
            client.call("tasks", function, *arguments)
        except backwater.Refused as refusal:
            print(f"{refusal.code} ({refusal.status}): {refusal}")
    try:
        backwater.call((url, secrets.token_bytes(32)), "tasks", "add", [1, 2])
    except backwater.ResponseUnsigned as error:
        print(f"with a wrong key: {error.hint.code if error.hint else error}")


async def show_many(url: str, secret: bytes, ca_file: str) -> None:
    """Awaited calls over TLS; those that are made together travel together."""
    print("\n-- 1,000 awaited calls at once, over TLS")
    async with backwater.AsyncClient(url, secret, ca_file=ca_file) as client:
        tasks = client.module("tasks")
        began = time.perf_counter()
        sums = await asyncio.gather(*(tasks.add(number, number) for number in range(1000)))
        took = time.perf_counter() - began
        print("sum of the results              ->", f"{sum(sums):,}")
        print("requests they took              ->", client.counters()["requests"])
        print("calls per second                ->", f"{1000 / took:,.0f}")


def main() -> None:
    """The first process."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        authority = trustme.CA()
        certificate = authority.issue_cert("127.0.0.1")
        certificate.cert_chain_pems[0].write_to_path(folder / "cert.pem")
        certificate.private_key_pem.write_to_path(folder / "key.pem")
        authority.cert_pem.write_to_path(folder / "ca.pem")
        secret = secrets.token_bytes(32)
        (folder / "secret").touch(mode=0o600)
        (folder / "secret").write_bytes(secret)
        command = [sys.executable, __file__, "serve", name]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as server:
            assert server.stdout is not None
            clear, tls = server.stdout.readline().split()
            print(f"a server runs as process {server.pid}: http://127.0.0.1:{clear} and https://127.0.0.1:{tls}")
            show_calls(f"http://127.0.0.1:{clear}", secret)
            asyncio.run(show_many(f"https://127.0.0.1:{tls}", secret, str(folder / "ca.pem")))
            server.communicate("")
        print("\nThe server has ended with exit code", server.returncode)


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(serve(Path(sys.argv[2])))
    else:
        main()

# Output:
# a server runs as process ...
#
# -- calls over HTTP, signed both ways
# tasks.add(1, 2)                 -> 3
# math.hypot(3, 4)                -> 5.0
# statistics.median([1, 5, 2])    -> 2
#
# -- a large call: compressed on the way
# tasks.count_words(760,000 characters) -> 180000
# bytes on the way                ->  ...
#
# -- a remote exception, with its traceback
# RemoteError: ZeroDivisionError: ...division by zero
#    | Traceback (most recent call last):
# ...
#    | ZeroDivisionError: ...division by zero
#
# -- refused before anything runs
# invalid_arguments (422): add() argument 'x': expected int, got str
# not_exposed (403): tasks.not_exposed is not exposed
# unknown_function (404): the module 'tasks' has no function 'missing'
# with a wrong key: unknown_key
#
# -- 1,000 awaited calls at once, over TLS
# sum of the results              -> 999,000
# requests they took              -> ...
# calls per second                -> ...
#
# The server has ended with exit code 0
