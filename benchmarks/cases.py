"""The cases: what is measured, and with which contenders."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Case", "Entry", "all_cases", "size_name"]

SIZES = (16, 64, 1024, 16 * 1024, 1024 * 1024)
TLS_SIZES = (64, 16 * 1024)
BATCHES = (1, 4, 16, 64, 256)
CONNECTION_COUNTS = (1, 10, 100, 1000)
MIN_FANOUT_ROUNDS = 50
SERVED = (
    ("fanout", "256 B to each of 1,000", 1000, 256),
    ("serve", "echo of 64 B to 100", 100, 64),
    ("serve", "echo of 64 B to 1,000", 1000, 64),
)


@dataclass(frozen=True)
class Entry:
    """A variant of a contender: one row of the tables.

    Args:
        label: the name in the tables.
        contender: the module in ``benchmarks.contenders``.
        variant: how the contender does the job; "" is the default.
    """

    label: str
    contender: str
    variant: str = ""


@dataclass(frozen=True)
class Case:
    """One column of a table: the same job for every entry.

    Args:
        group: the title of the table.
        column: the heading of the column.
        server: the role of the server.
        awake: keep the cores awake, because the case measures latency.
        entries: the rows of the column.
        job: fields of the job.
        tls: use TLS.
        min_messages: the minimum number of messages of a job.
    """

    group: str
    column: str
    server: str
    entries: tuple[Entry, ...]
    job: dict[str, Any] = field(default_factory=dict)
    awake: bool = False
    tls: bool = False
    min_messages: int = 0

    @property
    def name(self) -> str:
        """The name that ``--only`` is matched against."""
        return f"{self.group}, {self.column}"


RAW = Entry("raw trio stream", "raw")
WEBSOCKETS_TRIO = Entry("websockets.trio", "websockets_trio")
TRIO_WEBSOCKET = Entry("trio-websocket", "trio_websocket")
WEBSOCKETS_UVLOOP = Entry("websockets asyncio + uvloop", "websockets_asyncio")
AIOHTTP = Entry("aiohttp + uvloop", "aiohttp_uvloop")


def native(label: str, variant: str = "") -> Entry:
    """Return an entry of trioglock with its own transport."""
    return Entry(f"trioglock, {label}", "trioglock_native", variant)


def over_trio_websocket(label: str, variant: str = "") -> Entry:
    """Return an entry of trioglock over trio-websocket."""
    return Entry(
        f"trioglock over trio-websocket, {label}", "trioglock_over_trio_websocket", variant
    )


def picows(label: str, variant: str = "") -> Entry:
    """Return an entry of picows."""
    return Entry(f"picows + uvloop, {label}", "picows_uvloop", variant)


OTHERS = (WEBSOCKETS_TRIO, TRIO_WEBSOCKET, WEBSOCKETS_UVLOOP, AIOHTTP)

RECEIVE = (
    RAW,
    native("hook", "hook"),
    native("async hook", "async_hook"),
    native("async for", "for"),
    native("receive_batch", "batch"),
    over_trio_websocket("hook", "hook"),
    over_trio_websocket("async for", "for"),
    *OTHERS,
    picows("bare callback", "bare"),
    picows("callback that takes the payload", "callback"),
    picows("queue"),
)
SEND = (
    RAW,
    native("send through handle_send", "hook"),
    native("send through an async handle_send", "async_hook"),
    native("send with the default Socket"),
    native("send_nowait through handle_send", "nowait"),
    over_trio_websocket("send"),
    *OTHERS,
    picows("send"),
)
ECHO = (
    RAW,
    native("send then receive"),
    native("Reply from a hook", "reply"),
    over_trio_websocket("send then receive"),
    over_trio_websocket("Reply from a hook", "reply"),
    *OTHERS,
    picows("callback", "callback"),
    picows("queue"),
)
BURST = (
    native("receive"),
    native("receive_batch", "batch"),
    *OTHERS,
    picows("queue"),
)
MANY_CONNECTIONS = (native("send then receive"), WEBSOCKETS_TRIO, TRIO_WEBSOCKET)
SERVING = (
    native("serve() with hooks", "hook"),
    native("serve() with a handler"),
    WEBSOCKETS_TRIO,
    TRIO_WEBSOCKET,
)

BASIC_WORK = (
    ("Receive", "receive", "flood", RECEIVE, False),
    ("Send", "send", "sink", SEND, False),
    ("Echo", "echo", "echo", ECHO, True),
)


def all_cases() -> Iterator[Case]:
    """Yield every case, table by table."""
    for title, work, server, entries, awake in BASIC_WORK:
        for size in SIZES:
            job = {"work": work, "size": size}
            yield Case(title, size_name(size), server, entries, job, awake=awake)
    for title, work, server, entries, awake in BASIC_WORK:
        for size in TLS_SIZES:
            job = {"work": work, "size": size}
            name = f"{title} over TLS"
            yield Case(name, size_name(size), server, entries, job, awake=awake, tls=True)
    for title, work, server, entries, _ in BASIC_WORK[:2]:
        job = {"work": work, "deflate": True}
        deflating = tuple(entry for entry in entries if can_deflate(entry))
        yield Case("1 KiB of JSON, permessage-deflate", title.lower(), server, deflating, job)
    for batch in BATCHES:
        job = {"work": "burst", "batch": batch}
        yield Case("Asking for a batch of 64 B", str(batch), "flood", BURST, job, awake=True)
    for connections in CONNECTION_COUNTS:
        job = {"work": "crowd", "connections": connections}
        yield Case(
            "Echo of 64 B over connections",
            str(connections),
            "echo",
            MANY_CONNECTIONS,
            job,
            awake=True,
        )
    for work, column, connections, size in SERVED:
        job = {"work": work, "connections": connections, "size": size}
        # A long job includes the pauses of the garbage collector.
        min_messages = MIN_FANOUT_ROUNDS * connections if work == "fanout" else 0
        yield Case("Serving", column, "echo", SERVING, job, min_messages=min_messages)


def can_deflate(entry: Entry) -> bool:
    """Return whether the contender supports permessage-deflate."""
    return not any(word in entry.label for word in ("raw", "trio-websocket", "picows"))


def size_name(size: int) -> str:
    """Return a size with its unit, as the tables show it."""
    for unit, name in ((2**20, "MiB"), (2**10, "KiB")):
        if size >= unit:
            return f"{size // unit} {name}"
    return f"{size} B"
