"""Many connections exchange messages with a server that is killed repeatedly.

Memory must stay constant after a warm-up, every connection must reconnect, and at the end no task
and no file descriptor may remain. Run it with ``nox -s soak``; ``--minutes`` and ``--connections``
make it shorter or smaller.
"""

from __future__ import annotations

import argparse
import gc
import random
import resource
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import trio

from trioglock import Backoff, Connection, ConnectionInfo, ConnectOptions, Socket, connect

KILL_EVERY = 20.0
RECORD_EVERY = 10.0
WARM_UP = 1 / 6
"""The fraction of the run that is warm-up: 5 of 30 minutes."""
GROWTH = 0.02
OPTIONS: ConnectOptions = {
    "reconnect": Backoff(initial=0.5, maximum=5, max_attempts=None),
    "ping_interval": 5,
    "ping_timeout": 5,
    "proxy": None,
}


@dataclass
class Tally:
    """The counters of the run."""

    sent: int = 0
    received: int = 0
    kills: int = 0
    connections: list[Connection[int]] = field(default_factory=list)
    memory: list[tuple[float, int]] = field(default_factory=list)


class Counter(Socket[int]):
    """Counts received messages."""

    def __init__(self, tally: Tally) -> None:
        self.tally = tally

    def init_stream(self, info: ConnectionInfo) -> int:
        return 0

    def handle_receive(self, frame: str, state: int) -> tuple[None, int]:
        self.tally.received += 1
        return None, state + 1


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def memory() -> int:
    """The resident memory of this process in bytes (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def open_descriptors() -> int:
    """The number of file descriptors of this process (Linux)."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def serve_and_kill(
    port: int, tally: Tally, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Run the server; kill and restart it every 20 seconds."""
    command = [sys.executable, str(Path(__file__).with_name("server.py")), str(port)]
    while True:
        process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        try:
            await process.stdout.receive_some()
            task_status.started()
            task_status = trio.TASK_STATUS_IGNORED
            await trio.sleep(KILL_EVERY)
            tally.kills += 1
        finally:
            process.send_signal(signal.SIGKILL)
            with trio.CancelScope(shield=True):
                await process.wait()
                await process.stdout.aclose()


async def exchange_messages(url: str, tally: Tally, number: int) -> None:
    """Send a message of up to 4 KiB about every second on one connection."""
    chance = random.Random(number)
    async with connect(url, Counter(tally), **OPTIONS) as conn:
        tally.connections.append(conn)
        while True:
            await trio.sleep(chance.uniform(0.5, 1.5))
            await conn.send("x" * chance.randrange(4096))
            tally.sent += 1


async def record_memory(tally: Tally) -> None:
    """Record the memory usage periodically."""
    while True:
        await trio.sleep(RECORD_EVERY)
        gc.collect()
        tally.memory.append((trio.current_time(), memory()))
        if len(tally.memory) % 6 == 0:
            megabytes = tally.memory[-1][1] / 2**20
            print(
                f"{time.strftime('%H:%M:%S')} {megabytes:.1f} MiB, {tally.kills} kills, "
                f"{tally.sent} sent, {tally.received} received",
                flush=True,
            )


async def soak(minutes: float, connections: int) -> int:
    """Run the soak test."""
    tally = Tally()
    descriptors, tasks = open_descriptors(), trio.lowlevel.current_statistics().tasks_living
    port = free_port()
    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_and_kill, port, tally)
        for number in range(connections):
            nursery.start_soon(exchange_messages, f"ws://127.0.0.1:{port}/", tally, number)
        nursery.start_soon(record_memory, tally)
        await trio.sleep(minutes * 60)
        reconnects = [conn.statistics().reconnects for conn in tally.connections]
        nursery.cancel_scope.cancel()
    gc.collect()
    problems = find_problems(tally, started + minutes * 60 * WARM_UP, reconnects, connections)
    left = open_descriptors() - descriptors
    if left:
        problems.append(f"{left} descriptors are left")
    left = trio.lowlevel.current_statistics().tasks_living - tasks
    if left:
        problems.append(f"{left} tasks are left")
    print(
        f"{minutes:g} minutes, {connections} connections, {tally.kills} kills, "
        f"{min(reconnects)} to {max(reconnects)} reconnects each, "
        f"{tally.sent} sent, {tally.received} received"
    )
    for problem in problems:
        print(f"PROBLEM: {problem}")
    return 1 if problems else 0


def find_problems(
    tally: Tally, warm_at: float, reconnects: list[int], connections: int
) -> list[str]:
    """Return the failed checks."""
    problems = []
    warm = [rss for at, rss in tally.memory if at >= warm_at]
    third = max(1, len(warm) // 3)
    before, after = sum(warm[:third]) / third, sum(warm[-third:]) / third
    growth = after / before - 1
    print(f"memory after the warm-up: {before / 2**20:.1f} MiB, at the end {growth:+.2%}")
    if growth > GROWTH:
        problems.append(f"memory grew by {growth:.2%}, more than {GROWTH:.0%}")
    if len(reconnects) < connections:
        problems.append(f"only {len(reconnects)} of {connections} connections opened")
    if min(reconnects) < tally.kills - 1:
        problems.append(f"a connection reconnected only {min(reconnects)} times")
    if tally.received < tally.sent * 0.5:
        problems.append(f"only {tally.received} of {tally.sent} messages were echoed")
    return problems


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30, help="duration (default 30)")
    parser.add_argument(
        "--connections", type=int, default=500, help="number of connections (default 500)"
    )
    arguments = parser.parse_args()
    sys.exit(trio.run(soak, arguments.minutes, arguments.connections))
