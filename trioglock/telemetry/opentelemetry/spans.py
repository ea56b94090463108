"""Spans: one for each attempt of the opening handshake, one for each link.

The handshake is an HTTP request, and its span that of an HTTP client. A link's span lasts from the
upgrade to its end; what happens meanwhile are its events. Both are children of the span that is
current where the connection was opened.
"""

from __future__ import annotations

from collections.abc import Callable

from opentelemetry.semconv.attributes import error_attributes, http_attributes
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer

from ...disconnect import Disconnect, LocalClose, RemoteClose
from ...errors import HandshakeRefused
from ..events import (
    BackpressureEnded,
    ConnectAttemptFailed,
    Connected,
    ConnectStarted,
    Event,
    HeartbeatMissed,
    HookFailed,
    LinkClosed,
    MessageDropped,
    Terminated,
)
from .attributes import Attributes, error_type, of_exception, of_handshake, of_peer

__all__ = ["Spans"]

SWITCHING_PROTOCOLS = 101


class Spans:
    """Makes spans of events.

    Args:
        tracer: starts them.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._attempts: dict[int, Span] = {}
        self._links: dict[int, Span] = {}
        self._react: dict[type[Event], Callable[..., None]] = {
            ConnectStarted: self._connect_started,
            ConnectAttemptFailed: self._connect_failed,
            Connected: self._connected,
            HookFailed: self._hook_failed,
            HeartbeatMissed: self._heartbeat_missed,
            MessageDropped: self._message_dropped,
            BackpressureEnded: self._backpressure_ended,
            LinkClosed: self._disconnected,
            Terminated: self._terminated,
        }

    @property
    def kinds(self) -> tuple[type[Event], ...]:
        """The events to be told."""
        return tuple(self._react)

    def __call__(self, event: Event) -> None:
        """Begin, mark or end a span."""
        self._react[type(event)](event)

    def end_all(self) -> None:
        """End what is under way: nothing more will be told."""
        for spans in (self._attempts, self._links):
            for number in tuple(spans):
                span = spans.pop(number, None)
                if span is not None:  # another thread may have been told of its end
                    span.end()

    def _connect_started(self, event: ConnectStarted) -> None:
        attributes = of_handshake(event.connection)
        attributes[http_attributes.HTTP_REQUEST_RESEND_COUNT] = event.attempt - 1
        self._attempts[event.connection.id] = self._tracer.start_span(
            "GET", kind=SpanKind.CLIENT, attributes=attributes
        )

    def _connect_failed(self, event: ConnectAttemptFailed) -> None:
        span = self._attempts.pop(event.connection.id, None)
        if span is None:
            return
        if isinstance(event.error, HandshakeRefused):
            span.set_attribute(http_attributes.HTTP_RESPONSE_STATUS_CODE, event.error.status)
        span.add_event("exception", of_exception(event.error))
        _fail(span, error_type(event.error))
        span.end()

    def _connected(self, event: Connected) -> None:
        attempt = self._attempts.pop(event.connection.id, None)
        if attempt is not None:
            attempt.set_attribute(http_attributes.HTTP_RESPONSE_STATUS_CODE, SWITCHING_PROTOCOLS)
            attempt.end()
        is_client = event.connection.side == "client"
        attributes = of_peer(event.connection, event.peer)
        attributes["trioglock.connection.upgrade"] = event.upgrade
        if event.subprotocol is not None:
            attributes["trioglock.connection.subprotocol"] = event.subprotocol
        self._links[event.connection.id] = self._tracer.start_span(
            "websocket",
            kind=SpanKind.CLIENT if is_client else SpanKind.SERVER,
            attributes=attributes,
        )

    def _hook_failed(self, event: HookFailed) -> None:
        attributes = of_exception(event.error)
        attributes["trioglock.hook"] = event.hook
        self._note(event, "exception", attributes)

    def _heartbeat_missed(self, event: HeartbeatMissed) -> None:
        self._note(event, "trioglock.heartbeat.missed")

    def _message_dropped(self, event: MessageDropped) -> None:
        self._note(event, "trioglock.message.dropped")

    def _backpressure_ended(self, event: BackpressureEnded) -> None:
        milliseconds = round(event.seconds * 1000)
        attributes: Attributes = {
            "trioglock.backpressure.waiting": event.waiting,
            "trioglock.backpressure.milliseconds": milliseconds,
        }
        self._note(event, "trioglock.backpressure", attributes)

    def _note(self, event: Event, name: str, attributes: Attributes | None = None) -> None:
        span = self._links.get(event.connection.id)
        if span is not None:
            span.add_event(name, attributes)

    def _disconnected(self, event: LinkClosed) -> None:
        span = self._links.pop(event.connection.id, None)
        if span is None:
            return
        if isinstance(event.reason, RemoteClose | LocalClose):
            span.set_attribute("trioglock.close.code", event.reason.code)
        if not _is_ok(event.reason):
            _fail(span, type(event.reason).__name__)
        span.end()

    def _terminated(self, event: Terminated) -> None:
        # An attempt that was cancelled has neither failed nor come to something.
        span = self._attempts.pop(event.connection.id, None)
        if span is not None:
            _fail(span, "cancelled")
            span.end()


def _is_ok(reason: Disconnect) -> bool:
    return isinstance(reason, RemoteClose | LocalClose) and reason.code in (1000, 1001)


def _fail(span: Span, kind: str) -> None:
    span.set_attribute(error_attributes.ERROR_TYPE, kind)
    span.set_status(Status(StatusCode.ERROR))
