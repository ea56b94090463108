"""The cases in which hubs in several processes are connected by Redis."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .case import Case, Entry, Measure

__all__ = [
    "CHANNELS",
    "HISTORY",
    "HUB",
    "HUB_TITLE",
    "IGNORING",
    "NODE",
    "PLAIN",
    "PUBLISHING",
    "RATE",
    "REPLAYING",
    "RETURNING",
    "RETURNS",
    "SPREADING",
    "STORES",
    "hub_cases",
]

HUB_TITLE = "Hub: "

IGNORING = f"{HUB_TITLE}CPU time of a process for a channel without subscribers in it"
PUBLISHING = f"{HUB_TITLE}CPU of Redis per message to 8 processes"
SPREADING = f"{HUB_TITLE}CPU of 4 processes per message, one subscriber per channel"
RETURNING = f"{HUB_TITLE}CPU of 1,000 browsers that return to a history of 10,000 messages"
REPLAYING = f"{HUB_TITLE}the same, without the CPU of 1,000 new browsers"
SENDING = f"{HUB_TITLE}CPU per message that browsers have missed"

RATE = 2000
"""Messages per second."""

SECONDS = 3
CHANNELS = {1_000: SECONDS, 10_000: 5}
"""Numbers of channels, and seconds in which each channel has at least one message."""

BROWSERS = 1_000
KEPT = 10_000
RETURNS = {"none missed": 0, "10 missed": 10}

HUB = Entry("trioglock, hub", "trioglock_hub")
PLAIN = Entry("trioglock, hub without a history", "trioglock_hub")
HISTORY = Entry("trioglock, hub with a history", "trioglock_hub", "history")
NODE = Entry("Node.js, redis and ws", "node_hub")
STORES = (
    Entry("trioglock, hub with a history in memory", "trioglock_hub", "memory"),
    Entry("trioglock, hub with a history in Redis", "trioglock_hub", "history"),
)

CPU = Measure("cpu", "us", per=None)
TOTAL = Measure("total", "s", 1, None)
REPLAY = Measure("replay", "s", 1, None)
MESSAGE = Measure("message", "us", per=None)
BUSY = Measure("busy", "% of a core", 100, None)


def hub_cases() -> Iterator[Case]:
    """Yield every case, table by table."""
    rate = f"{RATE:,} messages per second"
    job = {"work": "ignore", "batch": RATE, "window": 2 * SECONDS}
    yield _case({IGNORING: BUSY}, rate, (PLAIN, HISTORY), job)
    job = {"work": "publish", "batch": RATE, "window": SECONDS}
    yield _case({PUBLISHING: CPU}, rate, (PLAIN, HISTORY), job)
    for channels, seconds in CHANNELS.items():
        job = {"work": "spread", "batch": RATE, "connections": channels, "window": seconds}
        yield _case({SPREADING: CPU}, f"{channels:,} channels", (HUB, NODE), job)
    tables = {RETURNING: TOTAL, REPLAYING: REPLAY}
    for column, missed in RETURNS.items():
        job = {"work": "resume", "count": KEPT, "connections": BROWSERS, "batch": missed}
        yield _case(tables, column, STORES, job)
    # Each has missed half of the messages on average: 1,000 browsers would take minutes.
    job = {"work": "scatter", "count": KEPT, "connections": BROWSERS // 20, "batch": KEPT}
    yield _case({SENDING: MESSAGE}, "0 to 10,000 missed", STORES, job)


def _case(
    tables: dict[str, Measure], column: str, entries: tuple[Entry, ...], job: dict[str, Any]
) -> Case:
    # Starting the processes takes longer than most measurements.
    return Case(tables, column, entries, job, fresh=True, max_rounds=3)
