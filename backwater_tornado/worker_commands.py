"""The command that runs tasks, in the foreground until a signal ends it.

Rule: thin, as `cli`; what it does is in `worker_process` and `supervisor`.
"""

from __future__ import annotations

import logging
import os
from dataclasses import fields
from typing import Any

import click

from .errors import InvalidOption
from .flags import SETTINGS_HELP, with_settings
from .keyfiles import exposed_secret
from .logs import start_logging
from .options import ClientOptions, Limits
from .serve import ParentChannel
from .settings import Settings, load
from .supervisor import supervise_worker
from .worker_plan import WorkPlan
from .worker_process import work


@click.command("worker", epilog=SETTINGS_HELP)
@click.argument("modules", nargs=-1, metavar="MODULE...")
@click.option("-A", "--app", "apps", multiple=True, metavar="MODULE", help="A MODULE, as Celery's users write it.")
@with_settings("worker")
def worker_command(modules: tuple[str, ...], apps: tuple[str, ...], config: str | None, **flags: Any) -> int:
    """Take tasks from a broker and run them, until SIGTERM.

    A MODULE is as for `backwater serve`. Where one of them makes an App, its broker and its keys are those of the
    worker, unless others are named, and its periodic tasks are looked after. All that a worker needs is to reach the
    broker's URL.

    \b
      backwater worker tasks --broker https://broker.example:8443 --secret-file site.key
      backwater worker -A shop.tasks --queues default --queues reports --concurrency 8
      backwater worker tasks --pool processes --max-tasks-per-child 1000
      backwater worker tasks --reload --log-level debug

    \b
    SIGTERM, SIGINT  take no more tasks, let those that run end for --grace seconds; again: give them back at once
    """  # noqa: D301 - click reads the escape
    settings = load("worker", {**flags, "modules": (*modules, *apps)}, config)
    start_logging(settings["log_level"], as_json=settings["json_logs"])
    plan = _plan(settings)
    log = logging.getLogger("backwater.worker")
    for note in (*settings.notes, exposed_secret(plan.secret_file) if plan.secret_file else None):
        if note is not None:
            log.warning(note)
    if settings["reload"] and plan.spool:
        raise InvalidOption("--spool is one process's, and --reload has two of them now and then")
    return supervise_worker(plan) if settings["reload"] else work(plan)


def _plan(settings: Settings) -> WorkPlan:
    own = [each.name for each in fields(WorkPlan) if each.name != "options"]
    values = {name: settings[name] for name in own}
    for name in ("secret_file", "health_file", "spool"):  # absolute, as a module may change the directory
        values[name] = settings[name] and os.path.abspath(settings[name])  # noqa: PTH100 - None stays
    # One flag may name several, as the environment does.
    values["queues"] = tuple(name for each in settings["queues"] for name in each.split(",") if name)
    return WorkPlan(**values, options=settings.given(ClientOptions, Limits))


@click.command("worker-child", hidden=True)
@click.argument("descriptor", type=int)
def worker_child(descriptor: int) -> int:
    """Work as a supervisor says over the descriptor."""
    channel = ParentChannel(descriptor)
    plan = channel.read_plan(WorkPlan)
    start_logging(plan.log_level, as_json=plan.json_logs)
    return work(plan, channel)
