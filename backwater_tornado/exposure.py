"""Which functions may be called from elsewhere, under which names, with which arguments.

Rule: nothing is callable that nobody meant to be. Of a module its marked functions are exposed, else those of its
`__all__`, else its own public ones; never what it merely imports, nor classes, nor names with an underscore, unless
they are named one by one. Looking never runs code of what is looked at: no module's `__getattr__`, no property.
This module knows nothing of how calls arrive.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, Union

from backwater_tornado.arguments import Arguments, Readings
from backwater_tornado.errors import InvalidExposure, NotExposed, UnknownFunction, UnknownModule
from backwater_tornado.marks import (
    ExposeOptions,
    Mark,
    check_callable,
    expose,
    is_async,
    is_generator,
    is_name,
    mark_of,
)
from backwater_tornado.tasks.request import CALLED_DIRECTLY, TaskContext

__all__ = ["ExposeOptions", "Exposed", "Exposure", "Function", "Readings", "expose"]

_CACHED = type(functools.lru_cache(len))
#: What counts as a function where nobody named it.
_FUNCTIONS = (FunctionType, BuiltinFunctionType, MethodType, _CACHED)
#: A module's name is one segment of the path on the wire.
_MODULE_NAME = re.compile(r"[\w-]+(\.[\w-]+)*")


class Exposed(dict[str, object]):
    """An explicit table: `Exposed(clock=Clock())` serves the methods of that object as the module `clock`."""


@dataclass(frozen=True, slots=True, eq=False)
class Function:
    """One exposed function."""

    module: str
    name: str
    call: Callable[..., Any]
    is_async: bool
    options: ExposeOptions
    arguments: Arguments

    def accepts(self, count: int) -> bool:
        """Whether it can be called with so many arguments by position."""
        return self.arguments.accepts(count)

    def bind_arguments(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], readings: Readings | None = None
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments, checked and converted by the annotations, see `Arguments.bind`; raises `InvalidArguments`."""
        return self.arguments.bind(args, kwargs, readings)

    def call_in(self, context: TaskContext) -> Callable[..., Any]:
        """What to call in a task: with `bind=True` it is given the task as its first argument."""
        if self.options.task.get("bind") and isinstance(self.call, MethodType):
            return MethodType(self.call.__func__, context)
        return self.call

    @property
    def signature(self) -> str:
        """The function as a listing shows it: `add(x: int, y: int = 0) -> int`."""
        return self.name + self.arguments.text

    @property
    def summary(self) -> str:
        """The first line of its documentation, or nothing."""
        call = self.call
        while isinstance(call, functools.partial):
            call = call.func
        return (inspect.getdoc(call) or "").partition("\n")[0]


@dataclass(frozen=True, slots=True)
class _Table:
    """What one entry exposes: functions by name, and the module or object that they come from."""

    module: str
    source: object
    functions: Mapping[str, Function]


#: What `Exposure.of` takes, alone or several.
Entry = Union[ModuleType, str, tuple[ModuleType | str, str | Iterable[str]], Mapping[str, object], "Exposure"]


class Exposure:
    """All that one server exposes; made by `Exposure.of`."""

    def __init__(self, tables: Iterable[_Table] = ()) -> None:
        #: What it was made of.
        self.tables = tuple(tables)
        self._modules: dict[str, dict[str, Function]] = {}
        for table in self.tables:
            known = self._modules.setdefault(table.module, {})
            for name, function in table.functions.items():
                other = known.setdefault(name, function)
                if not _same(other.call, function.call):
                    raise InvalidExposure(f"two functions are exposed as {table.module}.{name}")

    @classmethod
    def of(cls, entries: Entry | Iterable[Entry]) -> Exposure:
        """Everything in `entries` together.

        Args:
            entries: any of: a module, or its dotted name; (module, ["name", …]) for just these functions;
                (module, "all") for its public functions beside the marked ones; a mapping or `Exposed` of names to
                objects, whose methods are exposed, or to modules; another Exposure. Or one of them alone.

        Raises:
            InvalidExposure: an entry is none of these, exposes nothing, or takes a name that is taken.
        """
        alone = isinstance(entries, ModuleType | str | Mapping | Exposure)
        several: Any = [entries] if alone else entries
        if not isinstance(several, Iterable):
            raise InvalidExposure(f"modules are exposed as a list, not as {type(entries).__name__}")
        return cls(table for entry in several for table in _tables_of(entry))

    def find(self, module: str, function: str) -> Function:
        """The function of that name; raises `UnknownModule`, `UnknownFunction` or `NotExposed`."""
        known = self._modules.get(module)
        if known is None:
            raise UnknownModule(f"no module {module!r} is exposed here")
        found = known.get(function)
        if found is not None:
            return found
        if any(_hides(table.source, function) for table in self.tables if table.module == module):
            raise NotExposed(f"{module}.{function} is not exposed")
        raise UnknownFunction(f"the module {module!r} has no function {function!r}")

    def functions(self) -> list[Function]:
        """Every function, by module and name."""
        return [
            self._modules[module][name] for module in sorted(self._modules) for name in sorted(self._modules[module])
        ]

    def __contains__(self, item: object) -> bool:
        """Whether a module, by its name, or a function, as (module, name), is exposed."""
        if isinstance(item, tuple) and len(item) == 2:
            return item[1] in self._modules.get(item[0], {})
        return item in self._modules


def _same(one: object, other: object) -> bool:
    # Each look at an object binds its methods anew.
    return one is other or (isinstance(one, MethodType) and isinstance(other, MethodType) and one == other)


def _hides(source: object, name: str) -> bool:
    found = vars(source).get(name) if isinstance(source, ModuleType) else inspect.getattr_static(source, name, None)
    return callable(found) or isinstance(found, classmethod)


def _tables_of(entry: object) -> Iterator[_Table]:
    if isinstance(entry, Exposure):
        yield from entry.tables
    elif isinstance(entry, ModuleType | str):
        module = _module(entry)
        yield _table(module.__name__, module, _marked_in(module) or _public(module))
    elif isinstance(entry, Mapping):
        for name, source in entry.items():
            found = (
                (_marked_in(source) or _public(source)) if isinstance(source, ModuleType) else _methods(source, name)
            )
            yield _table(name, source, found)
    elif isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[0], ModuleType | str):
        module = _module(entry[0])
        yield _table(module.__name__, module, _listed(module, entry[1]))
    else:
        raise InvalidExposure(f"{entry!r} is not a module; an object is exposed as Exposed(name=object)")


def _module(entry: ModuleType | str) -> ModuleType:
    if isinstance(entry, ModuleType):
        return entry
    if _MODULE_NAME.fullmatch(entry) is None:
        raise InvalidExposure(f"{entry!r} is not the dotted name of a module")
    try:
        return importlib.import_module(entry)
    except ImportError as exc:
        raise InvalidExposure(f"the module {entry!r} cannot be imported: {exc}") from exc


def _table(module: object, source: object, found: Mapping[str, Callable[..., Any]]) -> _Table:
    if not isinstance(module, str) or _MODULE_NAME.fullmatch(module) is None:
        raise InvalidExposure(f"{module!r} cannot be the name of a module on the wire")
    if not found:
        raise InvalidExposure(f"there is nothing to expose in {module!r}")
    return _Table(module, source, {name: _function(module, name, call) for name, call in found.items()})


def _function(module: str, name: str, call: Callable[..., Any]) -> Function:
    check_callable(call, f"{module}.{name}")
    if not is_name(name):
        raise InvalidExposure(f"{name!r} cannot be the name of a function of {module!r}")
    mark = mark_of(call)
    options = ExposeOptions() if mark is None else mark.options
    if options.task.get("bind"):
        call = _bound(call, f"{module}.{name}")
    return Function(module, name, call, is_async(call), options, Arguments(call, name))


def _bound(call: Callable[..., Any], label: str) -> Callable[..., Any]:
    """A function whose first argument is the running task, as a method whose object that is: callers never see it."""
    bound = MethodType(call, CALLED_DIRECTLY)
    try:
        inspect.signature(bound)
    except (ValueError, TypeError) as exc:
        raise InvalidExposure(f"{label} has bind=True, and no first parameter for the task") from exc
    return bound


# Of a module -----------------------------------------------------------------------------------------------------


def _marked(contents: Mapping[str, Any], owner: object) -> dict[str, Any]:
    """The marked ones among `contents`, by their exposed names."""
    found: dict[str, Any] = {}
    for attribute, value in contents.items():
        mark = mark_of(value)
        if mark is not None and _meant(mark, attribute, value, contents):
            _add(found, mark.options.name or attribute, value, owner)
    return found


def _meant(mark: Mark, attribute: str, value: object, contents: Mapping[str, object]) -> bool:
    """Whether this attribute was marked: not an alias of what was, nor a wrapper that took the mark along."""
    own_name = getattr(value, "__name__", attribute)
    if attribute == own_name:
        return True
    inner = value.__func__ if isinstance(value, MethodType | staticmethod | classmethod) else value
    return (mark.function is value or mark.function is inner) and contents.get(own_name) is not value


def _marked_in(module: ModuleType) -> dict[str, Any]:
    """The functions that are marked in this module, and not merely imported into it."""
    contents = dict(vars(module))
    own = {}
    for name, value in contents.items():
        mark = mark_of(value)
        if mark is not None and module.__name__ in (mark.module, getattr(value, "__module__", None)):
            own[name] = value
    return _marked(own, module.__name__)


def _add(found: dict[str, Any], name: str, value: object, owner: object) -> None:
    if found.setdefault(name, value) is not value:
        raise InvalidExposure(f"two functions are exposed as {owner}.{name}")


def _public(module: ModuleType) -> dict[str, Any]:
    """The functions that a module offers: by its `__all__`, else those it defines without an underscore."""
    contents = dict(vars(module))
    names = contents.get("__all__")
    if names is None:
        kinds: tuple[type, ...] = _FUNCTIONS
        names = [name for name, value in contents.items() if _defined_in(module, value)]
    else:
        kinds = (*_FUNCTIONS, functools.partial)
        if not isinstance(names, list | tuple | set | frozenset):
            raise InvalidExposure(f"the __all__ of {module.__name__!r} is not a list")
    return {
        name: contents[name]
        for name in names
        if isinstance(name, str) and not name.startswith("_")
        if issubclass(type(contents.get(name)), kinds) and not is_generator(contents[name])
    }


def _defined_in(module: ModuleType, value: object) -> bool:
    return issubclass(type(value), _FUNCTIONS) and getattr(value, "__module__", None) == module.__name__


def _listed(module: ModuleType, names: object) -> dict[str, Any]:
    """The functions named one by one, or "all"."""
    marked = _marked_in(module)
    if names == "all":
        known = {id(value) for value in marked.values()}
        for name, value in _public(module).items():
            if id(value) not in known:
                _add(marked, name, value, module.__name__)
        return marked
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise InvalidExposure(f'of {module.__name__!r} expose "all" or a list of names, not {names!r}')
    found = {}
    for name in names:
        value = marked.get(name, vars(module).get(name)) if isinstance(name, str) else None
        if value is None:
            raise InvalidExposure(f"there is no {name!r} in the module {module.__name__!r}")
        found[name] = value
    return found


# Of an object ----------------------------------------------------------------------------------------------------


def _methods(source: object, module: object) -> dict[str, Any]:
    """The marked methods of an object, else the public ones that its own class defines; bound to it."""
    if isinstance(source, (type, *_FUNCTIONS)):
        raise InvalidExposure(f"{module!r} should be an object with methods, or a module, not {source!r}")
    kind = type(source)
    every = [(name, value) for base in kind.__mro__ for name, value in vars(base).items()]
    if any(mark_of(value) is not None for _, value in every):  # though a subclass overrides it without a mark
        found = _marked({name: inspect.getattr_static(kind, name) for name, _ in every}, module)
    else:
        found = {name: value for name, value in vars(kind).items() if not name.startswith("_") and _is_method(value)}
    return {name: _bind(value, source) for name, value in found.items()}


def _bind(value: Any, source: object) -> Any:
    """An attribute of a class as its instance has it. A partial is no method, and Python 3.13 warns of binding it."""
    if isinstance(value, functools.partial) or not hasattr(value, "__get__"):
        return value
    return value.__get__(source, type(source))


def _is_method(value: object) -> bool:
    inner = value.__func__ if isinstance(value, staticmethod | classmethod) else value
    return isinstance(inner, (FunctionType, _CACHED)) and not is_generator(inner)
