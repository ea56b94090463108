"""A terminal of a given size, in tmux: what a command shows in it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from ..scripts import ROOT
from .kit import COMMAND, SECONDS, environment

__all__ = ["Screen", "needs_tmux", "on_screen"]

needs_tmux = pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux")


class Screen:
    """What is on the screen now."""

    def __init__(self, socket: str) -> None:
        self._tmux = ["tmux", "-u", "-L", socket]

    async def shows(self, pattern: str) -> str:
        """Wait until it shows that; all that it shows then."""
        while True:
            done = await trio.run_process(
                [*self._tmux, "capture-pane", "-p", "-t", "0"], capture_stdout=True
            )
            text = done.stdout.decode()
            if re.search(pattern, text):
                return text
            await trio.sleep(0.05)


@asynccontextmanager
async def on_screen(width: int, height: int, *arguments: str) -> AsyncIterator[Screen]:
    """Run ``trioglock`` in a terminal of that size; behind its output stands its exit code."""
    socket = f"trioglock-{os.getpid()}"
    command = f"{shlex.join([*COMMAND, *arguments])}; echo exit $?; exec sleep 100"
    size = ["-x", str(width), "-y", str(height)]
    start = ["tmux", "-u", "-L", socket, "-f", "/dev/null", "new-session", "-d", *size]
    await trio.run_process([*start, command], cwd=ROOT, env=environment(LC_ALL="C.UTF-8"))
    try:
        with trio.fail_after(SECONDS):
            yield Screen(socket)
    finally:
        with trio.CancelScope(shield=True):
            await trio.run_process(
                ["tmux", "-L", socket, "kill-server"], check=False, stderr=subprocess.DEVNULL
            )
