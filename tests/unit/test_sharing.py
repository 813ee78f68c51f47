"""Threads that send at the same moment send together."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence

import pytest

from backwater_tornado.sharing import Sharing

PATIENCE = 20


class Wire:
    """Keeps what is sent; holds the first request until it is let go."""

    def __init__(self) -> None:
        self.requests: list[list[str]] = []
        self.under_way = threading.Event()
        self.let_go = threading.Event()
        self.refused: set[str] = set()

    def send(self, items: Sequence[str]) -> None:
        self.requests.append(list(items))
        if len(self.requests) == 1:
            self.under_way.set()
            assert self.let_go.wait(PATIENCE)
        for item in items:
            if item in self.refused:
                raise ValueError(item)


class Senders:
    """Threads, and how each of them ended."""

    def __init__(self, sharing: Sharing[str]) -> None:
        self.sharing = sharing
        self.ends: dict[str, str] = {}
        self.threads: list[threading.Thread] = []

    def start(self, *items: str) -> None:
        self.threads.append(threading.Thread(target=self._send, args=(items,), daemon=True))
        self.threads[-1].start()

    def _send(self, items: Sequence[str]) -> None:
        try:
            self.sharing.send(items)
            self.ends[items[0]] = "sent"
        except BaseException as error:
            self.ends[items[0]] = f"{type(error).__name__}: {error}"

    def join(self) -> dict[str, str]:
        for thread in self.threads:
            thread.join(PATIENCE)
        return self.ends


@pytest.fixture
def wire() -> Wire:
    return Wire()


def waiting(sharing: Sharing[str], count: int) -> None:
    """Until so many wait behind the request under way."""
    pause = threading.Event()
    for _ in range(PATIENCE * 100):
        if len(sharing._waiting) == count:
            return
        pause.wait(0.01)
    raise AssertionError("they do not wait")


def crowd(wire: Wire, *others: Sequence[str], most: int = 100) -> Senders:
    """One sends "a"; the others come while that is under way, one after the other."""
    sharing = Sharing(wire.send, most)
    senders = Senders(sharing)
    senders.start("a")
    assert wire.under_way.wait(PATIENCE)
    for place, items in enumerate(others):
        senders.start(*items)
        waiting(sharing, place + 1)
    wire.let_go.set()
    return senders


def test_one_alone_sends_at_once(wire: Wire) -> None:
    wire.let_go.set()
    sharing = Sharing(wire.send, 100)
    sharing.send(["a", "b"])
    sharing.send(["c"])
    assert wire.requests == [["a", "b"], ["c"]]


def test_who_comes_while_a_request_is_under_way_shares_the_next(wire: Wire) -> None:
    ends = crowd(wire, "b", "cd", "e").join()
    assert wire.requests == [["a"], ["b", "c", "d", "e"]]
    assert ends == {"a": "sent", "b": "sent", "c": "sent", "e": "sent"}


def test_no_more_go_together_than_may(wire: Wire) -> None:
    ends = crowd(wire, "b", "c", "def", "g", most=3).join()
    assert wire.requests == [["a"], ["b", "c"], ["d", "e", "f"], ["g"]]
    assert set(ends.values()) == {"sent"}


def test_when_some_are_refused_each_gets_its_own_answer(wire: Wire) -> None:
    wire.refused = {"c"}
    ends = crowd(wire, "b", "c", "d").join()
    assert ends == {"a": "sent", "b": "sent", "c": "ValueError: c", "d": "sent"}
    assert wire.requests[:2] == [["a"], ["b", "c", "d"]]
    assert sorted(wire.requests[2:]) == [["b"], ["c"], ["d"]]


def test_one_that_is_refused_alone_is_not_sent_again(wire: Wire) -> None:
    wire.refused = {"a"}
    ends = crowd(wire).join()
    assert (ends, wire.requests) == ({"a": "ValueError: a"}, [["a"]])


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_who_is_interrupted_leaves_nobody_waiting(wire: Wire, error: type[BaseException]) -> None:
    def send(items: Sequence[str]) -> None:
        wire.send(items)
        if items[0] == "b" and len(items) > 1:
            raise error

    sharing: Sharing[str] = Sharing(send, 100)
    senders = Senders(sharing)
    senders.start("a")
    assert wire.under_way.wait(PATIENCE)
    for place, item in enumerate("bcd"):
        senders.start(item)
        waiting(sharing, place + 1)
    wire.let_go.set()
    assert senders.join() == {"a": "sent", "b": f"{error.__name__}: ", "c": "sent", "d": "sent"}
    sharing.send(["e"])
    assert wire.requests[-1] == ["e"]


@pytest.mark.parametrize("chosen", [False, True])
def test_who_is_interrupted_while_waiting_is_not_counted_on(wire: Wire, chosen: bool) -> None:
    sharing = Sharing(wire.send, 100)

    class Interrupted(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            if chosen:  # it is to lead by now
                wire.let_go.set()
                assert super().wait(PATIENCE)
            raise KeyboardInterrupt

    senders = Senders(sharing)
    senders.start("a")
    assert wire.under_way.wait(PATIENCE)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("backwater_tornado.sharing.threading.Event", Interrupted)
        sharing.send(["b"])
    wire.let_go.set()
    senders.join()
    sharing.send(["c"])
    assert wire.requests == [["a"], ["c"]]


def test_who_waits_for_too_long_sends_for_all_that_wait(wire: Wire) -> None:
    sharing = Sharing(wire.send, 100, patience=0.01)
    slow, others = Senders(sharing), Senders(sharing)
    slow.start("a")
    assert wire.under_way.wait(PATIENCE)
    others.start("b")
    others.start("c")
    assert others.join() == {"b": "sent", "c": "sent"}
    wire.let_go.set()
    assert slow.join() == {"a": "sent"}
    assert sorted(item for items in wire.requests for item in items) == ["a", "b", "c"]


def test_who_was_taken_along_by_one_that_takes_too_long_sends_alone(wire: Wire) -> None:
    def send(items: Sequence[str]) -> None:
        if items[0] == "b":
            others.start("c")
            waiting(sharing, 1)
            taken = sharing._take(1)  # as if it had come a moment before
            assert taken[0].items == ("c",)
            assert others.join() == {"c": "sent"}

    sharing = Sharing(send, 100, patience=0.5)
    others = Senders(sharing)
    sharing.send(["b"])


def test_one_that_was_interrupted_before_it_could_send_holds_nobody_up(wire: Wire) -> None:
    class Interrupting(list[str]):
        def __len__(self) -> int:
            raise KeyboardInterrupt

    wire.let_go.set()
    sharing = Sharing(wire.send, 100, patience=PATIENCE * 2)
    with pytest.raises(KeyboardInterrupt):
        sharing.send(Interrupting("a"))
    after = Senders(sharing)
    after.start("b")
    assert after.join() == {"b": "sent"}


def test_a_child_does_not_wait_for_the_threads_of_its_parent(wire: Wire) -> None:
    sharing = Sharing(wire.send, 100)
    senders = Senders(sharing)
    senders.start("a")
    assert wire.under_way.wait(PATIENCE)
    child = in_a_child(lambda: sharing.send(["child"]))
    wire.let_go.set()
    assert senders.join() == {"a": "sent"}
    assert child == 0


def in_a_child(work: Callable[[], object]) -> int:
    """Its exit code; 0 if it did its work in time."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            threading.Timer(PATIENCE, os._exit, [2]).start()
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
