"""Servers on trio, and a swarm of clients that they serve."""

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

from ..job import Job
from ..swarm import Order

__all__ = ["Host", "TrioHost"]


@dataclass(frozen=True)
class Host:
    """A running server: where, whom it knows, and how it sends one message to all of them."""

    port: int
    count: Callable[[], int]
    broadcast: Callable[[str], Awaitable[Any]]


class TrioHost(ABC):
    """What a contender adds to be measured as a server."""

    @abstractmethod
    def host(self, job: Job) -> AbstractAsyncContextManager[Host]:
        """A server that echoes, by ``job.way``."""

    async def fanout(self, job: Job) -> float:
        """Send ``count`` messages in all, one to every connection at a time; seconds."""
        message = job.message
        assert isinstance(message, str)
        async with self.host(job) as host, swarm(host, job) as ask:
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
        """Echo ``count`` messages in all, over all connections at the same time; seconds."""
        rounds = max(1, job.count // job.connections)
        async with self.host(job) as host, swarm(host, job) as ask:
            took: float = (await ask("go"))["seconds"]
        return took * job.count / (rounds * job.connections)

    async def hold(self, job: Job) -> dict[str, float]:
        """Hold ``connections`` that do nothing; what each takes of memory, in bytes."""
        process = psutil.Process()
        async with self.host(job) as host:
            gc.collect()
            before = process.memory_info().rss
            began = trio.current_time()
            async with swarm(host, job):
                took = trio.current_time() - began
                await trio.sleep(0.1)
                gc.collect()
                resident = process.memory_info().rss - before
        return {"resident": resident / job.connections, "connect": took / job.connections}


Ask = Callable[[str | None], Awaitable[Any]]


@asynccontextmanager
async def swarm(host: Host, job: Job) -> AsyncIterator[Ask]:
    """A swarm that is connected; a function that tells it something and takes its answer."""
    order = Order(
        work=job.work,
        url=f"ws://127.0.0.1:{host.port}/",
        connections=job.connections,
        rounds=max(1, job.count // job.connections),
        size=job.size,
    )
    command = [sys.executable, "-m", "benchmarks.swarm"]
    pipe = subprocess.PIPE
    async with trio.open_nursery() as nursery:
        process = await nursery.start(_run_process, command, pipe)
        answers = _lines(process.stdout)

        async def ask(line: str | None) -> Any:
            if line is not None:
                await process.stdin.send_all(line.encode() + b"\n")
            return json.loads(await anext(answers))

        await ask(json.dumps(asdict(order)))
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
