"""A terminal that goes away: nothing waits for it."""

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
    """The peer, the process, and the far end of its terminal.

    Args:
        home: where it keeps its state.
        owned: whether the terminal is the one that controls the process.
    """
    far, near = os.openpty()
    start = (sys.executable, "-c", OWN_TERMINAL) if owned else ()
    async with MockServer() as server:
        with trio.fail_after(SECONDS):
            process = await trio.lowlevel.open_process(
                [*start, *COMMAND, "connect", server.url],
                stdin=near,
                stdout=near,
                stderr=near,
                cwd=ROOT,
                env=environment(TERM="xterm", XDG_STATE_HOME=str(home)),
                start_new_session=not owned,
            )
            try:
                os.close(near)
                peer = await server.accept()
                seen = b""
                while b"connected to" not in seen:
                    await trio.lowlevel.wait_readable(far)
                    seen += os.read(far, 1000)
                yield peer, process, far
                await process.wait()
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()


@pytest.mark.parametrize("owned", [True, False], ids=["SIGHUP", "no signal"])
async def test_the_terminal_goes_away(owned: bool, tmp_path: Path) -> None:
    """It closes in good order and ends by itself, told by a signal or by the terminal alone."""
    async with at_a_prompt(tmp_path, owned=owned) as (peer, process, far):
        os.close(far)
        with pytest.raises(AssertionError, match="the client closed"):
            await peer.receive()
        assert peer.closed is not None
        assert peer.closed.code in ((1000, 1001) if owned else (1000,))
        assert await process.wait() in ((0, 129) if owned else (0,))


async def test_messages_for_a_terminal_that_goes_away(tmp_path: Path) -> None:
    """While there is more to print than it takes."""
    async with at_a_prompt(tmp_path, owned=True) as (peer, _, far), trio.open_nursery() as nursery:

        async def flood() -> None:
            try:
                while True:
                    await peer.send("x" * 10_000)
            except Exception:
                nursery.cancel_scope.cancel()

        nursery.start_soon(flood)
        await trio.sleep(0.3)
        os.close(far)


async def test_a_terminal_that_stands_still(tmp_path: Path) -> None:
    """It holds up nobody but itself: the peer's pings are answered, and its close ends it."""
    async with at_a_prompt(tmp_path, owned=True) as (peer, process, far):
        await peer.send(*["x" * 10_000] * 20)  # more than it takes, for nobody reads its far end
        await peer.ping()
        await peer.close(1000)
        assert await process.wait() == 0
        os.close(far)
