"""Metrics: how many connections there are, how long they take and last, and what goes wrong.

Those of the HTTP conventions have their names, for the opening handshake is HTTP; what HTTP does
not know is in the namespace ``trioglock``.
"""

from __future__ import annotations

from collections.abc import Callable

from opentelemetry.metrics import Meter
from opentelemetry.semconv.attributes import error_attributes, http_attributes
from opentelemetry.semconv.metrics.http_metrics import HTTP_CLIENT_REQUEST_DURATION

from ...errors import HandshakeRefused
from ..events import (
    BackpressureEnded,
    ConnectAttemptFailed,
    Connected,
    ConnectionId,
    Event,
    FrameReceived,
    FrameSent,
    HeartbeatMissed,
    HookFailed,
    LinkClosed,
    MessageDropped,
    ReconnectScheduled,
    WireFrame,
)
from .attributes import Attributes, error_type, of_metric
from .spans import SWITCHING_PROTOCOLS

__all__ = ["Metrics"]

# Of the incubating conventions, whose module may change: the names are theirs.
HTTP_CLIENT_OPEN_CONNECTIONS = "http.client.open_connections"
HTTP_CLIENT_CONNECTION_DURATION = "http.client.connection.duration"
HTTP_SERVER_ACTIVE_REQUESTS = "http.server.active_requests"
HTTP_CONNECTION_STATE = "http.connection.state"


class Metrics:
    """Makes measurements of events.

    Args:
        meter: makes the instruments.
        frames: whether messages and bytes are counted, which costs a little for each.
    """

    def __init__(self, meter: Meter, *, frames: bool) -> None:
        self._handshakes = meter.create_histogram(
            HTTP_CLIENT_REQUEST_DURATION, "s", "Duration of opening handshakes."
        )
        self._open = meter.create_up_down_counter(
            HTTP_CLIENT_OPEN_CONNECTIONS, "{connection}", "Connections of clients that are open."
        )
        self._active = meter.create_up_down_counter(
            HTTP_SERVER_ACTIVE_REQUESTS, "{request}", "Connections of servers that are open."
        )
        self._lives = meter.create_histogram(
            HTTP_CLIENT_CONNECTION_DURATION, "s", "How long connections of clients were open."
        )
        self._server_lives = meter.create_histogram(
            "trioglock.server.connection.duration",
            "s",
            "How long connections of servers were open.",
        )
        self._retries = meter.create_counter(
            "trioglock.reconnects", "{attempt}", "Further attempts that were scheduled."
        )
        self._failures = meter.create_counter(
            "trioglock.hook.failures", "{failure}", "Hooks and background tasks that raised."
        )
        self._missed = meter.create_counter(
            "trioglock.heartbeat.missed", "{link}", "Links dropped because the peer was silent."
        )
        self._dropped = meter.create_counter(
            "trioglock.messages.dropped", "{message}", "Messages given up by the overflow policy."
        )
        self._waits = meter.create_histogram(
            "trioglock.backpressure.duration", "s", "How long a reader or a send had to wait."
        )
        self._messages = meter.create_counter(
            "trioglock.messages", "{message}", "Messages and control frames."
        )
        self._bytes = meter.create_counter("trioglock.io", "By", "Their payloads.")
        self._open_now: dict[int, ConnectionId] = {}
        self._react: dict[type[Event], Callable[..., None]] = {
            Connected: self._connected,
            ConnectAttemptFailed: self._connect_failed,
            LinkClosed: self._disconnected,
            ReconnectScheduled: self._reconnect_scheduled,
            HookFailed: self._hook_failed,
            HeartbeatMissed: self._heartbeat_missed,
            MessageDropped: self._message_dropped,
            BackpressureEnded: self._backpressure_ended,
        }
        if frames:
            self._react |= {FrameSent: self._frame_sent, FrameReceived: self._frame_received}

    @property
    def kinds(self) -> tuple[type[Event], ...]:
        """The events to be told."""
        return tuple(self._react)

    def __call__(self, event: Event) -> None:
        """Count one event."""
        self._react[type(event)](event)

    def forget_all(self) -> None:
        """Count nothing as open any more: nobody will tell when it ends."""
        for number in tuple(self._open_now):
            connection = self._open_now.pop(number, None)
            if connection is not None:  # another thread may have been told of its end
                self._count_open(connection, -1)

    def _connected(self, event: Connected) -> None:
        attributes = of_metric(event.connection)
        if event.connection.side == "client":
            attributes[http_attributes.HTTP_REQUEST_METHOD] = "GET"
            status: Attributes = {http_attributes.HTTP_RESPONSE_STATUS_CODE: SWITCHING_PROTOCOLS}
            self._handshakes.record(event.seconds, attributes | status)
        self._open_now[event.connection.id] = event.connection
        self._count_open(event.connection, 1)

    def _connect_failed(self, event: ConnectAttemptFailed) -> None:
        attributes = of_metric(event.connection)
        attributes[http_attributes.HTTP_REQUEST_METHOD] = "GET"
        attributes[error_attributes.ERROR_TYPE] = error_type(event.error)
        if isinstance(event.error, HandshakeRefused):
            attributes[http_attributes.HTTP_RESPONSE_STATUS_CODE] = event.error.status
        self._handshakes.record(event.seconds, attributes)

    def _disconnected(self, event: LinkClosed) -> None:
        if self._open_now.pop(event.connection.id, None) is None:
            return  # it was up before anybody listened
        self._count_open(event.connection, -1)
        lives = self._lives if event.connection.side == "client" else self._server_lives
        lives.record(event.lasted, of_metric(event.connection))

    def _count_open(self, connection: ConnectionId, change: int) -> None:
        attributes = of_metric(connection)
        if connection.side == "client":
            attributes[HTTP_CONNECTION_STATE] = "active"
            self._open.add(change, attributes)
        else:
            attributes[http_attributes.HTTP_REQUEST_METHOD] = "GET"
            self._active.add(change, attributes)

    def _reconnect_scheduled(self, event: ReconnectScheduled) -> None:
        self._retries.add(1, of_metric(event.connection))

    def _hook_failed(self, event: HookFailed) -> None:
        attributes = of_metric(event.connection)
        attributes["trioglock.hook"] = event.hook
        attributes[error_attributes.ERROR_TYPE] = error_type(event.error)
        self._failures.add(1, attributes)

    def _heartbeat_missed(self, event: HeartbeatMissed) -> None:
        self._missed.add(1, of_metric(event.connection))

    def _message_dropped(self, event: MessageDropped) -> None:
        self._dropped.add(1, of_metric(event.connection))

    def _backpressure_ended(self, event: BackpressureEnded) -> None:
        attributes = of_metric(event.connection)
        attributes["trioglock.backpressure.waiting"] = event.waiting
        self._waits.record(event.seconds, attributes)

    def _frame_sent(self, event: FrameSent) -> None:
        self._count_frame(event, event.frame, "sent")

    def _frame_received(self, event: FrameReceived) -> None:
        self._count_frame(event, event.frame, "received")

    def _count_frame(self, event: Event, frame: WireFrame, direction: str) -> None:
        attributes = of_metric(event.connection) | {"trioglock.direction": direction}
        self._messages.add(1, attributes)
        self._bytes.add(_size(frame), attributes)


def _size(frame: WireFrame) -> int:
    if isinstance(frame, str):
        return len(frame) if frame.isascii() else len(frame.encode())
    return len(frame if isinstance(frame, bytes) else frame.to_payload())
