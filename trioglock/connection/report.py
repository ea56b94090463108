"""Statistics and the status report of one connection, similar to OTP's ``sys:get_status``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .._redact import printable, redact_line, redact_subprotocols, safe_repr
from ..disconnect import Disconnect
from ..headers import Headers
from ..telemetry import ConnectionId
from .closing import Status
from .session import Session

__all__ = ["Statistics", "StatusReport", "make_report"]


_LONGEST = 2000  # maximum characters of one long value


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """A snapshot of a connection's counters and queue sizes.

    Args:
        messages_sent: data frames passed to the operating system.
        messages_received: whole data messages read from the network.
        bytes_sent: bytes written to the wire, including frame headers.
        bytes_received: bytes read from the wire.
        receive_queue: messages delivered but not yet received.
        send_queue: data frames queued but not yet passed to the operating system.
        send_queue_bytes: the size of their payloads, including the batch being written.
        mailbox: jobs waiting for a hook.
        dropped: messages dropped by the ``overflow`` policy.
        invalid: messages that the codec could not decode.
        in_doubt: frames that were being written when a link broke, and may or may not have arrived.
        unsent: frames that were not sent; set when the connection has ended.
        reconnects: upgrades after the first one.
        latency: the round-trip time of the latest ping in seconds, or None before the first.
    """

    messages_sent: int
    messages_received: int
    bytes_sent: int
    bytes_received: int
    receive_queue: int
    send_queue: int
    send_queue_bytes: int
    mailbox: int
    dropped: int
    invalid: int
    in_doubt: int
    unsent: int
    reconnects: int
    latency: float | None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class StatusReport:
    """A human-readable description of a connection; ``str()`` formats it as several lines.

    Secrets in the URL and the headers are hidden. The ``format_status`` hook hides secrets in the
    state.

    Args:
        connection: the name, number, redacted URL and side of the connection.
        status: the status.
        socket: the name of the socket's class.
        state: the result of ``format_status``, by default the state itself. None before
            ``init_stream`` has returned.
        peer: the peer's address, such as ``"127.0.0.1:8765"``; "" if it has none, or before the
            first link.
        subprotocol: the negotiated subprotocol, redacted, or None.
        request_headers: the request headers of the latest opening handshake, redacted.
        response_headers: the response headers of the latest opening handshake, redacted.
        attempts: the number of attempts to connect, including failed ones.
        upgrades: the number of successful attempts.
        link_age: seconds since the current link was opened, or None if there is none.
        latest_end: why the latest link or attempt ended, or None if none has ended.
        in_hook: whether a hook is running.
        statistics: the counters.
        traced: whether the trace is on.
    """

    connection: ConnectionId
    status: Status
    socket: str
    state: Any
    peer: str
    subprotocol: str | None
    request_headers: Headers
    response_headers: Headers
    attempts: int
    upgrades: int
    link_age: float | None
    latest_end: Disconnect | None
    in_hook: bool
    statistics: Statistics
    traced: bool

    def __repr__(self) -> str:
        # Short: the repr of the state could contain secrets.
        return f"<StatusReport of {self.connection}: {self.status.value}>"

    def __str__(self) -> str:
        """One line for each property."""
        counters = self.statistics
        age = "none" if self.link_age is None else f"up for {self.link_age:.1f} seconds"
        latency = "unknown" if counters.latency is None else f"{counters.latency * 1000:.1f} ms"
        sent = (
            f"{counters.messages_sent} messages, {counters.bytes_sent} bytes; "
            f"queued: {counters.send_queue}, {counters.send_queue_bytes} bytes; "
            f"in doubt: {counters.in_doubt}, unsent: {counters.unsent}"
        )
        received = (
            f"{counters.messages_received} messages, {counters.bytes_received} bytes; "
            f"in the receive queue: {counters.receive_queue}, dropped: {counters.dropped}"
        )
        lines = [
            f"{self.connection} to {self.connection.url or 'an unknown URL'}: {self.status.value}",
            f"  socket: {self.socket}, {'in a hook' if self.in_hook else 'not in a hook'}",
            f"  state: {redact_line(safe_repr(self.state), _LONGEST)}",
            f"  link: {age}; attempts: {self.attempts}, successful: {self.upgrades}",
            f"  peer: {self.peer or 'unknown'}, subprotocol: {self.subprotocol or 'none'}",
            f"  request headers: {_listed(self.request_headers)}",
            f"  response headers: {_listed(self.response_headers)}",
            f"  latest end: {_end(self.latest_end)}",
            f"  sent: {sent}",
            f"  received: {received}",
            f"  jobs waiting for a hook: {counters.mailbox}, latency: {latency}",
            f"  trace: {'on' if self.traced else 'off'}",
        ]
        return "\n".join(map(_line, lines))


def make_report(session: Session[Any], statistics: Statistics) -> StatusReport:
    """Create the report of one connection.

    Args:
        session: the session of the connection.
        statistics: its counters.
    """
    handshake, actor = session.handshake, session.actor
    sent = received = Headers()
    subprotocol = None
    if handshake is not None:
        sent, received = handshake.request_headers, handshake.response_headers
        subprotocol = handshake.subprotocol and redact_subprotocols(handshake.subprotocol)
    return StatusReport(
        connection=session.emitter.connection,
        status=session.status,
        socket=actor.socket_name,
        state=actor.format_status(),
        peer="" if handshake is None else handshake.peer,
        subprotocol=subprotocol,
        request_headers=sent.redacted(),
        response_headers=received.redacted(),
        attempts=session.attempts,
        upgrades=session.upgrades,
        link_age=session.link_age,
        latest_end=session.latest_end,
        in_hook=actor.mailbox.active is not None,
        statistics=statistics,
        traced=session.emitter.traced,
    )


def _listed(headers: Headers) -> str:
    return "; ".join(f"{name}: {value}" for name, value in headers.pairs()) or "none"


def _end(reason: Disconnect | None) -> str:
    return "none yet" if reason is None else str(reason)


def _line(text: str) -> str:
    text = printable(text)
    return text if len(text) <= 2 * _LONGEST else f"{text[:_LONGEST]}... ({len(text)} characters)"
