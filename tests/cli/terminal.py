"""A real terminal in tmux: a test presses keys and reads the screen."""

from __future__ import annotations

import shlex
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.cli.helpers import COMMAND, SECONDS, environment
from tests.scripts import ROOT
from trioglock.testing import MockServer

__all__ = ["Terminal", "terminal"]


class Terminal:
    """A window in a separate tmux server.

    Args:
        folder: of the socket.
        home: the folder of programs' state.
    """

    def __init__(self, folder: str, home: Path) -> None:
        self.home: Path = home
        self._name = f"trioglock-{uuid.uuid4().hex[:8]}"
        self._env = environment(TMUX_TMPDIR=folder, XDG_STATE_HOME=str(home), LC_ALL="C.UTF-8")
        self._env.pop("TMUX", None)

    async def _tmux(self, *arguments: str) -> str:
        done = await trio.run_process(
            ["tmux", "-L", self._name, "-u", *arguments], capture_stdout=True, env=self._env
        )
        return done.stdout.decode()

    async def open(self) -> None:
        """Start tmux with a shell."""
        size = ("-x", "80", "-y", "24")
        await self._tmux("-f", "/dev/null", "new-session", "-d", *size, "-c", str(ROOT), "sh")

    async def run(self, *arguments: str, before: str = "", after: str = "") -> None:
        """Run trioglock; the shell prints the exit code at the end.

        Args:
            arguments: of trioglock.
            before: shell text before the command, such as ``NO_COLOR=1``.
            after: shell text after it, such as a redirection.
        """
        words = " ".join(shlex.quote(word) for word in (*COMMAND, *arguments))
        line = f"clear; {before} {words} {after}; echo exit code $?"
        await self._tmux("send-keys", "-l", line)
        await self.press("Enter")

    async def connect(self, server: MockServer, *arguments: str, **more: str) -> None:
        """Run ``trioglock connect`` and wait until it is connected."""
        await self.run("connect", server.url, *arguments, **more)
        await self.shows(f"* connected to {server.url}")

    async def quit(self) -> list[str]:
        """Press Ctrl-D; the exit code is 0. Return the lines on the screen."""
        await self.press("C-d")
        return await self.shows("exit code 0")

    async def type(self, text: str) -> None:
        """Type a text and Enter."""
        await self._tmux("send-keys", "-l", text)
        await self.press("Enter")

    async def press(self, *keys: str) -> None:
        """Press keys by their tmux names."""
        await self._tmux("send-keys", *keys)

    async def resize(self, width: int, height: int) -> None:
        """Change the size of the window."""
        await self._tmux("resize-window", "-x", str(width), "-y", str(height))

    async def screen(self, *, colours: bool = False) -> str:
        """Return the text on the screen without empty lines at the end."""
        return (await self._tmux("capture-pane", "-p", *(["-e"] if colours else []))).rstrip()

    async def shows(self, wanted: str | Callable[[list[str]], object]) -> list[str]:
        """Wait for a line, or for a function of all lines to be true; return the lines."""
        screen = ""
        with trio.move_on_after(SECONDS):
            while True:
                screen = await self.screen()
                lines = screen.splitlines()
                if wanted in lines if isinstance(wanted, str) else wanted(lines):
                    return lines
                await trio.sleep(0.05)
        raise AssertionError(f"{wanted!r} did not appear:\n{screen}")

    async def shows_start(self, text: str) -> list[str]:
        """Wait for a line that starts with a text; return the lines."""
        return await self.shows(lambda lines: any(line.startswith(text) for line in lines))

    async def close(self) -> None:
        """End tmux and the programs in it."""
        await self._tmux("kill-server")


@asynccontextmanager
async def terminal(home: Path) -> AsyncIterator[Terminal]:
    """Open a terminal during a block."""
    if shutil.which("tmux") is None:
        pytest.skip("needs tmux")
    # The path of a socket must be short.
    with tempfile.TemporaryDirectory(prefix="tmux") as folder:
        terminal = Terminal(folder, home)
        await terminal.open()
        try:
            yield terminal
        finally:
            with trio.CancelScope(shield=True):
                await terminal.close()
