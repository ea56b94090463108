"""The performance goals of the project, compared with the results of a run.

A missed goal is reported but does not change the exit code.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .cases import AIOHTTP, RAW, TRIO_WEBSOCKET, WEBSOCKETS_TRIO, native, picows
from .idle import IDLE
from .results import Results, Spread

__all__ = ["Verdict", "verdicts"]

JSON = "1 KiB of JSON, permessage-deflate"
CONNECTIONS = "Echo of 64 B over connections"

HOOK = native("hook").label
FOR = native("async for").label
SEND = native("send through handle_send").label
ECHO = native("send then receive").label
REPLY = native("Reply from a hook").label
WEBSOCKETS = WEBSOCKETS_TRIO.label
TRIO_WS = TRIO_WEBSOCKET.label
STREAM = RAW.label
QUEUE = picows("queue").label


@dataclass(frozen=True)
class Limit:
    """A goal: a limit for the ratio or the difference of two entries in one column."""

    what: str
    limit: str
    group: str
    column: str
    ours: str
    theirs: str
    at_least: float | None = None
    """The minimum of the time of ``theirs`` divided by that of ``ours``."""
    at_most: float | None = None
    """The maximum of the value of ``ours`` divided by that of ``theirs``."""
    more: float | None = None
    """The maximum of the value of ``ours`` minus that of ``theirs``."""

    def measured(self, results: Results) -> Spread | None:
        """Return the ratio or the difference, or None if the run has not measured it."""
        column = results.find(self.group, self.column)
        if column is None:
            return None
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
    for key, times in ratios.items():
        theirs = {"websockets": WEBSOCKETS, "trio_websocket": TRIO_WS}[key]
        limit = f"at least {times:g} x {theirs}"
        yield Limit(what, limit, group, column, ours, theirs, at_least=times)


def _at_most(what: str, group: str, column: str, ours: str, theirs: str, times: float) -> Limit:
    limit = f"at most {times:g} x the time of {theirs}"
    return Limit(what, limit, group, column, ours, theirs, at_most=times)


def limits() -> Iterator[Limit]:
    """Yield all goals."""
    what = "receive in a hook that counts"
    at = ("Receive", "64 B", HOOK)
    yield from _at_least(what, *at, websockets=12, trio_websocket=30)
    yield Limit(what, f"faster than {QUEUE}", *at, QUEUE, at_least=1)
    yield _at_most(what, *at, picows("bare callback").label, 2)

    what = "`async for` with the default Socket"
    at = ("Receive", "64 B", FOR)
    yield from _at_least(what, *at, websockets=6, trio_websocket=15)
    yield _at_most(what, *at, QUEUE, 1.4)
    yield _at_most(what, *at, AIOHTTP.label, 1.4)

    what = "`await send` through `handle_send`"
    at = ("Send", "64 B", SEND)
    yield from _at_least(what, *at, websockets=8, trio_websocket=8)
    yield _at_most(what, *at, picows("send").label, 1.3)

    what = "echo, `send` then `receive`, cores awake"
    at = ("Echo", "64 B", ECHO)
    yield from _at_least(what, *at, websockets=1.6, trio_websocket=1.8)
    yield _at_most(what, *at, STREAM, 1.8)
    what = "echo from `handle_receive` returning `Reply`, cores awake"
    yield _at_most(what, "Echo", "64 B", REPLY, STREAM, 1.6)

    what = "{} receive in a hook"
    yield from _at_least(what.format("1 KiB"), "Receive", "1 KiB", HOOK, websockets=5)
    yield from _at_least(what.format("16 KiB"), "Receive", "16 KiB", HOOK, websockets=2.5)
    limit = f"at least 0.6 of the bytes per second of {STREAM}"
    what = "1 MiB binary, receive in a hook"
    yield Limit(what, limit, "Receive", "1 MiB", HOOK, STREAM, at_least=0.6)

    what = f"{JSON}, "
    yield from _at_least(what + "receive in a hook", JSON, "receive", HOOK, websockets=1)
    yield from _at_least(what + "receive by async for", JSON, "receive", FOR, websockets=1)
    yield from _at_least(what + "send", JSON, "send", SEND, websockets=1)

    what = "memory per idle client connection, heartbeat on"
    for many in ("1,000", "10,000"):
        limit = f"not above {WEBSOCKETS} ({many} connections, RSS)"
        yield Limit(what, limit, IDLE, f"memory, {many}", "trioglock", WEBSOCKETS, at_most=1)
    what = "1,000 connections x 64 B echo"
    yield from _at_least(what, CONNECTIONS, "1000", ECHO, websockets=1.5)

    hooks = native("serve() with hooks").label
    what = "fan-out of 256 B to 1,000 connections"
    at = ("Serving", "256 B to each of 1,000", hooks)
    yield from _at_least(what, *at, websockets=5, trio_websocket=5)
    what = "echo server, 100 connections"
    at = ("Serving", "echo of 64 B to 100", hooks)
    yield from _at_least(what, *at, websockets=2, trio_websocket=2)

    what = "async hooks that do not block, {}"
    limit = "at most 1 us more than plain ones"
    hooks = native("async hook").label
    yield Limit(what.format("receive"), limit, "Receive", "64 B", hooks, HOOK, more=1)
    hooks = native("send through an async handle_send").label
    yield Limit(what.format("send"), limit, "Send", "64 B", hooks, SEND, more=1)


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
