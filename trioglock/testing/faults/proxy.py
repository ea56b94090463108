"""``FaultProxy``: stands between a client and any server, and does what bad networks do."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

import trio

from ...errors import InvalidOption, UsageError
from ...options import check_whole
from .connection import ProxiedConnection, reset_stream
from .memory import memory_socket_pair
from .script import Faults, check_direction
from .target import Target, address_of, opener_of, url_through
from .way import DIRECTIONS, Direction, Way

__all__ = ["FaultProxy"]


@dataclass(slots=True)
class Opening:
    """What happens to the next connections instead of being carried."""

    kind: Literal["refuse", "answer", "hold"]
    times: float
    data: bytes = b""


class FaultProxy(Faults):
    """A proxy for the time of an ``async with`` block, with faults that a test scripts.

    ::

        async with MockServer(echo) as server, FaultProxy(server) as proxy:
            async with connect(proxy.url, reconnect=True) as conn:
                proxy.delay(0.2)
                await conn.send("hello")
                proxy.reset_peer()

    It carries bytes and knows nothing of WebSocket or TLS. The methods inherited from
    :class:`Faults` and those below are about all connections; the same methods of one of
    :attr:`connections` are about that one. Faults that last hold for live connections and for
    those to come.

    Args:
        target: the server: a :class:`MockServer`, a ``ws://`` or ``wss://`` URL, ``(host, port)``
            or an async function that opens a stream.
        memory: listen nowhere; clients use ``stream=proxy.open_stream``. With a target in memory
            no real time passes then, and tests run under ``MockClock``.

    Raises:
        InvalidOption, InvalidURL: at once: the target is nothing that can be connected to.
    """

    def __init__(self, target: Target, *, memory: bool = False) -> None:
        self.url: str = address_of(target)
        """Where to connect to: a port of this machine, or in memory the target's own URL."""
        self.errors: list[Exception] = []
        """What went wrong inside, oldest first: no such target, or a function that raised."""
        self._target = target
        self._memory = memory
        self._template: dict[Direction, Way] = {name: Way() for name in DIRECTIONS}
        self._openings: deque[Opening] = deque()
        self._connections: list[ProxiedConnection] = []
        self._number = 0
        self._nursery: trio.Nursery | None = None

    async def __aenter__(self) -> FaultProxy:
        if self._nursery is not None:
            raise UsageError("this proxy is running already: make another one")
        self.url = address_of(self._target)
        self._opener = opener_of(self._target)
        self._manager = trio.open_nursery()
        self._nursery = await self._manager.__aenter__()
        if not self._memory:
            await self._listen(self._nursery)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._nursery is not None
        self._nursery.cancel_scope.cancel()
        self._nursery = None
        try:
            await self._manager.__aexit__(kind, error, traceback)
        except BaseExceptionGroup as group:
            # The block's own exception comes out as it was raised.
            if error is None or group.exceptions != (error,):
                raise

    async def _listen(self, nursery: trio.Nursery) -> None:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.url = url_through(self.url, listener.socket.getsockname()[1])
        await nursery.start(trio.serve_listeners, self._serve, [listener])

    @property
    def connections(self) -> list[ProxiedConnection]:
        """The live connections, oldest first."""
        return list(self._connections)

    def _ways(self, direction: Direction | None) -> Sequence[Way]:
        names = check_direction(direction)
        ways = [self._template[name] for name in names]
        for connection in self._connections:
            ways.extend(connection._ways(direction))  # noqa: SLF001 - the same script
        return ways

    # Faults of the moment, for all live connections.

    def disconnect(self) -> None:
        """As :meth:`ProxiedConnection.disconnect`, of all connections."""
        for connection in self.connections:
            connection.disconnect()

    def reset_peer(self) -> None:
        """As :meth:`ProxiedConnection.reset_peer`, of all connections."""
        for connection in self.connections:
            connection.reset_peer()

    def half_close(self, direction: Direction) -> None:
        """As :meth:`ProxiedConnection.half_close`, of all connections."""
        check_direction(direction)
        for connection in self.connections:
            connection.half_close(direction)

    def reset(self) -> None:
        """End all faults, and let pass what they have held back."""
        self._openings.clear()
        for way in self._template.values():
            way.reset()
        for connection in self.connections:
            connection.reset()

    # Faults of the next connections, in the order in which they were asked for.

    def refuse(self, times: int | None = 1) -> None:
        """Refuse the next connections: over TCP by RST, in memory by ``ConnectionRefusedError``.

        Args:
            times: how many connections; None for all until :meth:`reset`.
        """
        self._add("refuse", times)

    def answer(self, data: bytes, times: int | None = 1) -> None:
        """Answer the opening handshake of the next connections with ``data``, and end them.

        Args:
            data: bytes, such as an answer of HTTP.
            times: how many connections; None for all until :meth:`reset`.

        Raises:
            InvalidOption: ``data`` is not bytes, or ``times`` no such number.
        """
        if not isinstance(data, bytes | bytearray | memoryview):
            raise InvalidOption(f"data is bytes, not {data!r:.100}")
        self._add("answer", times, bytes(data))

    def blackhole(self, times: int | None = 1) -> None:
        """Accept the next connections and say nothing; :meth:`reset` lets them through.

        Args:
            times: how many connections; None for all until :meth:`reset`.
        """
        self._add("hold", times)

    def _add(
        self, kind: Literal["refuse", "answer", "hold"], times: int | None, data: bytes = b""
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

    # Connections.

    async def open_stream(self) -> trio.abc.Stream:
        """A stream through the proxy in memory, for ``connect(..., stream=proxy.open_stream)``.

        Raises:
            ConnectionRefusedError: the script, or the target, says so.
        """
        await trio.lowlevel.checkpoint()
        opening = self._next_opening()
        if self._nursery is None or (opening is not None and opening.kind == "refuse"):
            raise ConnectionRefusedError("refused by the proxy")
        near, far = memory_socket_pair()
        if opening is not None:
            self._nursery.start_soon(self._follow, opening, self._connection(far))
            return near
        try:
            server = await self._opener()
        except Exception as error:
            self.errors.append(error)
            raise ConnectionRefusedError(f"the target cannot be reached: {error}") from error
        if self._nursery is None:
            await trio.aclose_forcefully(server)
            raise ConnectionRefusedError("the proxy has ended")
        self._nursery.start_soon(self._connection(far).carry, server)
        return near

    async def _serve(self, client: trio.SocketStream) -> None:
        opening = self._next_opening()
        if opening is None:
            await self._connection(client).dial(self._opener)
        elif opening.kind == "refuse":
            reset_stream(client)
            await trio.aclose_forcefully(client)
        else:
            await self._follow(opening, self._connection(client))

    async def _follow(self, opening: Opening, connection: ProxiedConnection) -> None:
        if opening.kind == "answer":
            await connection.answer(opening.data)
        else:
            await connection.hold(self._opener)

    def _connection(self, client: trio.abc.Stream) -> ProxiedConnection:
        self._number += 1
        ways = {name: way.copy() for name, way in self._template.items()}
        connection = ProxiedConnection(self._number, ways, client, self._forget, self.errors.append)
        self._connections.append(connection)
        return connection

    def _forget(self, connection: ProxiedConnection) -> None:
        if connection in self._connections:
            self._connections.remove(connection)
