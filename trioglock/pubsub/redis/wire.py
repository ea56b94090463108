"""One connection to Redis, by the protocol RESP2 (https://redis.io/docs/latest/develop/reference/protocol-spec/).

The parser is ``hiredis``: it is Sans-I/O, so what was not asked for is never read. A library with a
reader of its own would queue, without a bound, what a burst of messages brings.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import trio

from ...errors import BrokerError, TrioglockError
from .address import Address, extra

__all__ = ["Argument", "Wire", "WireBroken", "open_wire"]

Argument: TypeAlias = str | bytes | int

CHUNK = 2**16
MAX_REPLY = 2**29 + CHUNK
"""A string in Redis is at most 512 MiB."""

_PASSING = ("LOADING", "MASTERDOWN", "BUSY", "TRYAGAIN", "READONLY")
"""Errors of a server that starts, or changes its role."""


class WireBroken(TrioglockError):
    """The connection broke, or is silent; ``__cause__`` says how. Never seen by users as such."""


class Wire:
    """Commands out, replies in, in order."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        hiredis = extra()[1]
        self._stream = stream
        self._reader = hiredis.Reader()
        self._pack = hiredis.pack_command
        self._error: type[Exception] = hiredis.ReplyError
        self._broken: type[Exception] = hiredis.ProtocolError
        self._pending = 0  # bytes of a reply that is not whole

    def pack(self, *command: Argument) -> bytes:
        """The bytes of a command."""
        packed: bytes = self._pack(command)
        return packed

    async def write(self, data: bytes) -> None:
        """Hand packed commands to the operating system.

        Raises:
            WireBroken: the stream broke.
        """
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise WireBroken("the connection to Redis broke") from error

    async def receive(self) -> list[Any]:
        """The replies that one chunk completes, perhaps none; errors among them are exceptions.

        Raises:
            WireBroken: the stream broke or has ended, or that was not RESP.
        """
        try:
            chunk = await self._stream.receive_some(CHUNK)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise WireBroken("the connection to Redis broke") from error
        if not chunk:
            raise WireBroken("Redis has closed the connection")
        replies: list[Any] = []
        try:
            self._reader.feed(chunk)
            while (reply := self._reader.gets()) is not False:
                replies.append(reply)
        except self._broken as error:
            raise WireBroken("that is not Redis") from error
        self._pending = 0 if replies else self._pending + len(chunk)
        if self._pending > MAX_REPLY:
            raise WireBroken("a reply without end")
        return replies

    async def ask(self, *command: Argument) -> Any:
        """One command and its reply, while nothing else is under way.

        Raises:
            BrokerError: the reply is an error.
            WireBroken: the stream broke.
        """
        await self.write(self.pack(*command))
        replies: list[Any] = []
        while not replies:
            replies = await self.receive()
        return self.checked(replies[0])

    def checked(self, reply: Any) -> Any:
        """A reply that is no error.

        Raises:
            BrokerError: it is one.
            WireBroken: it is one that passes, as that of a server that is starting.
        """
        if isinstance(reply, self._error):
            if str(reply).startswith(_PASSING):
                raise WireBroken(f"Redis is not ready: {reply}")
            raise BrokerError(f"Redis says: {reply}")
        return reply


@asynccontextmanager
async def open_wire(address: Address, timeout: float) -> AsyncIterator[Wire]:
    """Dial, log in and choose the database, all within ``timeout`` seconds.

    Raises:
        WireBroken: nobody there, or no answer in time.
        BrokerError: Redis does not let us in.
    """
    stream: trio.abc.Stream | None = None
    try:
        with trio.move_on_after(timeout) as scope:
            try:
                stream = await address.open_stream()
            except (OSError, trio.BrokenResourceError) as error:
                raise WireBroken(f"no connection to Redis at {address}") from error
            wire = Wire(stream)
            await _greet(wire, address)
        if scope.cancelled_caught:
            raise WireBroken(f"Redis at {address} did not answer within {timeout} seconds")
        yield wire
    finally:
        if stream is not None:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(stream)


async def _greet(wire: Wire, address: Address) -> None:
    if address.password is not None:
        user = () if address.username is None else (address.username,)
        try:
            await wire.ask("AUTH", *user, address.password)
        except BrokerError as error:
            # Who does not know the command quotes what came with it.
            raise BrokerError(address.without_credentials(str(error))) from None
    if address.db:
        await wire.ask("SELECT", address.db)
    await wire.ask("PING")
