"""What it costs to open connections and to keep them: each measurement in a fresh process."""

from __future__ import annotations

from dataclasses import replace

from .cases import CROWD, SERVING, Entry
from .job import Job
from .processes import Failed, Missing, Server, Worker
from .results import Results
from .rounds import Effort, Say

__all__ = ["HELD", "IDLE", "run_idle"]

IDLE = "Idle connections with a heartbeat"
HELD = "Idle connections of a server"

# Thousands of connections take their time, and differ little from round to round.
MOST_ROUNDS = 3


def run_idle(server: Server, effort: Effort, results: Results, say: Say) -> None:
    """Run all of it, everyone in turn."""
    for index, connections in enumerate(effort.idle):
        last = index == len(effort.idle) - 1
        job = Job(
            work="idle",
            connections=connections,
            window=effort.window if last else 0,
            **server.address(tls=False),
        )
        for _ in range(1 if index else min(MOST_ROUNDS, effort.rounds)):
            for entry in CROWD:
                _measure(entry, job, results)
    traced = Job(work="idle", connections=effort.idle[0], traced=True, **server.address(tls=False))
    for entry in CROWD:
        _measure(entry, traced, results)
    for connections in effort.idle:
        job = Job(work="hold", connections=connections)
        for entry in SERVING:
            _hold(entry, replace(job, way=entry.way), results)
    for column in (*results.groups().get(IDLE, []), *results.groups().get(HELD, [])):
        say(f"{column.group}, {column.name} ({column.unit})")
        for label in column.rounds:
            say(f"  {label:56} {column.spread(label) or 'failed'}")


def _hold(entry: Entry, job: Job, results: Results) -> None:
    cost = _run(entry, job, results)
    if cost is not None:
        column = results.column(HELD, f"memory, {job.connections:,}", "KB each, RSS")
        column.add(entry.label, cost["resident"] / 1000)


def _measure(entry: Entry, job: Job, results: Results) -> None:
    label = entry.label.partition(",")[0]
    many = f"{job.connections:,}"
    cost = _run(entry, job, results)
    if cost is None:
        return
    if job.traced:
        column = results.column(IDLE, f"objects, {many}", "KB each, tracemalloc")
        column.add(label, cost["traced"] / 1000)
        return
    results.column(IDLE, f"memory, {many}", "KB each, RSS").add(label, cost["resident"] / 1000)
    opened = 1 / cost["connect"]
    results.column(IDLE, f"opening {many}", "connections per second").add(label, opened)
    if job.window:
        column = results.column(IDLE, f"CPU, {many}", "% of a core")
        column.add(label, cost["busy"] * 100)


def _run(entry: Entry, job: Job, results: Results) -> dict[str, float] | None:
    worker = Worker(entry.contender)
    try:
        worker.wait_ready()
    except Missing as missing:
        results.missing[entry.contender] = str(missing)
        return None
    try:
        cost: dict[str, float] = worker.run(job)[0]
    except Failed as failure:
        results.failures.append(f"{entry.label}: {job.work}: {failure}")
        return None
    finally:
        worker.close()
    return cost
