"""The rounds of a case: everyone in turn, again and again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from .cases import Case, Entry
from .job import Job
from .processes import Failed, Missing, Server, Worker, spinners
from .results import Column, Results

__all__ = ["Effort", "Field", "run_case"]


class Effort:
    """How much is done.

    Args:
        rounds: of each case.
        seconds: that a job should take.
        most: messages of a job; a job of connections has at least one for each.
        idle: connections that are held open idle.
        window: seconds to watch them.
    """

    def __init__(
        self, rounds: int, seconds: float, most: int, idle: tuple[int, ...], window: float
    ) -> None:
        self.rounds = rounds
        self.seconds = seconds
        self.most = most
        self.idle = idle
        self.window = window


class Field:
    """The contenders that take part, each in a process that waits while another's works."""

    def __init__(self, contenders: Iterable[str], results: Results) -> None:
        self._results = results
        self._starting = {contender: Worker(contender) for contender in contenders}
        self._workers: dict[str, Worker | None] = {}

    def __enter__(self) -> Field:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for worker in (*self._starting.values(), *self._workers.values()):
            if worker is not None:
                worker.close()

    def worker(self, contender: str) -> Worker | None:
        """Its process; None if it is not installed."""
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
        """Seconds that the job took, and of CPU; None if it failed, which is noted."""
        worker = self.worker(entry.contender)
        if worker is None:
            return None
        try:
            return worker.run(replace(job, way=entry.way))
        except Failed as failure:
            self._results.failures.append(f"{entry.label}: {job.work}: {failure}")
            return None


def run_case(
    case: Case, field: Field, server: Server, effort: Effort, results: Results, say: Say
) -> None:
    """Find out how many messages fill the time for each entry, then run the rounds."""
    job = Job(**case.job, **server.address(tls=case.tls))
    column = results.column(case.group, case.column)
    awake: AbstractContextManager[None] = spinners() if case.awake else nullcontext()
    with awake:
        counts = {entry: _calibrate(entry, job, field, effort) for entry in case.entries}
        able = [entry for entry, count in counts.items() if count]
        counts = {entry: max(counts[entry], min(case.least, effort.most)) for entry in able}
        for number in range(effort.rounds):
            # Nobody always runs behind the same one.
            turn = number % max(1, len(able))
            for entry in able[turn:] + able[:turn]:
                count = counts[entry]
                took = field.attempt(entry, replace(job, count=count))
                if took is None:
                    column.add(entry.label, None)
                    continue
                column.add(entry.label, took[0] / count * 1e6)
                column.cpu.setdefault(entry.label, []).append(took[1] / count * 1e6)
    _say_column(case, column, say)


Say = Callable[[str], None]


def _calibrate(entry: Entry, job: Job, field: Field, effort: Effort) -> int:
    """How many messages to send; 0 if it cannot. It is the warming up as well."""
    step = job.batch * job.connections
    most = max(step, effort.most - effort.most % step)
    count = min(most, step * max(1, math.ceil((4 if job.size >= 2**16 else 64) / step)))
    while True:
        took = field.attempt(entry, replace(job, count=count))
        if took is None:
            return 0
        factor = min(16, effort.seconds / max(took[0], 1e-6))
        if count >= most or factor < 1.5:
            return count
        count = min(most, step * math.ceil(count * factor / step))


def _say_column(case: Case, column: Column, say: Say) -> None:
    say(f"{case.name} ({column.unit})")
    for label in column.rounds:
        say(f"  {label:56} {column.spread(label) or 'failed'}")
