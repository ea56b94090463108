"""Spans and metrics of all connections for OpenTelemetry; requires the ``opentelemetry`` extra.

Names follow the semantic conventions (https://opentelemetry.io/docs/specs/semconv/) where these
exist: the opening handshake is an HTTP request. Other names start with ``trioglock``.
The names of metrics and of our own attributes are constants below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self, TypeAlias
from urllib.parse import urlsplit

try:
    from opentelemetry import metrics, trace
    from opentelemetry.semconv.attributes import (
        client_attributes,
        error_attributes,
        exception_attributes,
        http_attributes,
        network_attributes,
        server_attributes,
        url_attributes,
    )
    from opentelemetry.semconv.metrics.http_metrics import HTTP_CLIENT_REQUEST_DURATION
except ModuleNotFoundError:
    raise ImportError(
        "trioglock.telemetry.opentelemetry needs: pip install 'trioglock[opentelemetry]'"
    ) from None

from .._redact import redact_line, safe_str
from .._version import __version__
from ..close_codes import NORMAL
from ..disconnect import Disconnect, LocalClose, RemoteClose
from ..errors import HandshakeRefused
from ..frames import Fragment
from .events import (
    BackpressureEnded,
    ConnectAttemptFailed,
    Connected,
    ConnectionId,
    ConnectStarted,
    Event,
    FrameReceived,
    FrameSent,
    HeartbeatMissed,
    HookFailed,
    LinkClosed,
    MessageDropped,
    ReconnectScheduled,
    StallDetected,
    Terminated,
    WireFrame,
)
from .hubs import open_hubs
from .listeners import listen

__all__ = ["Instrumentation", "instrument"]

# Metrics.
HANDSHAKE_DURATION = HTTP_CLIENT_REQUEST_DURATION
# The next three are from incubating conventions, whose Python module is not stable.
CLIENT_OPEN = "http.client.open_connections"
CLIENT_DURATION = "http.client.connection.duration"
SERVER_OPEN = "http.server.active_requests"
SERVER_DURATION = "trioglock.server.connection.duration"
RECONNECTS = "trioglock.reconnects"
HOOK_FAILURES = "trioglock.hook.failures"
HEARTBEAT_MISSED = "trioglock.heartbeat.missed"  # also an event of spans
STALLED = "trioglock.stalls"  # also an event of spans
MESSAGES_DROPPED = "trioglock.messages.dropped"
BACKPRESSURE_DURATION = "trioglock.backpressure.duration"
MESSAGES = "trioglock.messages"
IO = "trioglock.io"
HUB_SUBSCRIBERS = "trioglock.hub.subscribers"
HUB_CHANNELS = "trioglock.hub.channels"
HUB_RECEIVED = "trioglock.hub.messages.received"
HUB_DELIVERED = "trioglock.hub.messages.delivered"
HUB_DROPPED = "trioglock.hub.messages.dropped"
HUB_DISCONNECTED = "trioglock.hub.clients.disconnected"
HUB_GAPS = "trioglock.hub.gaps"
HUB_FAILURES = "trioglock.hub.listener.failures"
HUB_QUEUE_SIZE = "trioglock.hub.queue.size"
HUB_BROKER_UP = "trioglock.hub.broker.up"

# Spans and their events.
HANDSHAKE_SPAN = "GET"
LINK_SPAN = "websocket"
MESSAGE_DROPPED = "trioglock.message.dropped"
BACKPRESSURE = "trioglock.backpressure"

# Attributes.
CONNECTION_STATE = "http.connection.state"
UPGRADE = "trioglock.connection.upgrade"
SUBPROTOCOL = "trioglock.connection.subprotocol"
CLOSE_CODE = "trioglock.close.code"
HOOK = "trioglock.hook"
WAITING = "trioglock.backpressure.waiting"
MILLISECONDS = "trioglock.backpressure.milliseconds"
DIRECTION = "trioglock.direction"
HUB_NAME = "trioglock.hub.name"

Attributes: TypeAlias = dict[str, str | int]

_SWITCHING_PROTOCOLS = 101
_PORTS = {"ws": 80, "wss": 443}


def instrument(
    *,
    tracer_provider: trace.TracerProvider | None = None,
    meter_provider: metrics.MeterProvider | None = None,
    frames: bool = False,
) -> Instrumentation:
    """Record spans and metrics of all connections of this process, and metrics of its hubs.

    Call it once at the start of a program, or use it as a context manager. URLs are recorded
    without user information or query values.

    Args:
        tracer_provider: the provider for spans; by default the global one.
        meter_provider: the provider for metrics; by default the global one.
        frames: also count messages and bytes, which costs a few microseconds per message.

    Returns:
        An object whose ``stop()`` ends the recording.
    """
    tracer = trace.get_tracer("trioglock", __version__, tracer_provider)
    meter = metrics.get_meter("trioglock", __version__, meter_provider)
    return Instrumentation(_Spans(tracer), _Metrics(meter, frames=frames), _HubMetrics(meter))


class Instrumentation:
    """A running recording of spans and metrics. A context manager, which stops it at the end."""

    def __init__(self, spans: _Spans, metrics: _Metrics, hub_metrics: _HubMetrics) -> None:
        self._spans = spans
        self._metrics = metrics
        self._hub_metrics = hub_metrics
        self._listeners = [
            listen(spans.record, *spans.handlers),
            listen(metrics.record, *metrics.handlers),
        ]

    def stop(self) -> None:
        """Stop the recording, end all open spans, and count all connections as closed."""
        for listener in self._listeners:
            listener.stop()
        self._spans.end_all()
        self._metrics.close_all()
        self._hub_metrics.is_active = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


class _Spans:
    """Creates a span for each attempt to connect and for each link.

    The span of an attempt is an HTTP client span. The span of a link lasts from its handshake to
    its end and contains the other events. The parent of both is the span that was current where the
    connection was opened.
    """

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer
        self._attempts: dict[int, trace.Span] = {}
        self._links: dict[int, trace.Span] = {}
        self.handlers: dict[type[Event], Callable[[Any], None]] = {
            ConnectStarted: self._connect_started,
            ConnectAttemptFailed: self._connect_failed,
            Connected: self._connected,
            HookFailed: self._hook_failed,
            HeartbeatMissed: self._heartbeat_missed,
            StallDetected: self._stall_detected,
            MessageDropped: self._message_dropped,
            BackpressureEnded: self._backpressure_ended,
            LinkClosed: self._link_closed,
            Terminated: self._terminated,
        }

    def record(self, event: Event) -> None:
        self.handlers[type(event)](event)

    def end_all(self) -> None:
        for spans in (self._attempts, self._links):
            for number in tuple(spans):
                span = spans.pop(number, None)
                if span is not None:  # another thread may have ended it
                    span.end()

    def _connect_started(self, event: ConnectStarted) -> None:
        attributes = _address_attributes(event.connection)
        attributes[http_attributes.HTTP_REQUEST_METHOD] = "GET"
        if event.connection.url:
            attributes[url_attributes.URL_FULL] = event.connection.url
        attributes[http_attributes.HTTP_REQUEST_RESEND_COUNT] = event.attempt - 1
        self._attempts[event.connection.id] = self._tracer.start_span(
            HANDSHAKE_SPAN, kind=trace.SpanKind.CLIENT, attributes=attributes
        )

    def _connect_failed(self, event: ConnectAttemptFailed) -> None:
        span = self._attempts.pop(event.connection.id, None)
        if span is None:
            return
        if isinstance(event.error, HandshakeRefused):
            span.set_attribute(http_attributes.HTTP_RESPONSE_STATUS_CODE, event.error.status)
        span.add_event("exception", _exception_attributes(event.error))
        _set_failed(span, _error_type(event.error))
        span.end()

    def _connected(self, event: Connected) -> None:
        attempt = self._attempts.pop(event.connection.id, None)
        if attempt is not None:
            attempt.set_attribute(http_attributes.HTTP_RESPONSE_STATUS_CODE, _SWITCHING_PROTOCOLS)
            attempt.end()
        is_client = event.connection.side == "client"
        attributes = _peer_attributes(event.connection, event.peer)
        attributes[UPGRADE] = event.upgrade
        if event.subprotocol is not None:
            attributes[SUBPROTOCOL] = event.subprotocol
        self._links[event.connection.id] = self._tracer.start_span(
            LINK_SPAN,
            kind=trace.SpanKind.CLIENT if is_client else trace.SpanKind.SERVER,
            attributes=attributes,
        )

    def _hook_failed(self, event: HookFailed) -> None:
        self._add_event(event, "exception", _exception_attributes(event.error) | {HOOK: event.hook})

    def _heartbeat_missed(self, event: HeartbeatMissed) -> None:
        self._add_event(event, HEARTBEAT_MISSED)

    def _stall_detected(self, event: StallDetected) -> None:
        self._add_event(event, STALLED)

    def _message_dropped(self, event: MessageDropped) -> None:
        self._add_event(event, MESSAGE_DROPPED)

    def _backpressure_ended(self, event: BackpressureEnded) -> None:
        attributes: Attributes = {
            WAITING: event.waiting,
            MILLISECONDS: round(event.seconds * 1000),
        }
        self._add_event(event, BACKPRESSURE, attributes)

    def _add_event(self, event: Event, name: str, attributes: Attributes | None = None) -> None:
        span = self._links.get(event.connection.id)
        if span is not None:
            span.add_event(name, attributes)

    def _link_closed(self, event: LinkClosed) -> None:
        span = self._links.pop(event.connection.id, None)
        if span is None:
            return
        if isinstance(event.reason, RemoteClose | LocalClose):
            span.set_attribute(CLOSE_CODE, event.reason.code)
        if not _is_ok(event.reason):
            _set_failed(span, type(event.reason).__name__)
        span.end()

    def _terminated(self, event: Terminated) -> None:
        # An attempt that was cancelled.
        span = self._attempts.pop(event.connection.id, None)
        if span is not None:
            _set_failed(span, "cancelled")
            span.end()


class _Metrics:
    """Records measurements.

    Args:
        meter: creates the instruments.
        frames: whether to count messages and bytes.
    """

    def __init__(self, meter: metrics.Meter, *, frames: bool) -> None:
        histogram, counter = meter.create_histogram, meter.create_counter
        gauge = meter.create_up_down_counter
        self._handshakes = histogram(HANDSHAKE_DURATION, "s", "Duration of opening handshakes.")
        self._client_open = gauge(CLIENT_OPEN, "{connection}", "Open client connections.")
        self._server_open = gauge(SERVER_OPEN, "{request}", "Open server connections.")
        self._client_durations = histogram(CLIENT_DURATION, "s", "Lifetime of client connections.")
        self._server_durations = histogram(SERVER_DURATION, "s", "Lifetime of server connections.")
        self._reconnects = counter(RECONNECTS, "{attempt}", "Attempts to reconnect.")
        self._failures = counter(
            HOOK_FAILURES, "{failure}", "Exceptions raised by hooks and background tasks."
        )
        self._missed = counter(
            HEARTBEAT_MISSED, "{link}", "Links dropped because the peer did not respond."
        )
        self._stalls = counter(STALLED, "{link}", "Links dropped because no data arrived.")
        self._dropped = counter(
            MESSAGES_DROPPED, "{message}", "Messages dropped by the overflow policy."
        )
        self._waits = histogram(
            BACKPRESSURE_DURATION, "s", "Time that readers and senders waited for space."
        )
        self._messages = counter(MESSAGES, "{message}", "Messages and control frames.")
        self._bytes = counter(IO, "By", "Payload bytes.")
        self._open: dict[int, ConnectionId] = {}
        self.handlers: dict[type[Event], Callable[[Any], None]] = {
            Connected: self._connected,
            ConnectAttemptFailed: self._connect_failed,
            LinkClosed: self._link_closed,
            ReconnectScheduled: self._reconnect_scheduled,
            HookFailed: self._hook_failed,
            HeartbeatMissed: self._heartbeat_missed,
            StallDetected: self._stall_detected,
            MessageDropped: self._message_dropped,
            BackpressureEnded: self._backpressure_ended,
        }
        if frames:
            self.handlers |= {FrameSent: self._frame_sent, FrameReceived: self._frame_received}

    def record(self, event: Event) -> None:
        self.handlers[type(event)](event)

    def close_all(self) -> None:
        for number in tuple(self._open):
            connection = self._open.pop(number, None)
            if connection is not None:  # another thread may have closed it
                self._count_open(connection, -1)

    def _connected(self, event: Connected) -> None:
        attributes = _metric_attributes(event.connection)
        if event.connection.side == "client":
            attributes[http_attributes.HTTP_REQUEST_METHOD] = "GET"
            attributes[http_attributes.HTTP_RESPONSE_STATUS_CODE] = _SWITCHING_PROTOCOLS
            self._handshakes.record(event.seconds, attributes)
        self._open[event.connection.id] = event.connection
        self._count_open(event.connection, 1)

    def _connect_failed(self, event: ConnectAttemptFailed) -> None:
        attributes = _metric_attributes(event.connection)
        attributes[http_attributes.HTTP_REQUEST_METHOD] = "GET"
        attributes[error_attributes.ERROR_TYPE] = _error_type(event.error)
        if isinstance(event.error, HandshakeRefused):
            attributes[http_attributes.HTTP_RESPONSE_STATUS_CODE] = event.error.status
        self._handshakes.record(event.seconds, attributes)

    def _link_closed(self, event: LinkClosed) -> None:
        if self._open.pop(event.connection.id, None) is None:
            return  # opened before the recording started
        self._count_open(event.connection, -1)
        is_client = event.connection.side == "client"
        durations = self._client_durations if is_client else self._server_durations
        durations.record(event.lasted, _metric_attributes(event.connection))

    def _count_open(self, connection: ConnectionId, change: int) -> None:
        attributes = _metric_attributes(connection)
        if connection.side == "client":
            attributes[CONNECTION_STATE] = "active"
            self._client_open.add(change, attributes)
        else:
            attributes[http_attributes.HTTP_REQUEST_METHOD] = "GET"
            self._server_open.add(change, attributes)

    def _reconnect_scheduled(self, event: ReconnectScheduled) -> None:
        self._reconnects.add(1, _metric_attributes(event.connection))

    def _hook_failed(self, event: HookFailed) -> None:
        attributes = _metric_attributes(event.connection)
        attributes[HOOK] = event.hook
        attributes[error_attributes.ERROR_TYPE] = _error_type(event.error)
        self._failures.add(1, attributes)

    def _heartbeat_missed(self, event: HeartbeatMissed) -> None:
        self._missed.add(1, _metric_attributes(event.connection))

    def _stall_detected(self, event: StallDetected) -> None:
        self._stalls.add(1, _metric_attributes(event.connection))

    def _message_dropped(self, event: MessageDropped) -> None:
        self._dropped.add(1, _metric_attributes(event.connection))

    def _backpressure_ended(self, event: BackpressureEnded) -> None:
        attributes = _metric_attributes(event.connection) | {WAITING: event.waiting}
        self._waits.record(event.seconds, attributes)

    def _frame_sent(self, event: FrameSent) -> None:
        self._count_frame(event, event.frame, "sent")

    def _frame_received(self, event: FrameReceived) -> None:
        self._count_frame(event, event.frame, "received")

    def _count_frame(self, event: Event, frame: WireFrame, direction: str) -> None:
        attributes = _metric_attributes(event.connection) | {DIRECTION: direction}
        if not isinstance(frame, Fragment) or frame.final:
            self._messages.add(1, attributes)
        self._bytes.add(_size(frame), attributes)


class _HubMetrics:
    """Reads the statistics of open hubs whenever metrics are collected, in any thread.

    Hubs with the same name have the same attributes, so they are combined.

    Args:
        meter: creates the instruments.
    """

    def __init__(self, meter: metrics.Meter) -> None:
        self.is_active: bool = True  # instruments cannot be removed
        counter = meter.create_observable_counter
        gauge = meter.create_observable_up_down_counter
        for create, name, field, unit, text in (
            (gauge, HUB_SUBSCRIBERS, "subscribers", "{subscriber}", "Subscribers of the hub."),
            (gauge, HUB_CHANNELS, "channels", "{channel}", "Channels with a subscriber."),
            (counter, HUB_RECEIVED, "received", "{message}", "Messages from the broker."),
            (counter, HUB_DELIVERED, "delivered", "{message}", "Messages to each subscriber."),
            (counter, HUB_DROPPED, "dropped", "{message}", "Messages dropped from full queues."),
            (counter, HUB_DISCONNECTED, "disconnected", "{client}", "Clients that were too slow."),
            (counter, HUB_GAPS, "gaps", "{gap}", "Gaps after interruptions of the broker."),
            (counter, HUB_FAILURES, "failures", "{failure}", "Exceptions raised by listeners."),
            (gauge, HUB_QUEUE_SIZE, "queued_bytes", "By", "Size of queued messages."),
        ):
            create(name, [self._observe(field, sum)], unit, text)
        meter.create_observable_gauge(
            HUB_BROKER_UP,
            [self._observe("broker_up", min)],
            "1",
            "1 if the broker can be reached, otherwise 0.",
        )

    def _observe(
        self, field: str, combine: Callable[[Iterable[int]], int]
    ) -> Callable[[metrics.CallbackOptions], list[metrics.Observation]]:
        def observe(_: metrics.CallbackOptions) -> list[metrics.Observation]:
            values: dict[str, list[int]] = {}
            for hub in list(open_hubs) if self.is_active else ():
                values.setdefault(hub.name, []).append(int(getattr(hub.statistics(), field)))
            return [
                metrics.Observation(combine(found), {HUB_NAME: name})
                for name, found in values.items()
            ]

        return observe


def _size(frame: WireFrame) -> int:
    if isinstance(frame, str):
        return len(frame) if frame.isascii() else len(frame.encode())
    return len(frame if isinstance(frame, bytes) else frame.to_payload())


def _is_ok(reason: Disconnect) -> bool:
    return isinstance(reason, RemoteClose | LocalClose) and reason.code in NORMAL


def _set_failed(span: trace.Span, kind: str) -> None:
    span.set_attribute(error_attributes.ERROR_TYPE, kind)
    span.set_status(trace.Status(trace.StatusCode.ERROR))


def _error_type(error: BaseException) -> str:
    return str(error.status) if isinstance(error, HandshakeRefused) else type(error).__qualname__


def _exception_attributes(error: BaseException) -> Attributes:
    """Attributes without the stack trace, which may contain secrets."""
    return {
        exception_attributes.EXCEPTION_TYPE: type(error).__qualname__,
        exception_attributes.EXCEPTION_MESSAGE: redact_line(safe_str(error)),
        error_attributes.ERROR_TYPE: _error_type(error),
    }


def _address_attributes(connection: ConnectionId) -> Attributes:
    """The host, port and scheme of the URL, if they are known."""
    attributes: Attributes = {}
    try:
        parts = urlsplit(connection.url)
        hostname, port = parts.hostname, parts.port
    except ValueError:
        return attributes  # an invalid Host header from a client
    if hostname:
        attributes[server_attributes.SERVER_ADDRESS] = hostname
        attributes[server_attributes.SERVER_PORT] = port or _PORTS.get(parts.scheme, 0)
    if parts.scheme:
        attributes[url_attributes.URL_SCHEME] = parts.scheme
    return attributes


def _metric_attributes(connection: ConnectionId) -> Attributes:
    """Attributes with few values, because each combination of values is a time series.

    On a server the host is omitted, because clients choose the Host header.
    """
    attributes = _address_attributes(connection)
    if connection.side == "server":
        attributes.pop(server_attributes.SERVER_ADDRESS, None)
        attributes.pop(server_attributes.SERVER_PORT, None)
    return attributes


def _peer_attributes(connection: ConnectionId, peer: str) -> Attributes:
    """The protocol and the address of the peer."""
    attributes = _address_attributes(connection)
    attributes[network_attributes.NETWORK_PROTOCOL_NAME] = "websocket"
    host, _, port = peer.rpartition(":")
    if host and port.isdecimal():
        host = host.strip("[]")
        attributes[network_attributes.NETWORK_PEER_ADDRESS] = host
        attributes[network_attributes.NETWORK_PEER_PORT] = int(port)
        if connection.side == "server":
            attributes[client_attributes.CLIENT_ADDRESS] = host
            attributes[client_attributes.CLIENT_PORT] = int(port)
    return attributes
