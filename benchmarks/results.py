"""The results: the values of every entry in every round, by column of a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

__all__ = ["Column", "Results", "Spread"]


@dataclass(frozen=True)
class Spread:
    """The median, minimum and maximum of the values of several rounds."""

    median: float
    minimum: float
    maximum: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """Return the spread of at least one value."""
        return cls(median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{short(self.median)} ({short(self.minimum)} to {short(self.maximum)})"


@dataclass
class Column:
    """The values of one case by entry, one for each round; None if the entry failed."""

    group: str
    name: str
    unit: str = "us per message"
    rounds: dict[str, list[float | None]] = field(default_factory=dict)
    cpu: dict[str, list[float | None]] = field(default_factory=dict)
    """CPU time of the contender per message in microseconds, including opening and closing."""

    def add(self, label: str, value: float | None, cpu: float | None = None) -> None:
        """Add the value of the next round of an entry, and the CPU time if it is known."""
        self.rounds.setdefault(label, []).append(value)
        self.cpu.setdefault(label, []).append(cpu)

    def spread(self, label: str) -> Spread | None:
        """Return the spread of an entry, or None if it has no values."""
        values = [value for value in self.rounds.get(label, []) if value is not None]
        return Spread.of(values) if values else None

    def pairs(self, one: str, other: str) -> list[tuple[float, float]]:
        """Return the values of two entries for each round in which both have one."""
        return _pairs(self.rounds, one, other)

    def ratio(self, one: str, other: str) -> Spread | None:
        """Return the ratio of ``one`` to ``other``, computed within each round."""
        return _ratio(self.pairs(one, other))

    def cpu_ratio(self, one: str, other: str) -> Spread | None:
        """Return the ratio of their CPU times, computed within each round."""
        return _ratio(_pairs(self.cpu, one, other))

    def difference(self, one: str, other: str) -> Spread | None:
        """Return ``one`` minus ``other``, computed within each round."""
        differences = [a - b for a, b in self.pairs(one, other)]
        return Spread.of(differences) if differences else None


def _pairs(
    values: dict[str, list[float | None]], one: str, other: str
) -> list[tuple[float, float]]:
    both = zip(values.get(one, []), values.get(other, []), strict=False)
    return [(a, b) for a, b in both if a is not None and b is not None]


def _ratio(pairs: list[tuple[float, float]]) -> Spread | None:
    ratios = [a / b for a, b in pairs if b]
    return Spread.of(ratios) if ratios else None


class Results:
    """All columns of a run, in order, and the errors."""

    def __init__(self) -> None:
        self.columns: list[Column] = []
        self.missing: dict[str, str] = {}
        """The import error of each contender that is not installed."""
        self.failures: list[str] = []

    def column(self, group: str, name: str, unit: str = "us per message") -> Column:
        """Return the column with this name, and create it if necessary."""
        for column in self.columns:
            if (column.group, column.name) == (group, name):
                return column
        self.columns.append(Column(group, name, unit))
        return self.columns[-1]

    def find(self, group: str, name: str) -> Column | None:
        """Return the column with this name, or None."""
        return next((c for c in self.columns if (c.group, c.name) == (group, name)), None)

    def without(self, prefix: str) -> Results:
        """Return the results without the entries whose label begins with ``prefix``."""
        results = Results()
        results.missing, results.failures = self.missing, self.failures
        for column in self.columns:
            kept = results.column(column.group, column.name, column.unit)
            for label in column.rounds:
                if not label.startswith(prefix):
                    kept.rounds[label], kept.cpu[label] = column.rounds[label], column.cpu[label]
        return results

    def select(self, keep: Callable[[Column], bool]) -> Results:
        """Return the results in some of the columns."""
        results = Results()
        results.missing, results.failures = self.missing, self.failures
        results.columns = [column for column in self.columns if keep(column)]
        return results

    def groups(self) -> dict[str, list[Column]]:
        """Return the columns by the title of their table."""
        groups: dict[str, list[Column]] = {}
        for column in self.columns:
            groups.setdefault(column.group, []).append(column)
        return groups


def short(value: float) -> str:
    """Format a number with three significant digits and without an exponent."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
