"""What the package does, in one minute: `make demo`.

Calls: this process starts a second one that exposes `examples/tasks.py` and two modules of the standard library, over
HTTP and over HTTPS, and calls them. Tasks: it starts a broker and a worker, which runs `examples/jobs.py`, sends tasks,
and kills the worker. It makes keys and certificates of its own in a temporary folder and ends by itself.
"""

from __future__ import annotations

import asyncio
import math
import os
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jobs
import trustme

import backwater_tornado as backwater

HERE = Path(__file__).parent


async def serve(folder: Path) -> None:
    """The second process: one secret, two listeners, three modules."""
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


# Tasks ---------------------------------------------------------------------------------------------------------------


#: All that was started for the tasks, to be gone in the end whatever happens.
STARTED: list[subprocess.Popen[bytes]] = []


def start(folder: Path, ready: str, *words: str) -> tuple[subprocess.Popen[bytes], str]:
    """`backwater WORDS`, as in a shell, with the settings of the folder; and what its log says when it is ready."""
    command = [sys.executable, "-m", "backwater_tornado", *words]
    log = folder / f"{time.monotonic()}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=folder, stderr=file)
    STARTED.append(process)
    while ready not in log.read_text():
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    return process, log.read_text()


def start_worker(folder: Path) -> subprocess.Popen[bytes]:
    """What it runs is found as any module is: here by its file."""
    return start(folder, "working on", "worker", str(HERE / "jobs.py"), "--concurrency", "4", "--ttl", "4")[0]


def show_tasks(folder: Path) -> None:
    """A broker, a worker, and this process, which sends."""
    print("\n-- tasks: a broker with a file, a worker, and this process, which sends")
    with (folder / "site.key").open("wb") as file:
        subprocess.run([sys.executable, "-m", "backwater_tornado", "keygen"], stdout=file, check=True)
    settings = 'secret_file = "site.key"\nproxy = ""\naddress = "127.0.0.1"\n'
    (folder / "backwater.toml").write_text(settings)
    broker, said = start(folder, "serving on", "broker", "--store", "sqlite:demo.db", "--port", "0")
    url = said.split()[-1]
    (folder / "backwater.toml").write_text(f'{settings}broker = "{url}"\n')
    worker = start_worker(folder)
    print(f"a broker runs as process {broker.pid}, a worker as process {worker.pid}")

    with backwater.App(url, backwater.read_keys(str(folder / "site.key")), proxy=""):
        show_results()
        show_progress()
        show_retries()
        worker = show_kill(folder, worker)
    for process in (worker, broker):
        process.terminate()
    print("\nWorker and broker have ended with exit codes", worker.wait(), "and", broker.wait())


def show_results() -> None:
    print("jobs.count_words.delay('a b').get()      ->", jobs.count_words.delay("a b").get(timeout=30))
    chain = jobs.count_words.s("a b") | jobs.times.s(10) | jobs.times.s(2)
    print("a chain: count_words, times 10, times 2  ->", chain.delay().get(timeout=30))
    chord = backwater.chord(jobs.count_words.map(["a", "a b", "a b c"]), jobs.total.s())
    print("a chord: three count_words, their total  ->", chord.delay().get(timeout=30))
    began = time.perf_counter()
    results = backwater.group(jobs.times.s(number, 2) for number in range(1000)).delay()
    print("a group of 1,000                         ->", f"{sum(results.get(timeout=30)):,}", end="")
    print(f" in {time.perf_counter() - began:.1f} s")


def show_progress() -> None:
    print("\n-- how far a task is")
    result = jobs.render.delay(8)
    watch(result)
    print("result                                   ->", result.get(timeout=30))


def show_retries() -> None:
    print("\n-- a task that fails twice is tried again, later and later")
    result = jobs.fetch.delay(3)
    watch(result)
    print("result                                   ->", result.get(timeout=30))


def watch(result: backwater.AsyncResult[str]) -> None:
    """Print what is known of it, whenever that is something else, until it has ended."""
    last = None
    while not result.ready():
        state, value = result.look()
        if (state, str(value)) != last and value is not None and state is not backwater.State.SUCCESS:
            last = (state, str(value))
            print(f"{state:<40} -> {value}")
        time.sleep(0.02)


def show_kill(folder: Path, worker: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
    """Gives the worker that is left."""
    print("\n-- a worker that is killed in the middle of a task")
    result = jobs.render.delay(20)
    while result.progress is None:
        time.sleep(0.02)
    os.kill(worker.pid, signal.SIGKILL)
    print(f"process {worker.pid} was at page {result.progress['page']} of 20, and is killed (-9)")
    worker.wait()
    other = start_worker(folder)
    print(f"another worker runs as process {other.pid}; the broker waits 4 s for the first one")
    began = time.perf_counter()
    while result.progress and result.progress["pid"] == worker.pid:
        time.sleep(0.05)
    print(f"process {other.pid} got the task after {time.perf_counter() - began:.0f} s")
    print("result                                   ->", result.get(timeout=30))
    return other


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
        try:
            show_tasks(folder)
        finally:
            for each in STARTED:
                each.kill()


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
#
# -- tasks: a broker with a file, a worker, and this process, which sends
# a broker runs as process ..., a worker as process ...
# jobs.count_words.delay('a b').get()      -> 2
# a chain: count_words, times 10, times 2  -> 40
# a chord: three count_words, their total  -> 6
# a group of 1,000                         -> 999,000 in ... s
#
# -- how far a task is
# PROGRESS                                 -> {'page': ...
# result                                   -> 8 pages
#
# -- a task that fails twice is tried again, later and later
# ...
# result                                   -> open at attempt 3
#
# -- a worker that is killed in the middle of a task
# process ... was at page ... of 20, and is killed (-9)
# another worker runs as process ...; the broker waits 4 s for the first one
# process ... got the task after ... s
# result                                   -> 20 pages
#
# Worker and broker have ended with exit codes 0 and 0
