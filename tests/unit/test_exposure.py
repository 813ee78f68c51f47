from __future__ import annotations

import functools
import itertools
import math
import os
import random
import statistics
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from backwater_tornado.errors import InvalidArguments, InvalidExposure, NotExposed, UnknownFunction, UnknownModule
from backwater_tornado.exposure import Exposed, ExposeOptions, Exposure, expose
from backwater_tornado.tasks.request import CALLED_DIRECTLY, TaskContext, TaskRequest


def module_of(source: str, name: str = "made", **contents: Any) -> ModuleType:
    """A module with that source."""
    module = ModuleType(name)
    vars(module).update(contents)
    exec(source, vars(module))  # noqa: S102
    return module


def names(*entries: Any) -> list[str]:
    return [function.name for function in Exposure.of(entries).functions()]


MARK = "from backwater_tornado.exposure import expose\n"

# A module, as it is -------------------------------------------------------------------------------------------------


def test_the_marked_functions_of_a_module_are_exposed_and_no_others() -> None:
    module = module_of(
        MARK + "__all__ = ['other']\n@expose\ndef add(x, y): return x + y\n@expose(name='minus')\n"
        "def subtract(x, y): return x - y\n@expose\ndef _hidden(): ...\ndef other(): ...\n"
    )
    assert names(module) == ["_hidden", "add", "minus"]
    exposure = Exposure.of(module)
    assert exposure.find("made", "minus").call(3, 1) == 2
    for name in ("other", "subtract"):
        with pytest.raises(NotExposed, match=f"made.{name} is not exposed"):
            exposure.find("made", name)


def test_without_marks_the_functions_of_all_are_exposed() -> None:
    module = module_of(
        "from functools import partial\nimport os\n"
        "__all__ = ['f', 'C', 'LIMIT', 'os', 'gone', '_private', 'square', 3]\n"
        "def f(): ...\ndef g(): ...\nclass C: ...\nLIMIT = 3\ndef _private(): ...\nsquare = partial(pow, 2)\n"
    )
    assert names(module) == ["f", "square"]


def test_an_imported_function_in_all_is_exposed() -> None:
    assert names(module_of("from os.path import join\n__all__ = ('join',)\n")) == ["join"]


def test_without_all_the_own_public_functions_are_exposed() -> None:
    module = module_of(
        "from os.path import join\nfrom functools import partial, lru_cache\nimport os\nfrom time import time\n"
        "def f(): ...\nasync def g(): ...\ndef _private(): ...\nclass C:\n    def __call__(self): ...\n"
        "instance = C()\nhalf = partial(pow, 2)\n@lru_cache\ndef cached(): ...\nshort = lambda: 1\nsize = [].__len__\n"
        "def __getattr__(name): raise AssertionError(name)\ndef numbers(): yield 1\nasync def more(): yield 1\n"
    )
    assert names(module) == ["cached", "f", "g", "short"]


def test_looking_at_a_module_never_runs_its_getattr() -> None:
    module = module_of("__all__ = ['lazy', 'f']\ndef f(): ...\ndef __getattr__(name): raise AssertionError(name)\n")
    exposure = Exposure.of(module)
    assert names(module) == ["f"]
    with pytest.raises(UnknownFunction):
        exposure.find("made", "lazy")
    with pytest.raises(InvalidExposure, match="there is no 'lazy'"):
        Exposure.of([(module, ["lazy"])])


def test_looking_at_a_module_runs_no_code_of_what_is_in_it() -> None:
    class Trap:
        def __getattribute__(self, name: str) -> Any:
            raise AssertionError(name)

        def __eq__(self, other: object) -> bool:
            raise AssertionError

        __hash__ = None  # type: ignore[assignment]

    module = module_of("def f(): ...\n", trap=Trap())
    assert names(module) == ["f"]
    assert names((module, "all")) == ["f"]


def test_an_all_that_is_no_list_is_refused() -> None:
    with pytest.raises(InvalidExposure, match="the __all__ of 'made' is not a list"):
        Exposure.of(module_of("__all__ = 'f'\ndef f(): ...\n"))


def test_a_module_with_nothing_to_expose_is_refused() -> None:
    with pytest.raises(InvalidExposure, match="there is nothing to expose in 'made'"):
        Exposure.of(module_of("__all__ = []\ndef f(): ...\n"))


@pytest.mark.parametrize(
    ("module", "some"),
    [
        (math, ["sqrt", "sin", "factorial"]),
        (statistics, ["mean", "median"]),
        (itertools, ["tee"]),
        (os, ["getpid", "listdir"]),
        (random, ["randint", "random"]),
    ],
)
def test_the_functions_of_the_standard_library_are_found(module: ModuleType, some: list[str]) -> None:
    found = names(module)
    assert set(some) <= set(found)
    assert not {name for name in found if isinstance(getattr(module, name), type) or name.startswith("_")}


def test_underscored_names_are_left_out_though_all_has_them() -> None:
    assert "_exit" in os.__all__
    assert "_exit" not in names(os)


def test_a_module_may_be_named_instead() -> None:
    exposure = Exposure.of(["os.path", "math"])
    assert ("math", "sqrt") in exposure
    assert (os.path.__name__, "join") in exposure


@pytest.mark.parametrize("name", ["", ".relative", "a..b", "a/b", "nowhere.at.all"])
def test_a_name_that_cannot_be_imported_is_refused(name: str) -> None:
    with pytest.raises(InvalidExposure, match="is not the dotted name of a module|cannot be imported"):
        Exposure.of(name)


def test_the_failure_of_a_module_itself_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_on_import.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ZeroDivisionError):
        Exposure.of("broken_on_import")


# Marks that strayed -------------------------------------------------------------------------------------------------


def test_a_marked_function_is_not_exposed_where_it_was_only_imported() -> None:
    tasks = module_of(MARK + "@expose\ndef add(): ...\n", "tasks")
    other = module_of(MARK + "@expose\ndef mine(): ...\n", "other", add=tasks.add)
    assert names(other) == ["mine"]
    plain = module_of("def mine(): ...\n", "plain", add=tasks.add)
    assert names(plain) == ["mine"]


def test_an_alias_of_a_marked_function_is_not_exposed() -> None:
    assert names(module_of(MARK + "@expose\ndef add(): ...\nplus = _old = add\n")) == ["add"]


def test_a_marked_function_without_its_own_name_has_that_of_its_variable() -> None:
    source = (
        "def make():\n    def inner(): ...\n    return inner\nhandler = expose(make())\nfunction = expose(lambda: 1)\n"
    )
    assert names(module_of(MARK + source)) == ["function", "handler"]


def test_a_wrapper_that_took_the_mark_along_is_not_exposed_under_another_name() -> None:
    source = "import functools\n@expose\ndef add(): ...\n@functools.wraps(add)\ndef dangerous(): ...\n"
    assert names(module_of(MARK + source)) == ["add"]


def test_a_decorator_above_the_mark_is_what_is_called() -> None:
    source = (
        "import functools\ndef louder(f):\n    @functools.wraps(f)\n    def wrapper(*args): return f(*args) + '!'\n"
        "    return wrapper\n@louder\n@expose(queue='q')\ndef greet(name: str): return name\n"
    )
    function = Exposure.of(module_of(MARK + source)).find("made", "greet")
    assert function.call("hi") == "hi!"
    assert function.options.queue == "q"
    with pytest.raises(InvalidArguments):
        function.bind_arguments([1], {})


def test_a_mark_counts_where_it_was_made_whatever_module_the_function_names() -> None:
    source = "import functools, json\nsquare = expose(functools.partial(pow, 2))\n"
    assert names(module_of(MARK + source)) == ["square"]


def test_a_generator_that_took_a_mark_along_is_refused() -> None:
    source = (
        "import functools\ndef wrap(f):\n    @functools.wraps(f)\n    def w(): yield 1\n    return w\n"
        "@wrap\n@expose\ndef f(): ...\n"
    )
    with pytest.raises(InvalidExposure, match="made.f is a generator"):
        Exposure.of(module_of(MARK + source))


def test_two_functions_of_one_exposed_name_are_refused() -> None:
    with pytest.raises(InvalidExposure, match="two functions are exposed as made.f"):
        Exposure.of(module_of(MARK + "@expose\ndef f(): ...\n@expose(name='f')\ndef g(): ...\n"))


def test_a_method_bound_in_a_module_keeps_its_mark() -> None:
    source = "class C:\n    @expose(queue='q')\n    def run(self): return self\nrun = C().run\nother = C().run\n"
    exposure = Exposure.of(module_of(MARK + source))
    assert [function.name for function in exposure.functions()] == ["other", "run"]
    assert exposure.find("made", "run").options.queue == "q"


# Named one by one ---------------------------------------------------------------------------------------------------

LISTING = MARK + (
    "import functools\nfrom os.path import join\n@expose(name='plus', queue='q')\ndef add(): ...\ndef f(): ...\n"
    "def _g(): ...\nclass C:\n    def __call__(self): ...\ninstance = C()\npart = functools.partial(f)\n"
    "def numbers(): yield 1\nasync def more(): yield 1\nLIMIT = 3\n"
)


def test_functions_named_one_by_one_are_exposed() -> None:
    module = module_of(LISTING)
    listed = ["f", "_g", "join", "instance", "part", "plus"]
    assert names((module, listed)) == sorted(listed)
    assert names((module, {"f": 1}.keys())) == ["f"]
    assert Exposure.of([(module, ["plus"])]).find("made", "plus").options.queue == "q"


def test_a_marked_function_may_be_listed_by_its_own_name() -> None:
    function = Exposure.of([(module_of(LISTING), ["add"])]).find("made", "add")
    assert function.options.queue == "q"


def test_a_listed_module_may_be_given_by_name() -> None:
    assert names(("math", ["sqrt"])) == ["sqrt"]


@pytest.mark.parametrize("name", ["nothing", 3, [], None])
def test_a_listed_name_that_does_not_exist_is_refused(name: Any) -> None:
    with pytest.raises(InvalidExposure, match="there is no "):
        Exposure.of([(module_of(LISTING), [name])])


@pytest.mark.parametrize("name", ["C", "LIMIT", "functools"])
def test_a_listed_name_of_no_function_is_refused(name: str) -> None:
    with pytest.raises(InvalidExposure, match=f"made.{name} is not a function"):
        Exposure.of([(module_of(LISTING), [name])])


@pytest.mark.parametrize("name", ["numbers", "more"])
def test_a_listed_generator_is_refused(name: str) -> None:
    with pytest.raises(InvalidExposure, match="is a generator"):
        Exposure.of([(module_of(LISTING), [name])])


@pytest.mark.parametrize("listed", ["f", 3, None])
def test_a_listing_that_is_no_list_is_refused(listed: Any) -> None:
    with pytest.raises(InvalidExposure, match='expose "all" or a list of names'):
        Exposure.of([(module_of(LISTING), listed)])


def test_all_adds_the_public_functions_to_the_marked_ones() -> None:
    assert names((module_of(LISTING), "all")) == ["f", "plus"]


def test_all_refuses_a_public_name_that_a_mark_took() -> None:
    with pytest.raises(InvalidExposure, match="two functions are exposed as made.f"):
        Exposure.of([(module_of(MARK + "def f(): ...\n@expose(name='f')\ndef g(): ...\n"), "all")])


def test_a_name_need_not_be_an_identifier() -> None:
    assert names(module_of(MARK + "@expose(name='+')\ndef plus(): ...\n")) == ["+"]


def test_a_name_that_cannot_be_printed_is_refused() -> None:
    module = module_of("")
    vars(module)["not\na name"] = lambda: None
    with pytest.raises(InvalidExposure, match="cannot be the name of a function of 'made'"):
        Exposure.of([(module, ["not\na name"])])


# Objects ------------------------------------------------------------------------------------------------------------


class Base:
    def inherited(self) -> None: ...


class Service(Base):
    constant = 3

    def __init__(self) -> None:
        self.callback = print

    def add(self, x: int, y: int) -> int:
        return x + y

    @staticmethod
    def static() -> str:
        return "static"

    @classmethod
    def of_class(cls) -> str:
        return cls.__name__

    @functools.lru_cache  # noqa: B019
    def cached(self) -> str:
        return type(self).__name__

    async def later(self) -> None: ...

    def _private(self) -> None: ...

    def numbers(self) -> Iterator[int]:
        yield 1

    async def more(self) -> AsyncIterator[int]:
        yield 1

    @property
    def trap(self) -> Any:
        raise AssertionError

    class Inner:
        pass

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(name)


class MarkedBase:
    @expose
    def inherited(self) -> str:
        return type(self).__name__

    @expose
    def overridden(self) -> None: ...


class Marked(MarkedBase):
    @expose(name="plus")
    def add(self, x: int, y: int) -> int:
        return x + y

    alias = add

    @functools.wraps(add)
    def stray(self) -> None: ...

    @expose
    @staticmethod
    def static() -> str:
        return "static"

    @classmethod
    @expose(queue="q")
    def of_class(cls) -> str:
        return cls.__name__

    part = expose(functools.partial(pow, 2))

    def overridden(self) -> None: ...

    def other(self) -> None: ...


def test_the_own_public_methods_of_an_object_are_exposed() -> None:
    exposure = Exposure.of(Exposed(service=Service()))
    found = {function.name: function.call for function in exposure.functions()}
    assert sorted(found) == ["add", "cached", "later", "of_class", "static"]
    assert found["add"](1, 2) == 3
    assert [found[name]() for name in ("static", "of_class", "cached")] == ["static", "Service", "Service"]
    assert exposure.find("service", "later").is_async
    assert exposure.find("service", "add").bind_arguments([1], {"y": 2}) == ((1,), {"y": 2})


def test_the_hidden_methods_of_an_object_are_told_without_touching_them() -> None:
    exposure = Exposure.of({"service": Service(), "marked": Marked()})
    for name in ("inherited", "_private", "numbers", "__init__", "callback"):
        with pytest.raises(NotExposed):
            exposure.find("service", name)
    for name in ("trap", "constant", "nothing"):
        with pytest.raises(UnknownFunction):
            exposure.find("service", name)


def test_a_hidden_class_method_is_told() -> None:
    class Some:
        @expose
        def shown(self) -> None: ...

        @classmethod
        def hidden(cls) -> None: ...

    with pytest.raises(NotExposed):
        Exposure.of({"some": Some()}).find("some", "hidden")


def test_the_marked_methods_of_an_object_are_exposed_and_no_others() -> None:
    exposure = Exposure.of({"marked": Marked()})
    found = {function.name: function for function in exposure.functions()}
    assert sorted(found) == ["inherited", "of_class", "part", "plus", "static"]
    assert found["plus"].call(1, 2) == 3
    assert [found[name].call() for name in ("inherited", "static", "of_class")] == ["Marked", "static", "Marked"]
    assert found["part"].call(3) == 8
    assert found["of_class"].options.queue == "q"


def test_an_override_without_a_mark_does_not_open_the_other_methods() -> None:
    class Careful:
        @expose
        def shown(self) -> None: ...

    class Overriding(Careful):
        def shown(self) -> None: ...

        def other(self) -> None: ...

    with pytest.raises(InvalidExposure, match="there is nothing to expose"):
        Exposure.of({"x": Overriding()})


def test_a_mapping_may_give_a_module_another_name() -> None:
    exposure = Exposure.of({"m": math, "tasks": module_of(MARK + "@expose\ndef f(): ...\ndef g(): ...\n")})
    assert ("m", "sqrt") in exposure
    assert ("tasks", "f") in exposure
    assert ("tasks", "g") not in exposure


@pytest.mark.parametrize("value", [Service, len, lambda: 1, Service().add], ids=repr)
def test_a_class_or_a_function_is_not_an_object_with_methods(value: Any) -> None:
    with pytest.raises(InvalidExposure, match="should be an object with methods"):
        Exposure.of({"x": value})


@pytest.mark.parametrize("value", [None, 3, [], object()])
def test_an_object_without_methods_of_its_own_is_refused(value: Any) -> None:
    with pytest.raises(InvalidExposure, match="there is nothing to expose in 'x'"):
        Exposure.of({"x": value})


@pytest.mark.parametrize("name", ["", "a/b", "a b", "a..b", "a.", "a?b", "a\n", 3])
def test_a_name_that_has_no_place_on_the_wire_is_refused(name: Any) -> None:
    with pytest.raises(InvalidExposure, match="cannot be the name of a module on the wire"):
        Exposure.of({name: Service()})


def test_dots_and_hyphens_are_fine_in_the_name_of_a_module() -> None:
    assert ("my-app.jobs", "add") in Exposure.of({"my-app.jobs": Service()})


# Bound to the task --------------------------------------------------------------------------------------------------

BIND = MARK + "@expose(bind=True)\n"


def test_a_bound_function_hides_its_first_parameter() -> None:
    module = module_of(BIND + 'def add(task, x: int, y: int = 0) -> int:\n    """Adds."""\n    return x + y\n')
    add = Exposure.of(module).find("made", "add")
    assert (add.signature, add.summary) == ("add(x: int, y: int = 0) -> int", "Adds.")
    assert [count for count in range(4) if add.accepts(count)] == [1, 2]
    args, kwargs = add.bind_arguments([1], {"y": 2})
    assert add.call(*args, **kwargs) == 3
    with pytest.raises(InvalidArguments, match="has no argument 'task'"):
        add.bind_arguments([1], {"task": 2})


def test_a_bound_function_that_is_called_learns_that_it_is_no_task() -> None:
    module = module_of(BIND + "async def f(task): return task\n")
    function = Exposure.of(module).find("made", "f")
    assert function.is_async
    with pytest.raises(StopIteration) as returned:
        function.call().send(None)
    assert returned.value.value is CALLED_DIRECTLY


def test_in_a_task_a_bound_function_is_given_it_and_any_other_is_as_it_was() -> None:
    context = TaskContext(TaskRequest(id="1"), print)
    functions = Exposure.of(module_of(BIND + "def f(task, x): return task, x\n@expose\ndef g(x): return x\n"))
    assert functions.find("made", "f").call_in(context)(1) == (context, 1)
    assert functions.find("made", "g").call_in(context)(1) == 1


def test_a_bound_method_of_an_object_has_both_in_front() -> None:
    class Clock:
        @expose(bind=True)
        def tick(self, task: TaskContext, x: int) -> tuple[object, object, int]:
            return self, task, x

    clock, context = Clock(), TaskContext(TaskRequest(id="1"), print)
    function = Exposure.of(Exposed(clock=clock)).find("clock", "tick")
    assert function.call(1) == (clock, CALLED_DIRECTLY, 1)
    assert function.call_in(context)(1) == (clock, context, 1)


def test_one_bound_function_may_be_exposed_twice() -> None:
    module = module_of(BIND + "def f(task): ...\n")
    assert ("made", "f") in Exposure.of([module, (module, ["f"])])


@pytest.mark.parametrize("parameters", ["", "*, task"])
def test_a_function_without_a_first_parameter_cannot_be_bound(parameters: str) -> None:
    with pytest.raises(InvalidExposure, match="made.f has bind=True, and no first parameter for the task"):
        Exposure.of(module_of(BIND + f"def f({parameters}): ...\n"))


# Together -----------------------------------------------------------------------------------------------------------


def test_an_exposure_may_be_part_of_another() -> None:
    exposure = Exposure.of([Exposure.of("math"), Exposed(service=Service())])
    assert "math" in exposure
    assert "service" in exposure
    with pytest.raises(NotExposed):
        exposure.find("service", "inherited")
    assert Exposure.of(exposure).functions() == exposure.functions()


def test_entries_for_one_module_are_put_together() -> None:
    module = module_of(LISTING)
    assert names((module, ["f"]), (module, ["_g"]), (module, ["f"])) == ["_g", "f"]


def test_one_object_may_be_exposed_twice_alike() -> None:
    service = Service()
    assert Exposure.of([{"s": service}, {"s": service}]).functions()


def test_two_objects_under_one_name_are_refused() -> None:
    with pytest.raises(InvalidExposure, match="two functions are exposed as s.add"):
        Exposure.of([{"s": Service()}, {"s": Service()}])


def test_two_modules_of_one_name_are_refused() -> None:
    with pytest.raises(InvalidExposure, match="two functions are exposed as made.f"):
        Exposure.of([module_of("def f(): ...\n"), module_of("def f(): ...\n")])


def test_nothing_exposed_is_an_empty_exposure() -> None:
    assert Exposure.of([]).functions() == []
    assert Exposure().functions() == []


@pytest.mark.parametrize("entry", [Service(), len, Service, 3, None, (math,), (3, ["f"]), (math, [], [])], ids=repr)
def test_an_entry_that_is_nothing_of_the_kind_is_refused(entry: Any) -> None:
    with pytest.raises(InvalidExposure, match="is not a module"):
        Exposure.of([entry])


def test_what_is_no_list_is_refused() -> None:
    with pytest.raises(InvalidExposure, match="modules are exposed as a list, not as int"):
        Exposure.of(3)  # type: ignore[arg-type]


# Finding ------------------------------------------------------------------------------------------------------------


def test_an_unknown_module_and_an_unknown_function_are_told_apart() -> None:
    exposure = Exposure.of([math])
    assert exposure.find("math", "sqrt").call is math.sqrt
    with pytest.raises(UnknownModule, match="no module 'os' is exposed here"):
        exposure.find("os", "getpid")
    with pytest.raises(UnknownFunction, match="the module 'math' has no function 'pi'"):
        exposure.find("math", "pi")
    with pytest.raises(UnknownFunction):
        exposure.find("math", "nothing")


def test_nothing_is_reached_through_a_dotted_or_special_name() -> None:
    exposure = Exposure.of([(statistics, ["mean"])])
    for name in ("mean.__globals__", "__builtins__", "__loader__", "sys", "", "mean "):
        with pytest.raises((UnknownFunction, NotExposed)):
            exposure.find("statistics", name)


def test_hidden_names_of_another_module_are_not_told() -> None:
    exposure = Exposure.of([(math, ["sqrt"]), (statistics, ["mean"])])
    with pytest.raises(NotExposed):
        exposure.find("statistics", "median")
    with pytest.raises(UnknownFunction):
        exposure.find("math", "median")


def test_membership_is_by_module_or_by_module_and_name() -> None:
    exposure = Exposure.of([math])
    assert "math" in exposure
    assert ("math", "sqrt") in exposure
    assert ("math", "nothing") not in exposure
    assert ("os", "getpid") not in exposure
    assert "os" not in exposure
    assert ("math", "sqrt", 3) not in exposure


def test_functions_are_listed_in_order() -> None:
    exposure = Exposure.of([(statistics, ["median", "mean"]), (math, ["sqrt"])])
    found = [(function.module, function.name) for function in exposure.functions()]
    assert found == [("math", "sqrt"), ("statistics", "mean"), ("statistics", "median")]


def test_a_function_tells_its_signature_and_its_summary() -> None:
    source = (
        'import functools\ndef add(x: int, y: int = 0) -> int:\n    """Adds.\n\n    More."""\n'
        "part = functools.partial(add, 1)\n"
    )
    exposure = Exposure.of([(module_of(source), ["add", "part"]), (math, ["sqrt"])])
    add = exposure.find("made", "add")
    assert add.signature == "add(x: int, y: int = 0) -> int"
    assert add.summary == "Adds."
    assert exposure.find("made", "part").summary == "Adds."
    assert exposure.find("math", "sqrt").summary == "Return the square root of x."
    assert add.options == ExposeOptions()


def test_a_function_without_documentation_has_no_summary() -> None:
    assert Exposure.of(module_of("def f(): ...\n")).find("made", "f").summary == ""


def test_async_functions_are_known_as_such() -> None:
    exposure = Exposure.of(module_of("async def f(): ...\ndef g(): ...\n"))
    assert exposure.find("made", "f").is_async
    assert not exposure.find("made", "g").is_async


def test_every_module_of_the_standard_library_that_is_loaded_can_be_looked_at() -> None:
    for name in sys.stdlib_module_names & set(sys.modules):
        try:
            found: Callable[..., Any] | Exposure = Exposure.of(sys.modules[name])
        except InvalidExposure:
            continue
        assert isinstance(found, Exposure)
        assert isinstance({function.name: function.signature for function in found.functions()}, Mapping)


def test_a_function_says_how_many_arguments_it_takes() -> None:
    function = Exposure.of(module_of("def f(x, y=0): ...")).find("made", "f")
    assert [count for count in range(4) if function.accepts(count)] == [1, 2]


def test_arguments_may_stand_for_something_else() -> None:
    function = Exposure.of(module_of("def f(x: str): ...")).find("made", "f")
    assert function.bind_arguments([b"a"], {}, lambda value: [value.decode()]) == (("a",), {})
    with pytest.raises(InvalidArguments):
        function.bind_arguments([b"a"], {})
