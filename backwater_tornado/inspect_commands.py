"""The commands that look at workers: who is there, what they run and hold, and what they have done.

Workers are never asked: each shows the broker every few seconds what it does, and what is handed out the broker knows.
So a worker that hangs, or whose site is cut off, is seen as well.

Rule: thin, as `cli`; sessions and leases are the broker's, what a session says of itself the worker's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import click
import msgspec

from .broker.values import Lease, Receiver
from .errors import BodyUndecodable
from .flags import SETTINGS_HELP, with_settings
from .settings import load
from .tables import Row, show_rows, span
from .task_commands import connect
from .tasks import asks
from .terminal import OK, RAISED


class Running(msgspec.Struct):
    """A task that a worker says it runs."""

    id: str
    task: str
    began: float


class PoolShown(msgspec.Struct):
    """A pool of a worker."""

    size: int = 0
    running: list[Running] = []


class About(msgspec.Struct):
    """What a worker says of itself; others that receive say nothing, or something else."""

    host: str = ""
    pid: int = 0
    version: str = ""
    queues: list[str] = []
    pools: list[PoolShown] = []
    counts: dict[str, int] = {}

    @property
    def running(self) -> list[Running]:
        """In all pools."""
        return [each for pool in self.pools for each in pool.running]


def read_about(receiver: Receiver) -> About:
    """What it says; nothing, where that cannot be read."""
    try:
        return msgspec.json.decode(receiver.about, type=About)
    except (msgspec.MsgspecError, ValueError, BodyUndecodable):
        return About()


# Rows ----------------------------------------------------------------------------------------------------------------


def ping_rows(receivers: list[Receiver], now: float) -> list[Row]:
    """Who is there."""
    rows: list[Row] = []
    for each in receivers:
        about = read_about(each)
        heard, up = span(max(0.0, now - each.heard)), span(max(0.0, now - each.opened))
        rows.append({"worker": each.session, "host": about.host, "pid": about.pid, "heard": f"{heard} ago", "up": up})
    return rows


def active_rows(receivers: list[Receiver], leases: list[Lease], now: float) -> list[Row]:
    """What runs, as workers said last, as far as it has not been settled since."""
    out = {each.id for each in leases}
    return [
        {"worker": each.session, "task": run.task, "id": run.id, "for": span(max(0.0, now - run.began))}
        for each in receivers
        for run in read_about(each).running
        if run.id in out
    ]


def reserved_rows(receivers: list[Receiver], leases: list[Lease], now: float) -> list[Row]:
    """What is with a worker and waits there for its turn."""
    running = {run.id for each in receivers for run in read_about(each).running}
    return [
        {
            "worker": each.session,
            "queue": each.queue,
            "id": each.id,
            "for": "" if each.since is None else span(max(0.0, now - each.since)),
        }
        for each in leases
        if each.id not in running
    ]


def stats_rows(receivers: list[Receiver]) -> list[Row]:
    """What workers have done since their start, by what the broker was told."""
    rows: list[Row] = []
    for each in receivers:
        about = read_about(each)
        counts = {
            name: about.counts.get(name, 0)
            for name in ("received", "ack", "requeue", "reject", "park", "lost", "superseded")
        }
        slots, runs = sum(pool.size for pool in about.pools), len(about.running)
        named = {"worker": each.session, "version": about.version, "queues": ",".join(about.queues)}
        rows.append({**named, "slots": slots, "running": runs, "held": each.held, **counts})
    return rows


# Commands ------------------------------------------------------------------------------------------------------------


@click.group("inspect", no_args_is_help=False)
def inspect_group() -> None:
    """Workers: who is there, what they run, what they hold.

    \b
      backwater inspect ping
      backwater inspect active --json
    """  # noqa: D301 - click reads the escape


Look = Callable[[list[Receiver], list[Lease]], list[Row]]


def _command(name: str, text: str, look: Look, empty: str, failure: int = OK) -> None:
    """A command of the group; nothing to show ends it with the exit code `failure`."""

    @inspect_group.command(name, help=text, epilog=SETTINGS_HELP)
    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    @with_settings("inspect")
    def command(as_json: bool, config: str | None, **flags: Any) -> int:
        with connect(load("inspect", flags, config)) as app:
            rows = look(app.ask(asks.sessions()), app.ask(asks.leased()))
        show_rows(rows, as_json=as_json, empty=empty)
        return OK if rows else failure


_command("ping", "List the workers that the broker hears of; 1 if there is none.",
         lambda receivers, _: ping_rows(receivers, time.time()), "no workers", RAISED)  # fmt: skip
_command("active", "List the tasks that run, as workers said within the last seconds.",
         lambda receivers, leases: active_rows(receivers, leases, time.time()), "nothing runs")  # fmt: skip
_command("reserved", "List the tasks that workers hold and have not begun.",
         lambda receivers, leases: reserved_rows(receivers, leases, time.time()), "nothing is held")  # fmt: skip
_command("stats", "Show what each worker has done since its start.",
         lambda receivers, _: stats_rows(receivers), "no workers", RAISED)  # fmt: skip


@inspect_group.command("scheduled", epilog=SETTINGS_HELP)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_settings("inspect")
def scheduled_command(as_json: bool, config: str | None, **flags: Any) -> int:
    """Count the tasks that wait for their time, by queue: the broker holds them, no worker does."""
    with connect(load("inspect", flags, config)) as app:
        found = [stats for stats in app.ask(asks.stats()) if stats.delayed]
    rows: list[Row] = [{"queue": stats.queue.name, "delayed": stats.delayed} for stats in found]
    show_rows(rows, as_json=as_json, empty="nothing waits for its time")
    return OK
