"""What is public: `backwater_tornado.__all__`, in order, importable, and in the README."""

from __future__ import annotations

import re
from pathlib import Path

import backwater_tornado

README = Path(__file__).parents[1] / "README.md"


def test_the_public_names_are_in_alphabetical_order_and_unique() -> None:
    assert list(backwater_tornado.__all__) == sorted(set(backwater_tornado.__all__))


def test_every_public_name_can_be_imported() -> None:
    assert [name for name in backwater_tornado.__all__ if not hasattr(backwater_tornado, name)] == []


def test_every_public_name_is_in_the_readme() -> None:
    words = set(re.findall(r"\w+", README.read_text()))
    assert [name for name in backwater_tornado.__all__ if name not in words] == []
