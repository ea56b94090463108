"""Measures contenders as servers, with many clients in another process."""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import trio

from ..clients import ClientsJob
from ..job import Job

__all__ = ["CHANNEL", "Ask", "Host", "Hosting", "TrioHosting", "UvloopHosting", "run_process"]

CHANNEL = "clients"
"""The path to which all clients connect, without the leading slash."""

COMMAND = (sys.executable, "-m", "benchmarks.clients")
WARM_UP_ROUNDS = 3
WARM_UP_CONNECTIONS = 10

Ask = Callable[[object], Awaitable[Any]]
"""Sends a value to the process of the clients, unless it is None, and returns its next value."""


async def _no_broadcast(message: str) -> None:
    raise NotImplementedError


@dataclass(frozen=True)
class Host:
    """A running server.

    Args:
        port: the TCP port.
        count: returns the number of connections.
        broadcast: sends a message to all connections.
    """

    port: int
    count: Callable[[], int] = int
    broadcast: Callable[[str], Awaitable[Any]] = _no_broadcast


@dataclass(frozen=True)
class Clients:
    """Connected clients in another process.

    Args:
        ask: exchanges values with the process.
        accepting: the CPU time in seconds that the server took to accept all clients.
    """

    ask: Ask
    accepting: float


class Hosting(ABC):
    """The interface of a contender that is measured as a server."""

    @abstractmethod
    def host(self, job: Job) -> AbstractAsyncContextManager[Host]:
        """Run an echo server during the block; ``job.way`` is the variant."""

    @abstractmethod
    def run_process(self) -> AbstractAsyncContextManager[Ask]:
        """Run the process of the clients during the block."""

    @asynccontextmanager
    async def clients(self, host: Host, job: Job) -> AsyncIterator[Clients]:
        """Keep ``job.connections`` clients connected during the block."""
        clients_job = ClientsJob(
            work=job.work,
            url=f"{'wss' if job.secure else 'ws'}://127.0.0.1:{host.port}/{CHANNEL}",
            connections=job.connections,
            batch=job.batch,
            size=job.size,
            deflate=job.deflate,
        )
        async with self.run_process() as ask:
            await ask(None)
            busy = time.process_time()
            await ask(asdict(clients_job))
            yield Clients(ask, accepting=time.process_time() - busy)

    async def serve(self, job: Job) -> dict[str, float]:
        """Echo over all connections at the same time.

        Returns:
            The seconds and the CPU time for ``count`` messages over all connections.
        """
        rounds = max(1, job.count // job.connections)
        async with self.host(job) as host, self.clients(host, job) as clients:
            await clients.ask(WARM_UP_ROUNDS)
            busy = time.process_time()
            seconds: float = await clients.ask(rounds)
            busy = time.process_time() - busy
        # All connections send the same number of messages, so their total may differ from count.
        scale = job.count / (rounds * job.connections)
        return {"seconds": seconds * scale, "cpu": busy * scale}

    async def hold(self, job: Job) -> dict[str, float]:
        """Keep idle connections open; return the CPU time for accepting and the memory."""
        process = psutil.Process()
        async with self.host(job) as host:
            few = replace(job, connections=min(WARM_UP_CONNECTIONS, job.connections))
            async with self.clients(host, few):
                pass
            gc.collect()
            resident = process.memory_info().rss
            async with self.clients(host, job) as clients:
                gc.collect()
                resident = process.memory_info().rss - resident
        return {"cpu": clients.accepting, "resident": resident}


class TrioHosting(Hosting):
    """A server on trio."""

    async def fanout(self, job: Job) -> dict[str, float]:
        """Repeatedly send a message, or a batch of messages, to all connections.

        Returns:
            The seconds and the CPU time for ``count`` messages over all connections.
        """
        message = job.message
        assert isinstance(message, str)
        rounds = max(1, job.count // (job.connections * job.batch))
        async with self.host(job) as host, self.clients(host, job) as clients:
            while host.count() < job.connections:
                await trio.sleep(0.01)
            for _ in range(WARM_UP_ROUNDS):
                await self._broadcast(host, message, job.batch)
                await clients.ask(None)
            began, busy = time.perf_counter(), time.process_time()
            for _ in range(rounds):
                await self._broadcast(host, message, job.batch)
                await clients.ask(None)
            took, busy = time.perf_counter() - began, time.process_time() - busy
        scale = job.count / (rounds * job.connections * job.batch)
        return {"seconds": took * scale, "cpu": busy * scale}

    async def _broadcast(self, host: Host, message: str, batch: int) -> None:
        if batch == 1:
            await host.broadcast(message)
            return
        # All tasks publish in the same turn of the scheduler.
        async with trio.open_nursery() as nursery:
            for _ in range(batch):
                nursery.start_soon(host.broadcast, message)

    def run_process(self) -> AbstractAsyncContextManager[Ask]:
        return run_process(COMMAND)


@asynccontextmanager
async def run_process(command: Sequence[str], cwd: Path | None = None) -> AsyncIterator[Ask]:
    """Run a process that exchanges lines of JSON during the block, on trio."""
    pipe = subprocess.PIPE
    process = await trio.lowlevel.open_process(command, stdin=pipe, stdout=pipe, cwd=cwd)
    assert process.stdin is not None
    lines = _lines(process.stdout)

    async def ask(value: object) -> Any:
        assert process.stdin is not None
        if value is not None:
            await process.stdin.send_all(_line(value))
        return json.loads(await anext(lines))

    try:
        yield ask
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            await process.stdin.aclose()


async def _lines(stream: Any) -> AsyncIterator[bytes]:
    rest = b""
    async with stream:
        while data := await stream.receive_some():
            *whole, rest = (rest + data).split(b"\n")
            for line in whole:
                yield line


class UvloopHosting(Hosting):
    """A server on asyncio with uvloop."""

    @asynccontextmanager
    async def run_process(self) -> AsyncIterator[Ask]:
        pipe = subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*COMMAND, stdin=pipe, stdout=pipe)

        async def ask(value: object) -> Any:
            assert process.stdin is not None
            assert process.stdout is not None
            if value is not None:
                process.stdin.write(_line(value))
            return json.loads(await process.stdout.readline())

        try:
            yield ask
        finally:
            process.kill()
            await process.wait()


def _line(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"
