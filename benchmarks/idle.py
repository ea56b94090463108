"""The cost of opening connections and keeping them open, each measured in a new process.

The processes of one round start at the same time, because starting one takes longer than a short
measurement.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace

from .cases import MANY_CONNECTIONS, SERVING, Entry
from .job import Job
from .processes import Failed, Missing, Server, Worker
from .results import Results
from .rounds import Effort, Log

__all__ = ["HELD", "IDLE", "run_idle"]

IDLE = "Idle connections with a heartbeat"
HELD = "Idle connections of a server"

# Opening thousands of connections takes long, and the results vary little between rounds.
MAX_ROUNDS = 3


def run_idle(server: Server, effort: Effort, results: Results, log: Log) -> None:
    """Measure idle connections of clients and of servers, and print the results."""
    for index, connections in enumerate(effort.idle):
        last = index == len(effort.idle) - 1
        job = Job(
            work="idle",
            connections=connections,
            window=effort.window if last else 0,
            **server.address(tls=False),
        )
        for _ in range(1 if index else min(MAX_ROUNDS, effort.rounds)):
            _measure(job, results)
    traced = Job(work="idle", connections=effort.idle[0], traced=True, **server.address(tls=False))
    _measure(traced, results)
    for connections in effort.idle:
        _hold(Job(work="hold", connections=connections), results)
    for column in (*results.groups().get(IDLE, []), *results.groups().get(HELD, [])):
        log(f"{column.group}, {column.name} ({column.unit})")
        for label in column.rounds:
            log(f"  {label:56} {column.spread(label) or 'failed'}")


def _hold(job: Job, results: Results) -> None:
    for entry, cost in _run(SERVING, job, results):
        column = results.column(HELD, f"memory, {job.connections:,}", "KB each, RSS")
        column.add(entry.label, cost["resident"] / 1000)


def _measure(job: Job, results: Results) -> None:
    many = f"{job.connections:,}"
    for entry, cost in _run(MANY_CONNECTIONS, job, results):
        label = entry.label.partition(",")[0]
        if job.traced:
            column = results.column(IDLE, f"objects, {many}", "KB each, tracemalloc")
            column.add(label, cost["traced"] / 1000)
            continue
        results.column(IDLE, f"memory, {many}", "KB each, RSS").add(label, cost["resident"] / 1000)
        opened = 1 / cost["connect"]
        results.column(IDLE, f"opening {many}", "connections per second").add(label, opened)
        if job.window:
            column = results.column(IDLE, f"CPU, {many}", "% of a core")
            column.add(label, cost["busy"] * 100)


def _run(
    entries: Sequence[Entry], job: Job, results: Results
) -> Iterator[tuple[Entry, dict[str, float]]]:
    """Start a process for each entry, then run the job in one process at a time."""
    with ExitStack() as stack:
        workers = []
        for entry in entries:
            worker = Worker(entry.contender)
            stack.callback(worker.close)
            workers.append((entry, worker))
        ready = []
        for entry, worker in workers:
            try:
                worker.wait_ready()
            except Missing as missing:
                results.missing[entry.contender] = str(missing)
            else:
                ready.append((entry, worker))
        for entry, worker in ready:
            try:
                cost: dict[str, float] = worker.run(replace(job, way=entry.variant))[0]
            except Failed as failure:
                results.failures.append(f"{entry.label}: {job.work}: {failure}")
            else:
                yield entry, cost
