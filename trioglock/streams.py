"""A byte stream over a WebSocket connection, for protocols that expect a trio stream."""

from __future__ import annotations

import operator
from types import TracebackType
from typing import Any

import trio

from ._hints import describe_value
from .close_codes import NORMAL
from .connection import Connection, Session
from .disconnect import Aborted, ConnectionLost, LocalClose, RemoteClose
from .errors import ConnectionClosed, InvalidOption, UsageError
from .frames import BytesLike, Close

__all__ = ["WebSocketStream"]

MAX_MESSAGE = 2**16
"""Maximum size in bytes of a message that ``send_all`` sends; longer data is split."""

END_OF_FILE = ""
"""The message that ends one direction. It is text, so it cannot be mistaken for data."""


class WebSocketStream(trio.abc.HalfCloseableStream):
    """A trio stream that sends its bytes in binary messages over a connection.

    Message boundaries are not preserved: ``receive_some`` may return a part of a message, and
    ``send_all`` may send several. The hooks of the connection apply to every message.

    WebSocket cannot close only one direction. ``send_eof`` therefore sends an empty text message,
    which another WebSocketStream recognizes. A Close frame from the peer with 1000, 1001 or no code
    also signals end of file. Any other end of the connection, and any other message that is not
    binary, raises :exc:`trio.BrokenResourceError`.

    ``send_all`` returns when the data is queued. ``aclose`` sends the queued data, closes the
    connection with 1000 and waits at most ``close_timeout`` seconds for the peer; if it is
    cancelled, the connection is aborted.

    Args:
        conn: an open connection. No other code may receive its messages.

    Raises:
        UsageError: the connection reconnects, or drops messages when its receive queue is full, so
            bytes could be lost; or it has a codec or receives messages in fragments.
        InvalidOption: ``conn`` is not a connection.
    """

    def __init__(self, conn: Connection[Any, Any]) -> None:
        if not isinstance(conn, Connection):
            raise InvalidOption(f"conn must be a Connection, not {describe_value(conn)}")
        self.connection: Connection[Any, Any] = conn
        """The connection."""
        self._session: Session[Any] = conn._session  # noqa: SLF001 - a layer of the same package
        _check_options(self._session)
        self._link = self._session.upgrades
        self._sending = _Direction("sending")
        self._receiving = _Direction("receiving")
        self._rest = memoryview(b"")  # of the message that is being received
        self._received_eof = False
        self._sent_eof = False
        self._closed = False
        self._problem = ""  # why the stream is broken, unless the connection has ended

    # Receiving.

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Wait for data and return it; ``b""`` at end of file.

        Args:
            max_bytes: the maximum size of the result; by default 64 KiB, or one message if that is
                larger.

        Raises:
            trio.BrokenResourceError: the connection is lost or closed with an error, or the peer
                sent a text message.
            trio.ClosedResourceError: this side has closed the stream or the connection.
            trio.BusyResourceError: another task is receiving.
            ValueError: ``max_bytes`` is less than 1.
        """
        if max_bytes is not None and operator.index(max_bytes) < 1:
            raise ValueError("max_bytes must be at least 1")
        with self._receiving:
            await trio.lowlevel.checkpoint()
            self._check_open()
            while not self._rest:
                if self._received_eof:
                    return b""
                await self._receive_message()
            return self._take(max_bytes)

    def _take(self, max_bytes: int | None) -> bytes:
        """Return received data, from several messages if they are short."""
        limit = MAX_MESSAGE if max_bytes is None else max_bytes
        parts, size = [self._rest], len(self._rest)
        items = self._session.receive_queue.items
        while size < limit and items and items[0].__class__ is bytes and self._is_same_link:
            parts.append(memoryview(self.connection.receive_nowait()))
            size += len(parts[-1])
        excess = 0 if max_bytes is None else max(0, size - max_bytes)
        end = len(parts[-1]) - excess
        self._rest = parts[-1][end:]
        parts[-1] = parts[-1][:end]
        return b"".join(parts)

    async def _receive_message(self) -> None:
        try:
            message = await self.connection.receive()
        except ConnectionClosed as error:
            cause = error.cause
            if not (isinstance(cause, RemoteClose) and cause.code in NORMAL):
                raise self._translate(error) from error
            self._received_eof = True
            return
        if not self._is_same_link:
            raise self._break("the connection was replaced by another one; bytes may be lost")
        if isinstance(message, bytes | bytearray | memoryview):
            self._rest = memoryview(message).cast("B")
        elif isinstance(message, str) and message == END_OF_FILE:
            self._received_eof = True
        else:
            what = "a text message" if isinstance(message, str) else type(message).__name__
            raise self._break(f"a byte stream consists of binary messages; received {what}")

    @property
    def _is_same_link(self) -> bool:
        return self._session.upgrades == self._link

    # Sending.

    async def send_all(self, data: BytesLike) -> None:
        """Send ``data``, in messages of at most 64 KiB; wait while the send queue is full.

        Raises:
            trio.BrokenResourceError: the connection is lost, or the peer has closed it.
            trio.ClosedResourceError: this side has closed the stream or called ``send_eof``.
            trio.BusyResourceError: another task is sending.
        """
        with self._sending:
            await self._start_sending()
            view = memoryview(data).cast("B")
            for start in range(0, len(view), MAX_MESSAGE):
                await self._send(bytes(view[start : start + MAX_MESSAGE]))

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the send queue has space. Raises the same exceptions as :meth:`send_all`."""
        with self._sending:
            await self._start_sending()
            queue = self._session.send_queue
            while queue.size >= queue.threshold and not queue.closed:
                await queue.wait_space()

    async def send_eof(self) -> None:
        """End the data in this direction; the peer can still send.

        Raises the same exceptions as :meth:`send_all`. A second call does nothing.
        """
        with self._sending:
            if self._sent_eof and not self._closed:
                await trio.lowlevel.checkpoint()
                return
            await self._start_sending()
            await self._send(END_OF_FILE)
            self._sent_eof = True

    async def _start_sending(self) -> None:
        await trio.lowlevel.checkpoint()
        self._check_open()
        if self._sent_eof:
            raise trio.ClosedResourceError("send_eof() was called")

    async def _send(self, message: str | bytes) -> None:
        try:
            await self.connection.send(message)
        except ConnectionClosed as error:
            raise self._translate(error) from error

    # Closing.

    async def aclose(self) -> None:
        """Send the queued data and close the connection, as described for the class."""
        self._closed = True
        self._sending.interrupt()
        self._receiving.interrupt()
        try:
            await trio.lowlevel.checkpoint()
            await self.connection.aclose()
        finally:
            self.connection.abort()

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("the stream is closed")
        if self._problem:
            raise trio.BrokenResourceError(self._problem)

    def _break(self, problem: str) -> trio.BrokenResourceError:
        """Close the connection, because a message from the peer is not part of a byte stream."""
        self._problem = problem
        self._session.close(Close(1003, problem[:120]))
        return trio.BrokenResourceError(problem)

    def _translate(self, error: ConnectionClosed) -> Exception:
        closing_here = error.cause is None and error.received is None and error.sent is not None
        if self._closed or closing_here or isinstance(error.cause, LocalClose | Aborted):
            return trio.ClosedResourceError(f"this side has closed the connection: {error}")
        return trio.BrokenResourceError(str(error))


class _Direction:
    """Lets one task at a time use one direction of a stream; closing interrupts it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._scope: trio.CancelScope | None = None

    def __enter__(self) -> None:
        if self._scope is not None:
            raise trio.BusyResourceError(f"another task is {self._name} on this stream")
        self._scope = trio.CancelScope()
        self._scope.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        scope, self._scope = self._scope, None
        assert scope is not None
        scope.__exit__(kind, error, traceback)
        if scope.cancelled_caught:
            raise trio.ClosedResourceError("the stream was closed by another task") from None

    def interrupt(self) -> None:
        if self._scope is not None:
            self._scope.cancel()


def _check_options(session: Session[Any]) -> None:
    if session._will_reconnect(ConnectionLost()):  # noqa: SLF001 - as above
        raise UsageError(
            "a byte stream cannot continue on another link: use connect() without reconnect, and "
            "open a new connection and a new WebSocketStream after a loss"
        )
    flow = session._flow  # noqa: SLF001 - as above
    if flow.overflow != "wait":
        raise UsageError('a byte stream must not lose messages: use overflow="wait"')
    if flow.codec is not None or flow.fragments:
        raise UsageError(
            "a byte stream needs whole binary messages: use neither a codec nor fragments=True"
        )
