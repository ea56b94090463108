"""The cases in which the contenders are servers of channels, with clients in another process.

The tables show the CPU time of the server process.
"""

from __future__ import annotations

from collections.abc import Iterator

from .case import Case, Entry, Measure

__all__ = ["CHANNELS", "CHANNELS_TITLE", "SOCKET_IO", "channels_cases"]

CHANNELS_TITLE = "Channels: "
"""The beginning of the titles of these tables."""

PUSHING = f"{CHANNELS_TITLE}CPU per push and its reply, 64 B"
DELIVERING = f"{CHANNELS_TITLE}CPU per delivery to 1,000 members of a topic"
JOINING = f"{CHANNELS_TITLE}CPU per join"
PRESENCE = f"{CHANNELS_TITLE}CPU per presence join with 1,000 members"
CONNECTING = f"{CHANNELS_TITLE}CPU per connection"
HOLDING = f"{CHANNELS_TITLE}memory per connection with one topic"
TOPICS = f"{CHANNELS_TITLE}memory per further topic"
RESTING = f"{CHANNELS_TITLE}CPU time of 2,000 idle connections"

MIN_PUSHES = 10_000
MIN_DELIVERIES = 20_000
MEMBERS = 1000
BURST = 8
JOINERS = 100
# A server of trioglock pings every connection once in this time. socket.io does in its own time.
PING_SECONDS = 20
SOCKET_IO_PING_SECONDS = 25


def channels(label: str = "", variant: str = "", build: str = "", **job: int) -> Entry:
    """Return an entry of the channels server."""
    name = f"trioglock, channels{label}"
    return Entry(name, "trioglock_channels", variant, job, build)


def plain(label: str) -> Entry:
    """Return an entry of trioglock without channels."""
    return Entry(f"trioglock, {label}", "trioglock_channels", "plain")


def socket_io(label: str = "", **job: int) -> Entry:
    """Return an entry of socket.io."""
    return Entry(f"socket.io{label}", "socket_io", "", job)


CHANNELS = channels()
SOCKET_IO = socket_io()
ECHO = plain("echo of the same bytes")
BROADCAST = plain("server.broadcast")
AT_ONCE = f", {BURST} at once"
BURSTS = (channels(AT_ONCE, batch=BURST), socket_io(AT_ONCE, batch=BURST))
DIFF = channels(", broadcast of the diff", "diff")
MANY_JOINS = channels(f", {JOINERS} within 100 ms", batch=JOINERS)

CPU = Measure("cpu", "us")
CONNECTED = Measure("cpu", "us", per="connections")
HELD = Measure("resident", "KB, RSS", 1e-3, "connections")
HELD_TOPIC = Measure("topic", "KB, RSS", 1e-3, "connections")
BUSY = Measure("busy", "% of a core", 100, None)
# Each delivery of an entry to a member counts.
SEEN = Measure("cpu", "ms", 1e3 * MEMBERS)


def channels_cases() -> Iterator[Case]:
    """Yield every case, table by table."""
    job = {"work": "push", "connections": 100}
    entries: tuple[Entry, ...] = (CHANNELS, ECHO, SOCKET_IO)
    yield Case({PUSHING: CPU}, "100 connections", entries, job, min_messages=MIN_PUSHES)
    job = {"work": "shout", "connections": MEMBERS, "size": 256}
    entries = (CHANNELS, BROADCAST, SOCKET_IO, *BURSTS)
    yield Case({DELIVERING: CPU}, "256 B", entries, job, min_messages=MIN_DELIVERIES)
    job = {"work": "join", "connections": 100, "batch": 50}
    yield Case({JOINING: CPU}, "100 connections", (CHANNELS, SOCKET_IO), job)
    job = {"work": "presence", "connections": MEMBERS}
    entries = (CHANNELS, MANY_JOINS, DIFF)
    yield Case({PRESENCE: SEEN}, "1,000 members", entries, job, min_messages=10 * MEMBERS)
    tables = {CONNECTING: CONNECTED, HOLDING: HELD, TOPICS: HELD_TOPIC}
    job = {"work": "keep", "connections": 1000}
    yield Case(tables, "1,000", (CHANNELS, SOCKET_IO), job, fresh=True, max_rounds=3)
    job = {"work": "rest", "connections": 2000, "window": PING_SECONDS}
    entries = (CHANNELS, socket_io(window=SOCKET_IO_PING_SECONDS))
    yield Case({RESTING: BUSY}, "2,000", entries, job, fresh=True, max_rounds=1)
