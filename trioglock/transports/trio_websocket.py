"""The trio-websocket transport: an independent implementation of the interface.

Its :class:`Capabilities` declare the limits of the library: it answers pings itself and reports
neither them nor unsolicited pongs, has no compression, discards messages that arrive after our own
Close frame, and joins the fragments of a message.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import nullcontext

import trio
from trio_websocket import CloseReason, WebSocketConnection, wrap_client_stream, wrap_server_stream
from trio_websocket import ConnectionClosed as LibraryClosed
from websockets.headers import build_authorization_basic
from wsproto.events import BytesMessage, TextMessage
from wsproto.utilities import ProtocolError as LibraryProtocolError

from .._redact import without_user_info
from .._scope import leaves
from .._timer import effective_deadline
from ..close_codes import NO_STATUS
from ..errors import ConnectError, InvalidHandshake
from ..frames import Close, Event, Fragment, Frame, Ping, Pong, Violation, too_large
from ..headers import Headers
from ..options import DialOptions
from .base import Capabilities, Handshake, Link, LinkBroken, Transport
from .connecting import closed_on_failure, open_stream
from .http1 import (
    STREAM_ERRORS,
    ReceivedRequest,
    read_response,
    stream_errors_translated,
    without_empty_lines,
)
from .listeners import describe_peer
from .negotiation import ServerTransport, Upgrade
from .redirects import follow_redirects
from .tls import peer_certificate
from .urls import WebSocketURL

__all__ = ["TrioWebsocketTransport"]

ABNORMAL = 1006

NO_LIMIT = 2**62
"""A number, because the library does not accept None."""


class TrioWebsocketTransport(Transport, ServerTransport):
    """Uses the trio-websocket library, as a client or as a server."""

    capabilities: Capabilities = Capabilities(
        ping_events=False,
        pong_events=False,
        empty_close=False,
        compression=False,
        drains_after_close=False,
        fast_violations=False,
    )
    compresses: bool = False
    reports_pings: bool = False

    async def connect(self, options: DialOptions, nursery: trio.Nursery) -> Link:
        async def attempt(url: WebSocketURL, options: DialOptions) -> Link:
            stream = await open_stream(url, options)
            async with closed_on_failure(stream):
                link = _ClientLink(stream, url, options)
                nursery.start_soon(link.run)
                await link.wait_open()
                return link

        return await follow_redirects(options, attempt)

    async def upgrade(
        self, stream: trio.abc.Stream, upgrade: Upgrade, nursery: trio.Nursery
    ) -> Link:
        link = _ServerLink(stream, upgrade)
        nursery.start_soon(link.run)
        await link.wait_open()
        return link


class _TrioWebsocketLink(Link):
    """A connection of trio-websocket; :meth:`run` runs the library's tasks."""

    takes_fragments: bool = True

    _websocket: WebSocketConnection
    _nursery: trio.Nursery

    def __init__(self, stream: _CountingStream) -> None:
        self._stream = stream
        self._opened = trio.Event()
        self._refusal: Exception | None = None
        self._scope = trio.CancelScope()
        self._local_close: trio.Event | None = None
        self._events, self._incoming = trio.open_memory_channel[Event](0)

    @property
    def bytes_received(self) -> int:  # type: ignore[override]
        return self._stream.bytes_received

    @property
    def bytes_sent(self) -> int:  # type: ignore[override]
        return self._stream.bytes_sent

    @property
    def partial(self) -> object:
        # The library has no public attribute for the size of a partial message.
        return getattr(self._websocket, "_message_size", None) or None

    async def wait_open(self) -> None:
        try:
            await self._opened.wait()
        except trio.Cancelled:
            self._scope.cancel()
            raise
        if self._refusal is not None:
            raise self._refusal

    async def run(self) -> None:
        """Upgrade, then run the library's tasks until :meth:`aclose`. Raises nothing."""
        try:
            with self._scope:
                async with self._events, trio.open_nursery() as nursery:
                    self._nursery = nursery
                    self._websocket = await self._upgrade(nursery)
                    self._opened.set()
                    await self._pump()
                    nursery.cancel_scope.cancel()
        # In unforeseen situations the library's tasks may raise any exception.
        except* Exception as group:  # noqa: BLE001 - they end an open link
            if not self._opened.is_set():
                self._refusal = self._translate(leaves(group)[0])
        finally:
            self._opened.set()

    @abstractmethod
    async def _upgrade(self, nursery: trio.Nursery) -> WebSocketConnection:
        """Do the opening handshake, and set :attr:`handshake`."""

    @abstractmethod
    def _translate(self, error: BaseException) -> Exception:
        """Translate an exception of the library's tasks during the handshake."""

    async def _pump(self) -> None:
        """Forward messages, one at a time as the library returns them, then the Close frame."""
        while True:
            try:
                message = await self._websocket.get_message()
            except LibraryClosed:
                break
            await self._events.send([message])
        if self._local_close is not None:
            # The library has the peer's Close frame only when its aclose() has returned.
            await self._local_close.wait()
        reason = self._websocket.closed
        if reason is None or reason.code == ABNORMAL:
            return
        await self._events.send(_closing_event(reason))

    async def receive(self) -> list[Event]:
        try:
            return [await self._incoming.receive()]
        except (trio.EndOfChannel, trio.ClosedResourceError):
            return []

    async def write(self, frames: Sequence[Frame]) -> None:
        try:
            for frame in frames:
                match frame:
                    case str() | bytes():
                        await self._websocket.send_message(frame)
                    case Fragment():
                        await self._send_fragment(frame)
                    case Ping(payload):
                        written = self._stream.written = trio.Event()
                        self._nursery.start_soon(self._ping, payload, written)
                        await written.wait()
                    case Pong(payload):
                        await self._websocket.pong(payload)
                    case Close(code, reason):
                        await self._close(1000 if code == NO_STATUS else code, reason)
        except (LibraryClosed, LibraryProtocolError, *STREAM_ERRORS) as error:
            raise LinkBroken(str(error)) from error

    async def _send_fragment(self, frame: Fragment) -> None:
        if self._websocket.closed:
            raise LibraryClosed(self._websocket.closed)
        data, final = frame.data, frame.final
        # The library has no public method that sends a fragment.
        await self._websocket._send(  # noqa: SLF001
            TextMessage(data=data, message_finished=final)
            if isinstance(data, str)
            else BytesMessage(data=data, message_finished=final)
        )

    async def _ping(self, payload: bytes, written: trio.Event) -> None:
        # The library reports a pong only to the caller of ping(), which therefore has a task.
        try:
            await self._websocket.ping(payload)
            await self._events.send(Pong(payload))
        except (LibraryClosed, ValueError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            written.set()

    async def _close(self, code: int, reason: str) -> None:
        done = self._local_close = trio.Event()
        await self._websocket.aclose(code, reason)
        done.set()

    async def aclose(self) -> None:
        self._scope.cancel()
        await trio.aclose_forcefully(self._stream.inner)


class _CountingStream:
    """The stream passed to the library; it counts bytes."""

    def __init__(self, inner: trio.abc.Stream) -> None:
        self.inner = inner
        self.bytes_received: int = 0
        self.bytes_sent: int = 0
        self.written: trio.Event | None = None
        """Set after the next write."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        try:
            data = await self.inner.receive_some(max_bytes)
        except OSError as error:
            # Any other exception ends the library's reader before it has reported a Close frame.
            raise trio.BrokenResourceError(str(error)) from error
        self.bytes_received += len(data)
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.inner.send_all(data)
        self.bytes_sent += len(data)
        if self.written is not None:
            self.written.set()
            self.written = None

    async def aclose(self) -> None:
        await self.inner.aclose()


def _closing_event(reason: CloseReason) -> Close | Violation:
    text = reason.reason or ""
    # Codes from a peer are enum members. The peer may also use this library.
    is_own = type(reason.code) is int
    if is_own and reason.code == 1009 and text.startswith("Exceeded maximum message size"):
        return Violation(1009, too_large(int(text.split()[-2])))
    # The library responds with 1002 to codes that must not be sent.
    return Close(int(reason.code), text)


class _ClientLink(_TrioWebsocketLink):
    """The client's end of a connection."""

    def __init__(self, stream: trio.abc.Stream, url: WebSocketURL, options: DialOptions) -> None:
        # The library's tasks run outside the timeouts of the caller.
        deadline = effective_deadline()
        super().__init__(_ClientStream(stream, deadline, options))
        self._url = url
        self._options = options

    async def _upgrade(self, nursery: trio.Nursery) -> WebSocketConnection:
        url, options = self._url, self._options
        headers = _request_headers(url, options)
        websocket = await wrap_client_stream(
            nursery,
            self._stream,  # type: ignore[arg-type]
            options.additional_headers.get("Host", url.host_header),
            url.target,
            subprotocols=options.subprotocols,
            extra_headers=[
                # The library rejects white space around a value, and quotes the value.
                (name.encode("latin-1"), value.strip(" \t").encode("latin-1"))
                for name, value in headers.pairs()
            ],
            max_message_size=NO_LIMIT if options.max_size is None else options.max_size,
            receive_buffer_size=2**16,
        )
        response = [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in websocket.handshake_headers
        ]
        if websocket.subprotocol is not None:
            # The library removes this header from its list.
            response.append(("Sec-WebSocket-Protocol", websocket.subprotocol))
        certificate, certificate_der = peer_certificate(self._stream.inner)
        self.handshake: Handshake = Handshake(
            url=without_user_info(options.url),
            subprotocol=websocket.subprotocol,
            request_headers=headers,
            response_headers=Headers(response),
            peer=describe_peer(self._stream.inner),
            peer_certificate=certificate,
            peer_certificate_der=certificate_der,
        )
        return websocket

    def _translate(self, error: BaseException) -> Exception:
        if isinstance(error, ConnectError):
            return error
        # After a bad 101, the library tries to send a response and raises the failure of this
        # attempt. The actual cause is the context of that exception.
        cause = error
        while cause.__context__ is not None:
            cause = cause.__context__
        refusal = InvalidHandshake(f"the response is not a WebSocket handshake: {cause}")
        refusal.__cause__ = cause
        return refusal


class _ClientStream(_CountingStream):
    """Reads the response to the handshake itself and passes only a 101 to the library.

    The library would wait indefinitely for a peer that has disconnected, and lose the reason for a
    refusal. Our errors propagate through its tasks.
    """

    def __init__(self, inner: trio.abc.Stream, deadline: float, options: DialOptions) -> None:
        super().__init__(inner)
        self._deadline = deadline
        self._offered = options.subprotocols
        self._max_header_size = options.max_header_size
        self._is_upgraded = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self._is_upgraded:
            return await super().receive_some(max_bytes)
        response = await read_response(
            self.inner, self._deadline, self._offered, self._max_header_size
        )
        self._is_upgraded = True
        data = without_empty_lines(response.head) + response.rest
        self.bytes_received += len(data)
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with nullcontext() if self._is_upgraded else stream_errors_translated():
            await super().send_all(data)


def _request_headers(url: WebSocketURL, options: DialOptions) -> Headers:
    headers = options.additional_headers
    extra: list[tuple[str, str]] = []
    if url.user_info is not None and "authorization" not in headers:
        extra.append(("Authorization", build_authorization_basic(*url.user_info)))
    if options.origin is not None:
        extra.append(("Origin", options.origin))
    if options.user_agent_header is not None and "user-agent" not in headers:
        extra.append(("User-Agent", options.user_agent_header))
    # The library writes the Host header itself.
    return Headers([*extra, *headers.without("host").pairs()])


class _ServerLink(_TrioWebsocketLink):
    """The server's end of a connection; the library writes its own 101."""

    def __init__(self, stream: trio.abc.Stream, upgrade: Upgrade) -> None:
        self._server_stream = _ServerStream(stream, upgrade.received)
        super().__init__(self._server_stream)
        self._max_size = upgrade.max_size
        self._responding = trio.Event()  # respond() was called
        self._responded = trio.Event()  # or the link has ended
        self.handshake: Handshake = upgrade.handshake

    async def respond(self) -> None:
        self._responding.set()
        await self._responded.wait()
        if not self._server_stream.accepted.is_set():
            raise LinkBroken("trio-websocket has ended the connection")

    async def run(self) -> None:
        try:
            await super().run()
        finally:
            self._responded.set()

    async def _upgrade(self, nursery: trio.Nursery) -> WebSocketConnection:
        request = await wrap_server_stream(
            nursery,
            self._stream,  # type: ignore[arg-type]
            max_message_size=NO_LIMIT if self._max_size is None else self._max_size,
            receive_buffer_size=2**16,
        )
        self._opened.set()
        await self._responding.wait()
        websocket = await request.accept(subprotocol=self.handshake.subprotocol)
        self._server_stream.accepted.set()
        self._responded.set()
        return websocket

    def _translate(self, error: BaseException) -> Exception:
        if isinstance(error, LinkBroken):
            return error
        broken = LinkBroken(str(error))
        broken.__cause__ = error
        return broken


class _ServerStream(_CountingStream):
    """Replays the bytes that have already been read.

    The library ignores bytes after the request until more arrive: they are replayed after it has
    accepted the request.
    """

    def __init__(self, inner: trio.abc.Stream, received: ReceivedRequest) -> None:
        super().__init__(inner)
        self._head = without_empty_lines(received.head)
        self._rest = received.rest
        self.accepted = trio.Event()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self._head:
            await trio.lowlevel.checkpoint()
            data, self._head = self._head, b""
        elif self._rest:
            await self.accepted.wait()
            data, self._rest = self._rest, b""
        else:
            return await super().receive_some(max_bytes)
        self.bytes_received += len(data)
        return data

    async def aclose(self) -> None:
        await super().aclose()
        if not self.accepted.is_set():
            # Without an exception, the library would wait for more data after refusing the request.
            raise LinkBroken("trio-websocket refused the request")
