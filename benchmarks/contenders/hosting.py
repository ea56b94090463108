"""Measures contenders as servers, on trio, with many clients in another process."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any

import psutil  # type: ignore[import-untyped]
import trio

from ..clients import ClientsJob
from ..job import Job

__all__ = ["Host", "TrioHost"]


@dataclass(frozen=True)
class Host:
    """A running server.

    Args:
        port: the TCP port.
        count: returns the number of connections.
        broadcast: sends a message to all connections.
    """

    port: int
    count: Callable[[], int]
    broadcast: Callable[[str], Awaitable[Any]]


class TrioHost(ABC):
    """The interface of a contender that is measured as a server."""

    @abstractmethod
    def host(self, job: Job) -> AbstractAsyncContextManager[Host]:
        """Run an echo server during the block; ``job.way`` is the variant."""

    async def fanout(self, job: Job) -> float:
        """Repeatedly send a message to all connections.

        Returns:
            The seconds for ``count`` messages over all connections.
        """
        message = job.message
        assert isinstance(message, str)
        async with self.host(job) as host, run_clients(host, job) as ask:
            while host.count() < job.connections:
                await trio.sleep(0.01)
            began = trio.current_time()
            for _ in range(max(1, job.count // job.connections)):
                await host.broadcast(message)
                await ask(None)
            took = trio.current_time() - began
        rounds = max(1, job.count // job.connections)
        return took * job.count / (rounds * job.connections)

    async def serve(self, job: Job) -> float:
        """Echo over all connections at the same time.

        Returns:
            The seconds for ``count`` messages over all connections.
        """
        rounds = max(1, job.count // job.connections)
        async with self.host(job) as host, run_clients(host, job) as ask:
            took: float = (await ask("go"))["seconds"]
        return took * job.count / (rounds * job.connections)

    async def hold(self, job: Job) -> dict[str, float]:
        """Keep idle connections open; return the memory of each in bytes."""
        process = psutil.Process()
        async with self.host(job) as host:
            gc.collect()
            before = process.memory_info().rss
            began = trio.current_time()
            async with run_clients(host, job):
                took = trio.current_time() - began
                await trio.sleep(0.1)
                gc.collect()
                resident = process.memory_info().rss - before
        return {"resident": resident / job.connections, "connect": took / job.connections}


Ask = Callable[[str | None], Awaitable[Any]]


@asynccontextmanager
async def run_clients(host: Host, job: Job) -> AsyncIterator[Ask]:
    """Run connected clients in another process during the block.

    Yields:
        A function that sends the process a line, unless it is None, and returns its next line.
    """
    clients_job = ClientsJob(
        work=job.work,
        url=f"ws://127.0.0.1:{host.port}/",
        connections=job.connections,
        rounds=max(1, job.count // job.connections),
        size=job.size,
    )
    command = [sys.executable, "-m", "benchmarks.clients"]
    pipe = subprocess.PIPE
    async with trio.open_nursery() as nursery:
        process = await nursery.start(_run_process, command, pipe)
        answers = _lines(process.stdout)

        async def ask(line: str | None) -> Any:
            if line is not None:
                await process.stdin.send_all(line.encode() + b"\n")
            return json.loads(await anext(answers))

        await ask(json.dumps(asdict(clients_job)))
        yield ask
        nursery.cancel_scope.cancel()


async def _run_process(
    command: list[str], pipe: int, task_status: trio.TaskStatus[trio.Process]
) -> None:
    process = await trio.lowlevel.open_process(command, stdin=pipe, stdout=pipe)
    try:
        task_status.started(process)
        await process.wait()
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def _lines(stream: Any) -> AsyncIterator[bytes]:
    rest = b""
    while data := await stream.receive_some():
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            yield line
