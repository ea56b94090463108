"""Runs the command line as a user does: in a process, through pipes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from tests.scripts import ROOT

__all__ = ["COMMAND", "Finished", "Running", "environment", "started", "trioglock"]

COMMAND = (sys.executable, "-X", "utf8", "-W", "error", "-m", "trioglock")
SECONDS = 60
"""Nothing takes so long, not on a machine that is busy with other things."""


@dataclass(frozen=True)
class Finished:
    """What a process left behind."""

    code: int
    stdout: str
    stderr: str


def environment(**more: str) -> dict[str, str]:
    """That of this process, without what would change what is printed."""
    ours = ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "COLUMNS", "LINES", "TRIOGLOCK_TOKEN")
    return {name: value for name, value in os.environ.items() if name not in ours} | more


async def trioglock(
    *arguments: str | Path,
    stdin: str | bytes = "",
    env: Mapping[str, str] | None = None,
    seconds: float = SECONDS,
) -> Finished:
    """Run a command with this input, to its end."""
    given = stdin.encode() if isinstance(stdin, str) else stdin
    with trio.fail_after(seconds):
        done = await trio.run_process(
            [*COMMAND, *map(str, arguments)],
            stdin=given,
            cwd=ROOT,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env=environment(**(env or {})),
        )
    return Finished(done.returncode, done.stdout.decode(), done.stderr.decode())


class Running:
    """A command that runs, for a test that talks to it."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self._read = b""

    async def type(self, *lines: str) -> None:
        """Write lines into its input."""
        assert self.process.stdin is not None
        await self.process.stdin.send_all("".join(f"{line}\n" for line in lines).encode())

    async def end_input(self) -> None:
        """Nothing more comes."""
        assert self.process.stdin is not None
        await self.process.stdin.aclose()

    async def line(self) -> str:
        """The next line of its output."""
        assert self.process.stdout is not None
        while b"\n" not in self._read:
            chunk = await self.process.stdout.receive_some()
            assert chunk, f"it ended: {self._read!r}"
            self._read += chunk
        line, _, self._read = self._read.partition(b"\n")
        return line.decode()

    def interrupt(self) -> None:
        """What Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)

    async def finish(self) -> Finished:
        """Wait for its end; what has not been read yet."""
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        output = b"".join([chunk async for chunk in self.process.stdout])
        errors = b"".join([chunk async for chunk in self.process.stderr])
        code = await self.process.wait()
        return Finished(code, (self._read + output).decode(), errors.decode())


@asynccontextmanager
async def started(*arguments: str | Path, **env: str) -> AsyncIterator[Running]:
    """A command for the time of a block; it is killed if it has not ended by itself."""
    process = await trio.lowlevel.open_process(
        [*COMMAND, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env=environment(**env),
    )
    try:
        with trio.fail_after(SECONDS):
            yield Running(process)
    finally:
        with trio.CancelScope(shield=True):
            if process.returncode is None:
                process.kill()
                await process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                assert stream is not None
                await stream.aclose()
