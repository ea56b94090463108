"""Receiving and publishing with a Redis stream, which keeps a history."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import trio

from ...frames import Data
from ..broker import BrokerSession, Deliver
from ..history import History, parse_id
from ..message import Message
from .address import RedisAddress
from .connection import RedisConnection, RedisDisconnected, RedisTimings
from .pipeline import CommandPipeline
from .pubsub import RedisReceiver, decode_data

__all__ = ["EXTRA_ENTRIES", "RedisStreamReceiver", "RedisStreamSession"]

MAX_BATCH = 500
"""Maximum number of entries that one XREAD returns."""

EXTRA_ENTRIES = MAX_BATCH
"""Number of entries of a stream beyond its history.

Because of them, an XREAD that returns fewer than ``MAX_BATCH`` entries has missed none: if an entry
had been trimmed before it was read, ``MAX_BATCH`` newer ones would follow it.
"""


class RedisStreamReceiver(RedisReceiver):
    """Receives the entries of a stream, after it has filled ``history`` with the latest ones."""

    def __init__(
        self,
        address: RedisAddress,
        timings: RedisTimings,
        key: str,
        history: History,
        deliver: Deliver,
    ) -> None:
        super().__init__(address, timings, deliver)
        self._key = key
        self._history = history
        milliseconds = max(1, int(timings.health_interval * 1000))
        self._read = ("XREAD", "COUNT", MAX_BATCH, "BLOCK", milliseconds, "STREAMS", key)

    async def _receive(self, connection: RedisConnection) -> Iterable[Message]:
        timeout = self.timings.health_interval + self.timings.health_timeout
        with trio.move_on_after(timeout):
            reply = await connection.request(*self._read, self._history.last)
            entries = reply[0][1] if reply else ()
            if len(entries) == MAX_BATCH and await self._is_trimmed(connection):
                self._deliver_gap()
            return self._parse(entries)
        raise RedisDisconnected(f"Redis was silent for {timeout} seconds")

    async def _subscribe(self, connection: RedisConnection) -> bool:
        if self.subscribed.is_set():
            return await self._is_trimmed(connection)
        entries = await connection.request(
            "XREVRANGE", self._key, "+", "-", "COUNT", self._history.limit
        )
        for entry in reversed(entries):
            self._history.add(parse_entry(entry))
        return False

    async def _is_trimmed(self, connection: RedisConnection) -> bool:
        """Whether unread entries may have been trimmed; the history is then interrupted."""
        oldest = await connection.request("XRANGE", self._key, "-", "+", "COUNT", 1)
        if oldest and parse_id(oldest[0][0].decode()) <= parse_id(self._history.last):
            return False
        self._history.interrupt()
        return True

    def _parse(self, entries: Iterable[Any]) -> Iterable[Message]:
        for entry in entries:
            message = parse_entry(entry)
            self._history.add(message)
            yield message


class RedisStreamSession(BrokerSession):
    """Publishes with XADD."""

    def __init__(self, commands: CommandPipeline, key: str, history: History) -> None:
        self.history: History | None = history
        self._commands = commands
        self._add = ("XADD", key, "MAXLEN", history.limit + EXTRA_ENTRIES, "*")

    async def publish(self, channel: str, data: Data) -> None:
        await self._commands.request(*self._add, "channel", channel, "data", data)


def parse_entry(entry: Any) -> Message:
    """Return the message in a stream entry: an id, and alternating fields and values."""
    entry_id, fields = entry
    values = dict(zip(fields[::2], fields[1::2], strict=True))
    channel = values.get(b"channel", b"").decode(errors="replace")
    return Message(channel, decode_data(values.get(b"data", b"")), entry_id.decode())
