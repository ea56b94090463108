"""The meter: what has been measured so far."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from .histogram import Histogram

__all__ = ["Fault", "Meter"]


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that went wrong: in short, how often, and the words of the first time."""

    what: str
    count: int
    detail: str


class Meter:
    """Counts echoes while it is running, and what goes wrong all the time."""

    def __init__(self) -> None:
        self.latencies: Histogram = Histogram()
        self.connects: Histogram = Histogram()
        self.sent: int = 0
        self.running: bool = False
        self._faults: dict[str, Fault] = {}
        self._began = 0
        self._lasted = 0
        self._cpu = 0.0

    def begin(self) -> None:
        """Count from now on."""
        self.running = True
        self._began = time.perf_counter_ns()
        self._cpu = time.process_time()

    def end(self) -> None:
        """Count no more; harmless if it does not."""
        if self.running:
            self.running = False
            self._lasted = time.perf_counter_ns() - self._began
            self._cpu = time.process_time() - self._cpu

    @property
    def seconds(self) -> float:
        """For which it has been running."""
        if self.running:
            return (time.perf_counter_ns() - self._began) / 1e9
        return self._lasted / 1e9

    @property
    def load(self) -> float:
        """The share of a core that this process took meanwhile; known at the end."""
        return 0.0 if self.running or not self._lasted else self._cpu / self.seconds

    def blame(self, what: str, detail: str) -> None:
        """Note a fault."""
        known = self._faults.get(what, Fault(what, 0, detail))
        self._faults[what] = replace(known, count=known.count + 1)

    @property
    def faults(self) -> tuple[Fault, ...]:
        """What went wrong, in the order of the first time."""
        return tuple(self._faults.values())
