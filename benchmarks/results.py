"""Results: what every entry measured in every round of a table's column."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median

__all__ = ["Column", "Results", "Spread"]


@dataclass(frozen=True)
class Spread:
    """The median of some rounds, and how far they were apart."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """Of at least one value."""
        return cls(median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{short(self.median)} ({short(self.least)} to {short(self.most)})"


@dataclass
class Column:
    """One case: per entry, one value for each round; None where it failed."""

    group: str
    name: str
    unit: str = "us per message"
    rounds: dict[str, list[float | None]] = field(default_factory=dict)
    cpu: dict[str, list[float]] = field(default_factory=dict)
    """Microseconds of the contender's CPU for each message, opening and closing included."""

    def add(self, label: str, value: float | None) -> None:
        """Note the next round of an entry."""
        self.rounds.setdefault(label, []).append(value)

    def spread(self, label: str) -> Spread | None:
        """Of an entry; None if it has no value."""
        values = [value for value in self.rounds.get(label, []) if value is not None]
        return Spread.of(values) if values else None

    def pairs(self, one: str, other: str) -> list[tuple[float, float]]:
        """The values of two entries, round by round, where both have one."""
        both = zip(self.rounds.get(one, []), self.rounds.get(other, []), strict=False)
        return [(a, b) for a, b in both if a is not None and b is not None]

    def ratio(self, one: str, other: str) -> Spread | None:
        """How many times the value of ``other`` that of ``one`` is, taken in each round."""
        ratios = [a / b for a, b in self.pairs(one, other) if b]
        return Spread.of(ratios) if ratios else None

    def difference(self, one: str, other: str) -> Spread | None:
        """By how much ``one`` is more than ``other``, taken in each round."""
        differences = [a - b for a, b in self.pairs(one, other)]
        return Spread.of(differences) if differences else None


class Results:
    """All columns of a run, in order."""

    def __init__(self) -> None:
        self.columns: list[Column] = []
        self.missing: dict[str, str] = {}
        """Contenders that are not installed, and what was said."""
        self.failures: list[str] = []

    def column(self, group: str, name: str, unit: str = "us per message") -> Column:
        """The column of that name, a new one if there is none."""
        for column in self.columns:
            if (column.group, column.name) == (group, name):
                return column
        self.columns.append(Column(group, name, unit))
        return self.columns[-1]

    def find(self, group: str, name: str) -> Column | None:
        """The column of that name, if there is one."""
        return next((c for c in self.columns if (c.group, c.name) == (group, name)), None)

    def groups(self) -> dict[str, list[Column]]:
        """The columns by the title of their table."""
        groups: dict[str, list[Column]] = {}
        for column in self.columns:
            groups.setdefault(column.group, []).append(column)
        return groups


def short(value: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
