"""The cases in which hubs in several processes are connected by Redis."""

from __future__ import annotations

from collections.abc import Iterator

from .case import Case, Entry, Measure

__all__ = [
    "CHANNELS",
    "HISTORY",
    "HUB",
    "IGNORING",
    "NODE",
    "PLAIN",
    "PUBLISHING",
    "RATE",
    "SPREADING",
    "hub_cases",
]

IGNORING = "Hub: CPU time of a process for a channel without subscribers in it"
PUBLISHING = "Hub: CPU of Redis per message to 8 processes"
SPREADING = "Hub: CPU of 4 processes per message, one subscriber per channel"

RATE = 2000
"""Messages per second."""

SECONDS = 3
CHANNELS = (1_000, 10_000)

HUB = Entry("trioglock, hub", "trioglock_hub")
PLAIN = Entry("trioglock, hub without a history", "trioglock_hub")
HISTORY = Entry("trioglock, hub with a history", "trioglock_hub", "history")
NODE = Entry("Node.js, redis and ws", "node_hub")

CPU = Measure("cpu", "us", per=None)
BUSY = Measure("busy", "% of a core", 100, None)


def hub_cases() -> Iterator[Case]:
    """Yield every case, table by table."""
    rate = f"{RATE:,} messages per second"
    job = {"work": "ignore", "batch": RATE, "window": 10}
    yield Case({IGNORING: BUSY}, rate, (PLAIN, HISTORY), job, fresh=True, max_rounds=3)
    job = {"work": "publish", "batch": RATE, "window": SECONDS}
    yield Case({PUBLISHING: CPU}, rate, (PLAIN, HISTORY), job, fresh=True)
    for channels in CHANNELS:
        job = {"work": "spread", "batch": RATE, "connections": channels, "window": SECONDS}
        yield Case({SPREADING: CPU}, f"{channels:,} channels", (HUB, NODE), job, fresh=True)
