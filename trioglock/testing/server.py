"""``MockServer``: a scripted WebSocket server for tests.

It is based on trio-websocket and shares no protocol code with trioglock, so a bug in one is not
hidden by the same bug in the other.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Self, TypeAlias, TypeVar

import trio
import trio.testing
from trio_websocket import (
    ConnectionClosed,
    WebSocketConnection,
    WebSocketRequest,
    wrap_server_stream,
)

from .._hints import require_trio
from .._scope import open_scope
from ..close_codes import ABNORMAL
from ..frames import Close, Data
from ..headers import Headers, HeadersLike

__all__ = ["Handler", "MockPeer", "MockServer", "echo"]

ItemT = TypeVar("ItemT")

MAX_QUEUE = 2**16
"""Maximum number of messages waiting to be received by the test."""

CLOSE_TIMEOUT = 10.0
"""Seconds that a client may take to answer a Close frame."""

EXPECT_TIMEOUT = 86_400.0
"""Timeout of expectations in seconds. It keeps a test with an ``autojump_clock`` from hanging,
because the clock jumps to the timeout."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A response other than 101 to the opening handshake."""

    status: int
    headers: Headers
    body: bytes


@contextmanager
def expecting(what: str) -> Iterator[None]:
    """Fail with AssertionError after ``EXPECT_TIMEOUT``."""
    try:
        with trio.fail_after(EXPECT_TIMEOUT):
            yield
    except trio.TooSlowError:
        raise AssertionError(f"no {what} within a day") from None


class MockPeer:
    """The server's end of one connection, controlled by the test.

    ``received`` and ``sent`` record the messages. Use ``trio.fail_after`` around a test, because
    methods other than :meth:`close` have no short timeout.
    """

    def __init__(
        self, websocket: WebSocketConnection, request: WebSocketRequest, stream: trio.abc.Stream
    ) -> None:
        self.path: str = request.path
        """Path and query of the request."""
        self.request_headers: Headers = Headers(
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers
        )
        """Headers of the request, without those of the WebSocket handshake itself."""
        self.subprotocols: tuple[str, ...] = request.proposed_subprotocols
        """The subprotocols that the client offers."""
        self.received: list[Data] = []
        """Every message received by the test, oldest first."""
        self.sent: list[Data] = []
        """Every message sent, oldest first."""
        self.stream = stream
        """The stream of the connection, for tests that break it."""
        self._websocket = websocket

    @property
    def closed(self) -> Close | None:
        """The client's Close frame; None if none was received."""
        reason = self._websocket.closed
        if reason is None or reason.code == ABNORMAL:
            return None
        return Close(reason.code, reason.reason or "")

    async def _receive(self) -> Data:
        message = await self._websocket.get_message()
        self.received.append(message)
        return message

    async def receive(self) -> Data:
        """Wait for the next message from the client.

        Raises:
            AssertionError: the client closed the connection.
        """
        try:
            return await self._receive()
        except ConnectionClosed as error:
            raise AssertionError(f"the client closed instead of sending: {error!r}") from None

    async def expect(self, *messages: Data) -> None:
        """Receive one message for each argument and check that the message equals it.

        Args:
            messages: ``str`` for text, ``bytes`` for binary.

        Raises:
            AssertionError: a message differs, or the client closed the connection.
        """
        for message in messages:
            with expecting(f"message {message!r:.100}"):
                got = await self.receive()
            assert got == message, f"expected {message!r}, but the client sent {got!r}"

    async def expect_close(self, code: int = 1000, reason: str | None = None) -> None:
        """Wait for the client's Close frame and check it. Earlier messages are recorded.

        Args:
            code: the expected code.
            reason: the expected reason; None for any.

        Raises:
            AssertionError: the code or the reason differs, or the stream ended without a Close
                frame.
        """
        with suppress(ConnectionClosed), expecting("Close frame"):
            while True:
                await self._receive()
        assert self.closed is not None, "the stream ended without a Close frame"
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
        """Send a Close frame and wait for the client's; drop the connection after 10 seconds.

        Args:
            code: the close code.
            reason: the close reason.
        """
        with trio.move_on_after(CLOSE_TIMEOUT) as scope:
            await self._websocket.aclose(code, reason)
        if scope.cancelled_caught:
            await self.abort()

    async def abort(self) -> None:
        """Close the stream without a closing handshake."""
        await trio.aclose_forcefully(self.stream)

    async def echo(self) -> None:
        """Send every message back until the client closes the connection."""
        with suppress(ConnectionClosed):
            while True:
                await self.send(await self._receive())


Handler: TypeAlias = Callable[[MockPeer], Awaitable[object]]
"""Handles a connection of a :class:`MockServer`."""


async def echo(peer: MockPeer) -> None:
    """A handler that sends every message back.

    Args:
        peer: the server's end of the connection.
    """
    await peer.echo()


class MockServer:
    """A server for the duration of an ``async with`` block.

    Without a handler, the test controls each connection::

        async with MockServer() as server, connect(server.url) as conn:
            peer = await server.accept()
            await conn.send("hello")
            await peer.expect("hello")
            await peer.send("welcome")
            assert await conn.receive() == "welcome"

    A test with one connection can use the server itself: ``await server.expect("hello")``.

    Args:
        handler: the function to call with each connection; the block raises its exceptions.
        subprotocol: the subprotocol to select if a client offers it.
        ssl_context: the TLS context, to serve ``wss://``.
        memory: do not listen on a port; clients use ``stream=server.open_stream``. No real time
            passes, and tests can use ``MockClock``.
        max_message_size: maximum size of a received message in bytes.
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
        """The URL to connect to; you may append a path."""
        self.peers: list[MockPeer] = []
        """All accepted connections, oldest first."""
        self._handler = handler
        self._subprotocol = subprotocol
        self._ssl_context = ssl_context
        self._memory = memory
        self._max_message_size = max_message_size
        self._accept_headers = Headers()
        self._rejections: list[Rejection] = []
        self._accepted, self._waiting = trio.open_memory_channel[MockPeer](MAX_QUEUE)
        self._current: MockPeer | None = None

    async def __aenter__(self) -> Self:
        require_trio(f"{type(self).__name__}(...)")
        async with AsyncExitStack() as stack:
            await self._start(stack)
            self._stack = stack.pop_all()
        return self

    async def _start(self, stack: AsyncExitStack) -> None:
        self._nursery = await stack.enter_async_context(open_scope())
        if not self._memory:
            self.url = await self._listen()

    async def __aexit__(self, *exc_info: Any) -> None:
        await self._stack.__aexit__(*exc_info)

    async def _listen(self) -> str:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        await self._nursery.start(trio.serve_listeners, self._serve, [listener])
        return f"{'ws' if self._ssl_context is None else 'wss'}://127.0.0.1:{port}/"

    async def open_stream(self) -> trio.abc.Stream:
        """Open an in-memory stream to this server: ``connect(..., stream=server.open_stream)``."""
        await trio.lowlevel.checkpoint()
        near, far = trio.testing.memory_stream_pair()
        self._nursery.start_soon(self._serve, far)
        return near

    def reject(
        self, status: int, *, headers: HeadersLike = (), body: bytes = b"", times: int = 1
    ) -> None:
        """Refuse the next ``times`` handshakes with an HTTP status.

        Args:
            status: the HTTP status.
            headers: headers of the response.
            body: body of the response.
            times: number of handshakes.
        """
        self._rejections.extend([Rejection(status, Headers(headers), body)] * times)

    def accept_with(self, headers: HeadersLike) -> None:
        """Add headers to all later 101 responses.

        Args:
            headers: the headers, which replace those of an earlier call.
        """
        self._accept_headers = Headers(headers)

    async def accept(self) -> MockPeer:
        """Wait for the next connection and return it, in the order in which handshakes complete.

        This method cannot be used if the server has a handler.
        """
        with expecting("client"):
            self._current = await self._waiting.receive()
        return self._current

    async def _peer(self) -> MockPeer:
        return self._current or await self.accept()

    async def receive(self) -> Data:
        """Receive from the connection accepted last. See :meth:`MockPeer.receive`."""
        return await (await self._peer()).receive()

    async def expect(self, *messages: Data) -> None:
        """Check messages from the connection accepted last. See :meth:`MockPeer.expect`."""
        await (await self._peer()).expect(*messages)

    async def send(self, *messages: Data) -> None:
        """Send to the connection accepted last. See :meth:`MockPeer.send`."""
        await (await self._peer()).send(*messages)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection accepted last. See :meth:`MockPeer.close`."""
        await (await self._peer()).close(code, reason)

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
                    message_queue_size=MAX_QUEUE,
                    max_message_size=self._max_message_size,
                )
                await self._answer(request, stream)
        except* (ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client has disconnected
        finally:
            await trio.aclose_forcefully(stream)

    async def _answer(self, request: WebSocketRequest, stream: trio.abc.Stream) -> None:
        if self._rejections:
            rejection = self._rejections.pop(0)
            headers = _encode_headers(rejection.headers)
            await request.reject(rejection.status, extra_headers=headers, body=rejection.body)
            return
        selected = self._subprotocol if self._subprotocol in request.proposed_subprotocols else None
        websocket = await request.accept(
            subprotocol=selected, extra_headers=_encode_headers(self._accept_headers)
        )
        peer = MockPeer(websocket, request, stream)
        self.peers.append(peer)
        if self._handler is None:
            # The reader task of trio-websocket keeps the nursery open until the end.
            self._accepted.send_nowait(peer)
            return
        await self._handler(peer)
        with trio.move_on_after(1):
            await websocket.aclose()


async def run_for_each(
    items: Iterable[ItemT], fn: Callable[..., Awaitable[object]], *args: Any
) -> None:
    """Call ``fn(item, *args)`` for all items concurrently, so that none delays the others."""
    async with trio.open_nursery() as nursery:
        for item in items:
            nursery.start_soon(fn, item, *args)


def _encode_headers(headers: Headers) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in headers.pairs()]
