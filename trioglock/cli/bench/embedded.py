"""The embedded server: an echo in a process of its own, for a bench that is given no URL."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ...errors import ConnectFailed

__all__ = ["embedded_echo"]

SECONDS_TO_END = 5


@contextmanager
def embedded_echo() -> Iterator[str]:
    """The URL of an echo server, for the time of the block.

    It ends with its standard input, which is ours: also when this process is killed. Ctrl-C does
    not reach it: whoever measures has to end first.

    Raises:
        ConnectFailed: it did not start.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "trioglock.cli.echo"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            port = process.stdout.readline().strip().decode()
            if not port:
                raise ConnectFailed("the embedded echo server did not start")
            yield f"ws://127.0.0.1:{port}/"
        finally:
            process.stdin.close()
            try:
                process.wait(SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                process.kill()
