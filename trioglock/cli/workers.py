"""Worker processes of ``trioglock serve``, which share one port."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

import trio

from ..retry import Backoff
from .streams import print_line, print_log

if TYPE_CHECKING:
    from .serve import Settings

__all__ = ["READY", "SIGNALS", "end_line", "run_workers"]

SIGNALS: frozenset[int] = frozenset(
    {signal.SIGTERM, signal.SIGINT, getattr(signal, "SIGHUP", signal.SIGTERM)}
)

START_TIMEOUT = 30
READY = b"\0"
"""A worker that is serving writes this and a text for the user to its parent; any other text is the
reason for a failure."""

KILL_TIMEOUT = 5
"""Seconds after which a worker is killed, in addition to ``--drain`` and ``--shutdown-timeout``."""

BACKOFF = Backoff(initial=0.5, maximum=30, max_attempts=None, stable_after=10)


_logger = logging.getLogger("trioglock.serve")


class WorkerFailed(Exception):
    """A worker could not start; the message is the reason."""


@dataclass(slots=True)
class Worker:
    """One of the workers: a process that is replaced when it fails, or on SIGHUP."""

    number: int
    process: trio.Process
    lock: trio.Lock = field(default_factory=trio.Lock)  # held while the process is being replaced


async def run_workers(settings: Settings) -> int:
    """Run worker processes until SIGTERM or Ctrl-C, and return the exit code.

    Each worker is a ``trioglock serve`` process that listens on the same port (SO_REUSEPORT), so
    that the system distributes the connections. It reads its settings from standard input, a pipe.
    When this process ends for any reason, the pipe is closed, and the worker drains and exits.

    Args:
        settings: the settings of the command.
    """
    with (
        print_log(_logger.name, settings.log_level),
        _reserve_port(settings) as port,
        trio.open_signal_receiver(*SIGNALS) as signals,
    ):
        workers = Workers(replace(settings, port=port))
        return await workers.run(signals)


@contextmanager
def _reserve_port(settings: Settings) -> Iterator[int]:
    """Bind the port, so that no other program can use it while no worker listens."""
    family = socket.getaddrinfo(settings.host, 0, type=socket.SOCK_STREAM)[0][0]
    with socket.socket(family) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # type: ignore[attr-defined, unused-ignore]
        bound.bind((settings.host, settings.port))
        yield bound.getsockname()[1]


class Workers:
    """Starts, replaces and stops the workers, and restarts those that fail."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._workers: list[Worker] = []
        self._draining: set[trio.Process] = set()
        self._text = ""

    async def run(self, signals: AsyncIterator[int]) -> int:
        # Capacity 1, so a request during a replacement leads to another replacement.
        send_request, requests = trio.open_memory_channel[None](1)
        code = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_watch_signals, signals, send_request, nursery.cancel_scope)
            try:
                await self._start_all()
            except WorkerFailed as error:
                print_line(f"trioglock serve: {error}", sys.stderr)
                code = 1
                nursery.cancel_scope.cancel()
            else:
                print_line(self._text)
                nursery.start_soon(self._replace_on_request, requests)
                for worker in self._workers:
                    nursery.start_soon(self._supervise, worker)
        await self._stop_all()
        return code

    async def _start_all(self) -> None:
        """Start the workers, all at the same time, or raise WorkerFailed for the first failure."""
        failures: list[WorkerFailed] = []

        async def start(number: int) -> None:
            try:
                self._workers.append(Worker(number, await self._start()))
            except WorkerFailed as error:
                failures.append(error)
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for number in range(1, self._settings.workers + 1):
                nursery.start_soon(start, number)
        if failures:
            raise failures[0]

    async def _start(self) -> trio.Process:
        """Start a process and wait until it serves, or raise WorkerFailed."""
        try:
            ready, ready_fd = os.pipe()
        except OSError as error:
            raise WorkerFailed(f"cannot start a worker: {error}") from error
        try:
            process = await trio.lowlevel.open_process(  # type: ignore[call-arg, unused-ignore]
                [sys.executable, "-m", "trioglock", "serve", "--worker"],
                stdin=subprocess.PIPE,
                pass_fds=[ready_fd],
            )
        except BaseException as error:
            os.close(ready)
            if isinstance(error, OSError):
                raise WorkerFailed(f"cannot start a worker: {error}") from error
            raise
        finally:
            os.close(ready_fd)
        answer = b""
        pipe = trio.lowlevel.FdStream(ready)  # type: ignore[attr-defined, unused-ignore]
        try:
            with trio.move_on_after(START_TIMEOUT), suppress(trio.BrokenResourceError):
                settings = json.dumps(asdict(replace(self._settings, ready_fd=ready_fd)))
                assert process.stdin is not None
                await process.stdin.send_all(f"{settings}\n".encode())
                answer = await pipe.receive_some()
        finally:
            with trio.CancelScope(shield=True):
                await pipe.aclose()
                if not answer.startswith(READY):
                    process.kill()
                    await self._stop(process)
        if not answer.startswith(READY):
            reason = f"a worker could not start: it exited with code {process.returncode}"
            raise WorkerFailed(answer.decode(errors="replace") or reason)
        self._text = answer.removeprefix(READY).decode()
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
                    _logger.warning("worker %d exited with code %d", worker.number, code)
                    await self._stop(process)
                    await self._restart(worker, delays)

    async def _restart(self, worker: Worker, delays: Iterator[float]) -> None:
        while True:
            await trio.sleep(next(delays, BACKOFF.maximum))
            try:
                worker.process = await self._start()
            except WorkerFailed as error:
                _logger.warning("worker %d: %s", worker.number, error)
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
                _logger.info("all workers replaced")
            except WorkerFailed as error:
                _logger.warning("keeping the old workers: %s", error)

    async def _stop_all(self) -> None:
        async with trio.open_nursery() as nursery:
            for process in (*self._draining, *(worker.process for worker in self._workers)):
                nursery.start_soon(self._stop, process)

    async def _stop(self, process: trio.Process) -> None:
        """Let a worker drain, and kill it if that takes too long."""
        if process.returncode is None:
            process.terminate()
            limits = self._settings.drain + self._settings.shutdown_timeout
            with trio.move_on_after(limits + KILL_TIMEOUT):
                await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()
        assert process.stdin is not None
        await process.stdin.aclose()


async def _watch_signals(
    signals: AsyncIterator[int],
    requests: trio.MemorySendChannel[None],
    scope: trio.CancelScope,
) -> None:
    """Request a replacement on SIGHUP, and cancel the scope on SIGTERM or Ctrl-C."""
    async for number in signals:
        if number == signal.SIGHUP:  # type: ignore[attr-defined, unused-ignore]
            with suppress(trio.WouldBlock):
                requests.send_nowait(None)
            continue
        if number == signal.SIGINT:
            end_line()
        scope.cancel()
        return


def end_line() -> None:
    """Start a new line after the ``^C`` that a terminal shows."""
    if sys.stdout.isatty():
        print_line("")
