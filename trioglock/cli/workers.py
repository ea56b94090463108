"""Worker processes of ``trioglock serve``, which share one port."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

import trio

from ..errors import InvalidOption
from ..retry import Backoff

if TYPE_CHECKING:
    from .serve import Settings

__all__ = ["end_line", "run_workers"]

START_TIMEOUT = 30
KILL_TIMEOUT = 5
"""Seconds after ``--drain`` until a worker is killed."""

BACKOFF = Backoff(initial=0.5, maximum=30, max_attempts=None, stable_after=10)


class WorkerFailed(InvalidOption):
    """A worker could not start."""


@dataclass(slots=True)
class Worker:
    """One of the workers: a process that is replaced when it fails, or by SIGHUP."""

    number: int
    process: trio.Process
    lock: trio.Lock = field(default_factory=trio.Lock)  # held while the process is being replaced


async def run_workers(settings: Settings, announce: Callable[[int], None]) -> int:
    """Run worker processes until SIGTERM or Ctrl-C, and return the exit code.

    Each is a process ``trioglock serve`` that listens on the same port (SO_REUSEPORT), so that the
    system distributes the connections. It reads its settings from standard input, a pipe. When
    this process ends in any way, so does the pipe, and the worker drains and exits.

    Args:
        settings: the settings of the command.
        announce: called with the port once all workers serve.
    """
    if not hasattr(socket, "SO_REUSEPORT"):
        raise InvalidOption("--workers requires a system with SO_REUSEPORT")
    with (
        _reserve_port(settings) as port,
        trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals,
    ):
        workers = Workers(replace(settings, port=port))
        return await workers.run(signals, lambda: announce(port))


@contextmanager
def _reserve_port(settings: Settings) -> Iterator[int]:
    """Bind the port, so that no other program takes it while no worker listens."""
    family = socket.getaddrinfo(settings.host, 0, type=socket.SOCK_STREAM)[0][0]
    with socket.socket(family) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((settings.host, settings.port))
        yield bound.getsockname()[1]


class Workers:
    """Starts the workers, restarts those that fail, replaces and stops them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._workers: list[Worker] = []
        self._draining: set[trio.Process] = set()

    async def run(self, signals: AsyncIterator[int], announce: Callable[[], None]) -> int:
        # Capacity 1: a request during a replacement leads to another replacement.
        send_request, requests = trio.open_memory_channel[None](1)
        try:
            for number in range(1, self._settings.workers + 1):
                self._workers.append(Worker(number, await self._start()))
        except WorkerFailed as error:
            print(f"trioglock serve: {error}", file=sys.stderr)
            await self._stop_all()
            return 1
        announce()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._replace_on_request, requests)
            for worker in self._workers:
                nursery.start_soon(self._supervise, worker)
            async for number in signals:
                if number == signal.SIGHUP:
                    with suppress(trio.WouldBlock):
                        send_request.send_nowait(None)
                    continue
                if number == signal.SIGINT:
                    end_line()
                nursery.cancel_scope.cancel()
                break
        await self._stop_all()
        return 0

    async def _start(self) -> trio.Process:
        """Start a process and wait until it serves, or raise WorkerFailed."""
        ready, ready_fd = os.pipe()
        settings = json.dumps(asdict(replace(self._settings, ready_fd=ready_fd)))
        async with trio.lowlevel.FdStream(ready) as pipe:
            try:
                process = await trio.lowlevel.open_process(
                    [sys.executable, "-m", "trioglock", "serve", "--worker"],
                    stdin=subprocess.PIPE,
                    pass_fds=[ready_fd],
                )
            except OSError as error:
                raise WorkerFailed(f"cannot start a worker process: {error}") from error
            finally:
                os.close(ready_fd)
            is_ready = False
            try:
                with trio.move_on_after(START_TIMEOUT), suppress(trio.BrokenResourceError):
                    assert process.stdin is not None
                    await process.stdin.send_all(f"{settings}\n".encode())
                    is_ready = bool(await pipe.receive_some())
            finally:
                if not is_ready:
                    with trio.CancelScope(shield=True):
                        process.kill()
                        await self._stop(process)
        if not is_ready:
            raise WorkerFailed(f"a worker could not start, its exit code is {process.returncode}")
        return process

    async def _supervise(self, worker: Worker) -> None:
        """Restart a worker whenever its process ends on its own."""
        delays = BACKOFF.delays()
        while True:
            process, started = worker.process, trio.current_time()
            code = await process.wait()
            if trio.current_time() - started >= BACKOFF.stable_after:
                delays = BACKOFF.delays()
            async with worker.lock:
                if worker.process is process:
                    print(f"worker {worker.number} exited with code {code}", file=sys.stderr)
                    await self._stop(process)
                    await self._restart(worker, delays)

    async def _restart(self, worker: Worker, delays: Iterator[float]) -> None:
        while True:
            await trio.sleep(next(delays, BACKOFF.maximum))
            try:
                worker.process = await self._start()
            except WorkerFailed as error:
                print(f"worker {worker.number}: {error}", file=sys.stderr)
            else:
                return

    async def _replace_on_request(self, requests: trio.MemoryReceiveChannel[None]) -> None:
        """Replace the workers one by one: the new one serves before the old one drains."""
        async for _ in requests:
            try:
                for worker in self._workers:
                    async with worker.lock:
                        old, worker.process = worker.process, await self._start()
                        self._draining.add(old)
                    await self._stop(old)
                    self._draining.discard(old)
                print("all workers replaced", flush=True)
            except WorkerFailed as error:
                print(f"keeping the old workers: {error}", file=sys.stderr)

    async def _stop_all(self) -> None:
        async with trio.open_nursery() as nursery:
            for process in (*self._draining, *(worker.process for worker in self._workers)):
                nursery.start_soon(self._stop, process)

    async def _stop(self, process: trio.Process) -> None:
        """Let a worker drain, and kill it if that takes too long."""
        if process.returncode is None:
            process.terminate()
            with trio.move_on_after(self._settings.drain + KILL_TIMEOUT):
                await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()
        assert process.stdin is not None
        await process.stdin.aclose()


def end_line() -> None:
    """Start a new line after the ``^C`` that a terminal shows."""
    if sys.stdout.isatty():
        print(flush=True)
