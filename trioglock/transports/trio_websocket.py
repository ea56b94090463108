"""The trio-websocket plug: an independent implementation behind the same port.

What it cannot do stands in its :class:`Capabilities`: the library answers pings itself and shows
neither them nor unsolicited pongs, has no compression, and throws away what arrives after our own
Close frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import trio
from trio_websocket import CloseReason, WebSocketConnection, wrap_client_stream
from trio_websocket import ConnectionClosed as LibraryClosed
from websockets.headers import build_authorization_basic, build_host
from wsproto.utilities import ProtocolError as LibraryProtocolError

from ..errors import ConnectError, InvalidHandshake
from ..frames import NO_STATUS, Close, Event, Frame, Ping, Pong, Violation
from ..headers import Headers
from ..options import DialOptions
from .addresses import WebSocketURI, without_user_info
from .answers import BROKEN, read_answer, unbroken
from .dialing import open_stream
from .port import Capabilities, Handshake, Link, LinkBroken, Transport
from .redirects import follow_redirects
from .tcp import closed_on_failure, describe_peer

__all__ = ["TrioWebsocketTransport"]


class TrioWebsocketTransport(Transport):
    """Connects through trio-websocket."""

    capabilities: Capabilities = Capabilities(
        ping_events=False,
        pong_events=False,
        empty_close=False,
        compression=False,
        drains_after_close=False,
        fast_violations=False,
    )

    async def connect(self, options: DialOptions, nursery: trio.Nursery) -> Link:
        """See :meth:`Transport.connect`."""

        async def dial(uri: WebSocketURI, options: DialOptions) -> Link:
            stream = await open_stream(uri, options)
            async with closed_on_failure(stream):
                link = TrioWebsocketLink(stream)
                nursery.start_soon(link.host, uri, options)
                await link.wait_open()
                return link

        return await follow_redirects(options, dial)


class TrioWebsocketLink(Link):
    """A connection of trio-websocket; its tasks live in :meth:`host`."""

    _websocket: WebSocketConnection
    _nursery: trio.Nursery

    def __init__(self, stream: trio.abc.Stream) -> None:
        # Its tasks know nothing of the time-outs of whoever dials.
        self._tap = _Tap(stream, trio.current_effective_deadline())
        self._opened = trio.Event()
        self._refusal: ConnectError | None = None
        self._scope = trio.CancelScope()
        self._local_close: trio.Event | None = None
        self._events, self._incoming = trio.open_memory_channel[Event](0)

    @property
    def bytes_received(self) -> int:  # type: ignore[override]
        """See :attr:`Link.bytes_received`."""
        return self._tap.bytes_received

    @property
    def bytes_sent(self) -> int:  # type: ignore[override]
        """See :attr:`Link.bytes_sent`."""
        return self._tap.bytes_sent

    async def wait_open(self) -> None:
        """Wait for the upgrade.

        Raises:
            ConnectError: it failed.
        """
        try:
            await self._opened.wait()
        except trio.Cancelled:
            self._scope.cancel()
            raise
        if self._refusal is not None:
            raise self._refusal

    async def host(self, uri: WebSocketURI, options: DialOptions) -> None:
        """Upgrade, then hold the library's tasks until :meth:`aclose`. Raises nothing."""
        try:
            with self._scope:
                async with self._events, trio.open_nursery() as nursery:
                    self._nursery = nursery
                    await self._upgrade(uri, options)
                    self._opened.set()
                    await self._pump()
                    nursery.cancel_scope.cancel()
        # Where the library does not know what to do, its tasks raise all kinds of errors.
        except* Exception as group:  # noqa: BLE001 - of an open link they are its end
            if not self._opened.is_set():
                self._refusal = _refusal(_first(group))
        finally:
            self._opened.set()

    async def _upgrade(self, uri: WebSocketURI, options: DialOptions) -> None:
        headers = _request_headers(uri, options)
        self._websocket = await wrap_client_stream(
            self._nursery,
            self._tap,  # type: ignore[arg-type]
            options.additional_headers.get("Host", build_host(uri.host, uri.port, uri.secure)),
            uri.resource_name,
            subprotocols=options.subprotocols,
            extra_headers=[
                # The library refuses white space around a value, and shows what it refuses.
                (name.encode("latin-1"), value.strip(" \t").encode("latin-1"))
                for name, value in headers.pairs()
            ],
            max_message_size=2**62 if options.max_size is None else options.max_size,
            receive_buffer_size=2**16,
        )
        response = [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in self._websocket.handshake_headers
        ]
        if self._websocket.subprotocol is not None:
            # The library takes this one out.
            response.append(("Sec-WebSocket-Protocol", self._websocket.subprotocol))
        self.handshake: Handshake = Handshake(
            url=without_user_info(options.url),
            subprotocol=self._websocket.subprotocol,
            request_headers=headers,
            response_headers=Headers(response),
            peer=describe_peer(self._tap.stream),
        )

    async def _pump(self) -> None:
        """Hand on messages, one at a time as the library gives them, then how it ended."""
        while True:
            try:
                message = await self._websocket.get_message()
            except LibraryClosed:
                break
            await self._events.send([message])
        if self._local_close is not None:
            # Only then does the library know what the peer said.
            await self._local_close.wait()
        reason = self._websocket.closed
        if reason is None or reason.code == ABNORMAL:
            return
        await self._events.send(_closing_event(reason))

    async def receive(self) -> list[Event]:
        """See :meth:`Link.receive`."""
        try:
            return [await self._incoming.receive()]
        except (trio.EndOfChannel, trio.ClosedResourceError):
            return []

    async def write(self, frames: Sequence[Frame]) -> None:
        """See :meth:`Link.write`."""
        try:
            for frame in frames:
                match frame:
                    case str() | bytes():
                        await self._websocket.send_message(frame)
                    case Ping(payload):
                        self._nursery.start_soon(self._ping, payload)
                    case Pong(payload):
                        await self._websocket.pong(payload)
                    case Close(code, reason):
                        await self._close(1000 if code == NO_STATUS else code, reason)
        except (LibraryClosed, LibraryProtocolError, *BROKEN) as error:
            raise LinkBroken(str(error)) from error

    async def _ping(self, payload: bytes) -> None:
        # The library hides pongs but tells who waits for one.
        try:
            await self._websocket.ping(payload)
            await self._events.send(Pong(payload))
        except (LibraryClosed, ValueError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def _close(self, code: int, reason: str) -> None:
        done = self._local_close = trio.Event()
        await self._websocket.aclose(code, reason)
        done.set()

    async def aclose(self) -> None:
        """See :meth:`Link.aclose`."""
        self._scope.cancel()
        await trio.aclose_forcefully(self._tap.stream)


class _Tap:
    """The stream as the library sees it; counts bytes, and reads the answer to the handshake.

    The library would wait for ever for a peer that has gone, and forget what refuses it: it gets
    to see nothing but a 101. Our errors pass through its tasks.
    """

    def __init__(self, stream: trio.abc.Stream, deadline: float) -> None:
        self.stream = stream
        self._deadline = deadline
        self.bytes_received = 0
        self.bytes_sent = 0
        self._answered = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data: bytes | bytearray
        if self._answered:
            data = await self.stream.receive_some(max_bytes)
        else:
            answer = await read_answer(self.stream, self._deadline)
            self._answered = True
            data = answer.head + answer.rest
        self.bytes_received += len(data)
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with nullcontext() if self._answered else unbroken():
            await self.stream.send_all(data)
        self.bytes_sent += len(data)

    async def aclose(self) -> None:
        await self.stream.aclose()


ABNORMAL = 1006


def _request_headers(uri: WebSocketURI, options: DialOptions) -> Headers:
    headers = options.additional_headers
    extra: list[tuple[str, str]] = []
    if uri.user_info is not None and "authorization" not in headers:
        extra.append(("Authorization", build_authorization_basic(*uri.user_info)))
    if options.origin is not None:
        extra.append(("Origin", options.origin))
    if options.user_agent_header is not None and "user-agent" not in headers:
        extra.append(("User-Agent", options.user_agent_header))
    # The library writes the Host header itself.
    return Headers([*extra, *headers.without("host").pairs()])


def _closing_event(reason: CloseReason) -> Close | Violation:
    text = reason.reason or ""
    if reason.code == 1009 and text.startswith("Exceeded maximum message size"):
        return Violation(1009, text)
    # The library refuses, as 1002, every code that may not be sent; the codes are its enum's.
    return Close(int(reason.code), text)


def _first(group: BaseExceptionGroup[Exception]) -> Exception:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, Exception)
    return error


def _refusal(error: BaseException) -> ConnectError:
    """What an error of the library's tasks during the handshake means."""
    if isinstance(error, ConnectError):
        return error
    # The library answers a bad 101, cannot, and raises that; what was wrong comes before.
    while error.__context__ is not None:
        error = error.__context__
    refusal = InvalidHandshake(f"the answer is not a WebSocket handshake: {error}")
    refusal.__cause__ = error
    return refusal
