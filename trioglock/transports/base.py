"""The interface between trioglock and a network: transports, and the links that they open.

A :class:`Transport` opens links. A :class:`Link` is one upgraded WebSocket connection at message
level: it returns events and writes frames. It does not queue, has no timeouts, makes no decisions,
and does not answer frames itself unless its capabilities declare otherwise. Implementations
translate the exceptions of their libraries into the errors of :mod:`trioglock.errors` and
:class:`LinkBroken`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import trio

from .._redact import redact_repr
from ..errors import TrioglockError
from ..frames import Event, Frame
from ..headers import Headers
from ..http import Request
from ..options import DialOptions

__all__ = ["Capabilities", "Handshake", "Link", "LinkBroken", "Transport"]


class LinkBroken(TrioglockError):
    """The stream of a link broke; ``__cause__`` is the stream's exception. Internal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """The capabilities of a transport. The conformance kit tests only those that are declared.

    Args:
        ping_events: received pings are returned as events; otherwise the transport answers them.
        pong_events: pongs that do not answer one of our pings are returned as events.
        empty_close: a Close frame without a code (1005) can be sent.
        compression: permessage-deflate can be negotiated.
        drains_after_close: messages that arrive after our own Close frame are still returned.
        fast_violations: a protocol violation is answered immediately with the close code that
            RFC 6455 requires.
        measured_bytes: the byte counters count bytes on the wire, including parts of frames.
        fragments: with ``fragments=True``, messages are returned as fragments, as they arrive.
    """

    ping_events: bool = True
    pong_events: bool = True
    empty_close: bool = True
    compression: bool = True
    drains_after_close: bool = True
    fast_violations: bool = True
    measured_bytes: bool = True
    fragments: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Handshake:
    """The result of the opening handshake (RFC 6455, section 4).

    Args:
        url: the URL that was reached, after redirects, without user information.
        subprotocol: the negotiated subprotocol, or None.
        request_headers: the request headers as sent.
        response_headers: the response headers as received.
        peer: the address of the peer, such as ``"127.0.0.1:8765"``; "" if unknown.
        extensions: names of the negotiated extensions.
        peer_certificate: the peer's certificate as ``ssl.SSLSocket.getpeercert()`` returns it; {}
            if the context did not verify the certificate; None without TLS, or if the peer has no
            certificate.
        peer_certificate_der: the same certificate in DER form (X.690), for example to compute a
            fingerprint.
        request: the request that a server has received; None on a client.
        admitted: the decision of a server's target about the client; None for targets that
            take no part in the handshake.
    """

    url: str
    subprotocol: str | None = None
    request_headers: Headers = Headers()
    response_headers: Headers = Headers()
    peer: str = ""
    extensions: tuple[str, ...] = ()
    peer_certificate: dict[str, Any] | None = field(default=None, repr=False, hash=False)
    peer_certificate_der: bytes | None = field(default=None, repr=False)
    request: Request | None = field(default=None, repr=False)
    admitted: object = field(default=None, repr=False, compare=False)

    def __repr__(self) -> str:
        return redact_repr(self)


class Link(ABC):
    """One upgraded connection. One task receives and one task writes, possibly concurrently."""

    handshake: Handshake
    bytes_received: int = 0
    """Grows with every received byte, even within a frame: evidence that the peer is alive."""
    bytes_sent: int = 0
    """Grows as bytes are passed to the operating system: evidence that a write progresses."""

    @property
    def partial(self) -> object:
        """A value that changes while the bytes of a message arrive; None between messages."""
        return None

    def report_all(self) -> None:  # noqa: B027 - not all links receive in parts
        """From now on, also deliver an empty run when the received bytes complete no event."""

    async def respond(self) -> None:  # noqa: B027 - only links of servers respond
        """Write the response to the opening handshake, on a server.

        Called once, before all other methods except :meth:`aclose`. A cancelled call may have
        written half a response.

        Raises:
            LinkBroken: the stream broke.
        """

    @abstractmethod
    async def receive(self) -> list[Event]:
        """Wait for the next events. A cancelled call loses no events.

        Returns:
            At least one event, or an empty list once the stream has ended.

        Raises:
            LinkBroken: the stream broke.
        """

    async def feed(self, handle: Callable[[list[Event]], bool]) -> bool:
        """Pass events to ``handle`` as they arrive, until it returns False or the stream ends.

        ``handle`` may run in another task, but in the context (:mod:`contextvars`) of the caller.
        An exception that it raises is raised here.

        Returns:
            False if the stream has ended.

        Raises:
            LinkBroken: the stream broke.
        """
        while True:
            events = await self.receive()
            if not events:
                return False
            if not handle(events):
                return True

    @abstractmethod
    async def write(self, frames: Sequence[Frame]) -> None:
        """Pass all frames to the operating system, in order, in as few writes as possible.

        A cancelled call may have written half a frame, so nothing may be written after it.

        Raises:
            LinkBroken: the stream broke.
        """

    @property
    def defers(self) -> bool:
        """Whether :meth:`defer` may be called: several links are being read in this turn."""
        return False

    def defer(self, write: Callable[[], None]) -> None:
        """Call ``write`` after all links that are currently readable have been read.

        Consecutive writes cost less than writes between reads, because the peers do not go to
        sleep after each one. Call it only in the ``handle`` of :meth:`feed` and if :attr:`defers`.
        """
        raise NotImplementedError

    takes_fragments: bool = False
    """Whether ``write`` accepts :class:`Fragment`; if not, async iterables cannot be sent."""

    takes_prepared: bool = False
    """Whether ``write`` accepts :class:`PreparedMessage`; if not, it receives the plain message."""

    @property
    def writes_now(self) -> bool:
        """Whether :meth:`write_now` may be called."""
        return False

    def write_now(self, frames: Sequence[Frame]) -> bool:
        """Accept all frames and write as many bytes as possible without waiting.

        Returns:
            Whether everything was written. If not, or if the stream broke, the remaining bytes
            are written ahead of the next :meth:`write`, which must follow, with or without frames.
        """
        raise NotImplementedError

    def start_write(self, frame: Frame) -> tuple[int, bytes] | None:  # noqa: ARG002 - the interface
        """Encode a data frame, which the caller then writes to a descriptor itself.

        This lets the caller write to many links in a row; see :meth:`defer`.

        Returns:
            The descriptor and the bytes; None if :meth:`write_now` has to be called instead. The
            caller makes one attempt to write, without running other code in between, and passes
            the result to :meth:`finish_write`.
        """
        return None

    def finish_write(self, data: bytes, sent: int | OSError) -> bool:
        """Complete a write after :meth:`start_write`.

        Args:
            data: the bytes to write.
            sent: the number of bytes written, or the error if none could be written.

        Returns:
            As in :meth:`write_now`.
        """
        raise NotImplementedError

    @abstractmethod
    async def aclose(self) -> None:
        """Close the stream immediately, in any state. Never raises; may be called repeatedly."""


class Transport(ABC):
    """Opens links to servers."""

    capabilities: Capabilities = Capabilities()

    @abstractmethod
    async def connect(self, options: DialOptions, nursery: trio.Nursery) -> Link:
        """Make one attempt to connect and upgrade.

        Args:
            options: the URL and everything else that one attempt needs.
            nursery: for tasks that the link needs; they must end with it and never raise.

        Raises:
            ConnectError: one of its subclasses.
            InvalidURL: the URL cannot be used.
        """
