"""The commands that serve: functions, or a broker, in the foreground until a signal ends them.

Rule: thin, as `cli`; what they do is in `serve` and `supervisor`.
"""

from __future__ import annotations

import logging
import os
from typing import Any

import click

from .errors import InvalidOption
from .flags import SETTINGS_HELP, with_settings
from .keyfiles import exposed_secret
from .logs import start_logging
from .options import Limits, ListenerOptions, ServerOptions
from .serve import ParentChannel, Plan, serve
from .settings import Settings, load
from .supervisor import supervise


@click.command("serve", epilog=SETTINGS_HELP)
@click.argument("modules", nargs=-1, metavar="MODULE...")
@with_settings("serve")
def serve_command(modules: tuple[str, ...], config: str | None, **flags: Any) -> int:
    """Serve the functions of modules until SIGTERM.

    A MODULE is `tasks`, `statistics:mean,median` for some of its functions, `tasks:all`, or a file,
    `examples/tasks.py`. Modules of the current directory are found.

    \b
      backwater serve tasks --secret-file site.key --port 8080
      backwater serve tasks --tls-cert cert.pem --tls-key key.pem --processes 4 --state /var/lib/shop/calls.db
      backwater serve tasks.py --secret-file site.key --reload
      backwater serve tasks --secret-file site.key --erlang --erlang-secret-file cluster.key

    \b
    SIGTERM, SIGINT  take no more calls, let those in progress end for --grace seconds; again: stop at once
    SIGHUP           read the file of keys again
    """  # noqa: D301 - click reads the escape
    settings = load("serve", {**flags, "modules": modules}, config)
    if settings["processes"] < 1:
        raise InvalidOption(f"processes is 1 or more, not {settings['processes']}")
    plan = _begin(settings, settings["modules"])
    if settings["processes"] > 1 or settings["reload"]:
        return supervise(plan, settings["processes"], reload=settings["reload"])
    return serve(plan)


@click.command("broker", epilog=SETTINGS_HELP)
@click.argument("modules", nargs=-1, metavar="[MODULE]...")
@with_settings("broker")
def broker_command(modules: tuple[str, ...], config: str | None, **flags: Any) -> int:
    """Serve a broker of messages until SIGTERM.

    The functions of modules that are named are served beside it. What it has accepted is on disk, and is there again
    after a restart, a crash or a power failure; only memory:// forgets. A file has one broker at a time. Keys may be
    bound to queues: see `scopes` in the file of keys.

    \b
      backwater broker --secret-file site.key
      backwater broker --store sqlite:///var/lib/backwater/broker.db --secret-file site.key --port 8080
      backwater broker --store sqlite:jobs.db --tls-cert cert.pem --tls-key key.pem
      backwater broker --store memory:// --secret-file site.key --address 127.0.0.1
      backwater broker --secret-file site.key --metrics-port 9464

    \b
    SIGTERM, SIGINT  send those who wait home, let calls in progress end for --grace seconds; again: stop at once
    SIGHUP           read the file of keys, and their scopes, again
    """  # noqa: D301 - click reads the escape
    settings = load("broker", flags, config)
    if settings["processes"] != 1:
        raise InvalidOption(
            f"a broker is one process, which alone writes its store: processes is 1, not {settings['processes']}"
        )
    return serve(_begin(settings, modules))


_PLANNED = ("port", "address", "grace", "log_level", "store", "metrics_port", "metrics_address")
_PLANNED_ERLANG = ("erlang", "erlang_modules", "erlang_replay_window", "erlang_none")
_PLANNED_PATHS = ("secret_file", "tls_cert", "tls_key", "client_ca", "state", "erlang_secret_file")


def _begin(settings: Settings, modules: tuple[str, ...]) -> Plan:
    """Start logging, and say what is odd; gives the plan."""
    start_logging(settings["log_level"])
    values = {name: settings[name] for name in (*_PLANNED, *_PLANNED_ERLANG) if name in settings.values}
    # Absolute, as a module may change the directory.
    for name in set(_PLANNED_PATHS) & set(settings.values):
        values[name] = settings[name] and os.path.abspath(settings[name])  # noqa: PTH100 - "" stays
    options = settings.given(ServerOptions, ListenerOptions, Limits)
    options.pop("address", None)
    plan = Plan(modules=modules, **values, options=options)
    log = logging.getLogger("backwater.serve")
    for note in (*settings.notes, exposed_secret(plan.secret_file)):
        if note is not None:
            log.warning(note)
    return plan


@click.command("serve-child", hidden=True)
@click.argument("descriptor", type=int)
def serve_child(descriptor: int) -> int:
    """Serve as a supervisor says over the descriptor."""
    channel = ParentChannel(descriptor)
    plan = channel.read_plan(Plan)
    start_logging(plan.log_level)
    return serve(plan, channel)
