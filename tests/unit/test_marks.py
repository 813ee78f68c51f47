from __future__ import annotations

import functools
import pickle
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from backwater_tornado.errors import InvalidExposure, InvalidOption
from backwater_tornado.marks import MARK, ExposeOptions, check_callable, expose, is_async, is_generator, mark_of


@expose
def bare(x: int) -> int:
    return x + 1


def options_of(function: object) -> ExposeOptions:
    mark = mark_of(function)
    assert mark is not None
    return mark.options


def test_a_marked_function_stays_the_same_object() -> None:
    def function() -> int:
        return 1

    assert expose(function) is function
    assert expose(name="other")(lambda: 1)() == 1


def test_a_marked_function_can_be_called_and_pickled() -> None:
    assert bare(1) == 2
    assert pickle.loads(pickle.dumps(bare)) is bare


def test_a_mark_tells_its_options_its_module_and_its_function() -> None:
    mark = mark_of(bare)
    assert mark is not None
    assert mark.options == ExposeOptions()
    assert mark.module == __name__
    assert mark.function is bare


def test_options_are_kept() -> None:
    @expose(name="plus", idempotent=True, max_concurrency=3, time_limit=2.5, queue="slow", max_retries=5, bind=True)
    def add() -> None: ...

    expected = ExposeOptions(
        name="plus",
        idempotent=True,
        max_concurrency=3,
        time_limit=2.5,
        queue="slow",
        task={"max_retries": 5, "bind": True},
    )
    assert options_of(add) == expected


def test_options_may_come_with_the_function() -> None:
    assert options_of(expose(lambda: 1, queue="q")).queue == "q"


def test_the_options_of_tasks_cannot_be_changed_afterwards() -> None:
    given = {"priority": 3}
    options = ExposeOptions(task=given)
    given["priority"] = 4
    assert options.task == {"priority": 3}
    with pytest.raises(TypeError):
        options.task["priority"] = 5  # type: ignore[index]


def test_an_unknown_option_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(InvalidOption, match="there is no option 'max_retrys'; did you mean 'max_retries'?"):
        expose(max_retrys=3)  # type: ignore[call-overload]


def test_an_option_like_no_other_is_refused_without_a_guess() -> None:
    with pytest.raises(InvalidOption) as caught:
        expose(zzz=3)  # type: ignore[call-overload]
    assert str(caught.value) == "there is no option 'zzz'"


GOOD: list[tuple[str, Any]] = [
    ("name", None),
    ("max_concurrency", None),
    ("time_limit", 1),
    ("queue", None),
    ("max_retries", 0),
    ("max_retries", None),
    ("autoretry_for", (OSError, ValueError)),
    ("autoretry_for", [OSError]),
    ("dont_autoretry_for", (OSError,)),
    ("retry_backoff", True),
    ("retry_backoff", 2),
    ("retry_backoff_max", 0),
    ("retry_backoff_max", 3600.0),
    ("retry_jitter", False),
    ("retry_delay", 0),
    ("soft_time_limit", 0.5),
    ("acks_late", True),
    ("ignore_result", True),
    ("track_started", True),
    ("result_expires", None),
    ("priority", 0),
    ("priority", 255),
    ("rate_limit", "100/m"),
    ("rate_limit", "0.5/s"),
    ("rate_limit", 10),
    ("rate_limit", None),
    ("expires", 60),
    ("bind", False),
    ("serializer", "json"),
]

BAD: list[tuple[str, Any]] = [
    ("name", ""),
    ("name", "a\nb"),
    ("name", "a" * 256),
    ("name", 3),
    ("idempotent", 1),
    ("idempotent", None),
    ("max_concurrency", 0),
    ("max_concurrency", True),
    ("max_concurrency", 1.5),
    ("time_limit", 0),
    ("time_limit", -1),
    ("time_limit", float("nan")),
    ("time_limit", float("inf")),
    ("time_limit", True),
    ("time_limit", "60"),
    ("queue", ""),
    ("queue", 1),
    ("max_retries", -1),
    ("max_retries", True),
    ("autoretry_for", OSError),
    ("autoretry_for", ("OSError",)),
    ("autoretry_for", (int,)),
    ("dont_autoretry_for", OSError),
    ("retry_backoff", -1),
    ("retry_backoff", "yes"),
    ("retry_backoff_max", -1),
    ("retry_backoff_max", None),
    ("retry_backoff_max", float("inf")),
    ("retry_jitter", 1),
    ("retry_delay", -1),
    ("retry_delay", None),
    ("soft_time_limit", 0),
    ("acks_late", "late"),
    ("ignore_result", None),
    ("track_started", 1),
    ("result_expires", -5),
    ("priority", -1),
    ("priority", 256),
    ("priority", None),
    ("rate_limit", "100/d"),
    ("rate_limit", "fast"),
    ("rate_limit", -1),
    ("rate_limit", True),
    ("expires", 0),
    ("bind", None),
    ("serializer", "pickle"),
    ("serializer", None),
]


@pytest.mark.parametrize(("option", "value"), GOOD)
def test_a_right_option_is_taken(option: str, value: Any) -> None:
    options = options_of(expose(**{option: value})(lambda: 1))  # type: ignore[call-overload]
    assert (getattr(options, option) if hasattr(options, option) else options.task[option]) == value


@pytest.mark.parametrize(("option", "value"), BAD)
def test_a_wrong_option_is_refused_by_name(option: str, value: Any) -> None:
    with pytest.raises(InvalidOption, match=f"the option '{option}' should be .*, not "):
        expose(**{option: value})  # type: ignore[call-overload]


class Thing:
    def method(self) -> int:
        return 1

    @expose
    @staticmethod
    def static() -> int:
        return 2

    @staticmethod
    @expose
    def static_inside() -> int:
        return 2

    @expose
    @classmethod
    def of_class(cls) -> int:
        return 3

    @classmethod
    @expose
    def of_class_inside(cls) -> int:
        return 3

    def __call__(self) -> int:
        return 4


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


class GeneratorObject:
    def __call__(self) -> Iterator[int]:
        yield 1


@pytest.mark.parametrize("name", ["static", "static_inside", "of_class", "of_class_inside"])
def test_static_and_class_methods_may_be_marked_on_either_side(name: str) -> None:
    assert options_of(vars(Thing)[name]) == ExposeOptions()


def test_a_bound_method_has_the_mark_of_its_function() -> None:
    class Marked:
        @expose(queue="q")
        def method(self) -> None: ...

    assert options_of(Marked().method).queue == "q"


def test_what_is_not_marked_has_no_mark() -> None:
    class Marked:
        __backwater__ = mark_of(bare)

    lookalike = Thing()
    setattr(lookalike, MARK, "no mark")
    for value in (len, 3, None, Thing, Thing().method, staticmethod(len), Marked, lookalike):
        assert mark_of(value) is None


def test_looking_for_a_mark_runs_no_code_of_the_value() -> None:
    class Trap:
        def __getattr__(self, name: str) -> object:
            raise AssertionError(name)

        @property
        def __backwater__(self) -> object:
            raise AssertionError

    assert mark_of(Trap()) is None


@pytest.mark.parametrize("value", [3, None.__class__, Thing, pytest, "text", property(lambda _: 1)])
def test_what_is_no_function_cannot_be_marked(value: Any) -> None:
    with pytest.raises(InvalidExposure, match="is not a function"):
        expose(value)


@pytest.mark.parametrize("value", [classmethod(property(len)), staticmethod(3)])  # type: ignore[arg-type]
def test_a_wrapper_of_what_is_no_function_cannot_be_marked(value: Any) -> None:
    with pytest.raises(InvalidExposure, match="is not a function"):
        expose(value)


@pytest.mark.parametrize(
    "value", [generator, async_generator, GeneratorObject(), functools.partial(generator), staticmethod(generator)]
)
def test_a_generator_cannot_be_marked(value: Any) -> None:
    with pytest.raises(InvalidExposure, match="is a generator; return a list instead"):
        expose(value)


@pytest.mark.parametrize("value", [len, Thing().method])
def test_what_cannot_carry_a_mark_is_refused(value: Any) -> None:
    with pytest.raises(InvalidExposure, match="cannot carry a mark"):
        expose(value)


def test_partials_caches_and_callable_objects_can_be_marked() -> None:
    cached = functools.lru_cache(lambda: 1)
    for value in (functools.partial(len, "a"), cached, Thing()):
        assert options_of(expose(value)) == ExposeOptions()


def test_marking_twice_alike_is_harmless() -> None:
    def function() -> None: ...

    assert expose(queue="q")(expose(queue="q")(function)) is function


def test_marking_twice_differently_is_refused() -> None:
    with pytest.raises(InvalidExposure, match="twice, and not alike"):
        expose(queue="q")(expose(lambda: 1))


def test_a_wrapper_may_be_marked_unlike_the_function_that_it_wraps() -> None:
    @functools.wraps(bare)
    def wrapper(x: int) -> int:
        return bare(x)

    assert options_of(expose(queue="q")(wrapper)).queue == "q"
    assert options_of(bare).queue is None


def test_coroutine_functions_are_known() -> None:
    async def coroutine() -> None: ...

    class Asynchronous:
        async def __call__(self) -> None: ...

    for value in (coroutine, functools.partial(coroutine), Asynchronous(), Asynchronous().__call__):
        assert is_async(value)
    for other in (bare, len, Thing(), Thing().method, functools.partial(len)):
        assert not is_async(other)


def test_tornado_coroutines_are_known() -> None:
    def coroutine() -> None: ...

    coroutine.__tornado_coroutine__ = True  # type: ignore[attr-defined]
    assert is_async(coroutine)


def test_an_object_that_has_every_attribute_is_not_taken_for_a_coroutine() -> None:
    class Everything:
        def __getattr__(self, name: str) -> object:
            return "yes"

        def __call__(self) -> None: ...

    assert not is_async(Everything())
    assert not is_generator(Everything())


def test_a_plain_function_passes_the_check() -> None:
    check_callable(bare, "bare")
    check_callable(len, "len")
