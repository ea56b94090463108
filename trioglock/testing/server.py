"""``MockServer``: a scripted WebSocket server for tests, spoken by trio-websocket.

The peer is independent code: what trioglock gets wrong, it does not get wrong in the same way.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TypeAlias

import trio
import trio.testing
from trio_websocket import (
    ConnectionClosed,
    WebSocketConnection,
    WebSocketRequest,
    wrap_server_stream,
)

from ..frames import Close, Data
from ..headers import Headers, HeadersLike

__all__ = ["Handler", "MockPeer", "MockServer", "echo"]

# Messages that a client may send before the script asks for them.
QUEUE = 2**16


class Rejection:
    """An answer to the opening handshake other than 101."""

    def __init__(self, status: int, headers: HeadersLike = (), body: bytes = b"") -> None:
        self.status = status
        self.headers: Headers = Headers(headers)
        self.body = body


DAY = 86_400.0
"""Seconds that a mock waits for what it expects; under an ``autojump_clock`` no time at all."""


@contextmanager
def within_a_day(what: str) -> Iterator[None]:
    """Let a wait end: a test that waits for what never comes should fail, and say for what."""
    try:
        with trio.fail_after(DAY):
            yield
    except trio.TooSlowError:
        raise AssertionError(f"a day has passed without {what}") from None


class MockPeer:
    """The server's end of one connection, for the test to script.

    ``expect``, ``send``, ``close`` and ``abort`` are the script; ``received`` and ``sent`` record
    it. Each waits as long as the test's clock lets it: use ``trio.fail_after`` around a test.
    """

    def __init__(
        self, websocket: WebSocketConnection, request: WebSocketRequest, stream: trio.abc.Stream
    ) -> None:
        self.path: str = request.path
        """The requested path and query."""
        self.request_headers: Headers = Headers(
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers
        )
        """Of the opening handshake, as received; those of the handshake itself are left out."""
        self.subprotocols: tuple[str, ...] = request.proposed_subprotocols
        """What the client proposed."""
        self.received: list[Data] = []
        """Every message that was taken, oldest first."""
        self.sent: list[Data] = []
        """Every message that was sent, oldest first."""
        self.closed: Close | None = None
        """The client's Close frame, once it has come; 1006 is None."""
        self.stream = stream
        """The stream beneath, for tests that break it."""
        self._websocket = websocket

    async def receive(self) -> Data:
        """The client's next message.

        Raises:
            AssertionError: the client closed instead.
        """
        try:
            message = await self._websocket.get_message()
        except ConnectionClosed as error:
            self._note(error)
            raise AssertionError(f"the client closed instead of sending: {error!r}") from None
        self.received.append(message)
        return message

    async def expect(self, *messages: Data) -> None:
        """Take one message for each argument and compare it.

        Args:
            messages: ``str`` for text, ``bytes`` for binary.

        Raises:
            AssertionError: another one came, or the client closed.
        """
        for message in messages:
            with within_a_day(f"the client's {message!r:.100}"):
                got = await self.receive()
            assert got == message, f"expected {message!r}, the client sent {got!r}"

    async def expect_close(self, code: int = 1000, reason: str | None = None) -> None:
        """Wait for the client's Close frame and compare it; messages before it are recorded.

        Args:
            code: that it must have.
            reason: that it must have; None for any.

        Raises:
            AssertionError: another code or reason came, or the client just went away.
        """
        try:
            with within_a_day("the client's Close frame"):
                while True:
                    self.received.append(await self._websocket.get_message())
        except ConnectionClosed as error:
            self._note(error)
        assert self.closed is not None, "the client went away without a Close frame"
        assert self.closed.code == code, f"expected close code {code}, got {self.closed}"
        if reason is not None:
            assert self.closed.reason == reason, f"expected {reason!r}, got {self.closed}"

    async def send(self, *messages: Data) -> None:
        """Send messages: ``str`` as text, ``bytes`` as binary."""
        for message in messages:
            await self._websocket.send_message(message)
            self.sent.append(message)

    async def ping(self) -> None:
        """Send a ping and wait for its pong."""
        await self._websocket.ping()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Send a Close frame and wait for the client's.

        Args:
            code: of the Close frame.
            reason: its text.
        """
        await self._websocket.aclose(code, reason)
        self._note(None)

    async def abort(self) -> None:
        """Drop the stream without a closing handshake."""
        await trio.aclose_forcefully(self.stream)

    async def echo(self) -> None:
        """Send everything back until the client closes."""
        try:
            while True:
                message = await self._websocket.get_message()
                self.received.append(message)
                await self._websocket.send_message(message)
                self.sent.append(message)
        except ConnectionClosed as error:
            self._note(error)

    def _note(self, error: ConnectionClosed | None) -> None:
        reason = self._websocket.closed if error is None else error.reason
        if reason is not None and reason.code != 1006:
            self.closed = Close(reason.code, reason.reason or "")


Handler: TypeAlias = Callable[[MockPeer], Awaitable[object]]
"""What a server does with each connection."""


async def echo(peer: MockPeer) -> None:
    """A handler that sends everything back.

    Args:
        peer: the server's end of a connection.
    """
    await peer.echo()


class MockServer:
    """A server for the time of an ``async with`` block.

    Without a handler each connection waits for the test to take it::

        async with MockServer() as server, connect(server.url) as conn:
            peer = await server.accept()
            await conn.send("hello")
            await peer.expect("hello")
            await peer.send("welcome")
            assert await conn.receive() == "welcome"

    A test with one connection may script the server itself: ``await server.expect("hello")``.

    Args:
        handler: what to do with each connection; what it raises fails the block.
        subprotocol: chosen where a client proposes it.
        ssl_context: serve ``wss://``.
        memory: listen nowhere; clients use ``stream=server.open_stream``. No real time passes
            then, and tests run under ``MockClock``.
        max_message_size: in bytes, of what clients send.
    """

    def __init__(
        self,
        handler: Handler | None = None,
        *,
        subprotocol: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        memory: bool = False,
        max_message_size: int = 2**24,
    ) -> None:
        self.url: str = "ws://memory.test/"
        """Where to connect to; add a path as you like."""
        self.peers: list[MockPeer] = []
        """Every accepted connection, oldest first."""
        self._handler = handler
        self._subprotocol = subprotocol
        self._ssl_context = ssl_context
        self._memory = memory
        self._max_message_size = max_message_size
        self._accept_headers = Headers()
        self._rejections: list[Rejection] = []
        self._accepted, self._waiting = trio.open_memory_channel[MockPeer](QUEUE)
        self._current: MockPeer | None = None

    async def __aenter__(self) -> MockServer:
        self._manager = trio.open_nursery()
        self._nursery = await self._manager.__aenter__()
        if not self._memory:
            self.url = await self._listen()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._nursery.cancel_scope.cancel()
        try:
            await self._manager.__aexit__(kind, error, traceback)
        except BaseExceptionGroup as group:
            # The block's own exception comes out as it was raised.
            if error is None or group.exceptions != (error,):
                raise

    async def _listen(self) -> str:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        await self._nursery.start(trio.serve_listeners, self._serve, [listener])
        return f"{'ws' if self._ssl_context is None else 'wss'}://127.0.0.1:{port}/"

    async def open_stream(self) -> trio.abc.Stream:
        """A stream to this server in memory, for ``connect(..., stream=server.open_stream)``."""
        await trio.lowlevel.checkpoint()
        near, far = trio.testing.memory_stream_pair()
        self._nursery.start_soon(self._serve, far)
        return near

    # The script.

    def reject(
        self, status: int, *, headers: HeadersLike = (), body: bytes = b"", times: int = 1
    ) -> None:
        """Refuse the next ``times`` handshakes with an HTTP status.

        Args:
            status: of HTTP.
            headers: of the answer.
            body: of the answer.
            times: how many handshakes.
        """
        self._rejections.extend([Rejection(status, headers, body)] * times)

    def accept_with(self, headers: HeadersLike) -> None:
        """Add headers to every 101 from now on."""
        self._accept_headers = Headers(headers)

    async def accept(self) -> MockPeer:
        """The next connection that no handler took, in the order of the handshakes."""
        with within_a_day("a client"):
            self._current = await self._waiting.receive()
        return self._current

    async def _peer(self) -> MockPeer:
        return self._current or await self.accept()

    async def receive(self) -> Data:
        """As :meth:`MockPeer.receive`, of the connection accepted last."""
        return await (await self._peer()).receive()

    async def expect(self, *messages: Data) -> None:
        """As :meth:`MockPeer.expect`, of the connection accepted last."""
        await (await self._peer()).expect(*messages)

    async def send(self, *messages: Data) -> None:
        """As :meth:`MockPeer.send`, of the connection accepted last."""
        await (await self._peer()).send(*messages)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """As :meth:`MockPeer.close`, of the connection accepted last."""
        await (await self._peer()).close(code, reason)

    # One connection.

    async def _serve(self, stream: trio.abc.Stream) -> None:
        try:
            if self._ssl_context is not None:
                stream = trio.SSLStream(
                    stream, self._ssl_context, server_side=True, https_compatible=True
                )
                await stream.do_handshake()
            async with trio.open_nursery() as nursery:
                request = await wrap_server_stream(
                    nursery,
                    stream,
                    message_queue_size=QUEUE,
                    max_message_size=self._max_message_size,
                )
                await self._answer(request, stream)
        except* (ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client went away, as clients do
        finally:
            await trio.aclose_forcefully(stream)

    async def _answer(self, request: WebSocketRequest, stream: trio.abc.Stream) -> None:
        if self._rejections:
            rejection = self._rejections.pop(0)
            headers = _encoded(rejection.headers)
            await request.reject(rejection.status, extra_headers=headers, body=rejection.body)
            return
        chosen = self._subprotocol if self._subprotocol in request.proposed_subprotocols else None
        websocket = await request.accept(
            subprotocol=chosen, extra_headers=_encoded(self._accept_headers)
        )
        peer = MockPeer(websocket, request, stream)
        self.peers.append(peer)
        if self._handler is None:
            # The library's reader task keeps this connection's nursery open until its end.
            self._accepted.send_nowait(peer)
            return
        await self._handler(peer)
        with trio.move_on_after(1):
            await websocket.aclose()


def _encoded(headers: Headers) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in headers.pairs()]
