"""Tasks that are sent again and again. The schedule is the broker's, and any number of workers look after it.

No process of its own is needed for that, and none that must not run twice: here are two workers, and each run is made
once.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import backwater_tornado as backwater
from backwater_tornado.testing import running_broker

# A worker finds the application among what its modules make: its broker, its keys and its periodic tasks.
SECRET = "a secret for this example only"
app = backwater.App(os.environ.get("SHOP_BROKER", "http://127.0.0.1:8080"), SECRET, proxy="")


@backwater.expose
def take_stock(ledger: str) -> None:
    """Writes down for which moment it was sent: that is in the id of every periodic task."""
    task = backwater.current_task()
    assert task is not None
    with Path(ledger).open("a") as lines:
        lines.write(f"{task.request.id}\n")


app.periodic("stock", backwater.Every(0.5), take_stock.s(os.environ.get("SHOP_LEDGER", "ledger")))
app.periodic("report", backwater.Cron("30 6 * * mon-fri", tz="Europe/Berlin"), take_stock.s("reports"))


def main(ledger: Path) -> None:
    with running_broker(secret=SECRET) as broker:
        env = {**os.environ, "SHOP_BROKER": broker.url, "SHOP_LEDGER": str(ledger)}
        command = [sys.executable, "-m", "backwater_tornado", "worker", __file__]
        with (ledger.parent / "worker.log").open("ab") as log:
            workers = [subprocess.Popen(command, env=env, stderr=log) for _ in range(2)]
        while not ledger.exists() or len(ledger.read_text().splitlines()) < 4:
            time.sleep(0.1)
        for worker in workers:
            worker.terminate()
        print("exit codes:", *[worker.wait() for worker in workers])
    sent = ledger.read_text().splitlines()
    print("an id:", sent[0])
    print("each once:", len(sent) == len(set(sent)))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        main(Path(name, "ledger"))

# Output:
# exit codes: 0 0
# an id: stock@...
# each once: True
