"""Commands from many tasks, pipelined over one connection."""

from __future__ import annotations

import functools
import hashlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, NoReturn

import trio

from ..._text import seconds_text
from ..._timer import PeerTimeout
from ...errors import BrokerError, BrokerUnavailable
from .address import RedisAddress
from .connection import (
    Argument,
    ReconnectingConnection,
    RedisConnection,
    RedisDisconnected,
    RedisTimings,
)
from .discovery import Discovery

__all__ = ["CommandPipeline", "CommandSender"]

MAX_PENDING = 1024
"""Maximum number of pending requests; further ones wait."""

MAX_READS = 64
"""Maximum number of pending requests that read the history: their replies can be large."""

MAX_JOINED = 2**16
"""Maximum number of bytes that are copied to be sent in one write."""

RETRY_DELAY = 0.02
"""Seconds."""

MIN_GRACE = 0.01
"""Minimum number of seconds to read a reply that arrived while the program was blocked."""


@dataclass(slots=True, eq=False)
class RedisRequest:
    """Commands whose replies have not all arrived yet."""

    packed: bytes
    expected: int = 1  # number of replies
    is_check: bool = False
    done: trio.Event = field(default_factory=trio.Event)
    sent_at: float = 0.0
    replies: list[Any] = field(default_factory=list)
    failure: RedisDisconnected | None = None


def _join(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Join short parts. A long one is not copied."""
    joined: list[bytes] = []
    size = 0
    for part in parts:
        if size + len(part) > MAX_JOINED:
            yield b"".join(joined)
            joined, size = [], 0
        joined.append(part)
        size += len(part)
    yield b"".join(joined)


@functools.cache
def _hash_script(script: str) -> str:
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()


class CommandSender(ABC):
    """Sends commands and returns their replies; sends them again if a connection is lost.

    Args:
        address: the servers, for error messages.
        timings: the timing arguments of the broker.
    """

    def __init__(self, address: object, timings: RedisTimings) -> None:
        self.timings: RedisTimings = timings
        self._servers = address
        self._is_closed = False
        self._limits: dict[RedisAddress | None, tuple[trio.Semaphore, trio.Semaphore]] = {}

    @property
    @abstractmethod
    def last_failure(self) -> Exception | None:
        """Why a server cannot be reached."""

    @abstractmethod
    async def request_once(
        self, commands: Sequence[Sequence[Argument]], waits_for_partner: bool, slot: int | None
    ) -> list[Any]:
        """Send commands once.

        Raises:
            RedisDisconnected: the connection was lost, or another server has to be asked.
            BrokerError: a reply is an error.
        """

    def server_of(self, slot: int | None) -> RedisAddress | None:  # noqa: ARG002 - the default
        """Return the server of a hash slot, if known; None if all slots have the same server."""
        return None

    def _limits_of(self, slot: int | None) -> tuple[trio.Semaphore, trio.Semaphore]:
        """The limits of one server, whose requests must not wait for those of another server."""
        server = self.server_of(slot)
        limits = self._limits.get(server)
        if limits is None:
            limits = self._limits[server] = trio.Semaphore(MAX_PENDING), trio.Semaphore(MAX_READS)
        return limits

    def close(self) -> None:
        """Let requests fail from now on, because nothing sends them."""
        self._is_closed = True

    async def request(
        self, *command: Argument, timeout: float | None = None, slot: int | None = None
    ) -> Any:
        """Send a command and return its reply; see :meth:`_send_all`."""
        limit, _ = self._limits_of(slot)
        [reply] = await self._send_all([command], limit, timeout=timeout, slot=slot)
        return reply

    async def run_script(
        self,
        script: str,
        keys: Sequence[Argument],
        arguments: Sequence[Argument],
        timeout: float | None = None,
        slot: int | None = None,
    ) -> Any:
        """Run a script by its hash, which is shorter; send the script if Redis does not know it."""
        numbered = (len(keys), *keys, *arguments)
        try:
            return await self.request(
                "EVALSHA", _hash_script(script), *numbered, timeout=timeout, slot=slot
            )
        except BrokerError as error:
            if "NOSCRIPT" not in str(error):
                raise
        return await self.request("EVAL", script, *numbered, timeout=timeout, slot=slot)

    async def read(
        self,
        commands: Sequence[Sequence[Argument]],
        *,
        waits_for_partner: bool = True,
        slot: int | None = None,
    ) -> list[Any]:
        """Send commands that read the history; see :meth:`_send_all`.

        Only a few of them are pending at a time, so that publishing does not wait for many replies.
        """
        _, limit = self._limits_of(slot)
        return await self._send_all(commands, limit, waits_for_partner, slot=slot)

    async def _send_all(
        self,
        commands: Sequence[Sequence[Argument]],
        limit: trio.Semaphore,
        waits_for_partner: bool = True,
        timeout: float | None = None,
        slot: int | None = None,
    ) -> list[Any]:
        """Send commands and return their replies; if the connection is lost, send them again.

        Args:
            commands: the commands.
            limit: limits the number of pending requests.
            waits_for_partner: whether to wait until the other connection is up.
            timeout: the rest of ``publish_timeout``; None for all of it.
            slot: the hash slot of the keys, if it determines the server.

        Raises:
            BrokerUnavailable: no reply within ``publish_timeout`` seconds.
            BrokerError: a reply is an error.
        """
        if not commands:
            return []
        failure: RedisDisconnected | None = None
        with PeerTimeout(self.timings.publish_timeout if timeout is None else timeout):
            # Messages wait until the history has been read after an outage, so the commands that
            # read it must not queue behind others.
            async with limit if waits_for_partner else nullcontext():
                while not self._is_closed:
                    try:
                        return await self.request_once(commands, waits_for_partner, slot)
                    except RedisDisconnected as error:
                        failure = error
                    await trio.sleep(RETRY_DELAY)
            raise BrokerUnavailable("the hub is closed")
        raise BrokerUnavailable(
            f"Redis at {self._servers} did not answer within "
            f"{seconds_text(self.timings.publish_timeout)}"
        ) from (self.last_failure or failure)


class CommandPipeline(CommandSender, ReconnectingConnection):
    """Sends the waiting commands of all tasks in one write, and matches replies to commands.

    Each write ends with ROLE, and its commands are done when the reply to ROLE confirms that the
    server is a master: a replica accepts PUBLISH, but the hubs at the master do not receive the
    message. ROLE is also sent when there are no commands. ``partner`` is the connection that
    receives messages. While it is disconnected, no messages are sent: the subscribers of this
    process would miss them.
    """

    purpose = "publishing"

    def __init__(
        self,
        address: RedisAddress | Discovery,
        timings: RedisTimings,
        history_key: str | None = None,
    ) -> None:
        CommandSender.__init__(self, address, timings)
        ReconnectingConnection.__init__(self, address, timings, history_key)
        self._connection: RedisConnection | None = None
        self._has_role = True  # whether the server reports its role
        self._unsent: deque[RedisRequest] = deque()
        self._sent: deque[RedisRequest] = deque()
        self._unconfirmed: list[RedisRequest] = []
        self._work = trio.lowlevel.ParkingLot()

    @property
    def last_failure(self) -> Exception | None:
        return self.failure

    async def request_once(
        self,
        commands: Sequence[Sequence[Argument]],
        waits_for_partner: bool,
        slot: int | None = None,  # noqa: ARG002 - there is one server
    ) -> list[Any]:
        connection = await self._wait_connection(waits_for_partner)
        packed = b"".join([connection.pack(*command) for command in commands])
        pending = RedisRequest(packed, len(commands))
        self._unsent.append(pending)
        self._work.unpark()
        try:
            await pending.done.wait()
        finally:
            if not pending.done.is_set():
                # Cancelled: a command that is still waiting is not sent. In any case, its memory is
                # freed.
                pending.packed = b""
                if pending in self._unsent:
                    self._unsent.remove(pending)
        if pending.failure is not None:
            raise pending.failure
        return [connection.check_reply(reply) for reply in pending.replies]

    async def _wait_connection(self, waits_for_partner: bool) -> RedisConnection:
        while True:
            if waits_for_partner and self.partner is not None:
                await self.partner.wait_up()
            if self._connection is not None:
                return self._connection
            await self.wait_up()

    async def use(self, connection: RedisConnection) -> NoReturn:
        self._connection = connection
        self._has_role = connection.info.mode != "cluster"
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
        role, ping = connection.pack("ROLE"), connection.pack("PING")
        try:
            while True:
                with trio.move_on_after(self.timings.health_interval):
                    while not self._unsent:
                        await self._work.park()
                batch = list(self._unsent)
                self._unsent.clear()
                if self._has_role or not batch:
                    batch.append(RedisRequest(role if self._has_role else ping, is_check=True))
                for pending in batch:
                    pending.sent_at = trio.current_time()
                self._sent.extend(batch)
                for part in _join([pending.packed for pending in batch]):
                    await connection.write(part)
                del batch, pending, part  # they refer to the replies
        except RedisDisconnected:
            scope.cancel()

    async def _read(self, connection: RedisConnection) -> NoReturn:
        timeout = self.timings.health_timeout
        late = 0.0
        while True:
            due = self._oldest_sent_at() + timeout
            with trio.move_on_at(due + late):
                for reply in await connection.receive():
                    self._take_reply(connection, reply)
                late = 0.0
                continue
            silence = trio.current_time() - self._oldest_sent_at()
            if silence < timeout:
                continue  # nothing was pending before
            if late:
                raise RedisDisconnected(f"Redis did not answer within {seconds_text(timeout)}")
            # The program may have been blocked: first read what arrived in the meantime.
            late = silence - timeout + MIN_GRACE

    def _take_reply(self, connection: RedisConnection, reply: Any) -> None:
        if not self._sent:
            raise RedisDisconnected("Redis sent a reply without a command")
        if connection.is_not_master(reply):
            self._leave_server(f"Redis is not ready: {reply}")
        pending = self._sent[0]
        pending.replies.append(reply)
        if len(pending.replies) < pending.expected:
            return
        self._sent.popleft()
        self._unconfirmed.append(pending)
        if pending.is_check:
            self._check_role(reply)
        if pending.is_check or not self._has_role:
            for confirmed in self._unconfirmed:
                confirmed.done.set()
            self._unconfirmed.clear()

    def _check_role(self, reply: Any) -> None:
        # If the reply is an error or not a list, the user lacks permission for ROLE, or the server
        # does not know the command.
        self._has_role = self._has_role and isinstance(reply, list) and bool(reply)
        if self._has_role and reply[0] != b"master":
            self._leave_server(f"Redis at {self.address} is no longer a master")

    def _leave_server(self, reason: str) -> NoReturn:
        """Connect again, because the address may lead to another server now."""
        if self.partner is not None:
            self.partner.drop(reason)
        raise RedisDisconnected(reason)

    def _oldest_sent_at(self) -> float:
        return self._sent[0].sent_at if self._sent else trio.current_time()

    def _fail_pending(self, failure: RedisDisconnected) -> None:
        for pending in (*self._unconfirmed, *self._sent, *self._unsent):
            pending.failure = failure
            pending.done.set()
        self._unconfirmed.clear()
        self._sent.clear()
        self._unsent.clear()
