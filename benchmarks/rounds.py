"""Runs the rounds of a case. In each round, every entry does the job once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from .case import BASELINE, TIME, Case, Entry, Measure
from .job import Job
from .processes import Failed, Missing, Server, Worker, spinners
from .results import Results

__all__ = ["Effort", "Log", "Workers", "run_case"]

Log = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Effort:
    """The length of a run.

    Args:
        rounds: the number of rounds of each case.
        seconds: the intended duration of a job.
        max_messages: the maximum number of messages of a job. A job always has at least one batch
            per connection.
        max_connections: the maximum number of connections of a job.
        max_window: the maximum time during which idle connections are watched, in seconds.
        builds: the directories of other builds of trioglock by name.
    """

    rounds: int
    seconds: float
    max_messages: int
    max_connections: int
    max_window: float
    builds: Mapping[str, Path] = field(default_factory=dict)


class Workers:
    """The processes of the contenders. Only one of them works at a time.

    All processes start at the same time, because importing a contender takes longer than a short
    job. None of them works before all have started.

    Args:
        entries: the entries that will do jobs.
        builds: the directories of other builds of trioglock by name.
        results: receives the errors.
        fresh: start a process for each entry; otherwise the entries of a contender share one.
    """

    def __init__(
        self,
        entries: Iterable[Entry],
        builds: Mapping[str, Path],
        results: Results,
        *,
        fresh: bool = False,
    ) -> None:
        self._results = results
        self._fresh = fresh
        self._workers: dict[object, Worker] = {}
        for entry in entries:
            if self._key(entry) not in self._workers:
                build = builds[entry.build] if entry.build else None
                self._workers[self._key(entry)] = Worker(entry.contender, build)

    def __enter__(self) -> Workers:
        for key, worker in list(self._workers.items()):
            try:
                worker.wait_ready()
            except Missing as missing:
                self._results.missing[worker.name] = str(missing)
                del self._workers[key]
        return self

    def __exit__(self, *exc_info: object) -> None:
        for worker in self._workers.values():
            worker.close()

    def _key(self, entry: Entry) -> object:
        return entry if self._fresh else entry.process

    def attempt(self, entry: Entry, job: Job) -> dict[str, float] | None:
        """Run a job.

        Returns:
            The values by item, with the time as ``seconds`` and the CPU time as ``cpu``. None if
            the contender is not installed or the job failed; a failure is added to the results.
        """
        worker = self._workers.get(self._key(entry))
        if worker is None:
            return None
        try:
            return worker.run(replace(job, way=entry.variant))
        except Failed as failure:
            self._results.failures.append(f"{entry.label}: {job.work}: {failure}")
            return None


def run_case(
    case: Case, shared: Workers, server: Server, effort: Effort, results: Results, log: Log
) -> None:
    """Determine the number of messages of a job for each entry, then run the rounds."""
    common = Job(**case.job, **server.address(tls=case.tls))
    common = replace(
        common,
        connections=min(common.connections, effort.max_connections),
        window=min(common.window, effort.max_window),
    )
    jobs = {entry: replace(common, **entry.job) for entry in case.entries}
    awake: AbstractContextManager[None] = spinners() if case.awake else nullcontext()
    with awake:
        if not case.fresh:
            counts = {e: _calibrate(case, e, job, shared, effort) for e, job in jobs.items()}
            jobs = {e: replace(job, count=counts[e]) for e, job in jobs.items() if counts[e]}
        entries = list(jobs)
        for number in range(min(effort.rounds, case.max_rounds)):
            # The order rotates from round to round.
            first = number % max(1, len(entries))
            entered = Workers(entries, effort.builds, results, fresh=True) if case.fresh else None
            with entered or nullcontext(shared) as workers:
                for entry in entries[first:] + entries[:first]:
                    values = workers.attempt(entry, jobs[entry])
                    _add(case, entry.label, jobs[entry], values, results)
    _log_case(case, results, log)


def _calibrate(case: Case, entry: Entry, job: Job, workers: Workers, effort: Effort) -> int:
    """Return how many messages fill the duration of a job, or 0 if the entry fails.

    This is also the warm-up. A quick run has neither: its first count is the largest allowed.
    """
    step = job.batch * job.connections
    most = max(step, effort.max_messages - effort.max_messages % step)
    least = max(case.min_messages, 4 if job.size >= 2**16 else 64)
    count = min(most, step * math.ceil(least / step))
    while count < most:
        values = workers.attempt(entry, replace(job, count=count))
        if values is None:
            return 0
        factor = min(16, effort.seconds / max(values["seconds"], 1e-6))
        if factor < 1.5:
            break
        count = min(most, step * math.ceil(count * factor / step))
    return count


def _add(
    case: Case, label: str, job: Job, values: dict[str, float] | None, results: Results
) -> None:
    for table, measure in case.tables.items():
        column = results.column(table, case.column, measure.unit)
        if values is None:
            column.add(label, None)
            continue
        cpu = values["cpu"] / job.count * 1e6 if measure == TIME else None
        column.add(label, _scaled(measure, job, values), cpu)


def _scaled(measure: Measure, job: Job, values: dict[str, float]) -> float:
    divisor: int = 1 if measure.per is None else getattr(job, measure.per)
    return values[measure.key] * measure.scale / divisor


def _log_case(case: Case, results: Results, log: Log) -> None:
    for table, measure in case.tables.items():
        column = results.column(table, case.column, measure.unit)
        log(f"{table}, {case.column} ({column.unit})")
        for label in column.rounds:
            ratio = column.ratio(label, f"{BASELINE}: {label}")
            compared = f", {ratio} x {BASELINE}" if ratio else ""
            log(f"  {label:56} {column.spread(label) or 'failed'}{compared}")
