"""Workers: several processes that share one port, started, watched and replaced."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from ..backoff import Backoff
from ..errors import InvalidOption
from .serving import announce, end_line
from .settings import Settings

__all__ = ["Workers"]

SECONDS_TO_START = 30
SECONDS_TO_DIE = 5
"""Beyond the time that connections have to end."""

BACKOFF = Backoff(initial=0.5, maximum=30, max_attempts=None, stable_after=10)


class WorkerFailed(InvalidOption):
    """A worker ended, or did nothing, before it served."""


class Place:
    """One of the workers: a process, and the one that follows it."""

    def __init__(self, number: int) -> None:
        self.number: int = number
        self.process: trio.Process | None = None
        self.changing: trio.Lock = trio.Lock()
        """Held by whoever puts another process here."""


class Workers:
    """Starts the processes, starts those again that fail, and ends them.

    Each is a process ``trioglock serve`` that listens on the same port (SO_REUSEPORT), so the
    system shares out the connections. Its standard input is a pipe from here: when this process
    is gone, however it went, it drains and ends.

    Args:
        settings: of the command.

    Raises:
        InvalidOption: this system cannot do it.
    """

    def __init__(self, settings: Settings) -> None:
        if not hasattr(socket, "SO_REUSEPORT"):
            raise InvalidOption("--workers needs a system with SO_REUSEPORT")
        self._settings = settings
        self._places = [Place(number) for number in range(1, settings.workers + 1)]
        self._port = 0
        self._renewals = 0
        self._leaving: set[trio.Process] = set()

    async def run(self) -> int:
        """Serve until SIGTERM or Ctrl-C; the exit code."""
        with (
            self._held_port() as self._port,
            trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals,
        ):
            async with trio.open_nursery() as nursery:
                try:
                    for place in self._places:
                        place.process = await self._start()
                except WorkerFailed as error:
                    print(f"trioglock serve: {error}", file=sys.stderr)
                    await self._stop_all()
                    return 1
                announce(self._settings, self._port)
                for place in self._places:
                    nursery.start_soon(self._watch, place)
                async for number in signals:
                    if number == signal.SIGINT:
                        end_line()
                    if number != signal.SIGHUP:
                        break
                    self._renewals += 1
                    if self._renewals == 1:
                        nursery.start_soon(self._renew)
                nursery.cancel_scope.cancel()
            await self._stop_all()
        return 0

    @contextmanager
    def _held_port(self) -> Iterator[int]:
        """Hold the port, so that it is ours also while no worker listens."""
        family = socket.getaddrinfo(self._settings.host, 0, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family) as held:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            held.bind((self._settings.host, self._settings.port))
            yield held.getsockname()[1]

    async def _start(self) -> trio.Process:
        """A new process, once it serves.

        Raises:
            WorkerFailed: it does not.
        """
        ready, tell = os.pipe()
        arguments = self._settings.to_arguments(self._port, tell)
        try:
            process = await trio.lowlevel.open_process(
                [sys.executable, "-m", "trioglock", *arguments],
                stdin=subprocess.PIPE,
                pass_fds=[tell],
                env=os.environ | self._settings.to_environment(),
            )
        except BaseException as error:
            os.close(ready)
            if isinstance(error, OSError):
                raise WorkerFailed(f"no process could be started: {error}") from error
            raise
        finally:
            os.close(tell)
        served = False
        try:
            async with trio.lowlevel.FdStream(ready) as pipe:
                with trio.move_on_after(SECONDS_TO_START):
                    served = bool(await pipe.receive_some())
        finally:
            if not served:
                with trio.CancelScope(shield=True):
                    process.kill()
                    await self._stop(process)
        if not served:
            raise WorkerFailed(f"a worker did not serve; its exit code: {process.returncode}")
        return process

    async def _watch(self, place: Place) -> None:
        """Start a worker again whenever it ends by itself."""
        delays = BACKOFF.delays()
        while True:
            process, began = place.process, trio.current_time()
            assert process is not None
            code = await process.wait()
            if trio.current_time() - began >= BACKOFF.stable_after:
                delays = BACKOFF.delays()
            async with place.changing:
                if place.process is process:
                    print(f"worker {place.number} ended: {code}", file=sys.stderr)
                    await self._start_again(place, delays)

    async def _start_again(self, place: Place, delays: Iterator[float]) -> None:
        while True:
            await trio.sleep(next(delays, BACKOFF.maximum))
            try:
                place.process = await self._start()
            except WorkerFailed as error:
                print(f"worker {place.number}: {error}", file=sys.stderr)
            else:
                return

    async def _renew(self) -> None:
        """Replace all; and once more, if that was asked for when some were new already."""
        while self._renewals:
            self._renewals = 1
            await self._renew_all()
            self._renewals -= 1

    async def _renew_all(self) -> None:
        """Replace one worker after the other: the new one serves before the old one drains."""
        try:
            for place in self._places:
                async with place.changing:
                    new = await self._start()
                    old, place.process = place.process, new
                assert old is not None
                self._leaving.add(old)
                await self._stop(old)
                self._leaving.discard(old)
            print("all workers are new", flush=True)
        except WorkerFailed as error:
            print(f"the old workers stay: {error}", file=sys.stderr)

    async def _stop_all(self) -> None:
        async with trio.open_nursery() as nursery:
            for process in (*self._leaving, *(place.process for place in self._places)):
                if process is not None:
                    nursery.start_soon(self._stop, process)

    async def _stop(self, process: trio.Process) -> None:
        """Let a worker drain, and kill it if that takes too long."""
        if process.returncode is None:
            process.terminate()
            with trio.move_on_after(self._settings.drain + SECONDS_TO_DIE):
                await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()
        assert process.stdin is not None
        await process.stdin.aclose()
