"""A link over ASGI (https://asgi.readthedocs.io/en/stable/specs/www.html#websocket).

The ASGI server speaks WebSocket: it does the handshakes, answers and sends pings, and keeps the
limits. What is left are whole messages, and the ends.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

import trio

from ..frames import NO_STATUS, Close, Event, Frame, Ping, Pong, PreparedMessage
from ..transports import Handshake, Link, LinkBroken

__all__ = ["ASGILink", "Receive", "Scope", "Send"]

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]

SECONDS_TO_CLOSE = 1.0
GONE = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)


class ASGILink(Link):
    """One accepted connection of an ASGI server.

    Args:
        handshake: as far as ASGI tells.
        receive: of the application.
        send: of the application.
    """

    takes_prepared: bool = True

    def __init__(self, handshake: Handshake, receive: Receive, send: Send) -> None:
        self.handshake: Handshake = handshake
        self.bytes_received: int = 0
        self.bytes_sent: int = 0
        self._receive = receive
        self._send = send
        self._ended = False
        self._confirmed: Close | None = None
        self._waiting = trio.CancelScope()

    async def receive(self) -> list[Event]:
        """See :meth:`Link.receive`."""
        if self._ended:
            await trio.lowlevel.checkpoint()
            return []
        if self._confirmed is None:
            with trio.CancelScope() as self._waiting:
                return [*self._events(await self._receive())]
        # We have closed; the closing handshake is the ASGI server's.
        self._ended = True
        return [self._confirmed] if self._confirmed is not None else []

    def _events(self, event: MutableMapping[str, Any]) -> list[Event]:
        if event["type"] == "websocket.receive":
            text, data = event.get("text"), event.get("bytes")
            message: str | bytes = text if text is not None else bytes(data or b"")
            self.bytes_received += len(message) + 2
            return [[message]]
        self._ended = True
        code = event.get("code", NO_STATUS)
        try:
            return [Close(code, event.get("reason") or "" if code != NO_STATUS else "")]
        except ValueError:
            return []  # such as 1006: it went without a word

    async def write(self, frames: Sequence[Frame]) -> None:
        """See :meth:`Link.write`."""
        for frame in frames:
            try:
                await self._write(frame)
            except GONE as error:
                raise LinkBroken("the client of the ASGI server has gone") from error

    async def _write(self, frame: Frame) -> None:
        match frame:
            case Ping() | Pong():
                return  # ASGI has no words for them
            case Close(code, reason):
                await self._close(1000 if code == NO_STATUS else code, reason)
                return
            case PreparedMessage():
                data = frame.message
            case str():
                data = frame
            case _:
                data = bytes(frame)
        kind = "text" if isinstance(data, str) else "bytes"
        await self._send({"type": "websocket.send", kind: data})
        self.bytes_sent += len(data) + 2

    async def _close(self, code: int, reason: str) -> None:
        if self._ended or self._confirmed is not None:
            return
        self._confirmed = Close(code, reason)
        await self._send({"type": "websocket.close", "code": code, "reason": reason})
        self._waiting.cancel()

    async def aclose(self) -> None:
        """See :meth:`Link.aclose`: a client that is still there gets 1011."""
        with trio.move_on_after(SECONDS_TO_CLOSE), suppress(*GONE):
            await self._close(1011, "")
        self._ended = True
        self._waiting.cancel()
