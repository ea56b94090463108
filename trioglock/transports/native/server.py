"""A native link's other side: what a server does that a client does not."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from ...frames import Close, Event, Frame, Violation
from ..base import LinkBroken
from ..http_requests import hang_up
from ..http_responses import BROKEN
from ..negotiation import Upgrade
from .decoder import Decoder
from .encoder import Encoder
from .link import NativeLink

__all__ = ["accept"]


class NativeServerLink(NativeLink):
    """It is the server who ends the stream after the closing handshake (RFC 6455, 7.1.1)."""

    __slots__ = ("_closing", "_finished", "_heard_out", "_said_all", "_stream")

    def __init__(self, stream: trio.abc.Stream, upgrade: Upgrade) -> None:
        decoder = Decoder(masked=True, max_size=upgrade.max_size, deflate=upgrade.deflate)
        encoder = Encoder(mask=False, deflate=upgrade.deflate)
        super().__init__(stream, upgrade.handshake, decoder, encoder, upgrade.call.rest)
        self._stream = stream
        self._heard_out = False  # the peer has closed, or will not be listened to any more
        self._closing = False  # our Close frame is under way: behind it nothing leaves but pongs
        self._said_all = False  # and has left
        self._finished: trio.Event | None = None

    async def receive(self) -> list[Event]:
        """See :meth:`Link.receive`. After the peer's last word it waits for ours, and ends."""
        if self._heard_out:
            if not self._said_all:
                self._finished = trio.Event()
                await self._finished.wait()
            await hang_up(self._stream)
            return []
        events = await super().receive()
        if events and isinstance(events[-1], Close | Violation):
            self._heard_out = True
        return events

    async def write(self, frames: Sequence[Frame]) -> None:
        """See :meth:`Link.write`."""
        self._note(frames)
        try:
            await super().write(frames)
        except LinkBroken:
            self._finish()
            raise
        if self._closing:
            self._finish()

    def write_now(self, frames: Sequence[Frame]) -> bool:
        """See :meth:`Link.write_now`."""
        if frames[-1].__class__ is Close:
            self._closing = True
        all_gone = NativeLink.write_now(self, frames)
        if self._closing and all_gone:
            self._finish()
        return all_gone

    def _note(self, frames: Sequence[Frame]) -> None:
        if frames and frames[-1].__class__ is Close:
            self._closing = True

    def _finish(self) -> None:
        self._said_all = True
        if self._finished is not None:
            self._finished.set()


async def accept(stream: trio.abc.Stream, upgrade: Upgrade) -> NativeServerLink:
    """Answer with 101.

    Raises:
        LinkBroken: the client has gone.
    """
    try:
        await stream.send_all(upgrade.answer)
    except BROKEN as error:
        raise LinkBroken(str(error.__cause__ or error)) from error
    return NativeServerLink(stream, upgrade)
