"""A native link: the codec on a trio stream. Both directions of a connection's hot path."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import trio

from ...frames import Event, Frame
from ..base import Handshake, Link, LinkBroken
from .decoder import Decoder
from .encoder import Encoder
from .socket_io import SocketWire, wire_for

__all__ = ["NativeLink"]

# One read takes at most this much; one write is cut into slices of it, so that progress shows.
CHUNK = 2**16


class NativeLink(Link):
    """A WebSocket on any trio stream, in either role: the codec knows which.

    Args:
        stream: open and upgraded.
        handshake: what was agreed.
        decoder, encoder: fresh ones, for this link alone.
        rest: bytes that were received behind the handshake.
    """

    __slots__ = (
        "_broken",
        "_decoder",
        "_early",
        "_encoder",
        "_rest",
        "_wire",
        "bytes_received",
        "bytes_sent",
        "handshake",
    )

    takes_prepared: bool = True

    def __init__(
        self,
        stream: trio.abc.Stream,
        handshake: Handshake,
        decoder: Decoder,
        encoder: Encoder,
        rest: bytes = b"",
    ) -> None:
        self.handshake: Handshake = handshake
        self.bytes_received: int = len(rest)
        self.bytes_sent: int = 0
        self._wire = wire_for(stream)
        self._decoder = decoder
        self._encoder = encoder
        self._early = decoder.feed(rest)
        self._rest = b""  # of a write_now() that came to an end half-way
        self._broken: OSError | None = None

    async def receive(self) -> list[Event]:
        """See :meth:`Link.receive`."""
        if self._early:
            events, self._early = self._early, []
            return events
        decoder = self._decoder
        receive_some = self._wire.receive_some
        try:
            while True:
                chunk = b""
                if not decoder.backlog:
                    data = await receive_some(CHUNK)
                    if not data:
                        return []
                    # Some streams give bytearrays, whose slices would be handed to the user.
                    chunk = data if data.__class__ is bytes else bytes(data)
                    self.bytes_received += len(chunk)
                events = decoder.feed(chunk)
                if events:
                    return events
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            raise LinkBroken(str(error.__cause__ or error)) from (error.__cause__ or error)

    async def write(self, frames: Sequence[Frame]) -> None:
        """See :meth:`Link.write`."""
        data = self._encoder.encode(frames)
        if self._rest:
            data, self._rest = self._rest + data, b""
        send_all = self._wire.send_all
        try:
            if self._broken is not None:
                raise self._broken
            if len(data) <= CHUNK:
                await send_all(data)
                self.bytes_sent += len(data)
                return
            with memoryview(data) as view:
                for start in range(0, len(data), CHUNK):
                    part = view[start : start + CHUNK]
                    await send_all(part)
                    self.bytes_sent += len(part)
                    await trio.lowlevel.checkpoint()
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            raise LinkBroken(str(error.__cause__ or error)) from (error.__cause__ or error)

    @property
    def writes_now(self) -> bool:
        """See :attr:`Link.writes_now`."""
        return self._wire.__class__ is SocketWire

    def write_now(self, frames: Sequence[Frame]) -> bool:
        """See :meth:`Link.write_now`."""
        data = self._encoder.encode(frames)
        try:
            sent = self._wire.send_now(data)  # type: ignore[union-attr]  # a SocketWire
        except OSError as error:
            self._broken, sent = error, 0
        self.bytes_sent += sent
        if sent == len(data):
            return True
        self._rest = data[sent:]
        return False

    async def aclose(self) -> None:
        """See :meth:`Link.aclose`."""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            await trio.aclose_forcefully(self._wire)
