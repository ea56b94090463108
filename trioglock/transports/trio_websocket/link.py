"""A connection of trio-websocket as a link, in either role."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import trio
from trio_websocket import CloseReason, WebSocketConnection
from trio_websocket import ConnectionClosed as LibraryClosed
from wsproto.utilities import ProtocolError as LibraryProtocolError

from ...frames import NO_STATUS, Close, Event, Frame, Ping, Pong, Violation
from ..base import Link, LinkBroken
from ..http_responses import BROKEN

__all__ = ["NO_LIMIT", "Tap", "TrioWebsocketLink"]

ABNORMAL = 1006

NO_LIMIT = 2**62
"""To a library that wants a number."""


class TrioWebsocketLink(Link):
    """A connection of trio-websocket; its tasks live in :meth:`host`.

    Args:
        tap: the stream as the library sees it.
    """

    _websocket: WebSocketConnection
    _nursery: trio.Nursery

    def __init__(self, tap: Tap) -> None:
        self._tap = tap
        self._opened = trio.Event()
        self._refusal: Exception | None = None
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
            Exception: as :meth:`_refused` translates it: the upgrade failed.
        """
        try:
            await self._opened.wait()
        except trio.Cancelled:
            self._scope.cancel()
            raise
        if self._refusal is not None:
            raise self._refusal

    async def host(self) -> None:
        """Upgrade, then hold the library's tasks until :meth:`aclose`. Raises nothing."""
        try:
            with self._scope:
                async with self._events, trio.open_nursery() as nursery:
                    self._nursery = nursery
                    self._websocket = await self._upgrade(nursery)
                    self._opened.set()
                    await self._pump()
                    nursery.cancel_scope.cancel()
        # Where the library does not know what to do, its tasks raise all kinds of errors.
        except* Exception as group:  # noqa: BLE001 - of an open link they are its end
            if not self._opened.is_set():
                self._refusal = self._refused(_first(group))
        finally:
            self._opened.set()

    @abstractmethod
    async def _upgrade(self, nursery: trio.Nursery) -> WebSocketConnection:
        """Do the opening handshake, and set :attr:`handshake`."""

    @abstractmethod
    def _refused(self, error: Exception) -> Exception:
        """What an error of the library's tasks during the handshake means."""

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


class Tap:
    """The stream as the library sees it: it counts bytes."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.bytes_received: int = 0
        self.bytes_sent: int = 0

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """What has come."""
        data = await self.stream.receive_some(max_bytes)
        self.bytes_received += len(data)
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all."""
        await self.stream.send_all(data)
        self.bytes_sent += len(data)

    async def aclose(self) -> None:
        """Close the stream."""
        await self.stream.aclose()


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
