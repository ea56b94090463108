"""``HubSocket``: the hooks that subscribe a WebSocket client to a hub."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote

import trio

from .._redact import label, redact_line
from ..connection import Connection
from ..connection.fanout import Fanout
from ..disconnect import Disconnect
from ..errors import (
    BrokerError,
    BrokerUnavailable,
    ConnectionClosed,
    InvalidOption,
    UsageError,
)
from ..frames import Close, Data, PreparedMessage
from ..hooks import ConnectionInfo, MaybeAwaitable, Reply, Socket
from ..http import Request, Response
from ..server import HandshakeTarget
from ..server.limits import RETRY_AFTER
from .history import EVERYTHING, MessageHistory, format_id, parse_id
from .message import INCOMING, TOPIC_PREFIX, Event, Gap, Message, check_channel
from .patterns import ChannelFilter
from .queue import make_queue
from .queued_subscriber import QueuedSubscriber
from .reservation import Reservation

if TYPE_CHECKING:
    from .hub import Hub

__all__ = ["ClientSubscriber", "EventEncoders", "HubSocket", "HubTarget"]

_logger = logging.getLogger("trioglock.pubsub")

TRY_AGAIN_LATER = 1013
"""Registered with IANA for RFC 6455, section 7.4.2."""

EVENTS_PER_TURN = 16
"""While a client is sent many missed events, other tasks run after this many events."""


class EventFrames:
    """Encodes an event once for all clients that receive it in succession."""

    __slots__ = ("_encode", "_event", "_frame")

    def __init__(self, encode: Callable[[Event], Data]) -> None:
        self._encode = encode
        self._event: Event | None = None
        self._frame = PreparedMessage(b"")

    def __call__(self, event: Event) -> PreparedMessage:
        if event is not self._event:
            self._frame = PreparedMessage(self._encode(event))
            self._event = event
        return self._frame


class EventEncoders:
    """The frames of the current event, shared by all clients of a hub."""

    def __init__(self) -> None:
        self.raw: EventFrames = EventFrames(_encode_raw)
        self.json: EventFrames = EventFrames(_encode_json)


def _encode_raw(event: Event) -> Data:
    assert isinstance(event, Message), "a gap has no raw form"
    return event.data


def _encode_json(event: Event) -> str:
    if isinstance(event, Gap):
        return json.dumps({"gap": event.seconds, "id": event.id})
    content: dict[str, str | None] = {"id": event.id, "channel": event.channel}
    if isinstance(event.data, str):
        content["data"] = event.data
    else:
        content["base64"] = base64.b64encode(event.data).decode()
    return json.dumps(content, ensure_ascii=False)


class ClientSubscriber(QueuedSubscriber):
    """A WebSocket client that subscribes to one channel.

    An event is sent directly. If the connection cannot accept more, events wait in the queue until
    a task has sent them. With ``as_json`` the client receives gaps, and messages as JSON with their
    ids.
    """

    def __init__(
        self, hub: Hub, connection: Connection[Any, Any], channel: str, *, as_json: bool
    ) -> None:
        history = _history_of(hub)
        super().__init__(
            ChannelFilter(channel, literal=True),
            make_queue(hub.max_queue, hub.overflow, max_bytes=hub.max_queue_bytes, gaps=as_json),
            hub.counters,
            history,
        )
        self.channel: str = channel
        self.as_json: bool = as_json
        self.start: str | None = None if history is None else history.last_of(channel)
        """The id after which the client receives all messages."""
        self._connection = connection
        self._writer = connection._writer  # noqa: SLF001 - part of the same package
        self._corked = Fanout.current().corked
        self._frame = hub.encoders.json if as_json else hub.encoders.raw
        self._busy = False  # events go to the queue
        self._ended = False

    def resume(self, message_id: str, oldest: str | None) -> None:
        """Send the messages after the one with this id, or a gap if that is not possible.

        Args:
            message_id: the id, or ``EVERYTHING``.
            oldest: for ``EVERYTHING``, the position before the oldest message that is kept; None
                without a history.
        """
        if message_id == (EVERYTHING if self.start is None else self.start):
            return  # it has missed none
        try:
            if self.start is None:
                raise InvalidOption("there is no history")
            self.resume_after(message_id)
        except InvalidOption:
            self.enqueue(Gap(0.0, self.start))
        else:
            self.start = oldest or format_id(parse_id(message_id))
        self.start_sending()

    def put(self, event: Event) -> None:
        if event.__class__ is Gap and not self.as_json:
            return
        if self.resuming and not self.admits(event):
            return
        if self._busy:
            self._put_later(event)
            return
        if self._writer.put_prepared(self._frame(event), self._corked):
            return
        if self._writer.closed:
            self._ended = self._busy = True
        else:
            self._put_later(event)

    def _put_later(self, event: Event) -> None:
        if self._ended:
            return
        if self.enqueue(event):
            self.start_sending()
            return
        _logger.info("%s is too slow and is disconnected", self._connection.name)
        self.counters.disconnected += 1
        self._close(TRY_AGAIN_LATER, "too slow")

    def start_sending(self) -> None:
        """Send the waiting events at the rate at which the connection accepts them."""
        if not self._busy and (len(self) or self.is_behind):
            self._busy = True
            self._start_soon(self._send_waiting)

    async def _send_waiting(self) -> None:
        try:
            while not self._ended:
                if len(self):
                    await self._send_some()
                elif self.is_behind:
                    await self.read_history()
                else:
                    break
        except ConnectionClosed:
            return
        self._busy = self._ended

    async def _send_some(self) -> None:
        """Send a few waiting events in one write, or wait until the connection accepts one."""
        writer = self._writer
        if not writer.has_space:
            await self._connection.send_frame(self._frame(self.pop()))
            return
        for _ in range(EVENTS_PER_TURN):
            if len(self) and writer.has_space:
                writer.put_prepared(self._frame(self.pop()), self._corked)
        Fanout.current().schedule()
        await trio.lowlevel.checkpoint()

    def end(self) -> None:
        self._close(1001, "the hub has closed")

    def _close(self, code: int, reason: str) -> None:
        if not self._ended:
            self._ended = self._busy = True
            self.clear()
            self._connection.discard_unsent()
            self._start_soon(self._connection.aclose, code, reason)

    def _start_soon(self, *call: Any) -> None:
        try:
            self._connection.start_soon(*call)
        except ConnectionClosed:
            self._ended = True


def _history_of(hub: Hub) -> MessageHistory | None:
    try:
        return hub.history
    except UsageError:
        return None


class HubSocket(Socket[ClientSubscriber | None]):
    """Subscribes a client to a channel, and publishes its messages on ``incoming``.

    The path is the channel: ``ws://.../news`` receives ``news`` and broadcasts, ``ws://.../``
    only broadcasts. The broker confirms the subscription before the client receives the response to
    its handshake.

    With a query ``?after=`` the client receives JSON: first ``{"subscribed": channel, "id": ...}``
    with the id after which it receives all messages, then messages as ``{"id": ..., "channel": ...,
    "data": ...}``, and ``{"gap": seconds, "id": ...}`` where messages may be missing. With
    ``?after=<id>`` it first receives the messages after that id, as far back as the broker's
    history goes; with ``?after=0``, all messages that are kept. An id is null without a history.

    Override :meth:`channel_of` to choose the channel differently, and ``handle_receive`` to handle
    messages differently, and pass the class to :meth:`Hub.socket_of`.

    Args:
        hub: an open hub.
    """

    _own_codec = "encode the messages that you publish"

    def __init__(self, hub: Hub) -> None:
        self.hub: Hub = hub
        self._reservation: Reservation | None = None  # until the connection is open
        self._after: str | None = None
        self._oldest: str | None = None
        self._refusal: Close | None = None

    def channel_of(self, request: Request) -> str:
        """Return the channel of a client: by default the path without its first slash.

        If the hub is served at ``"/live/*"``, the channel of ``/live/news`` is ``news``.

        Args:
            request: the request of the client.

        Raises:
            InvalidOption: the client may not subscribe to the channel. The connection is closed
                with code 1008 and the message of the exception.
        """
        channel = check_channel(unquote(request.subpath))
        if channel == INCOMING or channel.startswith(TOPIC_PREFIX):
            raise InvalidOption(f"clients cannot subscribe to {channel!r}")
        return channel

    async def _subscribe(self, request: Request) -> None:
        """Subscribe a client that will connect.

        Raises:
            UsageError: the hub is not open.
            BrokerUnavailable, BrokerError: the broker has not confirmed the subscription.
        """
        try:
            channel = self.channel_of(request)
            self._reservation = Reservation(self.hub, channel)
        except InvalidOption as error:
            # The reason of a Close frame has at most 123 bytes (RFC 6455, section 5.5.1).
            self._refusal = Close(1008, str(error).encode()[:123].decode(errors="ignore"))
            return
        after = parse_qs(request.query, keep_blank_values=True).get("after")
        self._after = None if after is None else after[-1]
        history = _history_of(self.hub) if self._after == EVERYTHING else None
        self._oldest = await self._reservation.confirm(history)

    def init_stream(self, info: ConnectionInfo) -> ClientSubscriber | None:
        """Start sending messages to the client; return None if it is refused.

        Raises:
            UsageError: the socket was not created by ``hub.socket`` or :meth:`Hub.socket_of`.
        """
        reservation, self._reservation = self._reservation, None
        if reservation is None:
            if self._refusal is None:
                raise UsageError("serve hub.socket, or hub.socket_of(...) for your own HubSocket")
            return None
        channel, after = reservation.channel, self._after
        try:
            client = ClientSubscriber(self.hub, info.connection, channel, as_json=after is not None)
            self.hub.join(client, channel)
        except UsageError:
            self._refusal = Close(TRY_AGAIN_LATER, "the hub is closed")
            return None
        reservation.release()
        if after:
            client.resume(after, self._oldest)
        return client

    def handle_connect(
        self,
        info: ConnectionInfo,  # noqa: ARG002 - a hook
        state: ClientSubscriber | None,
    ) -> MaybeAwaitable[tuple[Any, ClientSubscriber | None]]:
        """Confirm the subscription, or close a client that cannot subscribe."""
        if state is None:
            return self._refusal, None
        if not state.as_json:
            return None, state
        confirmation = {"subscribed": state.channel, "id": state.start}
        text = json.dumps(confirmation, ensure_ascii=False)
        # A connection that compresses a message separately allocates 30 KB.
        return Reply(PreparedMessage(text, compress=False)), state

    async def handle_receive(
        self, frame: Data, state: ClientSubscriber | None
    ) -> tuple[Any, ClientSubscriber | None]:
        """Publish the message on ``incoming``."""
        return await self.publish(frame, INCOMING), state

    async def publish(self, message: Data, channel: str) -> Close | None:
        """Publish a message from a hook.

        Args:
            message: text or binary.
            channel: the name of the channel.

        Returns:
            A result for a hook: None, or a Close with code 1013 if the broker does not accept the
            message.
        """
        try:
            await self.hub.publish(message, channel)
        except (BrokerUnavailable, BrokerError, UsageError):
            return Close(TRY_AGAIN_LATER, "not published; try again later")
        return None

    def terminate(
        self,
        reason: Disconnect,  # noqa: ARG002 - a hook
        state: ClientSubscriber | None,
    ) -> MaybeAwaitable[object]:
        """Unsubscribe the client."""
        if state is not None:
            self.hub.leave(state, state.channel)
        return None


class HubTarget(HandshakeTarget):
    """The target of ``serve()`` for a hub.

    Args:
        hub: the hub.
        make_socket: creates the Socket of a client.
    """

    _codec_hint = "encode the messages that you publish"

    def __init__(self, hub: Hub, make_socket: Callable[[Hub], HubSocket]) -> None:
        self.hub: Hub = hub
        self._make = make_socket

    @property
    def has_default_socket(self) -> bool:
        """Whether this target is :attr:`Hub.socket`."""
        return self._make is HubSocket

    def _select_subprotocol(
        self,
        request: Request,  # noqa: ARG002 - the interface
        offered: Sequence[str],  # noqa: ARG002
    ) -> str | None:
        return None

    async def _admit(self, request: Request) -> object:
        socket = self._make(self.hub)
        if not isinstance(socket, HubSocket):
            raise InvalidOption(f"{label(self._make)} must return a HubSocket, not {socket!r}")
        try:
            await socket._subscribe(request)  # noqa: SLF001 - the same file
        except (UsageError, BrokerUnavailable, BrokerError) as error:
            return refuse_temporarily(request, error)
        return socket

    def _make_socket(self, admitted: object) -> Socket[Any, Any]:
        assert isinstance(admitted, HubSocket)
        return admitted


def refuse_temporarily(request: Request, error: Exception) -> Response:
    """Log why a client cannot be subscribed at the moment; return the response."""
    name = request.peer or "a client"
    _logger.info("%s: refused with 503: %s", name, redact_line(str(error)))
    return Response(503, "try again later\n", RETRY_AFTER)
