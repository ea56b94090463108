"""What is measured: cases, and who takes part in each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Case", "Entry", "all_cases", "size_name"]

SIZES = (16, 64, 1024, 16 * 1024, 1024 * 1024)
TLS_SIZES = (64, 16 * 1024)
BATCHES = (1, 4, 16, 64, 256)
CROWDS = (1, 10, 100, 1000)
ROUNDS = 50  # of a fan-out, at the least
SERVED = (
    ("fanout", "256 B to each of 1,000", 1000, 256),
    ("serve", "echo of 64 B to 100", 100, 64),
    ("serve", "echo of 64 B to 1,000", 1000, 64),
)


@dataclass(frozen=True)
class Entry:
    """One way of one contender, as the tables name it."""

    label: str
    contender: str
    way: str = ""


@dataclass(frozen=True)
class Case:
    """One column of one table: the same job for every entry.

    Args:
        group: the title of the table.
        column: of the table.
        server: the role of the server that it needs.
        awake: whether it is latency that counts, and the cores are kept awake.
        entries: who takes part.
        job: fields of the job.
        tls: over TLS.
        least: messages of a job, also where fewer would fill the time.
    """

    group: str
    column: str
    server: str
    entries: tuple[Entry, ...]
    job: dict[str, Any] = field(default_factory=dict)
    awake: bool = False
    tls: bool = False
    least: int = 0

    @property
    def name(self) -> str:
        """What ``--only`` is matched with."""
        return f"{self.group}, {self.column}"


RAW = Entry("raw trio stream", "raw")
WEBSOCKETS_TRIO = Entry("websockets.trio", "websockets_trio")
TRIO_WEBSOCKET = Entry("trio-websocket", "trio_websocket")
WEBSOCKETS_UVLOOP = Entry("websockets asyncio + uvloop", "websockets_asyncio")
AIOHTTP = Entry("aiohttp + uvloop", "aiohttp_uvloop")


def native(words: str, way: str = "") -> Entry:
    """A way of trioglock's."""
    return Entry(f"trioglock, {words}", "trioglock_native", way)


def plugged(words: str, way: str = "") -> Entry:
    """A way of trioglock's over the other transport."""
    return Entry(f"trioglock over trio-websocket, {words}", "trioglock_over_trio_websocket", way)


def picows(words: str, way: str = "") -> Entry:
    """A way of picows'."""
    return Entry(f"picows + uvloop, {words}", "picows_uvloop", way)


OTHERS = (WEBSOCKETS_TRIO, TRIO_WEBSOCKET, WEBSOCKETS_UVLOOP, AIOHTTP)

RECEIVE = (
    RAW,
    native("hook", "hook"),
    native("async hook", "async_hook"),
    native("async for", "for"),
    native("receive_batch", "batch"),
    plugged("hook", "hook"),
    plugged("async for", "for"),
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
    plugged("send"),
    *OTHERS,
    picows("send"),
)
ECHO = (
    RAW,
    native("send then receive"),
    native("Reply from a hook", "reply"),
    plugged("send then receive"),
    plugged("Reply from a hook", "reply"),
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
CROWD = (native("send then receive"), WEBSOCKETS_TRIO, TRIO_WEBSOCKET)
SERVING = (
    native("serve() with hooks", "hook"),
    native("serve() with a handler"),
    WEBSOCKETS_TRIO,
    TRIO_WEBSOCKET,
)

WORKS = (
    ("Receive", "receive", "flood", RECEIVE, False),
    ("Send", "send", "sink", SEND, False),
    ("Echo", "echo", "echo", ECHO, True),
)


def all_cases() -> Iterator[Case]:
    """Every case, table by table."""
    for title, work, server, entries, awake in WORKS:
        for size in SIZES:
            job = {"work": work, "size": size}
            yield Case(title, size_name(size), server, entries, job, awake=awake)
    for title, work, server, entries, awake in WORKS:
        for size in TLS_SIZES:
            job = {"work": work, "size": size}
            name = f"{title} over TLS"
            yield Case(name, size_name(size), server, entries, job, awake=awake, tls=True)
    for title, work, server, entries, _ in WORKS[:2]:
        job = {"work": work, "deflate": True}
        deflating = tuple(entry for entry in entries if can_deflate(entry))
        yield Case("1 KiB of JSON, permessage-deflate", title.lower(), server, deflating, job)
    for batch in BATCHES:
        job = {"work": "burst", "batch": batch}
        yield Case("Asking for a batch of 64 B", str(batch), "flood", BURST, job, awake=True)
    for connections in CROWDS:
        job = {"work": "crowd", "connections": connections}
        yield Case(
            "Echo of 64 B over connections", str(connections), "echo", CROWD, job, awake=True
        )
    for work, column, connections, size in SERVED:
        job = {"work": work, "connections": connections, "size": size}
        # Long enough that the pauses of the garbage collector are in it.
        least = ROUNDS * connections if work == "fanout" else 0
        yield Case("Serving", column, "echo", SERVING, job, least=least)


def can_deflate(entry: Entry) -> bool:
    """Whether it knows permessage-deflate."""
    return not any(word in entry.label for word in ("raw", "trio-websocket", "picows"))


def size_name(size: int) -> str:
    """As in the tables."""
    for unit, name in ((2**20, "MiB"), (2**10, "KiB")):
        if size >= unit:
            return f"{size // unit} {name}"
    return f"{size} B"
