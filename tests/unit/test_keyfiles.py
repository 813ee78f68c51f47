from __future__ import annotations

from pathlib import Path

import pytest

from backwater_tornado.errors import InvalidKey
from backwater_tornado.keyfiles import exposed_secret, read_keys
from backwater_tornado.protocol.keys import Key, format_key


def test_the_keys_of_a_file_are_read(tmp_path: Path) -> None:
    key = Key(b"sixteen bytes or more")
    (tmp_path / "site.key").write_text(format_key(key))
    assert read_keys(str(tmp_path / "site.key")).ids == (key.id,)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "cannot be read: No such file"),
        (b"\xff", "is not text"),
        (b"[[key]]\nsecret = 'hidden'", "key 1 of 1: a secret must have 16 bytes"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_and_its_secret_is_not(
    tmp_path: Path, content: bytes | None, complaint: str
) -> None:
    path = tmp_path / "site.key"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidKey, match=complaint) as caught:
        read_keys(str(path))
    assert "site.key" in str(caught.value)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("path", [None, ""])
def test_without_a_file_it_is_said_how_to_make_one(path: str | None) -> None:
    with pytest.raises(InvalidKey, match="backwater keygen > site.key"):
        read_keys(path)


def test_a_file_that_others_may_read_is_told(tmp_path: Path) -> None:
    path = tmp_path / "site.key"
    path.touch()
    for mode, told in ((0o600, False), (0o640, False), (0o644, True), (0o602, True)):
        path.chmod(mode)
        assert (exposed_secret(str(path)) is not None) is told


def test_a_pipe_is_nobodys_to_read(tmp_path: Path) -> None:
    assert exposed_secret("/dev/null") is None
    assert exposed_secret(str(tmp_path / "none")) is None
