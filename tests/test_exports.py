"""What is public: `backwater_tornado.__all__`, in order, importable, and in the README."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import backwater_tornado
import backwater_tornado.erlang

README = Path(__file__).parents[1] / "README.md"


PUBLIC = pytest.mark.parametrize("module", [backwater_tornado, backwater_tornado.erlang], ids=lambda it: it.__name__)


@PUBLIC
def test_the_public_names_are_in_alphabetical_order_and_unique(module: Any) -> None:
    assert list(module.__all__) == sorted(set(module.__all__))


@PUBLIC
def test_every_public_name_can_be_imported(module: Any) -> None:
    assert [name for name in module.__all__ if not hasattr(module, name)] == []


@PUBLIC
def test_every_public_name_is_in_the_readme(module: Any) -> None:
    words = set(re.findall(r"\w+", README.read_text()))
    assert [name for name in module.__all__ if name not in words] == []
