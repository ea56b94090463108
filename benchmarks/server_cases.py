"""The cases in which the contenders are servers, with clients on picows and uvloop.

The tables show the CPU time of the server process: the clients run on another core.
"""

from __future__ import annotations

from collections.abc import Iterator

from .case import CPU, TIME, Case, Entry, Measure, native, picows

__all__ = ["server_cases"]

ECHOING = "Server: CPU per echo of 64 B"
ECHO_TIME = "Server: time per echo of 64 B"
DELIVERING = "Server: CPU per delivery to 1,000 connections"
DELIVERY_TIME = "Server: time per delivery to 1,000 connections"
ACCEPTING = "Server: CPU per accepted connection"
HOLDING = "Server: memory per idle connection"

# Enough for the pauses of the garbage collector to be included.
MIN_ECHOES = 20_000
MIN_DELIVERIES = 50_000

HOOKS = native("serve() with hooks", "hook")
HANDLER = native("serve() with a handler")
WEBSOCKETS_TRIO = Entry("websockets.trio", "websockets_trio")
TRIO_WEBSOCKET = Entry("trio-websocket", "trio_websocket")
WEBSOCKETS_UVLOOP = Entry("websockets asyncio + uvloop", "websockets_asyncio")
PICOWS = picows("server")

SERVERS = (HOOKS, HANDLER, WEBSOCKETS_TRIO, WEBSOCKETS_UVLOOP, PICOWS)
BURST = 8
LOOP = Entry("loop of os.write", "raw")
BROADCAST = native("server.broadcast", "hook")
PUBLISH = native("hub.publish", "hub")
LISTENER = native("listener that republishes", "listener")
BURSTS = (
    native(f"server.broadcast, {BURST} at once", "hook", batch=BURST),
    native(f"hub.publish, {BURST} at once", "hub", batch=BURST),
)
PUBLISHERS = (LOOP, BROADCAST, PUBLISH, LISTENER, *BURSTS, WEBSOCKETS_TRIO, TRIO_WEBSOCKET)

ACCEPTED = Measure("cpu", "us of CPU per connection", per="connections")
HELD = Measure("resident", "KB per connection, RSS", 1e-3, "connections")


def server_cases() -> Iterator[Case]:
    """Yield every case, table by table."""
    tables = {ECHOING: CPU, ECHO_TIME: TIME}
    job = {"work": "serve", "connections": 100}
    entries = (*SERVERS, TRIO_WEBSOCKET)
    yield Case(tables, "100", entries, job, min_messages=MIN_ECHOES)
    thousand = {"work": "serve", "connections": 1000}
    yield Case(tables, "1,000", SERVERS, thousand, min_messages=MIN_ECHOES)
    secure = {**job, "secure": True}
    yield Case(tables, "100 over TLS", SERVERS, secure, min_messages=MIN_ECHOES)

    tables = {DELIVERING: CPU, DELIVERY_TIME: TIME}
    job = {"work": "fanout", "connections": 1000, "size": 256}
    yield Case(tables, "256 B", PUBLISHERS, job, min_messages=MIN_DELIVERIES)

    tables = {ACCEPTING: ACCEPTED, HOLDING: HELD}
    job = {"work": "hold", "connections": 1000}
    yield Case(tables, "1,000", SERVERS, job, fresh=True)
    job = {"work": "hold", "connections": 10_000}
    yield Case(tables, "10,000", (HOOKS, WEBSOCKETS_TRIO), job, fresh=True)
    job = {**job, "deflate": True}
    yield Case({HOLDING: HELD}, "10,000, compression", (HOOKS,), job, fresh=True)
