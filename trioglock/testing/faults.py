"""``FaultProxy``: a proxy between a client and a server that simulates a bad network."""

from __future__ import annotations

import math
import socket
import struct
import sys
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias, get_args

import trio

from .._hints import require_trio
from .._scope import open_scope
from ..errors import InvalidOption, UsageError
from ..options import check_whole
from ..transports.http1 import STREAM_ERRORS
from ..transports.urls import parse_url, split_url
from .pipes import CHUNK_SIZE, MemorySocket, Pipe, PipeFaults, Transform, memory_socket_pair
from .server import MockServer

__all__ = [
    "Direction",
    "FaultProxy",
    "Faults",
    "OpenStream",
    "ProxiedConnection",
    "ProxyTarget",
    "Transform",
]

Direction: TypeAlias = Literal["to_server", "to_client"]
"""The direction of the bytes that a fault affects."""

OpenStream: TypeAlias = Callable[[], Awaitable[trio.abc.Stream]]
"""Opens a stream to the server."""

ProxyTarget: TypeAlias = MockServer | str | tuple[str, int] | OpenStream
"""A mock server, a WebSocket URL, a host and a port, or a function that opens a stream."""

MEMORY_URL = "ws://memory.test/"

LINGER = 1.0
"""Seconds to wait for both peers after a disconnect; unread bytes would cause a reset."""

RESET_ON_CLOSE = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)


class Faults(ABC):
    """Persistent faults of one connection or of all connections of a proxy.

    Each fault affects one direction, ``"to_server"`` or ``"to_client"``, or both if it is None.
    Calling a method again replaces its previous setting. Different faults may be active together.

    Raises:
        InvalidOption: raised by every method if an argument has the wrong type or value.
    """

    @abstractmethod
    def _select(self, direction: Direction | None) -> Sequence[PipeFaults]:
        """Return the settings to change."""

    def _set(self, direction: Direction | None, name: str, value: object) -> None:
        for faults in self._select(direction):
            setattr(faults, name, value)
            faults.changed.unpark_all()

    def delay(self, seconds: float, direction: Direction | None = None) -> None:
        """Delay every byte.

        Bytes stay in order. At most 64 KiB are in transit in each direction; at this limit, the
        sender waits.

        Args:
            seconds: the delay in each direction; 0 for none.
            direction: the direction to affect; None for both.
        """
        _check_number("seconds", seconds, "a number of at least 0", zero=True)
        self._set(direction, "delay", seconds)

    def throttle(self, bytes_per_second: float | None, direction: Direction | None = None) -> None:
        """Limit the rate in each direction.

        Args:
            bytes_per_second: the maximum rate; None for no limit.
            direction: the direction to affect; None for both.
        """
        if bytes_per_second is not None:
            _check_number("bytes_per_second", bytes_per_second, "a number above 0, or None")
        self._set(direction, "rate", bytes_per_second)

    def split(self, size: int | None = 1, direction: Direction | None = None) -> None:
        """Write at most ``size`` bytes at a time.

        Over TCP, the receiver's operating system may merge the writes again.

        Args:
            size: the maximum size in bytes; None for no limit.
            direction: the direction to affect; None for both.
        """
        check_whole("size", size, least=1)
        self._set(direction, "max_write", size)

    def transform(self, function: Transform | None, direction: Direction | None = None) -> None:
        """Replace each chunk of bytes with the result of a function.

        Args:
            function: takes and returns bytes; None for no change.
            direction: the direction to affect; None for both.

        Raises:
            InvalidOption: ``function`` cannot be called.
        """
        if function is not None and not callable(function):
            raise InvalidOption(f"function must be a function of bytes or None, not {function!r}")
        self._set(direction, "transform", function)

    def corrupt(self, offset: int, bits: int = 0xFF, direction: Direction | None = None) -> None:
        """Flip bits of one byte, once per connection.

        Args:
            offset: the offset of the byte; 0 is the next byte, or the first in a new connection.
            bits: the mask of the bits to flip, from 1 to 255.
            direction: the direction to affect; None for one byte in each direction.

        Raises:
            InvalidOption: a number is out of range.
        """
        check_whole("offset", offset, least=0, none=False)
        check_whole("bits", bits, least=1, none=False)
        if bits > 0xFF:
            raise InvalidOption(f"bits must be a mask from 1 to 255, not {bits}")
        for faults in self._select(direction):
            faults.flips[faults.passed + offset] = bits

    def disconnect_after(self, size: int | None, direction: Direction | None = None) -> None:
        """Disconnect each connection after ``size`` more bytes.

        For a new connection, the size includes the opening handshake.

        Args:
            size: the number of bytes; None for never.
            direction: the direction to affect; None for either.
        """
        check_whole("size", size, least=1)
        self._set(direction, "remaining", size)

    def stall(self, direction: Direction | None = None) -> None:
        """Forward nothing until :meth:`resume`, not even the end of the stream.

        Args:
            direction: the direction to affect; None for both.
        """
        self._set(direction, "stalled", True)

    def resume(self, direction: Direction | None = None) -> None:
        """Forward the bytes that :meth:`stall` has held back.

        Args:
            direction: the direction to affect; None for both.
        """
        self._set(direction, "stalled", False)


@dataclass(slots=True)
class Opening:
    """How the next connections behave when they are opened."""

    kind: Literal["refuse", "answer", "blackhole"]
    times: float
    data: bytes = b""


class ProxiedConnection(Faults):
    """An open connection through a proxy. Its methods affect only this connection."""

    def __init__(
        self,
        number: int,
        faults: Mapping[Direction, PipeFaults],
        client: trio.abc.Stream,
        on_end: Callable[[ProxiedConnection], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        self.number: int = number
        """Number of the connection, counted from 1 in the order in which clients connect."""
        self._faults = faults
        self._client = client
        self._server: trio.abc.Stream | None = None
        self._on_end = on_end
        self._on_error = on_error
        self._pipes: dict[Direction, Pipe] = {}
        self._scope = trio.CancelScope()
        self._released = trio.Event()
        self._end: Literal["disconnect", "reset"] | None = None

    def __repr__(self) -> str:
        return (
            f"<ProxiedConnection {self.number}: {self.bytes_to_server} bytes to the server, "
            f"{self.bytes_to_client} to the client>"
        )

    @property
    def bytes_to_server(self) -> int:
        """Bytes forwarded to the server."""
        return self._faults["to_server"].passed

    @property
    def bytes_to_client(self) -> int:
        """Bytes forwarded to the client."""
        return self._faults["to_client"].passed

    @property
    def waiting_to_server(self) -> int:
        """Bytes from the client that are not forwarded yet; after the end, those that were lost."""
        return self._pipes["to_server"].waiting if self._pipes else 0

    @property
    def waiting_to_client(self) -> int:
        """Bytes from the server that are not forwarded yet; after the end, those that were lost."""
        return self._pipes["to_client"].waiting if self._pipes else 0

    def _select(self, direction: Direction | None) -> Sequence[PipeFaults]:
        return [self._faults[name] for name in check_direction(direction)]

    def disconnect(self) -> None:
        """End both streams without a WebSocket Close frame. Waiting bytes are lost."""
        self._stop("disconnect")

    def reset_peer(self) -> None:
        """Break both streams: over TCP with RST, in memory with ``BrokenResourceError``."""
        self._stop("reset")

    def half_close(self, direction: Direction) -> None:
        """End the stream in one direction; the other direction continues.

        Args:
            direction: the direction that ends.
        """
        for name in check_direction(direction):
            if name in self._pipes:
                self._pipes[name].close()

    def reset(self) -> None:
        """Remove all persistent faults and forward the bytes they have held back."""
        for faults in self._faults.values():
            faults.reset()
        self._released.set()

    def _stop(self, end: Literal["disconnect", "reset"]) -> None:
        self._end = self._end or end
        self._scope.cancel()
        self._on_end(self)

    async def run(
        self,
        open_server: OpenStream,
        opening: Opening | None,
        server: trio.abc.Stream | None = None,
    ) -> None:
        """Forward bytes until both streams have ended."""
        self._server = server
        try:
            with self._scope:
                await self._guard(self._serve, open_server, opening)
            if self._end == "disconnect":
                await self._end_sockets()
        finally:
            self._on_end(self)
            # Close each stream, even when the proxy is cancelled.
            with trio.CancelScope(shield=True):
                for stream in self._streams:
                    if self._end == "reset":
                        reset_on_close(stream)
                    await trio.aclose_forcefully(stream)

    async def _serve(self, open_server: OpenStream, opening: Opening | None) -> None:
        if opening is not None and opening.kind == "answer":
            with suppress(*STREAM_ERRORS):
                await self._client.receive_some(CHUNK_SIZE)
                await self._client.send_all(opening.data)
            self.disconnect()
            return
        if opening is not None:
            await self._released.wait()
        if self._server is None:
            self._server = await open_server()
        await self._forward(self._client, self._server)

    async def _forward(self, client: trio.abc.Stream, server: trio.abc.Stream) -> None:
        end = (self.disconnect, self.reset_peer)
        self._pipes["to_server"] = Pipe(self._faults["to_server"], client, server, *end)
        self._pipes["to_client"] = Pipe(self._faults["to_client"], server, client, *end)
        async with trio.open_nursery() as nursery:
            for pipe in self._pipes.values():
                nursery.start_soon(self._guard, pipe.read)
                nursery.start_soon(self._guard, pipe.write)

    async def _guard(self, fn: Callable[..., Awaitable[None]], *args: object) -> None:
        try:
            await fn(*args)
        except Exception as error:  # noqa: BLE001 - from a user's stream or function
            self._on_error(error)
            self.reset_peer()

    @property
    def _streams(self) -> list[trio.abc.Stream]:
        return [self._client] if self._server is None else [self._client, self._server]

    async def _end_sockets(self) -> None:
        sockets = [stream for stream in self._streams if isinstance(stream, trio.SocketStream)]
        with trio.move_on_after(LINGER):
            for stream in sockets:
                with suppress(*STREAM_ERRORS):
                    await stream.send_eof()
            for stream in sockets:
                with suppress(*STREAM_ERRORS):
                    while await stream.receive_some(CHUNK_SIZE):
                        pass


class FaultProxy(Faults):
    """A proxy for the duration of an ``async with`` block, with faults that a test controls.

    ::

        async with MockServer(echo) as server, FaultProxy(server) as proxy:
            async with connect(proxy.url, reconnect=True) as conn:
                proxy.delay(0.2)
                await conn.send("hello")
                proxy.reset_peer()

    The proxy forwards bytes and does not parse WebSocket or TLS. Methods of the proxy affect all
    connections; the methods of one of the :attr:`connections` affect only that connection.
    Persistent faults affect open and new connections.

    Args:
        target: the server: a :class:`MockServer`, a ``ws://`` or ``wss://`` URL, ``(host, port)``
            or an async function that opens a stream.
        memory: do not listen on a port; clients use ``stream=proxy.open_stream``. With an in-memory
            target, no real time passes, and tests can use ``MockClock``.

    Raises:
        InvalidOption: ``target`` has the wrong type or value.
        InvalidURL: ``target`` is not a WebSocket URL.
    """

    def __init__(self, target: ProxyTarget, *, memory: bool = False) -> None:
        self.url: str = resolve_target(target)[0]
        """The target's URL; unless ``memory`` is true, with the proxy's local port."""
        self.errors: list[Exception] = []
        """Exceptions raised by the target or by a function passed to the proxy, oldest first."""
        self._target = target
        self._memory = memory
        self._faults: dict[Direction, PipeFaults] = {
            name: PipeFaults() for name in get_args(Direction)
        }
        self._openings: deque[Opening] = deque()
        self._connections: list[ProxiedConnection] = []
        self._number = 0
        self._nursery: trio.Nursery | None = None

    async def __aenter__(self) -> FaultProxy:
        require_trio("FaultProxy(...)")
        if self._nursery is not None:
            raise UsageError("this proxy is already running; create another one")
        # A mock server has no address until it runs.
        self.url, self._open_server = resolve_target(self._target)
        async with AsyncExitStack() as stack:
            self._nursery = await stack.enter_async_context(open_scope())
            stack.callback(setattr, self, "_nursery", None)
            if not self._memory:
                await self._listen(self._nursery)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        await self._stack.__aexit__(*exc_info)

    async def _listen(self, nursery: trio.Nursery) -> None:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.url = local_url(self.url, listener.socket.getsockname()[1])
        await nursery.start(trio.serve_listeners, self._serve, [listener])

    @property
    def connections(self) -> list[ProxiedConnection]:
        """The open connections, oldest first."""
        return list(self._connections)

    def _select(self, direction: Direction | None) -> Sequence[PipeFaults]:
        every = [self._faults, *(one._faults for one in self._connections)]  # noqa: SLF001 - a pair of classes
        return [faults[name] for faults in every for name in check_direction(direction)]

    def disconnect(self) -> None:
        """Call :meth:`ProxiedConnection.disconnect` for all connections."""
        for connection in self.connections:
            connection.disconnect()

    def reset_peer(self) -> None:
        """Call :meth:`ProxiedConnection.reset_peer` for all connections."""
        for connection in self.connections:
            connection.reset_peer()

    def half_close(self, direction: Direction) -> None:
        """Call :meth:`ProxiedConnection.half_close` for all connections.

        Args:
            direction: the direction that ends.
        """
        check_direction(direction)
        for connection in self.connections:
            connection.half_close(direction)

    def reset(self) -> None:
        """Remove all faults and forward the bytes they have held back."""
        self._openings.clear()
        for faults in self._faults.values():
            faults.reset()
        for connection in self.connections:
            connection.reset()

    def refuse(self, times: int | None = 1) -> None:
        """Refuse connections: over TCP with RST, in memory with ``ConnectionRefusedError``.

        Args:
            times: number of connections; None for all until :meth:`reset`.
        """
        self._add_opening("refuse", times)

    def answer(self, data: bytes, times: int | None = 1) -> None:
        """Answer the opening handshake of the next connections with ``data`` and disconnect.

        Args:
            data: bytes, such as an HTTP response.
            times: number of connections; None for all until :meth:`reset`.

        Raises:
            InvalidOption: an argument has the wrong type or value.
        """
        if not isinstance(data, bytes | bytearray | memoryview):
            raise InvalidOption(f"data must be bytes, not {data!r:.100}")
        self._add_opening("answer", times, bytes(data))

    def blackhole(self, times: int | None = 1) -> None:
        """Accept the next connections but do not respond until :meth:`reset`.

        Args:
            times: number of connections; None for all until :meth:`reset`.
        """
        self._add_opening("blackhole", times)

    def _add_opening(
        self, kind: Literal["refuse", "answer", "blackhole"], times: int | None, data: bytes = b""
    ) -> None:
        check_whole("times", times, least=1)
        self._openings.append(Opening(kind, math.inf if times is None else times, data))

    def _next_opening(self) -> Opening | None:
        if not self._openings:
            return None
        opening = self._openings[0]
        opening.times -= 1
        if not opening.times:
            self._openings.popleft()
        return opening

    async def open_stream(self) -> trio.abc.Stream:
        """Open an in-memory stream through the proxy: ``connect(..., stream=proxy.open_stream)``.

        Raises:
            ConnectionRefusedError: after :meth:`refuse`, or if the target cannot be reached.
        """
        await trio.lowlevel.checkpoint()
        opening = self._next_opening()
        if self._nursery is None or (opening is not None and opening.kind == "refuse"):
            raise ConnectionRefusedError("refused by the proxy")
        near, far = memory_socket_pair()
        server: trio.abc.Stream | None = None
        if opening is None:
            try:
                server = await self._open_server()
            except Exception as error:
                self.errors.append(error)
                raise ConnectionRefusedError(f"could not reach the target: {error}") from error
            if self._nursery is None:
                await trio.aclose_forcefully(server)
                raise ConnectionRefusedError("the proxy has ended")
        connection = self._add_connection(far)
        self._nursery.start_soon(connection.run, self._open_server, opening, server)
        return near

    async def _serve(self, client: trio.SocketStream) -> None:
        opening = self._next_opening()
        if opening is not None and opening.kind == "refuse":
            reset_on_close(client)
            await trio.aclose_forcefully(client)
        else:
            await self._add_connection(client).run(self._open_server, opening)

    def _add_connection(self, client: trio.abc.Stream) -> ProxiedConnection:
        self._number += 1
        connection = ProxiedConnection(
            self._number,
            {name: faults.copy() for name, faults in self._faults.items()},
            client,
            self._remove_connection,
            self.errors.append,
        )
        self._connections.append(connection)
        return connection

    def _remove_connection(self, connection: ProxiedConnection) -> None:
        if connection in self._connections:
            self._connections.remove(connection)


def resolve_target(target: ProxyTarget) -> tuple[str, OpenStream]:
    """Return the URL of a target, and a function that opens a stream to it."""
    match target:
        case MockServer():
            url = target.url
            if url == MEMORY_URL:
                return url, target.open_stream
        case str():
            url = target
        case (str() as host, int() as port) if host and 0 < port < 2**16:
            url = f"ws://[{host}]:{port}/" if ":" in host else f"ws://{host}:{port}/"
        case _ if callable(target):
            return MEMORY_URL, target
        case _:
            raise InvalidOption(
                "target must be a MockServer, a ws:// or wss:// URL, a (host, port) or a function "
                f"that opens a stream, not {target!r}"
            )
    parsed = parse_url(url)
    return url, partial(trio.open_tcp_stream, parsed.host, parsed.port)


def local_url(url: str, port: int) -> str:
    """Return the URL with host and port replaced by a local port."""
    parts = split_url(url)
    user, at, _ = (parts.authority or "").rpartition("@")
    return parts._replace(authority=f"{user}{at}127.0.0.1:{port}").join()


def reset_on_close(stream: trio.abc.Stream) -> None:
    """Make closing the stream reset the connection, if the stream supports it."""
    if isinstance(stream, trio.SocketStream):
        with suppress(OSError):
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    elif isinstance(stream, MemorySocket):
        stream.reset_peer()


def check_direction(direction: Direction | None) -> tuple[Direction, ...]:
    """Return the selected directions."""
    directions: tuple[Direction, ...] = get_args(Direction)
    if direction is None:
        return directions
    if direction not in directions:
        raise InvalidOption(
            f"direction must be 'to_server', 'to_client' or None for both, not {direction!r}"
        )
    return (direction,)


def _check_number(name: str, value: float, allowed: str, *, zero: bool = False) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        raise InvalidOption(f"{name} must be {allowed}, not {value!r}")
