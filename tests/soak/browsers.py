"""Many clients with trioglock.js while workers and Redis restart: nothing lost, nothing repeated.

The clients run in Node. During 50 messages per second, the workers of ``trioglock serve`` are
replaced (SIGHUP), one is killed, and Redis is killed and started again with its append-only file.
Run it with ``python -m tests.soak.browsers --clients 2000``.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import trio

from tests.node_packages import find_node_with_websocket
from tests.pubsub.redis_server import RealRedis, find_port, real_redis
from tests.scripts import ROOT
from trioglock.pubsub import Hub

HISTORY = 10_000
WORKERS = 2
SECONDS = 120
"""Time limit for each step, and until all clients have received the last message."""
CLIENTS_PER_PROCESS = 250
BARS = 20


@dataclass
class Report:
    """What all clients have seen."""

    published: int = 0
    received: int = 0
    lost: int = 0
    reported: int = 0
    """Messages that clients have missed, where they have received a gap."""
    repeated: int = 0
    unfinished: int = 0
    gaps: list[int] = field(default_factory=list)
    """When a client received a gap, in milliseconds since the epoch."""
    reconnects: list[tuple[int, int]] = field(default_factory=list)
    """When a client lost its connection, and had one again, in milliseconds since the epoch."""

    @property
    def is_complete(self) -> bool:
        """Whether no client has missed a message without a gap, or received one twice."""
        return self.lost == self.repeated == self.unfinished == 0

    def add(self, other: dict[str, Any]) -> None:
        """Add what the clients of a process have seen."""
        for name, value in other.items():
            setattr(self, name, getattr(self, name) + value)


class Clients:
    """A process with clients."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._unread = b""

    async def line(self) -> str:
        """Return the next line that it prints."""
        assert self._process.stdout is not None
        while b"\n" not in self._unread:
            data = await self._process.stdout.receive_some()
            assert data, "Node has ended"
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()

    async def wait_finished(self) -> None:
        """Wait until all clients have received the last message."""
        assert await self.line() == "finished"

    async def report(self) -> dict[str, Any]:
        """End the process and return its report."""
        assert self._process.stdin is not None
        await self._process.stdin.aclose()
        with trio.fail_after(SECONDS):
            while not (line := await self.line()).startswith("{"):
                pass
        return json.loads(line)  # type: ignore[no-any-return]


class Publisher:
    """Publishes numbers on all channels in turn."""

    def __init__(self, hub: Hub, channels: list[str], rate: float) -> None:
        self.published = 0
        self.lock = trio.Lock()
        """Held while a message is being published."""
        self._hub = hub
        self._channels = channels
        self._rate = rate

    async def run(self) -> None:
        """Publish until cancelled."""
        due = trio.current_time()
        while True:
            async with self.lock:
                number, channel = divmod(self.published, len(self._channels))
                await self._hub.publish(str(number), self._channels[channel])
                self.published += 1
            due += 1 / self._rate
            await trio.sleep_until(due)

    async def end(self) -> None:
        """Publish the last message of each channel."""
        for channel in self._channels:
            await self._hub.publish("end", channel)


@asynccontextmanager
async def open_clients(urls: list[str], count: int) -> AsyncIterator[Clients]:
    """Run a process with clients; wait until all have subscribed."""
    script = Path(__file__).with_name("browsers.mjs")
    module = (ROOT / "trioglock/pubsub/trioglock.js").as_uri()
    process = await trio.lowlevel.open_process(
        [*find_node_with_websocket(), str(script), module, str(count), *urls],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        clients = Clients(process)
        with trio.fail_after(SECONDS):
            assert await clients.line() == "ready"
        yield clients
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


@asynccontextmanager
async def open_server(
    redis: RealRedis, options: Sequence[str]
) -> AsyncIterator[tuple[trio.Process, str]]:
    """Run ``trioglock serve`` with a history; yield its process and URL."""
    command = [sys.executable, "-m", "trioglock", "serve", "--port", str(port := find_port())]
    command += ["--workers", str(WORKERS), "--redis", redis.url, "--history", str(HISTORY)]
    process = await trio.lowlevel.open_process(
        [*command, *options], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert process.stdout is not None
        with trio.fail_after(SECONDS):
            assert (await process.stdout.receive_some()).startswith(b"serving")
        yield process, f"ws://127.0.0.1:{port}/"
    finally:
        process.terminate()
        with trio.CancelScope(shield=True):
            await process.wait()


@dataclass
class Step:
    """Something that interrupts connections."""

    name: str
    started: int
    """Milliseconds since the epoch."""
    interrupted: list[int] = field(default_factory=list)
    """Milliseconds from the start until clients lost their connections."""
    returned: list[int] = field(default_factory=list)
    """Milliseconds from the start until clients had one again."""
    gaps: int = 0


class Soak:
    """The servers, and the steps that interrupt connections to them."""

    def __init__(self, redis: RealRedis, server: trio.Process, publisher: Publisher) -> None:
        self.steps: list[Step] = []
        self._redis = redis
        self._server = server
        self._publisher = publisher

    async def run(self, pause: float) -> None:
        """Interrupt connections, with a pause before and after each step."""
        steps = {
            "workers replaced": self._replace_workers,
            "worker killed": self._kill_worker,
            "Redis restarted": self._restart_redis,
        }
        for name, step in steps.items():
            await trio.sleep(pause)
            self.steps.append(Step(name, time.time_ns() // 1_000_000))
            await step()
        await trio.sleep(pause)

    def assign(self, report: Report) -> None:
        """Assign each reconnect and each gap to the step before it."""
        for interrupted, returned in report.reconnects:
            step = self._step_before(interrupted)
            step.interrupted.append(interrupted - step.started)
            step.returned.append(returned - step.started)
        for at in report.gaps:
            self._step_before(at).gaps += 1

    def _step_before(self, at: int) -> Step:
        return [step for step in self.steps if step.started <= at][-1]

    async def _replace_workers(self) -> None:
        old = children(self._server)
        self._server.send_signal(signal.SIGHUP)
        await self._wait_for_new_workers(old)

    async def _kill_worker(self) -> None:
        victim = min(children(self._server))
        os.kill(victim, signal.SIGKILL)
        await self._wait_for_new_workers({victim})

    async def _restart_redis(self) -> None:
        # A message that is being published is published again: this repetition is documented.
        async with self._publisher.lock:
            self._redis.kill()
        await trio.sleep(1)
        self._redis.start()

    async def _wait_for_new_workers(self, old: set[int]) -> None:
        with trio.fail_after(SECONDS):
            while len(workers := children(self._server)) != WORKERS or workers & old:
                await trio.sleep(0.05)


def children(process: trio.Process) -> set[int]:
    """Return the processes that a process has started (Linux)."""
    found: set[int] = set()
    for task in Path(f"/proc/{process.pid}/task").iterdir():
        with suppress(OSError):  # a thread that has just ended
            found.update(map(int, (task / "children").read_text().split()))
    return found


async def soak(
    *, clients: int, channels: int, rate: float, pause: float, options: Sequence[str] = ()
) -> tuple[Report, list[Step]]:
    """Run all steps while messages are published.

    Args:
        clients: number of clients, in processes of up to 250.
        channels: number of channels to which they subscribe in turn.
        rate: messages per second on all channels together.
        pause: seconds before and after each step.
        options: of ``trioglock serve``.
    """
    names = [f"news/{number}" for number in range(channels)]
    report = Report()
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        configuration = Path(folder, "redis.conf")
        configuration.write_text('appendonly yes\nsave ""\n')
        redis = stack.enter_context(real_redis(configuration=configuration))
        server, url = await stack.enter_async_context(open_server(redis, options))
        processes = []
        for first in range(0, clients, CLIENTS_PER_PROCESS):
            count = min(CLIENTS_PER_PROCESS, clients - first)
            opened = open_clients([url + name for name in names], count)
            processes.append(await stack.enter_async_context(opened))
        hub = await stack.enter_async_context(Hub(broker=redis.broker(history=HISTORY)))
        publisher = Publisher(hub, names, rate)
        run = Soak(redis, server, publisher)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(publisher.run)
            await run.run(pause)
            async with publisher.lock:
                nursery.cancel_scope.cancel()
        await publisher.end()
        report.published = publisher.published
        with trio.move_on_after(SECONDS):
            for process in processes:
                await process.wait_finished()
        for process in processes:
            report.add(await process.report())
    run.assign(report)
    return report, run.steps


def draw_histogram(title: str, milliseconds: list[int]) -> None:
    """Print how many of them are in each part of the time."""
    print(f"{title}: {len(milliseconds)} times")
    if not milliseconds:
        return
    first = min(milliseconds)
    width = (max(milliseconds) - first) // BARS + 1
    counts = Counter((value - first) // width for value in milliseconds)
    for bar in range(max(counts) + 1):
        length = counts[bar] * 50 // max(counts.values())
        print(f"{(first + bar * width) / 1000:8.2f} s {counts[bar]:5} {'#' * length}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--channels", type=int, default=10)
    parser.add_argument("--rate", type=float, default=50, help="messages per second")
    parser.add_argument("--pause", type=float, default=10, help="seconds between the steps")
    arguments, options = parser.parse_known_args()
    report, steps = trio.run(partial(soak, **vars(arguments), options=options))
    for step in steps:
        draw_histogram(f"{step.name}, interrupted", step.interrupted)
        draw_histogram(f"{step.name}, connected again", step.returned)
        print(f"{step.name}: {step.gaps} gaps")
    print(
        f"{report.published} published, {report.received} received, "
        f"{report.lost} lost, {report.reported} lost with a gap, "
        f"{report.repeated} repeated, {len(report.gaps)} gaps, {report.unfinished} unfinished"
    )
    return 0 if report.is_complete else 1


if __name__ == "__main__":
    sys.exit(main())
