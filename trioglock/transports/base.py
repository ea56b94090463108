"""The port: what the rest of trioglock knows of a network, and what a plug must provide.

A :class:`Transport` opens links. A :class:`Link` is one upgraded WebSocket connection at message
level: events come up, frames go down. It neither queues nor times out nor decides anything; it
answers nothing by itself, unless its capabilities say so. Plugs translate whatever their
libraries raise into the errors of :mod:`trioglock.errors` and :class:`LinkBroken`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import trio

from .._redact import redact_repr
from ..errors import TrioglockError
from ..frames import Event, Frame
from ..headers import Headers
from ..options import DialOptions

__all__ = ["Capabilities", "Handshake", "Link", "LinkBroken", "Transport"]


class LinkBroken(TrioglockError):
    """The stream beneath a link broke; ``__cause__`` says how. Never seen by users as such."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a transport can do; the conformance kit tests what is declared, and only that.

    Args:
        ping_events: received pings are handed up; where not, the transport answers them itself.
        pong_events: pongs that answer no ping of ours are handed up.
        empty_close: a Close frame without a code (1005) can be sent.
        compression: permessage-deflate can be negotiated.
        drains_after_close: messages that arrive after our own Close frame are still handed up.
        fast_violations: a violation is answered with the close code RFC 6455 names, at once.
        measured_bytes: the byte counters are of the wire, so that a part of a frame is life.
    """

    ping_events: bool = True
    pong_events: bool = True
    empty_close: bool = True
    compression: bool = True
    drains_after_close: bool = True
    fast_violations: bool = True
    measured_bytes: bool = True


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Handshake:
    """What the two sides told each other in the opening handshake (RFC 6455, section 4).

    Args:
        url: the address that was reached, after redirects, without user information.
        subprotocol: the negotiated one, or None.
        request_headers: as sent.
        response_headers: as received.
        peer: the other end of the stream, such as ``"127.0.0.1:8765"``; "" where unknown.
        extensions: names of the negotiated extensions.
    """

    url: str
    subprotocol: str | None = None
    request_headers: Headers = Headers()
    response_headers: Headers = Headers()
    peer: str = ""
    extensions: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return redact_repr(self)


class Link(ABC):
    """One upgraded connection. One task receives, one writes; they may do so at the same time."""

    handshake: Handshake
    bytes_received: int = 0
    """Grows with every byte that arrives, whole frames or not: the peer's sign of life."""
    bytes_sent: int = 0
    """Grows as bytes are handed to the operating system: the sign that writing gets on."""

    @abstractmethod
    async def receive(self) -> list[Event]:
        """Wait for the next events, at least one; the empty list once the stream has ended.

        A cancelled call loses nothing.

        Raises:
            LinkBroken: the stream broke.
        """

    @abstractmethod
    async def write(self, frames: Sequence[Frame]) -> None:
        """Hand all frames to the operating system, in order, in as few writes as possible.

        A cancelled call may leave half a frame behind: nothing may be written after it.

        Raises:
            LinkBroken: the stream broke.
        """

    takes_prepared: bool = False
    """Whether it knows :class:`PreparedMessage`; others are given the message in it."""

    @property
    def writes_now(self) -> bool:
        """Whether :meth:`write_now` may be called."""
        return False

    def write_now(self, frames: Sequence[Frame]) -> bool:
        """Take all frames, and hand to the operating system what goes without waiting.

        Returns:
            Whether all of it went. Otherwise, also when the stream broke, the rest leaves ahead
            of the next :meth:`write`, which must follow, be it of no frames.
        """
        raise NotImplementedError

    @abstractmethod
    async def aclose(self) -> None:
        """Free the stream at once, whatever state it is in. Never raises, may be repeated."""


class Transport(ABC):
    """Opens links to servers."""

    capabilities: Capabilities = Capabilities()

    @abstractmethod
    async def connect(self, options: DialOptions, nursery: trio.Nursery) -> Link:
        """Dial and upgrade, once.

        Args:
            options: where to and how.
            nursery: for tasks that the link may need; they must end with it and never raise.

        Raises:
            ConnectError: see its subclasses.
            InvalidURL: the URL cannot be used.
        """
