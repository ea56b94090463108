"""What it costs to open connections and to keep them: each measurement in a fresh process."""

from __future__ import annotations

from .cases import CROWD, Entry
from .job import Job
from .processes import Failed, Missing, Server, Worker
from .results import Results
from .rounds import Effort, Say

__all__ = ["IDLE", "run_idle"]

IDLE = "Idle connections with a heartbeat"

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
    for column in results.groups().get(IDLE, []):
        say(f"{column.group}, {column.name} ({column.unit})")
        for label in column.rounds:
            say(f"  {label:56} {column.spread(label) or 'failed'}")


def _measure(entry: Entry, job: Job, results: Results) -> None:
    label = entry.label.partition(",")[0]
    many = f"{job.connections:,}"
    worker = Worker(entry.contender)
    try:
        worker.wait_ready()
    except Missing as missing:
        results.missing[entry.contender] = str(missing)
        return
    try:
        cost, _ = worker.run(job)
    except Failed as failure:
        results.failures.append(f"{label}: idle: {failure}")
        return
    finally:
        worker.close()
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
