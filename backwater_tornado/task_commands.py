"""The commands that send tasks and ask for their results.

Rule: thin, as `cli`; what they do is the application's (`app`).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click

from .app import App
from .errors import BackwaterError, DeadlineExceeded, InvalidOption
from .flags import SETTINGS_HELP, read_arguments, with_settings
from .keyfiles import read_keys
from .options import ClientOptions, Limits
from .results import AsyncResult
from .settings import Settings, load
from .tasks.flows import MAX_MESSAGES
from .tasks.signatures import Signature, signature
from .tasks.states import State
from .terminal import NO_ANSWER, OK, complain, complain_of, show_value

#: A command that waits says where to look if a task has not begun by then, seconds.
HINT_AFTER = 3.0


def connect(settings: Settings, **more: Any) -> App:
    """The application of a command, which is that of `--broker`; with `more` options."""
    options = settings.given(ClientOptions, Limits)
    if "timeout" in options:  # of one call; waiting for a result is many
        options["send_timeout"] = options.pop("timeout")
    return App(settings.broker_url(), read_keys(settings["secret_file"]), **options, **more)


@click.command("send", epilog=SETTINGS_HELP, context_settings={"ignore_unknown_options": True})
@click.argument("task", metavar="MODULE.TASK")
@click.argument("args", nargs=-1, metavar="[ARG]...")
@click.option(
    "--kw", "keywords", metavar="NAME=VALUE", multiple=True, help="A keyword argument; NAME=VALUE alone is one, too."
)
@click.option("--queue", metavar="NAME", help="The queue; `default` by default.")
@click.option("--id", "task_id", metavar="ID", help="Its id; a second task with it is the first one's repetition.")
@click.option("--countdown", type=float, metavar="SECONDS", help="Not before so many seconds from now.")
@click.option("--expires", type=float, metavar="SECONDS", help="Not begun later than that.")
@click.option("--priority", type=int, help="0 to 255, higher is sooner.")
@click.option("--count", type=click.IntRange(1), default=1, help="Send it so many times.")
@click.option("--lines", is_flag=True, help="Send one task for each line of the input, a JSON list of arguments.")
@click.option("--wait", "wait", is_flag=True, help="Wait for the result and print it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, a line for each task.")
@with_settings("send")
def send_command(task: str, config: str | None, **flags: Any) -> int:
    """Send a task to a broker and print its id.

    An ARG is JSON if it can be read as JSON, else a text; NAME=VALUE is a keyword argument.

    \b
      backwater send tasks.add 1 2 --broker https://broker.example:8443 --secret-file site.key --wait
      backwater send tasks.report day=2026-07-01 --queue reports --countdown 60
      backwater send tasks.noop --count 100000
      jq -c '[.id]' orders.json | backwater send shop.ship --lines
    """  # noqa: D301 - click reads the escape
    words, keywords = flags.pop("args"), flags.pop("keywords")
    names = ("queue", "task_id", "countdown", "expires", "priority")
    sending = {name: value for name in names if (value := flags.pop(name)) is not None}
    count, lines, wait, as_json = (flags.pop(name) for name in ("count", "lines", "wait", "as_json"))
    settings = load("send", flags, config)
    args, kwargs = read_arguments(words, keywords)
    if lines and (args or count > 1):
        raise InvalidOption("--lines reads the arguments from the input: give no ARG and no --count")
    calls: Iterable[Signature] = (signature(task, args, kwargs, **sending) for _ in range(count))
    if lines:
        calls = (signature(task, _read_line(line), kwargs, **sending) for line in sys.stdin if line.strip())
    with connect(settings) as app:
        return _send(app, calls, None if lines else count, wait=wait, as_json=as_json)


def _send(app: App, calls: Iterable[Signature], count: int | None, *, wait: bool, as_json: bool) -> int:
    code = OK
    with _progress(count) as advance:
        for portion in _portions(calls):
            results = app.send_many(portion)
            advance(len(results))
            for result in results:
                if wait:
                    code = max(code, _show(result, None, alone=count == 1, as_json=as_json))
                else:
                    click.echo(json.dumps({"id": result.id}) if as_json else result.id)
    return code


def _portions(calls: Iterable[Signature]) -> Iterator[list[Signature]]:
    portion: list[Signature] = []
    for call in calls:
        portion.append(call)
        if len(portion) >= MAX_MESSAGES:
            yield portion
            portion = []
    if portion:
        yield portion


@contextmanager
def _progress(count: int | None) -> Iterator[Any]:
    """A bar on a terminal where many are sent and the ids go elsewhere; nothing else."""
    if not sys.stderr.isatty() or sys.stdout.isatty() or (count or MAX_MESSAGES) < MAX_MESSAGES:
        yield lambda _: None
        return
    from rich.console import Console  # noqa: PLC0415 - 60 ms that a pipe need not wait for
    from rich.progress import Progress  # noqa: PLC0415

    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task("sending", total=count)
        yield lambda number: progress.advance(bar, number)


def _read_line(line: str) -> list[Any]:
    try:
        args = json.loads(line)
    except ValueError:
        args = None
    if not isinstance(args, list):
        raise InvalidOption(f"a line of the input is a JSON list of arguments, not {line.strip()[:80]!r}")
    return args


@click.command("result", epilog=SETTINGS_HELP)
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option("--wait", is_flag=True, help="Wait until it has ended.")
@click.option("--for", "seconds", type=float, metavar="SECONDS", help="Wait so long at most.")
@click.option("--forget", is_flag=True, help="Drop it afterwards.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, a line for each task.")
@with_settings("result")
def result_command(ids: tuple[str, ...], config: str | None, **flags: Any) -> int:
    """Print what is known of tasks.

    That is the state of one that goes on, the result or the error of one that has ended.

    \b
      backwater result 7f3c… --broker https://broker.example:8443 --secret-file site.key
      backwater result 7f3c… --wait --for 60 --json
    """  # noqa: D301 - click reads the escape
    wait, seconds, forget, as_json = (flags.pop(name) for name in ("wait", "seconds", "forget", "as_json"))
    settings = load("result", flags, config)
    until = None if seconds is None else time.monotonic() + seconds
    code = OK
    with connect(settings) as app:
        for each in map(app.result, ids):
            if wait or seconds is not None:
                left = None if until is None else max(0.0, until - time.monotonic())
                code = max(code, _show(each, left, alone=len(ids) == 1, as_json=as_json))
            else:
                code = max(code, _show_known(each, alone=len(ids) == 1, as_json=as_json))
            if forget:
                each.forget()
    return code


def _show(result: AsyncResult[Any], timeout: float | None, *, alone: bool, as_json: bool) -> int:
    """Wait for a task and print what came of it; gives the exit code."""
    try:
        _wait(result, timeout, quiet=as_json or not alone)
    except DeadlineExceeded as error:
        complain(f"{result.id}: {error}; give it more time with --for", code=error.code, as_json=as_json)
        return NO_ANSWER
    return _show_known(result, alone=alone, as_json=as_json)


def _wait(result: AsyncResult[Any], timeout: float | None, *, quiet: bool) -> None:
    """Wait; for one that nobody has begun after a while, say where to look."""
    if not quiet and (timeout is None or timeout > HINT_AFTER):
        with suppress(DeadlineExceeded):
            result.get(HINT_AFTER, propagate=False)
            return
        if result.state is State.PENDING:
            hint = "`backwater queues` tells whether a worker is there, `backwater dead list` what no worker knew"
            complain(f"still waiting for {result.id}; {hint}")
        timeout = None if timeout is None else timeout - HINT_AFTER
    result.get(timeout, propagate=False)


def _show_known(result: AsyncResult[Any], *, alone: bool, as_json: bool) -> int:
    state, value = result.look()
    error = value if isinstance(value, BackwaterError) else None
    if as_json:
        told = {"error": str(error), "code": getattr(error, "code", "")} if error else {"value": value}
        show_value({"id": result.id, "state": state.value, **told}, as_json=True)
    elif error is None and alone and state.value == "SUCCESS":
        show_value(value, as_json=False)
    elif error is None:
        click.echo(f"{result.id}  {state.value}" + ("" if value is None else f"  {value!r}"))
    if error is None:
        return OK
    return complain_of(error, as_json=False) if not as_json else 1
