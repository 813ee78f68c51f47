"""Modules to expose, as a command line names them.

`statistics` is a module, `statistics:mean,median` two of its functions, `tasks:all` all its public ones beside the
marked ones, `examples/tasks.py` a file. The current directory may be imported from.

Rule: a name is imported, never evaluated; whatever goes wrong in the module itself is told as its own.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from .errors import InvalidExposure
from .exposure import Exposure


def load_exposure(named: Iterable[str]) -> Exposure:
    """Import what is named and give what it exposes; raises `InvalidExposure`."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    entries = [_entry(each) for each in named]
    if not entries:
        raise InvalidExposure(
            "nothing to expose: name a MODULE, such as `tasks`, `statistics:mean` or `examples/tasks.py`"
        )
    return Exposure.of(entries)


def _entry(named: str) -> ModuleType | tuple[ModuleType, str | list[str]]:
    name, colon, functions = named.partition(":")
    module = _import_file(Path(name)) if name.endswith(".py") or os.sep in name else _import(name)
    if not colon:
        return module
    if functions == "all":
        return module, "all"
    listed = [each.strip() for each in functions.split(",")]
    if not all(listed):
        raise InvalidExposure(f"{named!r}: behind the colon stand names of functions, with commas between, or `all`")
    return module, listed


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            file = name.replace(".", os.sep) + ".py"
            raise InvalidExposure(
                f"there is no module {name!r}: it is neither installed nor {file!r} below {str(Path.cwd())!r}"
            ) from error
        raise _broken(name, error) from error
    except Exception as error:
        raise _broken(name, error) from error


def _broken(name: str, error: Exception) -> InvalidExposure:
    return InvalidExposure(f"importing {name!r} raised {type(error).__name__}: {error}")


def _import_file(path: Path) -> ModuleType:
    """A file as the module of its name; what stands beside it may be imported, as for a script."""
    path = path.resolve()
    name = path.stem
    if not path.is_file() or not name.isidentifier():
        raise InvalidExposure(f"{str(path)!r} is not a file of Python that can be imported")
    known = sys.modules.get(name)
    if getattr(known, "__file__", None) == str(path):
        assert known is not None
        return known
    if known is not None or name in sys.stdlib_module_names:
        raise InvalidExposure(f"{str(path)!r} cannot be imported: there is another module {name!r}; rename the file")
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise _broken(str(path), error) from error
    return module


def project_files(exposure: Exposure) -> list[str]:
    """The source files that an edit may change: of the exposed modules, and of what was imported from below here."""
    here = Path.cwd()
    own = {table.module for table in exposure.tables}
    found = set()
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if not isinstance(file, str) or not file.endswith(".py"):
            continue
        path = Path(file).absolute()
        installed = path.is_relative_to(sys.prefix) or "site-packages" in path.parts
        if name in own or (path.is_relative_to(here) and not installed):
            found.add(str(path))
    return sorted(found)
