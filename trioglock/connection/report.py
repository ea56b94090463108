"""The status report: one connection at a glance, for a person, as OTP's ``sys:get_status``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .._redact import printable, redact_line, redact_subprotocols, shown
from ..disconnect import Disconnect
from ..headers import Headers
from ..telemetry import ConnectionId
from .closing import Status
from .session import Session
from .statistics import Statistics

__all__ = ["StatusReport", "report_on"]


_LONGEST = 2000  # characters of what may be long, so that a log can hold it


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class StatusReport:
    """What a connection is and does; ``str()`` makes a text of some lines from it.

    Secrets are hidden: of the address and the headers as in every log, of the state as the hook
    ``format_status`` does it.

    Args:
        connection: its name, number, address without secrets, and side.
        status: where it stands.
        socket: the class of the hooks.
        state: what ``format_status`` made of the state; by default the state itself. None before
            ``init_stream`` has returned.
        peer: the other end, such as ``"127.0.0.1:8765"``; "" if it has no address, or there was
            no link yet.
        subprotocol: the negotiated one, or None; a token is hidden.
        request_headers: of the latest opening handshake, secret values replaced.
        response_headers: the same of the answer.
        attempts: to connect, failed ones included.
        upgrades: links that came about.
        link_age: seconds that the present link has been up; None if there is none.
        latest_end: why the latest link, or attempt, ended; None if none has yet.
        in_hook: whether a hook is running, or waits inside itself.
        statistics: the figures.
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
        # Not all of it: the state's own repr would be in it, as it is.
        return f"<StatusReport of {self.connection}: {self.status.value}>"

    def __str__(self) -> str:
        """A line for each fact, each of a length that a log can hold."""
        figures = self.statistics
        age = "none" if self.link_age is None else f"up for {self.link_age:.1f} seconds"
        latency = "unknown" if figures.latency is None else f"{figures.latency * 1000:.1f} ms"
        sent = (
            f"{figures.messages_sent} messages, {figures.bytes_sent} bytes; "
            f"queued: {figures.send_queue}, {figures.send_queue_bytes} bytes; "
            f"in doubt: {figures.in_doubt}, unsent: {figures.unsent}"
        )
        received = (
            f"{figures.messages_received} messages, {figures.bytes_received} bytes; "
            f"in the receive queue: {figures.receive_queue}, dropped: {figures.dropped}"
        )
        lines = [
            f"{self.connection} to {self.connection.url or 'nowhere yet'}: {self.status.value}",
            f"  socket: {self.socket}, {'inside a hook' if self.in_hook else 'no hook runs'}",
            f"  state: {redact_line(shown(self.state), _LONGEST)}",
            f"  link: {age}; attempts: {self.attempts}, successful: {self.upgrades}",
            f"  peer: {self.peer or 'unknown'}, subprotocol: {self.subprotocol or 'none'}",
            f"  request headers: {_listed(self.request_headers)}",
            f"  response headers: {_listed(self.response_headers)}",
            f"  latest end: {_end(self.latest_end)}",
            f"  sent: {sent}",
            f"  received: {received}",
            f"  jobs that wait for a hook: {figures.mailbox}, latency: {latency}",
            f"  trace: {'on' if self.traced else 'off'}",
        ]
        return "\n".join(map(_line, lines))


def report_on(session: Session[Any], statistics: Statistics) -> StatusReport:
    """The report of one connection.

    Args:
        session: its inside.
        statistics: its figures.
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
