"""Runs the rounds of a case. In each round, every entry does the job once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from .cases import Case, Entry
from .job import Job
from .processes import Failed, Missing, Server, Worker, spinners
from .results import Column, Results

__all__ = ["Effort", "Log", "Workers", "run_case"]


class Effort:
    """The length of a run.

    Args:
        rounds: the number of rounds of each case.
        seconds: the intended duration of a job.
        max_messages: the maximum number of messages of a job. A job always has at least one batch
            per connection.
        idle: the numbers of idle connections to measure.
        window: the seconds during which the CPU time of idle connections is measured.
    """

    def __init__(
        self, rounds: int, seconds: float, max_messages: int, idle: tuple[int, ...], window: float
    ) -> None:
        self.rounds = rounds
        self.seconds = seconds
        self.max_messages = max_messages
        self.idle = idle
        self.window = window


class Workers:
    """The processes of the contenders. Only one of them works at a time."""

    def __init__(self, contenders: Iterable[str], results: Results) -> None:
        self._results = results
        self._starting = {contender: Worker(contender) for contender in contenders}
        self._workers: dict[str, Worker | None] = {}

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for worker in (*self._starting.values(), *self._workers.values()):
            if worker is not None:
                worker.close()

    def worker(self, contender: str) -> Worker | None:
        """Return the process of a contender, or None if the contender is not installed."""
        if contender in self._starting:
            worker = self._starting.pop(contender)
            try:
                worker.wait_ready()
            except Missing as missing:
                self._results.missing[contender] = str(missing)
                self._workers[contender] = None
            else:
                self._workers[contender] = worker
        return self._workers[contender]

    def attempt(self, entry: Entry, job: Job) -> tuple[float, float] | None:
        """Run a job.

        Returns:
            The elapsed seconds and the seconds of CPU time. None if the contender is not installed
            or the job failed; a failure is added to the results.
        """
        worker = self.worker(entry.contender)
        if worker is None:
            return None
        try:
            return worker.run(replace(job, way=entry.variant))
        except Failed as failure:
            self._results.failures.append(f"{entry.label}: {job.work}: {failure}")
            return None


def run_case(
    case: Case, workers: Workers, server: Server, effort: Effort, results: Results, log: Log
) -> None:
    """Determine the number of messages of a job for each entry, then run the rounds."""
    job = Job(**case.job, **server.address(tls=case.tls))
    column = results.column(case.group, case.column)
    awake: AbstractContextManager[None] = spinners() if case.awake else nullcontext()
    with awake:
        counts = {entry: _calibrate(entry, job, workers, effort) for entry in case.entries}
        able = [entry for entry, count in counts.items() if count]
        counts = {
            entry: max(counts[entry], min(case.min_messages, effort.max_messages)) for entry in able
        }
        for number in range(effort.rounds):
            # The order rotates from round to round.
            first = number % max(1, len(able))
            for entry in able[first:] + able[:first]:
                count = counts[entry]
                took = workers.attempt(entry, replace(job, count=count))
                if took is None:
                    column.add(entry.label, None)
                    continue
                column.add(entry.label, took[0] / count * 1e6)
                column.cpu.setdefault(entry.label, []).append(took[1] / count * 1e6)
    _log_column(case, column, log)


Log = Callable[[str], None]


def _calibrate(entry: Entry, job: Job, workers: Workers, effort: Effort) -> int:
    """Return how many messages fill the duration of a job, or 0 if the entry fails.

    This is also the warm-up.
    """
    step = job.batch * job.connections
    most = max(step, effort.max_messages - effort.max_messages % step)
    count = min(most, step * max(1, math.ceil((4 if job.size >= 2**16 else 64) / step)))
    while True:
        took = workers.attempt(entry, replace(job, count=count))
        if took is None:
            return 0
        factor = min(16, effort.seconds / max(took[0], 1e-6))
        if count >= most or factor < 1.5:
            return count
        count = min(most, step * math.ceil(count * factor / step))


def _log_column(case: Case, column: Column, log: Log) -> None:
    log(f"{case.name} ({column.unit})")
    for label in column.rounds:
        log(f"  {label:56} {column.spread(label) or 'failed'}")
