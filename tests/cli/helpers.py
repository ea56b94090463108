"""Runs the command line: in this process, or in its own with pipes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from unittest import mock

import trio

from tests.forks import INTERPRETER, Forked, forked
from trioglock._scope import open_scope
from trioglock.cli import main

__all__ = [
    "COMMAND",
    "SECONDS",
    "Finished",
    "Running",
    "environment",
    "opened",
    "run_command",
    "started",
]

COMMAND = (*INTERPRETER, "-m", "trioglock")
SECONDS = 300
"""Ends a test that hangs. On a busy machine, the longest ones take more than a minute."""


@dataclass(frozen=True)
class Finished:
    """The exit code and the output of a command."""

    code: int
    stdout: str
    stderr: str


def environment(**more: str) -> dict[str, str]:
    """Return the environment of this process without variables that change the output."""
    ours = {"NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "COLUMNS", "LINES", "TRIOGLOCK_TOKEN"}
    ours.add("PYTHONUNBUFFERED")  # few users set it
    return {name: value for name, value in os.environ.items() if name not in ours} | more


async def run_command(
    *arguments: str | Path, stdin: str | bytes | Path = "", env: Mapping[str, str] | None = None
) -> Finished:
    """Run a command to its end in a thread of this process; it gets no signals.

    Args:
        arguments: without the program's name.
        stdin: the content of its input, which is a file, or the path of the file.
        env: additional environment variables.
    """
    with TemporaryFile() if not isinstance(stdin, Path) else stdin.open("rb") as file:
        if not isinstance(stdin, Path):
            file.write(stdin.encode() if isinstance(stdin, str) else stdin)
            file.seek(0)
        async with _in_thread(arguments, file.fileno(), env or {}) as running:
            return await running.finish()


@asynccontextmanager
async def opened(*arguments: str | Path, **env: str) -> AsyncIterator[Running]:
    """Run a command in a thread of this process during a block; it gets no signals."""
    read, write = os.pipe()
    stdin = trio.lowlevel.FdStream(write)
    async with stdin, _in_thread(arguments, read, env) as running:
        os.close(read)
        running.stdin = stdin
        yield running
        await stdin.aclose()


@asynccontextmanager
async def _in_thread(
    arguments: Sequence[str | Path], stdin: int, env: Mapping[str, str]
) -> AsyncIterator[Running]:
    (output, stdout), (errors, stderr) = os.pipe(), os.pipe()
    streams = [os.fdopen(os.dup(stdin), "r"), os.fdopen(stdout, "w"), os.fdopen(stderr, "w")]
    ended, code = trio.Event(), 0

    def call() -> int:
        before = sys.stdin, sys.stdout, sys.stderr
        sys.stdin, sys.stdout, sys.stderr = streams
        try:
            return main([str(argument) for argument in arguments])
        finally:
            sys.stdin, sys.stdout, sys.stderr = before
            for stream in streams:
                stream.close()

    async def run() -> None:
        nonlocal code
        code = await trio.to_thread.run_sync(call, abandon_on_cancel=True)
        ended.set()

    async def wait() -> int:
        await ended.wait()
        return code

    async with trio.lowlevel.FdStream(output) as out, trio.lowlevel.FdStream(errors) as err:
        with (
            mock.patch.dict(os.environ, environment(**env), clear=True),
            mock.patch("trioglock.cli.conversation.trio.open_signal_receiver", _no_signals),
            trio.fail_after(SECONDS),
        ):
            async with open_scope() as nursery:
                nursery.start_soon(run)
                yield Running(out, err, wait)
                await ended.wait()


@contextmanager
def _no_signals(*_: int) -> Iterator[AsyncIterator[int]]:
    """Replace trio's function, which works in the main thread only."""

    async def wait() -> AsyncIterator[int]:
        await trio.sleep_forever()
        yield 0

    yield wait()


class Running:
    """A running command.

    Args:
        stdout: its output.
        stderr: its errors.
        wait: waits for its end and returns the exit code.
        process: if it has its own.
    """

    stdin: trio.abc.SendStream

    def __init__(
        self,
        stdout: trio.abc.ReceiveStream,
        stderr: trio.abc.ReceiveStream,
        wait: Callable[[], Awaitable[int]],
        process: trio.Process | Forked | None = None,
    ) -> None:
        self.stdout = stdout
        self.stderr = stderr
        self.wait = wait
        self._process = process
        self._read = b""
        self._terminated = False

    @property
    def process(self) -> trio.Process | Forked:
        """The process, if the command has its own."""
        assert self._process is not None
        return self._process

    async def type(self, *lines: str) -> None:
        """Write lines to its input."""
        await self.stdin.send_all("".join(f"{line}\n" for line in lines).encode())

    async def end_input(self) -> None:
        """Close its input."""
        await self.stdin.aclose()

    async def line(self) -> str:
        """Return the next line of its output."""
        while b"\n" not in self._read:
            chunk = await self.stdout.receive_some(2**16)
            assert chunk, f"it ended: {self._read!r}"
            self._read += chunk
        line, _, self._read = self._read.partition(b"\n")
        return line.decode()

    async def read_errors(self, wanted: bytes, count: int = 1) -> bytes:
        """Read its stderr until it contains ``wanted`` so many times."""
        seen = b""
        while seen.count(wanted) < count:
            chunk = await self.stderr.receive_some(2**16)
            assert chunk, f"it ended: {seen!r}"
            seen += chunk
        return seen

    def terminate(self) -> None:
        """Send SIGTERM, once: a process that is exiting no longer handles it."""
        if not self._terminated:
            self._terminated = True
            self.process.terminate()

    def interrupt(self) -> None:
        """Send SIGINT, like Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    async def finish(self) -> Finished:
        """Wait for its end; return the output that was not read yet."""
        read = {self.stdout: self._read, self.stderr: b""}

        async def read_all(stream: trio.abc.ReceiveStream) -> None:
            read[stream] += b"".join([chunk async for chunk in stream])

        async with trio.open_nursery() as nursery:
            for stream in read:
                nursery.start_soon(read_all, stream)
        return Finished(await self.wait(), read[self.stdout].decode(), read[self.stderr].decode())


@asynccontextmanager
async def started(*arguments: str | Path, **env: str) -> AsyncIterator[Running]:
    """Run a command in its own process during a block; kill it if it has not ended by then."""
    words = map(str, arguments)
    async with forked("-m", "trioglock", *words, env=environment(**env)) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        running = Running(process.stdout, process.stderr, process.wait, process)
        running.stdin = process.stdin
        with trio.fail_after(SECONDS):
            yield running
