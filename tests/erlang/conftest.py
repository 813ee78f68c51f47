"""The Erlang VM of the tests in this folder: installed where that is possible, started once."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.erlang.vm import PACKAGES, Erlang, missing

#: Seconds for what goes over the network: there may be none.
DOWNLOAD_PATIENCE = 40.0
#: Seconds for unpacking; never cut short in practice, as that would leave half a package.
INSTALL_PATIENCE = 150.0

#: pytest's limit for a test counts its fixtures, and the first test here may have to install a VM.
FIRST_TEST_TIMEOUT = DOWNLOAD_PATIENCE * 2 + INSTALL_PATIENCE + 60


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        # With a VM: once, on the source tree.
        if here in item.path.parents and "erlang" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)
    if shutil.which("erl") is None:
        for item in items:
            if here in item.path.parents and item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(FIRST_TEST_TIMEOUT))


def install() -> None:
    """Install a VM with apt, as root only; does nothing more when a step fails or takes too long."""
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        return
    packages = ["--yes", "--no-install-recommends", *PACKAGES]
    steps = [
        (["update"], DOWNLOAD_PATIENCE),
        (["install", "--download-only", *packages], DOWNLOAD_PATIENCE),
        (["install", *packages], INSTALL_PATIENCE),
    ]
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for words, patience in steps:
        command = [apt, "-o", "DPkg::Lock::Timeout=30", "-o", "Acquire::Retries=0", *words]
        try:
            subprocess.run(
                command, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=patience, check=True
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            return


@pytest.fixture(scope="session")
def erlang(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Erlang]:
    """The one VM of the run."""
    if missing():
        install()
    if missing():
        pytest.skip("no Erlang VM here: install erlang-base erlang-crypto erlang-inets erlang-ssl erlang-public-key")
    with Erlang(tmp_path_factory.mktemp("erlang")) as vm:
        yield vm
