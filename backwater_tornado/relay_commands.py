"""The command that relays between two brokers, in the foreground until a signal ends it.

Rule: thin, as `cli`; what it does is in `relay_process`.
"""

from __future__ import annotations

import logging
import os
from typing import Any

import click

from .app import RECV_TIMEOUT
from .errors import InvalidOption
from .flags import SETTINGS_HELP, with_settings
from .keyfiles import exposed_secret
from .logs import start_logging
from .options import ClientOptions, Limits
from .relay.options import RelayOptions
from .relay_process import RelayPlan, read_queues, relay
from .settings import Settings, load
from .worker.consumer import WAIT


@click.command("relay", epilog=SETTINGS_HELP)
@with_settings("relay")
def relay_command(config: str | None, **flags: Any) -> int:
    """Relay messages to another broker until SIGTERM.

    Producers send to a broker next door, and wait there for results; only the relay crosses the link. Each message goes
    over once, whatever happens to the link, the brokers or the relay. The key of --from consumes the queues, that of
    --to publishes to them; for --back it is the other way round.

    \b
      backwater relay --from http://localhost:8080 --to https://hq.example:8443 --queue default --secret-file site.key
      backwater relay --from http://localhost:8080 --to https://hq.example:8443 --queue reports=berlin.reports \\
          --back berlin.orders=orders --from-secret-file site.key --to-secret-file hq.key

    \b
    SIGTERM, SIGINT  take no more, and leave what is away to the next relay
    """  # noqa: D301 - click reads the escape
    settings = load("relay", flags, config)
    start_logging(settings["log_level"], as_json=settings["json_logs"])
    plan = _plan(settings)
    for note in (*settings.notes, *map(exposed_secret, filter(None, {plan.near_keys, plan.far_keys}))):
        if note is not None:
            logging.getLogger("backwater.relay").warning(note)
    return relay(plan)


def _plan(settings: Settings) -> RelayPlan:
    for name in ("from", "to"):
        if not settings[name]:
            raise InvalidOption(f"two brokers are needed: give --{name} URL, or BACKWATER_{name.upper()}")
    ttl, client = settings["ttl"], settings.given(ClientOptions, Limits)
    patience = client.get("recv_timeout", RECV_TIMEOUT)
    return RelayPlan(
        near=settings["from"],
        far=settings["to"],
        near_keys=settings["from_secret_file"] or settings["secret_file"],
        far_keys=settings["to_secret_file"] or settings["secret_file"],
        queues=read_queues(settings["queue"]),
        back=read_queues(settings["back"]),
        options=RelayOptions(prefetch=settings["prefetch"], ttl=ttl, wait=min(WAIT, ttl / 2, 0.75 * patience)),
        health_file=settings["health_file"] and os.path.abspath(settings["health_file"]),  # noqa: PTH100 - None stays
        health_port=settings["health_port"],
        health_address=settings["health_address"],
        client=client,
    )
