"""What a benchmark consists of: cases, their entries, and the values that they measure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = [
    "BASELINE",
    "CHANNELS_WORK",
    "COMPILED",
    "CPU",
    "HUB_WORK",
    "SERVER_WORK",
    "TIME",
    "Case",
    "Entry",
    "Measure",
    "native",
    "picows",
    "size_name",
]

SERVER_WORK = ("serve", "fanout", "hold")
"""The jobs of contenders that are servers."""

CHANNELS_WORK = ("push", "shout", "join", "presence", "keep", "rest")
"""The jobs of contenders that are servers of channels."""

HUB_WORK = ("ignore", "publish", "spread", "resume", "scatter")
"""The jobs of contenders whose processes are connected by Redis."""

BASELINE, COMPILED = "baseline", "compiled"
"""Names of other builds of trioglock that can be measured in the same run."""


@dataclass(frozen=True)
class Measure:
    """A value of the result of a job, and how the tables show it. Lower is always better.

    Args:
        key: the item of the result: ``seconds``, ``cpu``, ``total``, ``replay``, ``message``
            (seconds), ``resident``, ``topic``, ``traced`` (bytes) or ``busy`` (a share of one
            core).
        unit: the unit in the tables.
        scale: the factor from the value of the result to that unit.
        per: the field of the job by which the value is divided.
    """

    key: str
    unit: str
    scale: float = 1e6
    per: Literal["count", "connections"] | None = "count"


TIME = Measure("seconds", "us per message")
CPU = Measure("cpu", "us of CPU per message")


@dataclass(frozen=True)
class Entry:
    """A variant of a contender: one row of the tables.

    Args:
        label: the name in the tables.
        contender: the module in ``benchmarks.contenders``.
        variant: how the contender does the job; "" is the default.
        job: fields of the job in which this entry differs from the others.
        build: the build of trioglock, BASELINE or COMPILED; "" is the one in this directory.
    """

    label: str
    contender: str
    variant: str = ""
    job: dict[str, Any] = field(default_factory=dict, compare=False)
    build: str = ""

    @property
    def process(self) -> tuple[str, str]:
        """The contender and the build, which the process of the entry imports."""
        return self.contender, self.build


@dataclass(frozen=True)
class Case:
    """The same job for every entry; one column in one or more tables.

    Args:
        tables: the title of each table, and the value that it shows.
        column: the heading of the column.
        entries: the rows of the column.
        job: fields of the job.
        server: the role of the server.
        tls: the server uses TLS.
        awake: keep the cores awake, because the case measures latency.
        fresh: run each job in a new process, because the case measures memory.
        min_messages: the minimum number of messages of a job.
        max_rounds: the maximum number of rounds.
    """

    tables: dict[str, Measure]
    column: str
    entries: tuple[Entry, ...]
    job: dict[str, Any]
    server: str = "echo"
    tls: bool = False
    awake: bool = False
    fresh: bool = False
    min_messages: int = 0
    max_rounds: int = 100

    @property
    def group(self) -> Literal["client", "server", "channels", "hub"]:
        """Which part of trioglock is measured; ``--group`` selects one."""
        if self.job["work"] in CHANNELS_WORK:
            return "channels"
        if self.job["work"] in HUB_WORK:
            return "hub"
        return "server" if self.job["work"] in SERVER_WORK else "client"

    @property
    def names(self) -> list[str]:
        """The names that ``--only`` is matched against."""
        return [f"{table}, {self.column}" for table in self.tables]


def native(label: str, variant: str = "", **job: Any) -> Entry:
    """Return an entry of trioglock with its own transport."""
    return Entry(f"trioglock, {label}", "trioglock_native", variant, job)


def picows(label: str, variant: str = "") -> Entry:
    """Return an entry of picows."""
    return Entry(f"picows + uvloop, {label}", "picows_uvloop", variant)


def size_name(size: int) -> str:
    """Return a size with its unit, as the tables show it."""
    for unit, name in ((2**20, "MiB"), (2**10, "KiB")):
        if size >= unit:
            return f"{size // unit} {name}"
    return f"{size} B"
