"""Commands from many tasks, pipelined over one connection."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import trio

from ...errors import BrokerUnavailable
from .address import RedisAddress
from .connection import (
    Argument,
    ReconnectingConnection,
    RedisConnection,
    RedisDisconnected,
    RedisTimings,
)

__all__ = ["CommandPipeline"]

MAX_PENDING = 1024
"""Maximum number of pending commands; further ones wait."""

RETRY_DELAY = 0.02
"""Seconds."""


@dataclass(slots=True, eq=False)
class PendingCommand:
    """A command without a reply yet."""

    packed: bytes
    done: trio.Event = field(default_factory=trio.Event)
    sent_at: float = 0.0
    reply: Any = None
    failure: RedisDisconnected | None = None


class CommandPipeline(ReconnectingConnection):
    """Sends the waiting commands of all tasks in one write, and matches replies to commands.

    While ``receiver`` is disconnected it sends none: the subscribers of this process would miss the
    message.
    """

    purpose = "publishing"

    def __init__(
        self, address: RedisAddress, timings: RedisTimings, receiver: ReconnectingConnection
    ) -> None:
        super().__init__(address, timings)
        self._receiver = receiver
        self._connection: RedisConnection | None = None
        self._unsent: deque[PendingCommand] = deque()
        self._sent: deque[PendingCommand] = deque()
        self._work = trio.lowlevel.ParkingLot()
        self._limit = trio.Semaphore(MAX_PENDING)

    async def request(self, *command: Argument) -> Any:
        """Send a command and return its reply; if the connection is lost, send it again.

        Raises:
            BrokerUnavailable: no reply within ``publish_timeout`` seconds.
            BrokerError: the reply is an error.
        """
        failure: RedisDisconnected | None = None
        with trio.move_on_after(self.timings.publish_timeout):
            async with self._limit:
                while True:
                    try:
                        return await self._request_once(command)
                    except RedisDisconnected as error:
                        failure = error
                    await trio.sleep(RETRY_DELAY)
        raise BrokerUnavailable(
            f"Redis at {self.address} did not answer within {self.timings.publish_timeout} seconds"
        ) from (self.failure or failure)

    async def _request_once(self, command: Sequence[Argument]) -> Any:
        connection = await self._wait_connection()
        pending = PendingCommand(connection.pack(*command))
        self._unsent.append(pending)
        self._work.unpark()
        try:
            await pending.done.wait()
        finally:
            if not pending.done.is_set():
                # Cancelled: an unsent command is not sent. In any case its memory is freed.
                pending.packed = b""
                if pending in self._unsent:
                    self._unsent.remove(pending)
        if pending.failure is not None:
            raise pending.failure
        return connection.check_reply(pending.reply)

    async def _wait_connection(self) -> RedisConnection:
        while True:
            await self._receiver.wait_up()
            if self._connection is not None:
                return self._connection
            await self.wait_up()

    async def use(self, connection: RedisConnection) -> NoReturn:
        self._connection = connection
        self.mark_up()
        failure = RedisDisconnected("the connection to Redis broke")
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write, connection, nursery.cancel_scope)
                try:
                    await self._read(connection)
                except RedisDisconnected as error:
                    failure = error
                nursery.cancel_scope.cancel()
        finally:
            self._connection = None
            self.mark_down()
            self._fail_pending(failure)
        raise failure

    async def _write(self, connection: RedisConnection, scope: trio.CancelScope) -> None:
        try:
            while True:
                while not self._unsent:
                    await self._work.park()
                batch = list(self._unsent)
                self._unsent.clear()
                for pending in batch:
                    pending.sent_at = trio.current_time()
                self._sent.extend(batch)
                await connection.write(b"".join(pending.packed for pending in batch))
        except RedisDisconnected:
            scope.cancel()

    async def _read(self, connection: RedisConnection) -> NoReturn:
        timeout = self.timings.health_timeout
        while True:
            with trio.move_on_at(self._oldest_sent_at() + timeout) as scope:
                for reply in await connection.receive():
                    if not self._sent:
                        raise RedisDisconnected("Redis sent a reply without a command")
                    pending = self._sent.popleft()
                    pending.reply = reply
                    pending.done.set()
            if scope.cancelled_caught and trio.current_time() - self._oldest_sent_at() >= timeout:
                raise RedisDisconnected(f"Redis did not answer within {timeout} seconds")

    def _oldest_sent_at(self) -> float:
        return self._sent[0].sent_at if self._sent else trio.current_time()

    def _fail_pending(self, failure: RedisDisconnected) -> None:
        for pending in (*self._sent, *self._unsent):
            pending.failure = failure
            pending.done.set()
        self._sent.clear()
        self._unsent.clear()
