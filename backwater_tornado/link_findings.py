"""What the measures of a link mean for those who call and work over it: findings of the doctor, as in `findings`.

Rule: pure; `doctor` measures.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from .findings import Finding, Verdict

#: Links of a longer round trip are slow, for whoever calls one by one; seconds.
SLOW: Final = 0.02
#: A worker of so many tasks in a second is taken for an example.
TASKS: Final = 1000


@dataclass(frozen=True)
class Link:
    """What was measured; spans are seconds, rates bytes per second, None for what could not be measured."""

    round_trip: float
    connecting: float
    #: 0 without TLS.
    handshake: float = 0.0
    up: float | None = None
    down: float | None = None
    #: Proxies on the way, as they name themselves.
    via: str = ""


@dataclass(frozen=True)
class Company:
    """Bytes both ways, heads included, of one call on its own and of so many in one request."""

    alone: int
    together: int
    calls: int


@dataclass(frozen=True)
class Habits:
    """What a worker does: how long its polls wait and it bears silence, seconds, and how much it holds at most."""

    wait: float
    silence: float
    most: int


def judge_link(link: Link) -> Finding:
    """How long the way is, and how wide."""
    begin = f"connecting {_ms(link.connecting)}" + (f", TLS {_ms(link.handshake)}" if link.handshake else "")
    rates = [f"{_size(rate)}/s {way}" for rate, way in ((link.up, "up"), (link.down, "down")) if rate is not None]
    width = f"; at least {' and '.join(rates)}" if rates else ""
    message = f"{_ms(link.round_trip)} round trip ({begin}){width}"
    if link.round_trip < SLOW:
        return Finding("link", Verdict.OK, message)
    each = f"whoever waits for each call makes {1 / link.round_trip:.0f} a second"
    return Finding("link", Verdict.OK, message, f"{each}: gather, send_many and an outbox take the link out of the way")


def judge_company(company: Company) -> Finding:
    """What a small call costs."""
    one = company.together / company.calls
    message = f"a call of a few arguments is {_size(company.alone)} on its own, and {_size(one)} among {company.calls}"
    return Finding("batches", Verdict.OK, message)


def judge_habits(link: Link, habits: Habits) -> Iterator[Finding]:
    """What a worker will do over this link."""
    # A delivery is asked for and travels; how it ended travels and is accepted.
    busy = 2 * link.round_trip
    message = (
        f"polls wait {habits.wait:g} s, and silence of {habits.silence:g} s is a dead link; "
        f"{TASKS} tasks a second need {busy * TASKS:.0f} on the way, of {habits.most} at most"
    )
    most = habits.most / max(busy, 1e-6)
    if most < TASKS:
        advice = f"one worker does no more than {most:.0f} short tasks a second over this link: start several"
        yield Finding("worker", Verdict.WARN, message, advice)
    else:
        yield Finding("worker", Verdict.OK, message)
    if link.via:
        advice = "one that ends polls sooner than they wait is noticed by clients, and asked for shorter ones"
        yield Finding("proxies", Verdict.OK, f"on the way is {link.via}", advice)


def _ms(seconds: float) -> str:
    return f"{max(seconds, 0.0) * 1000:.1f} ms"


def _size(size: float) -> str:
    if size < 1000:
        return f"{size:.0f} bytes"
    return f"{size / 1000:.3g} kB" if size < 1e6 else f"{size / 1e6:.3g} MB"
