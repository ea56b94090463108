"""A connection to Redis, and one that reconnects.

It uses RESP2 (https://redis.io/docs/latest/develop/reference/protocol-spec/). The parser is
``hiredis``, which does not read the socket itself: unrequested data stays in the socket. A
client library with its own reader task would queue a burst of messages without any limit.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, NoReturn, TypeAlias

import trio

from ..._text import seconds_text
from ..._timer import PeerTimeout
from ...errors import BrokerError, TrioglockError
from ...retry import Backoff
from ...transports.connecting import describe_failure
from ...transports.tls import is_tls_failure
from .address import RedisAddress, import_redis
from .discovery import DISCOVERY_TIMEOUT, ClusterDiscovery, Discovery, NoServer
from .scripts import PREPARE
from .server_info import SHARD, SLOT_OWNER, ServerInfo, parse_info, refusal

__all__ = [
    "Argument",
    "ReconnectingConnection",
    "RedisConnection",
    "RedisDisconnected",
    "RedisTimings",
    "dial",
    "find_server",
    "open_connection",
]

_logger = logging.getLogger("trioglock.pubsub")

Argument: TypeAlias = str | bytes | int

CHUNK_SIZE = 2**16
MAX_REPLY_SIZE = 2**29 + CHUNK_SIZE
"""Maximum size of a reply in bytes. A string in Redis has at most 512 MiB."""

_NOT_MASTER = ("READONLY", "MASTERDOWN", "LOADING")
"""Error codes of a server that must not be used now; another server may take over its address."""

_BUSY = ("BUSY ", "TRYAGAIN", "NOREPLICAS")
"""Error codes of a server that may accept the same command a little later."""

_NOT_OWNER = ("MOVED ", "CLUSTERDOWN")
"""Error codes of a node that no longer serves the slot of the hub."""

_MIGRATING = "ASK "
"""Error code of a node from which the slot of the hub is being moved, key by key. All keys of a hub
must be on one node, so the hub waits until the move is complete."""

_CLUSTER = ("MOVED", "ASK", "CROSSSLOT", "CLUSTERDOWN")


class RedisDisconnected(TrioglockError):
    """The connection is lost or silent; ``__cause__`` is the reason. Users never see it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisTimings:
    """The timing arguments of ``RedisBroker``, in seconds."""

    open_timeout: float
    publish_timeout: float
    health_interval: float
    health_timeout: float
    backoff: Backoff


class RedisConnection:
    """Sends commands and receives replies in order.

    Its methods raise RedisDisconnected if the connection is lost or the server does not speak RESP,
    and BrokerError if the reply is an error.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        hiredis = import_redis()[1]
        self._stream = stream
        self._reader = hiredis.Reader()
        self._pack = hiredis.pack_command
        self._reply_error: type[Exception] = hiredis.ReplyError
        self._protocol_error: type[Exception] = hiredis.ProtocolError
        self.info: ServerInfo = ServerInfo()
        """The information that the server reported when the connection was opened."""
        self._partial_size = 0  # bytes of an incomplete reply

    def pack(self, *command: Argument) -> bytes:
        packed: bytes = self._pack(command)
        return packed

    async def write(self, data: bytes) -> None:
        """Send encoded commands."""
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise RedisDisconnected("the connection to Redis broke") from error

    async def receive(self) -> list[Any]:
        """Receive one chunk and return the replies it completes, with errors as exceptions."""
        try:
            chunk = await self._stream.receive_some(CHUNK_SIZE)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise RedisDisconnected("the connection to Redis broke") from error
        if not chunk:
            raise RedisDisconnected("Redis closed the connection")
        replies: list[Any] = []
        try:
            self._reader.feed(chunk)
            while (reply := self._reader.gets()) is not False:
                replies.append(reply)
        except self._protocol_error as error:
            raise RedisDisconnected("the server does not speak the Redis protocol") from error
        self._partial_size = 0 if replies else self._partial_size + len(chunk)
        if self._partial_size > MAX_REPLY_SIZE:
            raise RedisDisconnected(f"a reply is larger than {MAX_REPLY_SIZE} bytes")
        return replies

    async def request(self, *command: Argument) -> Any:
        """Send a command and return its reply. No other command may be pending."""
        await self.write(self.pack(*command))
        replies: list[Any] = []
        while not replies:
            replies = await self.receive()
        return self.check_reply(replies[0])

    async def receive_or_ping(self, timings: RedisTimings) -> list[Any]:
        """Receive one chunk; if there is none for a while, check that the server responds."""
        with trio.move_on_after(timings.health_interval):
            return await self.receive()
        with PeerTimeout(timings.health_timeout):
            await self.write(self.pack("PING"))
            return await self.receive()
        raise RedisDisconnected(f"Redis was silent for {seconds_text(timings.health_timeout)}")

    def check_reply(self, reply: Any) -> Any:
        """Raise the error in a reply, or return the reply.

        A temporary error, such as that of a server that is starting, is treated as a disconnect.
        """
        if not isinstance(reply, self._reply_error):
            return reply
        text = str(reply)
        mode = self.info.mode
        is_moving = mode in (SLOT_OWNER, SHARD) and text.startswith(_MIGRATING)
        is_moving = is_moving or (mode == SHARD and text.startswith(_NOT_OWNER))
        if self.is_not_master(reply) or text.startswith(_BUSY) or is_moving:
            raise RedisDisconnected(f"Redis is not ready: {text}")
        if text.startswith(_CLUSTER):
            raise BrokerError(f"a Redis Cluster requires redis+cluster:// for a history: {text}")
        raise BrokerError(f"Redis returned an error: {text}")

    def is_not_master(self, reply: Any) -> bool:
        """Whether a reply is the error from a server that is not a master or not ready yet."""
        if not isinstance(reply, self._reply_error):
            return False
        text = str(reply)
        if self.info.mode == SLOT_OWNER and text.startswith(_NOT_OWNER):
            return True
        # Before Redis 7, the error of a script contains that of its command.
        return text.startswith(_NOT_MASTER) or "-READONLY " in text


@asynccontextmanager
async def dial(address: RedisAddress, timeout: float) -> AsyncIterator[RedisConnection]:
    """Connect and authenticate within ``timeout`` seconds.

    Raises:
        RedisDisconnected: the server could not be reached, or did not answer in time.
        BrokerError: the server refused the credentials or the database.
    """
    async with AsyncExitStack() as stack:
        with PeerTimeout(timeout) as deadline:
            try:
                stream = await address.open_stream()
            except (OSError, trio.BrokenResourceError) as error:
                raise _connect_error(address, error) from error
            stack.push_async_callback(trio.aclose_forcefully, stream)
            connection = RedisConnection(stream)
            await _authenticate(connection, address)
        if deadline.expired:
            raise _silence(address, timeout)
        yield connection


@asynccontextmanager
async def open_connection(
    address: RedisAddress | Discovery,
    timeout: float,
    history_key: str | None = None,
    mode: str | None = None,
) -> AsyncIterator[RedisConnection]:
    """Find the server, connect to it and check it; each takes at most ``timeout`` seconds.

    Args:
        address: the address of the server, or the discovery that finds it.
        timeout: seconds.
        history_key: the key with the ids of the history, if there is one.
        mode: the mode of the server, if it is known from the way in which the server was found.

    Raises:
        RedisDisconnected: the server could not be found or reached, did not answer in time, or is a
            replica.
        BrokerError: a server refused the credentials or the database, or cannot be used.
    """
    discovery = address if isinstance(address, Discovery) else None
    server = await find_server(address, timeout) if isinstance(address, Discovery) else address
    mode = SLOT_OWNER if isinstance(discovery, ClusterDiscovery) else mode
    async with AsyncExitStack() as stack:
        try:
            connection = await stack.enter_async_context(dial(server, timeout))
            with PeerTimeout(timeout) as deadline:
                await _check_server(connection, server, history_key, mode)
            if deadline.expired:
                raise _silence(server, timeout)
        except RedisDisconnected:
            if discovery is not None:
                discovery.distrust()
            raise
        if discovery is not None and discovery.found != server:
            raise RedisDisconnected(f"the master of {discovery} is no longer at {server}")
        yield connection


async def find_server(discovery: Discovery, timeout: float) -> RedisAddress:
    """Ask one server after another for the server of a hub, each for at most ``timeout`` seconds.

    Raises:
        RedisDisconnected: none of them knows the server, and some could not be reached or do not
            know it yet. BrokerError: they refuse to answer.
    """
    timeout = min(timeout, DISCOVERY_TIMEOUT)
    refusals, failures = list[str](), list[str]()
    for server in discovery.servers:
        try:
            async with dial(server, timeout) as connection:
                with PeerTimeout(timeout):
                    reply = await connection.request(*discovery.question)
                    return discovery.take_answer(server, reply)
                raise _silence(server, timeout)
        except (RedisDisconnected, NoServer) as error:
            failures.append(str(error))
        except BrokerError as error:
            refusals.append(discovery.describe_refusal(server, str(error)))
    text = f"could not find the master of {discovery}: {'; '.join(refusals + failures)}"
    raise RedisDisconnected(text) if failures else BrokerError(text)


def _silence(address: RedisAddress, timeout: float) -> RedisDisconnected:
    return RedisDisconnected(f"Redis at {address} did not answer within {seconds_text(timeout)}")


def _connect_error(
    address: RedisAddress, error: OSError | trio.BrokenResourceError
) -> RedisDisconnected | BrokerError:
    cause = error.__cause__ if isinstance(error, trio.BrokenResourceError) else error
    if is_tls_failure(cause):
        return BrokerError(f"TLS failed with Redis at {address}: {cause}")
    text = describe_failure(cause) if isinstance(cause, OSError) else "the connection broke"
    return RedisDisconnected(f"could not connect to Redis at {address}: {text}")


async def _authenticate(connection: RedisConnection, address: RedisAddress) -> None:
    if address.password is not None:
        user = () if address.username is None else (address.username,)
        try:
            await connection.request("AUTH", *user, address.password)
        except BrokerError as error:
            # A server that does not know the command quotes its arguments.
            raise BrokerError(address.hide_credentials(str(error))) from None
    if address.db:
        await connection.request("SELECT", address.db)
    await connection.request("PING")


async def _check_server(
    connection: RedisConnection, address: RedisAddress, history_key: str | None, mode: str | None
) -> None:
    with suppress(BrokerError):  # the user may lack permission for INFO
        connection.info = parse_info(await connection.request("INFO"))
    if mode is not None:
        connection.info = replace(connection.info, mode=mode)
    info = connection.info
    if (error := refusal(info.mode, address, history=history_key is not None)) is not None:
        raise error
    # In a cluster, messages published on a replica reach all nodes.
    if info.master is not None and info.mode != "cluster":
        raise RedisDisconnected(f"Redis at {address} is a replica of {info.master}, not a master")
    if history_key is not None:
        await connection.request("EVAL", PREPARE, 1, history_key, info.identity)


class ReconnectingConnection(ABC):
    """Uses one connection at a time and reconnects whenever it is lost.

    Args:
        address: the address of the server, or the discovery that finds it.
        timings: the timing arguments of the broker.
        history_key: the key with the ids of the history, if there is one.
    """

    purpose: str = ""
    """The purpose of the connection, as shown in the log."""

    mode: str | None = None
    """As in :func:`open_connection`."""

    def __init__(
        self, address: RedisAddress | Discovery, timings: RedisTimings, history_key: str | None
    ) -> None:
        self.address: RedisAddress | Discovery = address
        self.timings: RedisTimings = timings
        self.failure: Exception | None = None
        """Why the latest connection or attempt failed."""
        self.attempted: trio.lowlevel.ParkingLot = trio.lowlevel.ParkingLot()
        """Unparked after each attempt, whether successful or not."""
        self.partner: ReconnectingConnection | None = None
        """Another connection, which must lead to the same server."""
        self._history_key = history_key
        self._info: ServerInfo | None = None
        self._scope: trio.CancelScope | None = None
        self._drop_reason = ""
        self._logged_loss = False
        self._is_up = False
        self._up = trio.lowlevel.ParkingLot()
        self._retry = trio.lowlevel.ParkingLot()
        self._was_hurried = False  # since the last stable connection

    @abstractmethod
    async def use(self, connection: RedisConnection) -> NoReturn:
        """Use a connection until it is lost; call :meth:`mark_up` when it is ready.

        Raises:
            RedisDisconnected: the connection is lost.
            BrokerError: the server returned an error.
        """

    async def run(self) -> NoReturn:
        """Connect and reconnect until cancelled."""
        backoff = self.timings.backoff
        delays = backoff.delays()
        while True:
            started = trio.current_time()
            try:
                await self._connect()
            except (RedisDisconnected, BrokerError) as error:
                self.failure = error
                self.attempted.unpark_all()
                if not self._logged_loss:  # once per outage, not per attempt
                    self._logged_loss = True
                    _logger.warning(
                        "no connection to Redis at %s for %s: %s", self.address, self.purpose, error
                    )
            finally:
                self.mark_down()
            if trio.current_time() - started >= backoff.stable_after:
                delays = backoff.delays()
                self._was_hurried = False
            with trio.move_on_after(next(delays, backoff.maximum)):
                await self._retry.park()
                delays = backoff.delays()  # there is a new master, or the server is back

    async def _connect(self) -> None:
        timeout = self.timings.health_timeout
        opening = open_connection(self.address, timeout, self._history_key, self.mode)
        async with opening as connection:
            self._info = connection.info
            if self.partner is not None:
                self.partner.drop_other_server(connection.info)
                self.partner.hurry()
            self._scope = trio.CancelScope()
            with self._scope:
                try:
                    await self.use(connection)
                finally:
                    self._info = self._scope = None
            raise RedisDisconnected(self._drop_reason)

    def drop(self, reason: str) -> None:
        """Close the connection, if there is one, and connect again without further delay."""
        self._retry.unpark_all()
        if self._scope is not None:
            self._drop_reason = reason
            self._scope.cancel()

    def hurry(self) -> None:
        """End the delay before the next attempt, because the server can be reached.

        This has an effect only once until a connection has been stable. Otherwise two connections
        that are lost at the same time would make each other reconnect without any delay.
        """
        if self._retry and not self._was_hurried:
            self._was_hurried = True
            self._retry.unpark_all()

    def drop_other_server(self, info: ServerInfo) -> None:
        """Close the connection if it leads to another server, such as the previous master."""
        if self._info is None or "cluster" in (info.mode, self._info.mode):
            return
        if info.identity and self._info.identity and info.identity != self._info.identity:
            self.drop(f"{self.address} now leads to another server")

    @property
    def is_up(self) -> bool:
        """Whether the connection can be used."""
        return self._is_up

    def mark_up(self) -> None:
        self.failure = None
        self.attempted.unpark_all()
        self._is_up = True
        self._up.unpark_all()
        if self._logged_loss:
            self._logged_loss = False
            _logger.warning("reconnected to Redis at %s for %s", self.address, self.purpose)

    def mark_down(self) -> None:
        self._is_up = False

    async def wait_up(self) -> None:
        while not self._is_up:
            await self._up.park()
