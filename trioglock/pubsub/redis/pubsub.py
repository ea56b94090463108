"""Receiving and publishing with PSUBSCRIBE and PUBLISH; the base class of both receivers."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, NoReturn

import trio

from ...frames import Data
from ..broker import BrokerSession, Deliver
from ..message import Gap, Message
from .address import RedisAddress
from .connection import (
    ReconnectingConnection,
    RedisConnection,
    RedisDisconnected,
    RedisTimings,
)
from .pipeline import CommandPipeline

__all__ = ["PubSubReceiver", "PubSubSession", "RedisReceiver", "decode_data"]

TURN_SECONDS = 0.01
"""How long a burst of messages may keep other tasks from running, before clients receive it."""


class RedisReceiver(ReconnectingConnection):
    """Receives messages on its own connection."""

    purpose = "subscribing"

    def __init__(self, address: RedisAddress, timings: RedisTimings, deliver: Deliver) -> None:
        super().__init__(address, timings)
        self.subscribed: trio.Event = trio.Event()
        """Set after the first successful subscription."""
        self._deliver = deliver
        self._last_alive = 0.0

    @abstractmethod
    async def _subscribe(self, connection: RedisConnection) -> bool:
        """Prepare to receive; return whether messages may be missing."""

    @abstractmethod
    async def _receive(self, connection: RedisConnection) -> Iterable[Message]:
        """Wait for messages, at most until a silent server is considered lost."""

    async def use(self, connection: RedisConnection) -> NoReturn:
        with trio.move_on_after(self.timings.health_timeout) as scope:
            gap = await self._subscribe(connection)
        if scope.cancelled_caught:
            raise RedisDisconnected("Redis did not confirm the subscription")
        self.mark_up()
        if not self.subscribed.is_set():
            self.subscribed.set()
        elif gap:
            self._deliver_gap()
        self._last_alive = trio.current_time()
        while True:
            await self._deliver_all(await self._receive(connection))

    def _deliver_gap(self) -> None:
        self._deliver(Gap(trio.current_time() - self._last_alive))

    async def _deliver_all(self, messages: Iterable[Message]) -> None:
        self._last_alive = trio.current_time()
        started = time.perf_counter()
        for message in messages:
            self._deliver(message)
            if time.perf_counter() - started > TURN_SECONDS:
                await trio.lowlevel.checkpoint()
                started = time.perf_counter()


class PubSubReceiver(RedisReceiver):
    """Receives messages published with PUBLISH on the channels ``<name>/<channel>``.

    The pattern ``<name>*`` also matches hubs whose name begins with the same text. Their messages
    are discarded here.
    """

    def __init__(
        self, address: RedisAddress, timings: RedisTimings, name: str, deliver: Deliver
    ) -> None:
        super().__init__(address, timings, deliver)
        self._pattern = f"{name}*"
        self._prefix = f"{name}/".encode()

    async def _subscribe(self, connection: RedisConnection) -> bool:
        await connection.request("PSUBSCRIBE", self._pattern)
        return True

    async def _receive(self, connection: RedisConnection) -> Iterable[Message]:
        with trio.move_on_after(self.timings.health_interval):
            return self._parse(await connection.receive())
        with trio.move_on_after(self.timings.health_timeout):
            await connection.write(connection.pack("PING"))
            return self._parse(await connection.receive())
        raise RedisDisconnected(f"Redis was silent for {self.timings.health_timeout} seconds")

    def _parse(self, replies: Iterable[Any]) -> Iterable[Message]:
        prefix = self._prefix
        for reply in replies:
            # ["pmessage", pattern, channel, payload]; other replies answer PSUBSCRIBE and PING.
            if isinstance(reply, list) and len(reply) == 4 and reply[2].startswith(prefix):
                channel = reply[2][len(prefix) :].decode(errors="replace")
                yield Message(channel, decode_data(reply[3]))


class PubSubSession(BrokerSession):
    """Publishes with PUBLISH."""

    def __init__(self, commands: CommandPipeline, name: str) -> None:
        self._commands = commands
        self._name = name

    async def publish(self, channel: str, data: Data) -> None:
        await self._commands.request("PUBLISH", f"{self._name}/{channel}", data)


def decode_data(payload: bytes) -> Data:
    """Return valid UTF-8 as text, because Redis does not distinguish text from binary."""
    try:
        return payload.decode()
    except UnicodeDecodeError:
        return payload
