"""``trioglock connect`` in a terminal that goes away or stops."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.cli.helpers import COMMAND, SECONDS, environment
from tests.scripts import ROOT
from trioglock.testing import MockPeer, MockServer

if sys.platform == "win32":
    pytest.skip("Windows has no such terminals", allow_module_level=True)

pytestmark = pytest.mark.slow

OWN_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


@asynccontextmanager
async def at_a_prompt(
    home: Path, *, owned: bool
) -> AsyncIterator[tuple[MockPeer, trio.Process, int]]:
    """Yield the peer, the process, and the master side of its terminal.

    Args:
        home: the folder of its state.
        owned: whether it is the controlling terminal of the process.
    """
    master, slave = os.openpty()
    start = (sys.executable, "-c", OWN_TERMINAL) if owned else ()
    async with MockServer() as server:
        with trio.fail_after(SECONDS):
            process = await trio.lowlevel.open_process(
                [*start, *COMMAND, "connect", server.url],
                stdin=slave,
                stdout=slave,
                stderr=slave,
                cwd=ROOT,
                env=environment(TERM="xterm", XDG_STATE_HOME=str(home)),
                start_new_session=not owned,
            )
            try:
                os.close(slave)
                peer = await server.accept()
                seen = b""
                while b"connected to" not in seen:
                    await trio.lowlevel.wait_readable(master)
                    seen += os.read(master, 1000)
                yield peer, process, master
                await process.wait()
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()


@pytest.mark.parametrize("owned", [True, False], ids=["SIGHUP", "no signal"])
async def test_the_terminal_goes_away(owned: bool, tmp_path: Path) -> None:
    """The command closes and ends, whether or not it gets a signal."""
    async with at_a_prompt(tmp_path, owned=owned) as (peer, process, master):
        os.close(master)
        with pytest.raises(AssertionError, match="the client closed"):
            await peer.receive()
        assert peer.closed is not None
        assert peer.closed.code in ((1000, 1001) if owned else (1000,))
        assert await process.wait() in ((0, 129) if owned else (0,))


async def test_messages_for_a_terminal_that_goes_away(tmp_path: Path) -> None:
    """The command ends although output is queued."""
    async with (
        at_a_prompt(tmp_path, owned=True) as (peer, _, master),
        trio.open_nursery() as nursery,
    ):

        async def flood() -> None:
            try:
                while True:
                    await peer.send("x" * 10_000)
            except Exception:
                nursery.cancel_scope.cancel()

        nursery.start_soon(flood)
        await trio.sleep(0.3)
        os.close(master)


async def test_a_stopped_terminal(tmp_path: Path) -> None:
    """Pings are answered, and a close of the peer ends the command."""
    async with at_a_prompt(tmp_path, owned=True) as (peer, process, master):
        await peer.send(*["x" * 10_000] * 20)  # more than its buffer, which is not read
        await peer.ping()
        await peer.close(1000)
        assert await process.wait() == 0
        os.close(master)
