"""A message in fragments takes no more memory than its fragments, whatever its size."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.interop.peers import running

# `nox -s large_messages` sets 1024.
MIB = int(os.environ.get("TRIOGLOCK_LARGE_MESSAGE_MIB", "64"))

COMMAND = [sys.executable, "-m", "tests.interop.streaming"]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with running(*COMMAND, "serve") as server:
        yield server.plain


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("compression", ["plain", "deflate"])
@pytest.mark.parametrize("command", ["send", "receive"])
def test_memory_is_bounded(port: int, command: str, compression: str) -> None:
    result = subprocess.run(  # noqa: S603 - our own script
        [*COMMAND, command, str(port), str(MIB), compression],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    growth, seconds = result.stdout.split()
    assert int(growth) < 10 * 1024
    print(f"{command} {MIB} MiB, {compression}: {growth} KiB, {seconds} s")
