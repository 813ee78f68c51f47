"""Version and changelog say the same, and the changelog has the form of Keep a Changelog."""

from __future__ import annotations

import importlib.metadata
import itertools
import re
import tomllib
from pathlib import Path

import backwater_tornado

PROJECT = Path(__file__).parents[1]
CHANGELOG = (PROJECT / "CHANGELOG.md").read_text()
VERSION = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]

RELEASE = re.compile(r"## \[(?P<name>Unreleased|\d+\.\d+\.\d+)\](?: - \d{4}-\d{2}-\d{2})?")
KINDS = ["Removed", "Changed", "Deprecated", "Added", "Fixed", "Security"]


def headings(level: int) -> list[str]:
    """The changelog's headings of one level, whole lines."""
    return re.findall(rf"^{'#' * level} .*$", CHANGELOG, re.MULTILINE)


def test_the_installed_package_has_the_version_of_the_project_file() -> None:
    assert importlib.metadata.version("backwater-tornado") == VERSION
    assert backwater_tornado.__version__ == VERSION


def test_the_changelog_begins_with_what_is_not_yet_released() -> None:
    assert CHANGELOG.startswith("# Changelog\n")
    assert headings(2)[0] == "## [Unreleased]"


def test_releases_are_dated_and_stand_newest_first() -> None:
    found = [RELEASE.fullmatch(heading) for heading in headings(2)]
    assert all(found), headings(2)
    names = [match["name"] for match in found[1:] if match]
    versions = [tuple(map(int, name.split("."))) for name in names]
    assert all(newer > older for newer, older in itertools.pairwise(versions))
    assert all(" - " in heading for heading in headings(2)[1:])


def test_the_newest_release_is_not_above_the_version() -> None:
    released = [match["name"] for heading in headings(2)[1:] if (match := RELEASE.fullmatch(heading))]
    assert released[:1] in ([], [VERSION])


def test_every_entry_stands_under_a_known_kind_of_change() -> None:
    assert {heading.removeprefix("### ") for heading in headings(3)} <= set(KINDS)
    for release in re.split(r"^## .*$", CHANGELOG, flags=re.MULTILINE)[1:]:
        before, *kinds = re.split(r"^### .*$", release, flags=re.MULTILINE)
        assert "\n- " not in before, "an entry without a kind"
        assert all("\n- " in kind for kind in kinds), "a kind without an entry"
