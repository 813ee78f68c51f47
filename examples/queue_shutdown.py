"""A worker that is told to stop ends what it runs and gives the rest back: nothing is lost, and nothing runs twice.

That is what SIGTERM does, so that of systemd, Docker and Kubernetes, too. What is not done within `--grace` seconds is
stopped, and runs elsewhere.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jobs

import backwater_tornado as backwater
from backwater_tornado.testing import RunningBroker, running_broker

BACKWATER = [sys.executable, "-m", "backwater_tornado"]  # the command `backwater` of this Python


def start_worker(broker: RunningBroker, key_file: Path) -> subprocess.Popen[bytes]:
    """A process, as you would start it on any host that reaches the broker."""
    asking = ["--broker", broker.url, "--secret-file", str(key_file), "--proxy", ""]
    command = [*BACKWATER, "worker", jobs.__file__, "--concurrency", "2", "--grace", "10", *asking]
    return subprocess.Popen(command, stderr=(key_file.parent / "worker.log").open("ab"))


def main(folder: Path) -> None:
    key_file, ledger = folder / "site.key", folder / "ledger"
    with key_file.open("wb") as file:
        subprocess.run([*BACKWATER, "keygen"], stdout=file, check=True)
    with running_broker(f"sqlite:{folder / 'broker.db'}", backwater.read_keys(str(key_file))) as broker:
        app = backwater.App(broker.url, broker.secret)
        results = app.send_many(jobs.ship.s(order, str(ledger)) for order in range(6))

        first = start_worker(broker, key_file)
        while not any(result.state is backwater.State.STARTED for result in results):
            time.sleep(0.05)
        first.terminate()
        print("the first worker has ended with code", first.wait())
        print("and had done", sum(result.ready() for result in results), "of 6")

        second = start_worker(broker, key_file)
        processes = {result.get(timeout=30) for result in results}
        second.terminate()
        print("the second one did the rest, and has ended with code", second.wait())
        print("processes:", len(processes))
        print("each once:", sorted(map(int, ledger.read_text().split())) == list(range(6)))


with tempfile.TemporaryDirectory() as name:
    main(Path(name))

# Output:
# the first worker has ended with code 0
# and had done ... of 6
# the second one did the rest, and has ended with code 0
# processes: 2
# each once: True
