"""Runs the command line: in this process, or in its own with pipes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import TextIO
from unittest import mock

import trio

from tests.scripts import ROOT
from trioglock.cli import main

__all__ = ["COMMAND", "Finished", "Running", "environment", "run_command", "started", "trioglock"]

COMMAND = (sys.executable, "-X", "utf8", "-W", "error", "-m", "trioglock")
SECONDS = 60
"""More than any command takes, also on a busy machine."""


@dataclass(frozen=True)
class Finished:
    """The exit code and the output of a command."""

    code: int
    stdout: str
    stderr: str


def environment(**more: str) -> dict[str, str]:
    """Return the environment of this process without variables that change the output."""
    ours = ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "COLUMNS", "LINES", "TRIOGLOCK_TOKEN")
    return {name: value for name, value in os.environ.items() if name not in ours} | more


async def run_command(
    *arguments: str | Path, stdin: str | bytes = "", env: Mapping[str, str] | None = None
) -> Finished:
    """Run a command to its end in a thread of this process; it gets no signals."""
    given = stdin.encode() if isinstance(stdin, str) else stdin
    with TemporaryFile() as file, TemporaryFile() as output, TemporaryFile() as errors:
        file.write(given)
        file.seek(0)

        def run() -> int:
            with _streams(file.fileno(), output.fileno(), errors.fileno()):
                return main([str(argument) for argument in arguments])

        with (
            mock.patch.dict(os.environ, environment(**(env or {})), clear=True),
            mock.patch("trioglock.cli.conversation.trio.open_signal_receiver", _no_signals),
            trio.fail_after(SECONDS),
        ):
            code = await trio.to_thread.run_sync(run)
        output.seek(0)
        errors.seek(0)
        return Finished(code, output.read().decode(), errors.read().decode())


@contextmanager
def _no_signals(*_: int) -> Iterator[AsyncIterator[int]]:
    """Replace trio's function, which works in the main thread only."""

    async def wait() -> AsyncIterator[int]:
        await trio.sleep_forever()
        yield 0

    yield wait()


@contextmanager
def _streams(stdin: int, stdout: int, stderr: int) -> Iterator[None]:
    """Replace the standard streams for the time of a block."""
    before = sys.stdin, sys.stdout, sys.stderr

    def text(descriptor: int, mode: str) -> TextIO:
        return os.fdopen(os.dup(descriptor), mode, encoding="utf-8", newline="")

    with text(stdin, "r") as sys.stdin, text(stdout, "w") as sys.stdout:
        with text(stderr, "w") as sys.stderr:
            try:
                yield
            finally:
                for stream in (sys.stdout, sys.stderr):
                    stream.flush()
                sys.stdin, sys.stdout, sys.stderr = before


async def trioglock(
    *arguments: str | Path,
    stdin: str | bytes = "",
    env: Mapping[str, str] | None = None,
    seconds: float = SECONDS,
) -> Finished:
    """Run a command to its end in its own process."""
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
    """A running command."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self._read = b""

    async def type(self, *lines: str) -> None:
        """Write lines to its input."""
        assert self.process.stdin is not None
        await self.process.stdin.send_all("".join(f"{line}\n" for line in lines).encode())

    async def end_input(self) -> None:
        """Close its input."""
        assert self.process.stdin is not None
        await self.process.stdin.aclose()

    async def line(self) -> str:
        """Return the next line of its output."""
        assert self.process.stdout is not None
        while b"\n" not in self._read:
            chunk = await self.process.stdout.receive_some()
            assert chunk, f"it ended: {self._read!r}"
            self._read += chunk
        line, _, self._read = self._read.partition(b"\n")
        return line.decode()

    async def read_errors(self, wanted: bytes, count: int = 1) -> bytes:
        """Read its stderr until it contains ``wanted`` so many times."""
        assert self.process.stderr is not None
        seen = b""
        while seen.count(wanted) < count:
            chunk = await self.process.stderr.receive_some()
            assert chunk, f"it ended: {seen!r}"
            seen += chunk
        return seen

    def interrupt(self) -> None:
        """Send SIGINT, like Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    async def finish(self) -> Finished:
        """Wait for its end; return the output that was not read yet."""
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        output = b"".join([chunk async for chunk in self.process.stdout])
        errors = b"".join([chunk async for chunk in self.process.stderr])
        code = await self.process.wait()
        return Finished(code, (self._read + output).decode(), errors.decode())


@asynccontextmanager
async def started(*arguments: str | Path, **env: str) -> AsyncIterator[Running]:
    """Run a command in its own process during a block; kill it if it has not ended by then."""
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
