"""The performance goals of the project, compared with the results of a run.

A missed goal is reported. It changes the exit code only with ``--gate``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from . import channels_cases as channels
from . import hub_cases as hubs
from . import server_cases as server
from .case import BASELINE, COMPILED, native, picows
from .cases import (
    AIOHTTP,
    MANY_TASKS,
    RAW,
    REQUESTS,
    TRIO_WEBSOCKET,
    WEBSOCKETS_TRIO,
    WEBSOCKETS_UVLOOP,
)
from .results import Results, Spread

__all__ = ["Verdict", "verdicts"]

JSON = "1 KiB of JSON, permessage-deflate"
CONNECTIONS = "Echo of 64 B over connections"

HOOK = native("hook").label
FOR = native("async for").label
SEND = native("send through handle_send").label
ECHO = native("send then receive").label
REPLY = native("Reply from a hook").label
CONNECT = native("connect()").label
WEBSOCKETS = WEBSOCKETS_TRIO.label
ASYNCIO = WEBSOCKETS_UVLOOP.label
TRIO_WS = TRIO_WEBSOCKET.label
STREAM = RAW.label
QUEUE = picows("queue").label
BARE = picows("bare callback").label

SERVE = server.HOOKS.label
HANDLER = server.HANDLER.label
PICOWS = server.PICOWS.label
LOOP = server.LOOP.label
BROADCAST = server.BROADCAST.label
PUBLISH = server.PUBLISH.label
LISTENER = server.LISTENER.label


@dataclass(frozen=True)
class Limit:
    """A goal: a limit for the ratio or the difference of two entries in one column.

    Without ``theirs``, it is a limit for the value of ``ours``.
    """

    what: str
    limit: str
    group: str
    column: str
    ours: str
    theirs: str = ""
    at_least: float | None = None
    """The minimum of the time of ``theirs`` divided by that of ``ours``."""
    at_most: float | None = None
    """The maximum of the value of ``ours``, divided by that of ``theirs`` if there is one."""
    more: float | None = None
    """The maximum of the value of ``ours`` minus that of ``theirs``."""

    def measured(self, results: Results) -> Spread | None:
        """Return the ratio or the difference, or None if the run has not measured it."""
        column = results.find(self.group, self.column)
        if column is None:
            return None
        if not self.theirs:
            return column.spread(self.ours)
        if self.more is not None:
            return column.difference(self.ours, self.theirs)
        if self.at_least is not None:
            return column.ratio(self.theirs, self.ours)
        return column.ratio(self.ours, self.theirs)

    def is_kept(self, measured: Spread) -> bool:
        """Return whether the median is within the limit."""
        if self.at_least is not None:
            return measured.median >= self.at_least
        bound = self.more if self.at_most is None else self.at_most
        assert bound is not None
        return measured.median <= bound


def _at_least(what: str, group: str, column: str, ours: str, **ratios: float) -> Iterator[Limit]:
    names = {"websockets": WEBSOCKETS, "trio_websocket": TRIO_WS, "asyncio": ASYNCIO}
    for key, times in ratios.items():
        theirs = names[key]
        limit = f"at least {times:g} x {theirs}"
        yield Limit(what, limit, group, column, ours, theirs, at_least=times)


def _at_most(what: str, group: str, column: str, ours: str, theirs: str, times: float) -> Limit:
    limit = f"at most {times:g} x {theirs}"
    return Limit(what, limit, group, column, ours, theirs, at_most=times)


def limits() -> Iterator[Limit]:
    """Yield all goals."""
    yield from _client_limits()
    yield from _connection_limits()
    yield from _server_limits()
    yield from _channels_limits()
    yield from _hub_limits()


def _client_limits() -> Iterator[Limit]:
    what = "receive in a hook that counts"
    at = ("Receive", "64 B", HOOK)
    yield from _at_least(what, *at, websockets=12, trio_websocket=30)
    yield Limit(what, f"faster than {QUEUE}", *at, QUEUE, at_least=1)
    yield _at_most(what, *at, BARE, 2)
    compiled = f"{COMPILED}: {HOOK}"
    yield _at_most(f"{what}, compiled", "Receive", "64 B", compiled, BARE, 1)

    what = "`async for` with the default Socket"
    at = ("Receive", "64 B", FOR)
    yield from _at_least(what, *at, websockets=6, trio_websocket=15)
    yield _at_most(what, *at, QUEUE, 1.4)
    yield _at_most(what, *at, AIOHTTP.label, 1.4)

    what = "`await send` through `handle_send`"
    at = ("Send", "64 B", SEND)
    yield from _at_least(what, *at, websockets=8, trio_websocket=8)
    yield _at_most(what, *at, picows("send").label, 1.3)

    what = "async hooks that do not block, {}"
    limit = "at most 1 us more than plain ones"
    hooks = native("async hook").label
    yield Limit(what.format("receive"), limit, "Receive", "64 B", hooks, HOOK, more=1)
    hooks = native("send through an async handle_send").label
    yield Limit(what.format("send"), limit, "Send", "64 B", hooks, SEND, more=1)

    what = "echo, `send` then `receive`, cores awake"
    at = ("Echo", "64 B", ECHO)
    yield from _at_least(what, *at, websockets=1.6, trio_websocket=1.8)
    yield _at_most(what, *at, STREAM, 1.8)
    what = "echo from `handle_receive` returning `Reply`, cores awake"
    yield _at_most(what, "Echo", "64 B", REPLY, STREAM, 1.6)
    yield _at_most("echo of 1 MiB", "Echo", "1 MiB", ECHO, ASYNCIO, 1.2)

    what = "{} receive in a hook"
    yield from _at_least(what.format("1 KiB"), "Receive", "1 KiB", HOOK, websockets=5)
    yield from _at_least(what.format("16 KiB"), "Receive", "16 KiB", HOOK, websockets=2.5)
    limit = f"at least 0.6 of the bytes per second of {STREAM}"
    what = "1 MiB binary, receive in a hook"
    yield Limit(what, limit, "Receive", "1 MiB", HOOK, STREAM, at_least=0.6)

    what = "TLS, echo of 64 B, `send` then `receive`, cores awake"
    at = ("Echo over TLS", "64 B", ECHO)
    yield _at_most(what, *at, STREAM, 0.6)
    yield _at_most(what, *at, ASYNCIO, 1.3)
    what = "TLS, 16 KiB receive in a hook"
    yield _at_most(what, "Receive over TLS", "16 KiB", HOOK, AIOHTTP.label, 1.3)

    what = f"{JSON}, "
    yield from _at_least(what + "receive in a hook", JSON, "receive", HOOK, websockets=1)
    yield from _at_least(what + "receive by async for", JSON, "receive", FOR, websockets=1)
    yield from _at_least(what + "send", JSON, "send", SEND, websockets=1)

    what = "`request` with JSON{}"
    ours, msgspec, by_hand, echo = (entry.label for entry in REQUESTS)
    table, column = "Requests with JSON", "64 B"
    limit = "at most 12 us more than the echo"
    yield Limit(what.format(""), limit, table, column, ours, echo, more=12)
    yield Limit(what.format(", msgspec"), limit, table, column, msgspec, echo, more=12)
    yield _at_most(what.format(""), table, column, ours, by_hand, 1.1)


def _connection_limits() -> Iterator[Limit]:
    what = "1,000 connections x 64 B echo"
    yield from _at_least(what, CONNECTIONS, "1,000", ECHO, websockets=1.5)
    few, many = (entry.label for entry in MANY_TASKS)
    what = "20,000 tasks that send at once, cost per message"
    limit = "at most 1.5 x 2,000 tasks"
    yield Limit(what, limit, "Many tasks, one connection", "64 B", many, few, at_most=1.5)

    what = "connections opened by a client"
    limit = f"not slower than {WEBSOCKETS}"
    at = ("Opening connections", "1,000", CONNECT)
    yield Limit(what, limit, *at, WEBSOCKETS, at_most=1)

    table = "Memory per idle connection"
    what = "memory per idle client connection, heartbeat on"
    for column in ("1,000", "10,000"):
        limit = f"not above {WEBSOCKETS} ({column} connections, RSS)"
        yield Limit(what, limit, table, column, CONNECT, WEBSOCKETS, at_most=1)
    yield Limit(what, "at most 16 KB (10,000)", table, "10,000", CONNECT, at_most=16)
    limit, column = "at most 18 KB (10,000, compression)", "10,000, compression"
    yield Limit(what, limit, table, column, CONNECT, at_most=18)


def _server_limits() -> Iterator[Limit]:
    for column, times, least in (
        ("100", 2, {"asyncio": 1.5, "websockets": 4.5}),
        ("1,000", 2.5, {"asyncio": 1.4}),
        ("100 over TLS", 2, {"asyncio": 2, "websockets": 4}),
    ):
        what = f"server, echo, hook, {column} connections, CPU"
        at = (server.ECHOING, column, SERVE)
        yield _at_most(what, *at, PICOWS, times)
        yield from _at_least(what, *at, **least)
    what = "server, echo, handler, 100 connections, CPU"
    yield _at_most(what, server.ECHOING, "100", HANDLER, PICOWS, 2.6)
    what = "server, echo, hook, 100 connections, time"
    at = (server.ECHO_TIME, "100", SERVE)
    yield from _at_least(what, *at, websockets=2, trio_websocket=2)

    what = "fan-out of 256 B to 1,000 connections, {}"
    at = (server.DELIVERY_TIME, "256 B", BROADCAST)
    yield from _at_least(what.format("time"), *at, websockets=5, trio_websocket=5)
    column = "256 B"
    for label, name in ((BROADCAST, "server.broadcast"), (PUBLISH, "hub.publish")):
        what = f"fan-out of 256 B to 1,000 connections, {name}, CPU"
        yield _at_most(what, server.DELIVERING, column, label, LOOP, 1.5)
    for burst, one in zip(server.BURSTS, (BROADCAST, PUBLISH), strict=True):
        what = f"fan-out in a burst of {server.BURST}, CPU per delivery"
        yield _at_most(what, server.DELIVERING, column, burst.label, one, 0.35)
    what = "listener that republishes to 1,000 connections, CPU"
    yield _at_most(what, server.DELIVERING, column, LISTENER, BROADCAST, 1.2)

    what = "CPU per accepted connection"
    at = (server.ACCEPTING, "1,000", SERVE)
    yield _at_most(what, *at, f"{BASELINE}: {SERVE}", 0.6)
    yield _at_most(what, *at, WEBSOCKETS, 1)

    what = "memory per idle server connection, heartbeat on"
    table = server.HOLDING
    yield Limit(what, "at most 16 KB (10,000)", table, "10,000", SERVE, at_most=16)
    limit, column = "at most 18 KB (10,000, compression)", "10,000, compression"
    yield Limit(what, limit, table, column, SERVE, at_most=18)


def _channels_limits() -> Iterator[Limit]:
    ours, theirs = channels.CHANNELS.label, channels.SOCKET_IO.label
    what = "channels, push and reply, CPU"
    at = (channels.PUSHING, "100 connections", ours)
    yield _at_most(what, *at, theirs, 1.5)
    echo = channels.ECHO.label
    yield Limit(what, f"at most 12 us more than {echo}", *at, echo, more=12)

    what = "channels, broadcast of 256 B to 1,000 members, CPU"
    at = (channels.DELIVERING, "256 B", ours)
    yield _at_most(what, *at, theirs, 0.9)
    yield _at_most(what, *at, channels.BROADCAST.label, 1.15)
    what = f"channels, {channels.BURST} broadcasts at once, CPU per delivery"
    burst = channels.BURSTS[0].label
    yield _at_most(what, channels.DELIVERING, "256 B", burst, ours, 0.4)

    at = (channels.JOINING, "100 connections", ours)
    yield _at_most("channels, join, CPU", *at, theirs, 2)

    table, column = channels.PRESENCE, "1,000 members"
    what = "channels, presence join with 1,000 members, CPU"
    yield _at_most(what, table, column, ours, channels.DIFF.label, 1.1)
    what = "channels, 100 presence joins within 100 ms, CPU"
    yield _at_most(what, table, column, channels.MANY_JOINS.label, ours, 0.25)

    what = "channels, memory per connection with one topic"
    yield Limit(what, "at most 30 KB", channels.HOLDING, "1,000", ours, at_most=30)
    what = "channels, memory per further topic"
    yield Limit(what, "at most 3 KB", channels.TOPICS, "1,000", ours, at_most=3)


def _hub_limits() -> Iterator[Limit]:
    rate = f"{hubs.RATE:,} messages per second"
    for entry in (hubs.PLAIN, hubs.HISTORY):
        name = entry.label.removeprefix("trioglock, ")
        what = f"{name}, a busy channel without subscribers in the process"
        limit = "at most 1 % of a core"
        yield Limit(what, limit, hubs.IGNORING, rate, entry.label, at_most=1)
    what = "hub, a message to 8 processes with a history, CPU of Redis"
    at = (hubs.PUBLISHING, rate, hubs.HISTORY.label)
    yield _at_most(what, *at, hubs.PLAIN.label, 2)
    for channels_count in hubs.CHANNELS:
        column = f"{channels_count:,} channels"
        what = f"hub, 4 processes with one subscriber for each of {column}, CPU"
        yield _at_most(what, hubs.SPREADING, column, hubs.HUB.label, hubs.NODE.label, 1.3)
    for column in hubs.RETURNS:
        for entry in hubs.STORES:
            what = f"{entry.label.removeprefix('trioglock, ')}, 1,000 browsers return, {column}"
            limit = "at most 0.5 s of CPU"
            yield Limit(what, limit, hubs.RETURNING, column, entry.label, at_most=0.5)
            limit += " more than 1,000 new browsers"
            yield Limit(what, limit, hubs.REPLAYING, column, entry.label, at_most=0.5)


@dataclass(frozen=True)
class Verdict:
    """A goal and the result of a run."""

    what: str
    limit: str
    measured: str
    kept: str


def verdicts(results: Results) -> list[Verdict]:
    """Return the result for each goal."""
    return [_verdict(limit, results) for limit in limits()]


def _verdict(limit: Limit, results: Results) -> Verdict:
    measured = limit.measured(results)
    if measured is None:
        return Verdict(limit.what, limit.limit, "not measured", "-")
    kept = "yes" if limit.is_kept(measured) else "no"
    return Verdict(limit.what, limit.limit, str(measured), kept)
