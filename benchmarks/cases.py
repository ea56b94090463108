"""The cases. To add one, yield a Case from a function here, or in one of the ``*_cases`` modules.

A contender does the job in a method that is named after the ``work`` of the job and the variant of
the entry; see ``benchmarks.contenders``.
"""

from __future__ import annotations

from collections.abc import Iterator

from .case import TIME, Case, Entry, Measure, native, picows, size_name
from .channels_cases import channels_cases
from .hub_cases import hub_cases
from .server_cases import server_cases

__all__ = ["all_cases", "build_entry"]

SIZES = (64, 1024, 16 * 1024, 1024 * 1024)
TLS_SIZES = (64, 16 * 1024)
BATCHES = (1, 16, 256)
CONNECTION_COUNTS = (1, 100, 1000)
IDLE_CONNECTIONS = (1_000, 10_000)
TASKS = (2_000, 20_000)

OPENING = Measure("seconds", "us per connection", per="connections")
MEMORY = Measure("resident", "KB per connection, RSS", 1e-3, "connections")
OBJECTS = Measure("traced", "KB per connection, tracemalloc", 1e-3, "connections")
BUSY = Measure("busy", "% of a core", 100, None)

# During this time every connection sends exactly one ping.
HEARTBEAT_WINDOW = 20

RAW = Entry("raw trio stream", "raw")
WEBSOCKETS_TRIO = Entry("websockets.trio", "websockets_trio")
TRIO_WEBSOCKET = Entry("trio-websocket", "trio_websocket")
WEBSOCKETS_UVLOOP = Entry("websockets asyncio + uvloop", "websockets_asyncio")
AIOHTTP = Entry("aiohttp + uvloop", "aiohttp_uvloop")
OTHERS = (WEBSOCKETS_TRIO, TRIO_WEBSOCKET, WEBSOCKETS_UVLOOP, AIOHTTP)


def over_trio_websocket(label: str, variant: str = "") -> Entry:
    """Return an entry of trioglock over trio-websocket."""
    return Entry(
        f"trioglock over trio-websocket, {label}", "trioglock_over_trio_websocket", variant
    )


RECEIVE = (
    RAW,
    native("hook", "hook"),
    native("async hook", "async_hook"),
    native("async for", "for"),
    native("receive_batch", "batch"),
    over_trio_websocket("hook", "hook"),
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
    *OTHERS,
    picows("callback", "callback"),
    picows("queue"),
)
REQUESTS = (
    native("request"),
    native("request with msgspec", "msgspec"),
    native("the same by hand, with json", "hand"),
    native("echo of the same bytes", "echo"),
)
BURST = (native("receive"), native("receive_batch", "batch"), *OTHERS, picows("queue"))
MANY_CONNECTIONS = (native("send then receive"), WEBSOCKETS_TRIO, TRIO_WEBSOCKET)
MANY_TASKS = tuple(native(f"{tasks:,} tasks that send at once", batch=tasks) for tasks in TASKS)
IDLE = (native("connect()"), WEBSOCKETS_TRIO, TRIO_WEBSOCKET)

BASIC_WORK = (
    ("Receive", "receive", "flood", RECEIVE, False),
    ("Send", "send", "sink", SEND, False),
    ("Echo", "echo", "echo", ECHO, True),
)


def all_cases() -> Iterator[Case]:
    """Yield every case, table by table."""
    yield from _basic_cases()
    yield from _compression_cases()
    yield from _concurrency_cases()
    yield from _idle_cases()
    yield from server_cases()
    yield from channels_cases()
    yield from hub_cases()


def _basic_cases() -> Iterator[Case]:
    for title, work, server, entries, awake in BASIC_WORK:
        for size in SIZES:
            job = {"work": work, "size": size}
            yield Case({title: TIME}, size_name(size), entries, job, server, awake=awake)
    for title, work, server, entries, awake in BASIC_WORK:
        # This transport adds the same to every message, with and without TLS.
        direct = tuple(e for e in entries if e.contender != "trioglock_over_trio_websocket")
        for size in TLS_SIZES:
            job = {"work": work, "size": size}
            tables = {f"{title} over TLS": TIME}
            yield Case(tables, size_name(size), direct, job, server, tls=True, awake=awake)


def _compression_cases() -> Iterator[Case]:
    for title, work, server, entries, _ in BASIC_WORK[:2]:
        job = {"work": work, "deflate": True}
        deflating = tuple(entry for entry in entries if _can_deflate(entry))
        tables = {"1 KiB of JSON, permessage-deflate": TIME}
        yield Case(tables, title.lower(), deflating, job, server)


def _can_deflate(entry: Entry) -> bool:
    return not any(word in entry.label for word in ("raw", "trio-websocket", "picows"))


def _concurrency_cases() -> Iterator[Case]:
    for batch in BATCHES:
        tables = {"Asking for a batch of 64 B": TIME}
        yield Case(
            tables, str(batch), BURST, {"work": "burst", "batch": batch}, "flood", awake=True
        )
    yield Case({"Requests with JSON": TIME}, "64 B", REQUESTS, {"work": "request"})
    for connections in CONNECTION_COUNTS:
        job = {"work": "crowd", "connections": connections}
        tables = {"Echo of 64 B over connections": TIME}
        yield Case(tables, f"{connections:,}", MANY_CONNECTIONS, job, awake=True)
    # The socket of a new connection first accepts only 64 KiB, and then more and more.
    yield Case(
        {"Many tasks, one connection": TIME},
        "64 B",
        MANY_TASKS,
        {"work": "tasks"},
        "sink",
        min_messages=5 * TASKS[-1],
    )


def _idle_cases() -> Iterator[Case]:
    memory, opening = "Memory per idle connection", "Opening connections"
    for connections in IDLE_CONNECTIONS:
        column = f"{connections:,}"
        job = {"work": "idle", "connections": connections}
        tables = {opening: OPENING, memory: MEMORY}
        # With 10,000 connections trio-websocket does not show anything new.
        entries = IDLE if connections == IDLE_CONNECTIONS[0] else IDLE[:2]
        yield Case(tables, column, entries, job, fresh=True)
    tables = {memory: MEMORY}
    yield Case(tables, f"{column}, compression", IDLE[:1], {**job, "deflate": True}, fresh=True)
    job = {"work": "idle", "connections": IDLE_CONNECTIONS[0], "traced": True}
    tables = {"Objects of an idle connection": OBJECTS}
    yield Case(tables, f"{IDLE_CONNECTIONS[0]:,}", IDLE, job, fresh=True, max_rounds=1)
    job = {"work": "idle", "connections": IDLE_CONNECTIONS[-1], "window": HEARTBEAT_WINDOW}
    tables = {"CPU time of idle connections": BUSY}
    yield Case(tables, column, IDLE[:2], job, fresh=True, max_rounds=1)


def build_entry(entry: Entry, build: str) -> Entry | None:
    """Return the entry for another build of trioglock, or None for other contenders."""
    if entry.contender not in ("trioglock_native", "trioglock_channels", "trioglock_hub"):
        return None
    label = f"{build}: {entry.label}"
    return Entry(label, entry.contender, entry.variant, entry.job, build)
