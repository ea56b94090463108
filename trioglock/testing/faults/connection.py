"""One connection through the proxy: two streams, and a pump for each direction."""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Literal

import trio

from .memory import MemorySocket
from .pump import CHUNK, Pump
from .script import Faults, check_direction
from .target import Opener
from .way import Direction, Way

__all__ = ["ProxiedConnection"]

# Seconds for both sides to end theirs after a cut: closing a socket that holds unread bytes is a
# reset, not an orderly end.
LINGER = 1.0

NO_LINGER = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)

_Gone = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)


class ProxiedConnection(Faults):
    """A connection that is under way; its methods are faults of this one alone.

    Args:
        number: counted from 1, in the order of connecting.
        ways: the faults to begin with.
        client: the stream to the client.
        ended: called once the connection is over, or is to be.
        failed: told what went wrong in here and is not the network's doing.
    """

    def __init__(
        self,
        number: int,
        ways: Mapping[Direction, Way],
        client: trio.abc.Stream,
        ended: Callable[[ProxiedConnection], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self.number: int = number
        """Which connection of the proxy this is, counted from 1."""
        self._own_ways = ways
        self._client = client
        self._server: trio.abc.Stream | None = None
        self._ended = ended
        self._failed = failed
        self._pumps: dict[Direction, Pump] = {}
        self._scope = trio.CancelScope()
        self._released = trio.Event()
        self._how: Literal["disconnect", "reset"] | None = None

    def __repr__(self) -> str:
        return (
            f"<ProxiedConnection {self.number}: {self.bytes_to_server} bytes to the server, "
            f"{self.bytes_to_client} to the client>"
        )

    # What it tells.

    @property
    def bytes_to_server(self) -> int:
        """Bytes handed on to the server."""
        return self._own_ways["to_server"].passed

    @property
    def bytes_to_client(self) -> int:
        """Bytes handed on to the client."""
        return self._own_ways["to_client"].passed

    @property
    def waiting_to_server(self) -> int:
        """Bytes taken from the client and not handed on; after a cut, those that were lost."""
        return self._waiting("to_server")

    @property
    def waiting_to_client(self) -> int:
        """Bytes taken from the server and not handed on; after a cut, those that were lost."""
        return self._waiting("to_client")

    def _waiting(self, direction: Direction) -> int:
        return self._pumps[direction].waiting if self._pumps else 0

    # The faults; those that last are inherited.

    def _ways(self, direction: Direction | None) -> Sequence[Way]:
        return [self._own_ways[name] for name in check_direction(direction)]

    def disconnect(self) -> None:
        """End both streams in good order, without a WebSocket Close frame. What waits is lost."""
        self._leave("disconnect")

    def reset_peer(self) -> None:
        """Break both streams: over TCP by RST, in memory by ``BrokenResourceError``."""
        self._leave("reset")

    def half_close(self, direction: Direction) -> None:
        """End the stream in one direction; the other goes on.

        Args:
            direction: whose stream ends.
        """
        for name in check_direction(direction):
            if name in self._pumps:
                self._pumps[name].end()

    def reset(self) -> None:
        """End all faults that last, and let pass what they have held back."""
        for way in self._own_ways.values():
            way.reset()
        self._released.set()

    def _leave(self, how: Literal["disconnect", "reset"]) -> None:
        self._how = self._how or how
        self._scope.cancel()
        self._ended(self)

    # Its life.

    async def carry(self, server: trio.abc.Stream) -> None:
        """Hand on what comes, until both streams have ended."""
        self._server = server
        await self._live(self._pump)

    async def dial(self, opener: Opener) -> None:
        """The same, with a stream that is yet to be opened."""
        await self._live(self._dial_and_pump, opener)

    async def hold(self, opener: Opener) -> None:
        """The same, but not before it is released."""
        await self._live(self._hold, opener)

    async def answer(self, data: bytes) -> None:
        """Be the server: answer the first bytes with ``data``, and end."""
        await self._live(self._answer, data)

    async def _hold(self, opener: Opener) -> None:
        await self._released.wait()
        await self._dial_and_pump(opener)

    async def _dial_and_pump(self, opener: Opener) -> None:
        self._server = await opener()
        await self._pump()

    async def _answer(self, data: bytes) -> None:
        with suppress(*_Gone):
            await self._client.receive_some(CHUNK)
            await self._client.send_all(data)
        self.disconnect()

    async def _pump(self) -> None:
        assert self._server is not None
        ends: dict[Direction, tuple[trio.abc.Stream, trio.abc.Stream]] = {
            "to_server": (self._client, self._server),
            "to_client": (self._server, self._client),
        }
        for name, (source, destination) in ends.items():
            way = self._own_ways[name]
            self._pumps[name] = Pump(way, source, destination, self.disconnect, self.reset_peer)
        async with trio.open_nursery() as nursery:
            for pump in self._pumps.values():
                nursery.start_soon(self._guard, pump.read)
                nursery.start_soon(self._guard, pump.write)

    async def _guard(self, fn: Callable[..., Awaitable[None]], *args: object) -> None:
        try:
            await fn(*args)
        except Exception as error:  # noqa: BLE001 - what users' streams and functions raise
            self._failed(error)
            self.reset_peer()

    async def _live(self, fn: Callable[..., Awaitable[None]], *args: object) -> None:
        try:
            with self._scope:
                await self._guard(fn, *args)
            if self._how == "disconnect":
                await self._part()
        finally:
            self._ended(self)
            # Each of them, also when the whole proxy is cancelled.
            with trio.CancelScope(shield=True):
                for stream in self._streams:
                    if self._how == "reset":
                        reset_stream(stream)
                    await trio.aclose_forcefully(stream)

    @property
    def _streams(self) -> list[trio.abc.Stream]:
        return [self._client] if self._server is None else [self._client, self._server]

    async def _part(self) -> None:
        sockets = [stream for stream in self._streams if isinstance(stream, trio.SocketStream)]
        with trio.move_on_after(LINGER):
            for stream in sockets:
                with suppress(*_Gone):
                    await stream.send_eof()
            for stream in sockets:
                with suppress(*_Gone):
                    while await stream.receive_some(CHUNK):
                        pass


def reset_stream(stream: trio.abc.Stream) -> None:
    """See to it that closing the stream breaks the other end, where that can be done."""
    if isinstance(stream, trio.SocketStream):
        with suppress(OSError):
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
    elif isinstance(stream, MemorySocket):
        stream.reset_peer()
