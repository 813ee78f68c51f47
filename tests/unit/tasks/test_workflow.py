"""What the broker is told to make of a canvas; that any canvas ends well or ill is shown in tests/properties."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from backwater_tornado.broker.values import Join, Publication
from backwater_tornado.errors import InvalidOption, Unserializable
from backwater_tornado.protocol.codec import JSON
from backwater_tornado.tasks.messages import read_arguments, read_custom, read_headers
from backwater_tornado.tasks.signatures import Canvas, Signature, chain, group, signature
from backwater_tornado.tasks.workflow import JOIN_EXPIRES, MAX_NESTING, Context, Order, plan_canvas

NOW = 1_000.0


def plan(canvas: Canvas, **context: Any) -> Order:
    numbers = count(1)
    return plan_canvas(canvas, Context(now=NOW, new_id=lambda: f"id{next(numbers)}", **context))


def call(name: str, **options: Any) -> Signature:
    return signature(f"m.{name}", **options)


def names(publications: tuple[Publication, ...] | None) -> list[str]:
    return [read_headers(each.message).task.removeprefix("m.") for each in publications or ()]


def the_join(order: Order) -> Join:
    (join,) = order.joins
    return join


def headers_of(publication: Publication) -> Any:
    return read_headers(publication.message)


def test_a_call_is_one_message_and_nothing_else() -> None:
    order = plan(signature("m.f", [1, 2], {"x": 3}))
    (publication,) = order.publications
    assert (order.joins, order.result, order.ids) == ((), "id1", ("id1",))
    assert (publication.routing_key, publication.delay, publication.lifetime) == ("default", 0.0, None)
    assert publication.message.keep_result == 86_400
    assert read_arguments(publication.message) == ([1, 2], {"x": 3})
    assert headers_of(publication).task == "m.f"


def test_every_option_of_sending_arrives() -> None:
    said = {"queue": "q", "priority": 7, "countdown": 5, "expires": 60, "task_id": "own", "headers": {"a": 1}}
    limits = {"time_limit": 9, "soft_time_limit": 8, "max_retries": None, "result_expires": 50}
    (publication,) = plan(call("f", **said, **limits, unique="u", unique_for=30, serializer="json")).publications
    message, headers = publication.message, headers_of(publication)
    assert (publication.routing_key, publication.delay, publication.lifetime) == ("q", 5.0, 60.0)
    assert (message.id, message.priority, message.unique, message.unique_until) == ("own", 7, "u", NOW + 30)
    assert (message.content_type, message.body) == (JSON.media_type, b"[[],{}]")
    assert (message.keep_result, read_custom(headers)) == (50.0, {"a": 1})
    assert (headers.time_limit, headers.soft_time_limit, headers.max_retries) == (9.0, 8.0, None)


def test_moments_are_the_messages_own() -> None:
    (publication,) = plan(call("f", eta=NOW + 5, expires_at=NOW + 60)).publications
    assert (publication.message.not_before, publication.message.expires) == (NOW + 5, NOW + 60)
    assert (publication.delay, publication.lifetime) == (0.0, None)


def test_what_a_call_does_not_say_the_context_does() -> None:
    (publication,) = plan(call("f"), queue="other", result_expires=7.0, root="r", parent="p").publications
    headers = headers_of(publication)
    assert (publication.routing_key, publication.message.keep_result) == ("other", 7.0)
    assert (headers.root, headers.parent) == ("r", "p")


def test_an_ignored_result_is_kept_only_if_others_wait_for_it() -> None:
    quiet = call("f", ignore_result=True)
    assert plan(quiet).publications[0].message.keep_result is None
    assert plan(quiet | call("g")).publications[0].message.keep_result == 86_400


def test_what_others_wait_for_is_kept_no_shorter_than_is_usual() -> None:
    brief, long = call("f", result_expires=1), call("f", result_expires=10**6)
    assert plan(brief).publications[0].message.keep_result == 1
    assert plan(brief | call("g")).publications[0].message.keep_result == 86_400
    assert plan(long | call("g")).publications[0].message.keep_result == 10**6


def test_a_chain_begins_with_its_first_call_and_the_rest_waits_in_the_broker() -> None:
    order = plan(call("a") | call("b"))
    join = the_join(order)
    assert names(order.publications) == ["a"]
    assert order.publications[0].message.joins == (join.id,)
    assert (join.size, names(join.then), names(join.otherwise), join.expires) == (1, ["b"], ["b"], NOW + JOIN_EXPIRES)
    assert headers_of(join.then[0]).inputs == order.ids[0]
    assert (order.result, join.then[0].message.joins) == (order.ids[1], ())


def test_what_follows_a_failure_is_the_same_message_marked_and_sent_at_once_whoever_holds_its_key() -> None:
    order = plan(call("a") | call("b", countdown=60, expires=1, unique="u", unique_for=9, queue="q"))
    (aborted,) = the_join(order).otherwise or ()
    message = aborted.message
    assert (message.id, aborted.routing_key, headers_of(aborted).upstream_failed) == (order.result, "q", True)
    assert headers_of(aborted).inputs == order.ids[0]
    assert (aborted.delay, aborted.lifetime, message.not_before, message.expires) == (0.0, None, None, None)
    assert (message.unique, message.unique_until, message.body) == (None, None, b"")


def test_an_immutable_call_waits_and_takes_nothing() -> None:
    order = plan(call("a") | Signature("m.b", immutable=True))
    join = the_join(order)
    assert headers_of(join.then[0]).inputs is None
    assert headers_of((join.otherwise or ())[0]).inputs == order.ids[0]  # it is told what has failed all the same


def test_a_group_is_sent_at_once_and_its_result_has_its_shape() -> None:
    order = plan(group(call("a"), group(call("b"), group()), call("c")))
    assert names(order.publications) == ["a", "b", "c"]
    assert (order.joins, order.result) == ((), ["id1", ["id2", []], "id3"])


def test_what_follows_a_group_waits_for_all_of_its_last_calls() -> None:
    order = plan(group(call("a") | call("b"), call("c")) | call("d"))
    first, second = order.joins
    a, b, c, d = order.ids[0], order.ids[1], order.ids[2], order.ids[3]
    assert (names(order.publications), names(first.then), names(second.then)) == (["a", "c"], ["b"], ["d"])
    assert (second.size, headers_of(second.then[0]).inputs, order.result) == (2, [b, c], d)
    assert (first.then[0].message.joins, order.publications[1].message.joins) == ((second.id,), (second.id,))
    assert headers_of(first.then[0]).inputs == a


def test_an_empty_group_waits_for_what_is_before_it_and_gives_an_empty_list() -> None:
    order = plan(chain(call("a"), group(), call("b")))
    join = the_join(order)
    assert (names(order.publications), join.size, names(join.then)) == (["a"], 1, ["b"])
    assert headers_of(join.then[0]).inputs == []


def test_what_an_empty_group_ends_with_is_counted() -> None:
    order = plan(chain(group(chain(call("a"), group()), call("b")), call("c")))
    join = the_join(order)
    assert (join.size, headers_of(join.then[0]).inputs) == (2, [[], order.ids[1]])
    assert [each.message.joins for each in order.publications] == [(join.id,), (join.id,)]


def test_a_chain_of_empty_groups_is_nothing_to_wait_for() -> None:
    order = plan(chain(group(), group(chain(group())), call("a")))
    assert (names(order.publications), order.joins, headers_of(order.publications[0]).inputs) == (["a"], (), [[]])
    nothing = plan(chain(group(), group()))
    assert (nothing.publications, nothing.joins, nothing.result) == ((), (), [])


def test_links_follow_the_call_with_its_result_and_error_links_with_its_id() -> None:
    order = plan(call("a").link(call("well"), call("too")).on_error(call("badly")))
    join = the_join(order)
    own = order.ids[0]
    assert (order.result, order.publications[0].message.joins, join.size) == (own, (join.id,), 1)
    assert (names(join.then), names(join.otherwise)) == (["well", "too"], ["badly"])
    assert [headers_of(each).inputs for each in (*join.then, *(join.otherwise or ()))] == [own, own, own]
    assert [headers_of(each).inputs_by_id for each in (join.then[0], (join.otherwise or ())[0])] == [False, True]


def test_links_of_a_last_call_follow_it_and_what_waits_for_it_still_does() -> None:
    order = plan(chain(call("a").link(call("linked").link(call("further"))), call("b")))
    assert [names(join.then) for join in order.joins] == [["further"], ["linked"], ["b"]]
    assert len(order.publications[0].message.joins) == 2


def test_all_know_what_the_workflow_began_with() -> None:
    order = plan(chain(call("a").link(call("l")), group(call("b"), call("c"))))
    then = [each for join in order.joins for each in (*join.then, *(join.otherwise or ()))]
    assert {headers_of(each).root for each in (*order.publications, *then)} == {order.ids[0]}
    order = plan(call("a") | call("b"), root="r")
    assert {headers_of(each).root for each in (*order.publications, *the_join(order).then)} == {"r"}


def test_an_order_knows_the_steps_before_the_last_of_a_chain() -> None:
    order = plan(chain(call("a"), group(call("b"), call("c")), group(), call("d")))
    a, b, c, _ = order.ids
    assert order.before == (a, [b, c], [])
    assert plan(group(call("a") | call("b"))).before == plan(call("a")).before == ()


def test_an_order_knows_whether_its_result_is_kept() -> None:
    quiet = call("q", ignore_result=True)
    assert [plan(each).is_kept for each in (quiet, group(call("a"), quiet), call("a") | quiet)] == [False] * 3
    assert [plan(each).is_kept for each in (call("a"), group(), quiet | call("a"), quiet.link(call("a")))] == [True] * 4


def test_headers_of_like_calls_are_written_once_and_of_others_anew() -> None:
    numbers = count()
    context = Context(now=NOW, new_id=lambda: f"id{next(numbers)}")
    one = call("f", headers={"a": 1})
    given = [one, signature("m.f", [1], headers={"a": 2}), one, Signature("m.g", options=one.options), one | call("f")]
    first, other, again, named, rooted = (plan_canvas(each, context).publications[0].message.headers for each in given)
    assert first is again
    assert len({first, other, named, rooted}) == 4


def test_a_key_that_is_not_there_is_not_held() -> None:
    with pytest.raises(InvalidOption, match=r"unique_for of m\.f .* give unique, too"):
        plan(call("f", unique_for=60))
    assert plan(call("f", unique_for=60).set(unique="u")).publications[0].message.unique == "u"


def test_two_calls_with_one_id_would_wait_for_ever_and_are_refused() -> None:
    with pytest.raises(InvalidOption, match="two calls have the same task_id 'x'"):
        plan(group(call("a", task_id="x"), call("b", task_id="x")))


def test_nesting_is_bounded() -> None:
    def nested(depth: int) -> Canvas:
        return call("a") if depth == 1 else group(nested(depth - 1))

    assert len(plan(nested(MAX_NESTING)).publications) == 1
    plan(group(nested(MAX_NESTING - 1), nested(MAX_NESTING - 1)))  # side by side is not deeper
    with pytest.raises(InvalidOption, match=f"in more than {MAX_NESTING} levels"):
        plan(nested(MAX_NESTING + 1))


@pytest.mark.parametrize("wrong", [print, 5, "m.f", None])
def test_what_is_no_canvas_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidOption, match=r"cannot be sent; a call is made by \.s\(…\)"):
        plan(wrong)


def test_what_has_no_form_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(Unserializable, match=r"the \[args, kwargs\] of m\.b: object has no form .* at \[0\]\[0\]"):
        plan(call("a") | signature("m.b", [object()]))
    with pytest.raises(Unserializable, match="the headers of m.a: object has no form"):
        plan(call("a", headers={"x": object()}))
