"""Calls as values: how they are put together, changed and sent."""

from __future__ import annotations

from typing import Any

import pytest

from backwater_tornado.errors import InvalidOption
from backwater_tornado.tasks.current import enter_block, leave_block
from backwater_tornado.tasks.options import SendOptions
from backwater_tornado.tasks.signatures import Canvas, Chain, Group, Signature, chain, chord, clone, group, signature

A, B, C, D = (Signature(f"m.{name}") for name in "abcd")


class Kept(list[Any]):
    """An application that sends nothing."""

    def send(self, canvas: Any, /) -> str:
        self.append(canvas)
        return "sent"


@pytest.fixture
def sent() -> Any:
    app = Kept()
    enter_block(app)
    yield app
    leave_block()


# Putting together ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "wanted"),
    [
        (A | B, Chain((A, B))),
        (A | B | C, Chain((A, B, C))),
        (A | (B | C), Chain((A, B, C))),
        (A | group(B, C), Chain((A, Group((B, C))))),
        (group(A, B) | C, Chain((Group((A, B)), C))),
        (group(A, B) | group(C, D), Chain((Group((A, B)), Group((C, D))))),
        (group(A) | (B | C), Chain((Group((A,)), B, C))),
        (chain(A), Chain((A,))),
        (chain(A, B | C, [D]), Chain((A, B, C, D))),
        (chain(A, group(B | C), D), Chain((A, Group((Chain((B, C)),)), D))),
        (group(), Group(())),
        (group(A), Group((A,))),
        (group(A, B), Group((A, B))),
        (group([A, B]), Group((A, B))),
        (group(each for each in (A, B)), Group((A, B))),
        (group(A | B, group(C)), Group((Chain((A, B)), Group((C,))))),
        (chord([A, B], C), Chain((Group((A, B)), C))),
        (chord(group(A, B), C | D), Chain((Group((A, B)), C, D))),
        (chord((each for each in (A, B)), group(C, D)), Chain((Group((A, B)), Group((C, D))))),
        (chord(A, B), Chain((Group((A,)), B))),
    ],
)
def test_calls_are_put_together(made: Canvas, wanted: Canvas) -> None:
    assert made == wanted


def test_a_chain_of_nothing_is_refused() -> None:
    for make in (chain, lambda: Chain(())):
        with pytest.raises(InvalidOption, match="at least one call"):
            make()


@pytest.mark.parametrize("wrong", [5, "m.f", b"m.f", {"m": A}, None, print])
def test_what_is_no_call_is_refused(wrong: Any) -> None:
    for make in (chain, group):
        with pytest.raises(InvalidOption, match="a call is made by"):
            make(A, wrong)
    with pytest.raises(TypeError):
        A | wrong


def test_a_signature_by_name_has_arguments_and_options() -> None:
    given = {"x": 1}
    made = signature("m.sub.f", [1, 2], given, queue="q")
    given["x"] = 2
    assert made == Signature("m.sub.f", (1, 2), {"x": 1}, SendOptions(queue="q"))
    assert signature("m.f") == Signature("m.f")


@pytest.mark.parametrize("name", ["f", ".f", "m.", "", None, 5])
def test_a_task_is_named_with_its_module(name: Any) -> None:
    with pytest.raises(InvalidOption, match=r"a task is named as module\.name"):
        signature(name)


# Changing ------------------------------------------------------------------------------------------------------------


def test_a_clone_has_more_arguments_in_front_and_named_ones_over() -> None:
    one = signature("m.f", [3], {"x": 1, "y": 1}, queue="q", priority=1)
    made = one.clone([1, 2], {"x": 2}, priority=5)
    assert made == Signature("m.f", (1, 2, 3), {"x": 2, "y": 1}, SendOptions(queue="q", priority=5))
    assert one == Signature("m.f", (3,), {"x": 1, "y": 1}, SendOptions(queue="q", priority=1))
    assert one.clone() is one


def test_an_immutable_call_takes_options_and_no_arguments() -> None:
    fixed = Signature("m.f", (1,), immutable=True)
    made = fixed.clone([9], {"x": 1}, queue="q")
    assert (made.args, made.kwargs, made.options.queue, made.immutable) == ((1,), {}, "q", True)


def test_of_a_chain_the_first_takes_arguments_and_the_last_options() -> None:
    made = (A | B | C).clone([1], {"x": 2}, task_id="i", countdown=5)
    assert made == Chain(
        (
            Signature("m.a", (1,), {"x": 2}, SendOptions(countdown=5.0)),
            B,
            Signature("m.c", options=SendOptions(task_id="i")),
        )
    )


def test_a_chain_of_one_takes_both() -> None:
    made = chain(A).clone([1], task_id="i", eta=7)
    assert made == Chain((Signature("m.a", (1,), options=SendOptions(task_id="i", eta=7)),))


def test_of_a_group_each_takes_them() -> None:
    made = group(A, B | C).clone([1], queue="q")
    on_q = SendOptions(queue="q")
    assert made == Group(
        (Signature("m.a", (1,), options=on_q), Chain((Signature("m.b", (1,)), Signature("m.c", options=on_q))))
    )


def test_one_id_is_not_for_several() -> None:
    with pytest.raises(InvalidOption, match="task_id is for one call"):
        group(A, B).set(task_id="x")
    with pytest.raises(InvalidOption, match="task_id is for one call"):
        (A | group(B)).set(task_id="x")


def test_what_is_no_canvas_is_not_cloned() -> None:
    with pytest.raises(InvalidOption, match="cannot be sent"):
        clone(print, [1], None, {})  # type: ignore[type-var]


@pytest.mark.parametrize(("method", "option"), [("link", "link"), ("on_error", "link_error")])
def test_links_are_added_to_the_last_of_a_chain_and_to_each_of_a_group(method: str, option: str) -> None:
    linked = Signature("m.a", options=SendOptions(**{option: (C, D)}))  # type: ignore[arg-type]
    assert getattr(getattr(A, method)(C), method)(D) == linked
    assert getattr(B | A, method)(C, D) == Chain((B, linked))
    assert getattr(group(A, A), method)(C, D) == Group((linked, linked))


def test_set_is_a_copy_with_other_options() -> None:
    assert (A.set(queue="q").options.queue, A.options.queue) == ("q", None)
    with pytest.raises(InvalidOption, match="no option 'colour'"):
        A.set(colour="red")


# Sending -------------------------------------------------------------------------------------------------------------


def test_a_canvas_is_sent_with_more_arguments(sent: Kept) -> None:
    assert A.delay(1, x=2) == "sent"
    assert A.apply_async([1], {"x": 2}, queue="q") == "sent"
    assert group(A, B).delay(1) == "sent"
    assert sent == [
        Signature("m.a", (1,), {"x": 2}),
        Signature("m.a", (1,), {"x": 2}, SendOptions(queue="q")),
        Group((Signature("m.a", (1,)), Signature("m.b", (1,)))),
    ]


def test_chains_groups_and_chords_are_sent_when_called_and_a_signature_is_not(sent: Kept) -> None:
    (A | B)(1)
    group(A, B)()
    chord([A, B])(C | D, queue="q")
    assert sent == [
        Chain((Signature("m.a", (1,)), B)),
        Group((A, B)),
        Chain((Group((A, B)), C, Signature("m.d", options=SendOptions(queue="q")))),
    ]
    with pytest.raises(TypeError):
        A(1)  # type: ignore[operator]
