"""``MockPhoenixServer``: the server of :mod:`trioglock.channels`, controlled by a test.

Joins, refs, replies, presence, heartbeats and the message format are those of the real server. This
module adds features for tests: crashes and replies at any time, arbitrary frames, silence, older
versions, and a record of received messages.
"""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from functools import cached_property
from typing import Any, Literal, TypeAlias

import trio
from trio_websocket import ConnectionClosed

from ..channels import Answer, Broadcast, Channel, Channels, JoinRefused, Presence, Push, Stop
from ..channels.handshake import ConnectRequest
from ..channels.machine import JOIN_CRASHED, JoinState, ServerMachine, TopicJoin
from ..channels.outgoing import OutgoingFrames
from ..channels.socket import ChannelsSocket
from ..connection import Connection
from ..connection._sync import ignore
from ..disconnect import Disconnect, HookError
from ..errors import ConnectionClosed as ConnectionEnded
from ..frames import Close, Data, Frame
from ..headers import Headers
from ..hooks import ConnectionInfo
from ..http import Request, Response
from ..protocols.phoenix.message import HEARTBEAT, JOIN, PHOENIX, REPLY, PhoenixMessage
from ..protocols.phoenix.presence import DIFF
from ..pubsub import Hub
from ..server import serve
from ..transports import MemoryListener, open_tcp
from ..transports.native.encoder import Buffer, Encoder
from .server import MAX_QUEUE, MockPeer, MockServer, run_for_each

__all__ = [
    "Authorize",
    "ClientMessage",
    "MockClient",
    "MockPhoenixChannel",
    "MockPhoenixServer",
    "MockTopic",
    "RefuseJoin",
]

Authorize: TypeAlias = Callable[[dict[str, str], str | None], bool]
"""Called with the params and the ``auth_token`` (or None) of a handshake; False refuses it."""

ClientMessage: TypeAlias = PhoenixMessage
"""A message sent by a client; ``payload`` is ``bytes`` if it was binary."""


class RefuseJoin(JoinRefused):
    """Raised in ``on_join`` to refuse the join with ``response``."""


class MockPhoenixChannel(Channel[None]):
    """A client's channel. Override the hooks; they may push, broadcast, stop and crash.

    The events of one channel are handled one at a time, those of different channels
    concurrently. As in Phoenix, a join blocks the client's whole connection, including heartbeats.
    It is a :class:`trioglock.channels.Channel`, with the other methods of that class.
    """

    client: MockClient
    """The connection; its ``peer`` is a :class:`MockPeer`."""
    join_ref: str | None

    # Hooks.

    async def on_join(self, payload: Any) -> Any:
        """Return the response to a join. Default: ``{}``.

        Raise :class:`RefuseJoin` to refuse it; any other exception makes the join crash.

        Args:
            payload: the payload of the join.
        """
        return {}

    async def on_joined(self) -> None:
        """Called after the response to the join has been sent; push the first events here."""

    async def on_event(self, event: str, payload: Any) -> Any:
        """Return the reply to a push: ``(status, response)``, a bare status, or None for no reply.

        A :data:`~trioglock.channels.ChannelResult` is allowed, too. An exception crashes the
        channel, as an unknown event does on a real server. Default: raise LookupError.

        Args:
            event: the name of the event.
            payload: a JSON value, or bytes.
        """
        raise LookupError(f"no function clause for {event!r}")

    async def join(self, topic: str, payload: Any, user: MockClient) -> Any:
        self.client, self.join_ref = user, self._attached.join.join_ref
        response = await self.on_join(payload)
        self.cast(None)
        return response, None

    async def handle_cast(self, message: Any, state: None) -> Any:
        await self.on_joined()
        return None, state

    async def handle_in(self, event: str, payload: Any, state: None) -> Any:
        result = await self.on_event(event, payload)
        if isinstance(result, str):
            result = Answer(result)
        elif isinstance(result, tuple) and result and isinstance(result[0], str):
            result = Answer(*result)
        return result, state

    # Actions.

    @property
    def alive(self) -> bool:
        """False once the channel has stopped, crashed or been left."""
        return self._attached.join.state is not JoinState.ENDED

    async def push(self, event: str, payload: Any) -> None:
        """Push any event to this client, even before its join is answered or after it has ended.

        Args:
            event: the name of the event.
            payload: a JSON value, or bytes.
        """
        await self._send(None, event, payload)

    async def reply(self, ref: str | None, status: str, response: Any) -> None:
        """Send a reply manually, for example a late, duplicate or unknown one.

        Args:
            ref: the ref of the push.
            status: ``"ok"`` or ``"error"``.
            response: a JSON value, or bytes.
        """
        await self._send(ref, REPLY, {"response": response, "status": status})

    async def _send(self, ref: str | None, event: str, payload: Any) -> None:
        message = PhoenixMessage(self.join_ref, ref, self.topic, event, payload)
        await self.client.send(self.client.serializer.encode(message))

    async def stop(self) -> None:
        """End the channel with ``phx_close``."""
        await self._end(self.client.machine.stopped, Stop())

    async def crash(self) -> None:
        """End the channel with ``phx_error``."""
        error = RuntimeError("crashed by the test")
        await self._end(self.client.machine.crashed, HookError(error=error))

    async def _end(self, end: Callable[[TopicJoin], Any], reason: Stop | HookError) -> None:
        actor = self._attached
        if actor.join.state is JoinState.JOINED:
            actor._reply_all(end(actor.join))
            actor.end_soon(reason, ignore)
        await trio.lowlevel.checkpoint()

    async def track(self, key: str, *, diff_first: bool = False, **meta: Any) -> None:
        """Track the presence of this client, and send it the state.

        Args:
            key: the key of the presence.
            diff_first: whether the client receives a diff before the state, as real servers may do.
            meta: the fields of this client.
        """
        presence = self.client.server._presence
        await presence.track(self, key, meta)
        if diff_first:
            latest = presence.list(self.topic)[key]["metas"][-1:]
            await self.push(DIFF, {"joins": {key: {"metas": latest}}, "leaves": {}})
        # Immediately, so that clients are also notified of entries that are removed within
        # milliseconds.
        presence._send_diffs_now(presence._open_replica())


class MockTopic(MockPhoenixChannel):
    """A channel with most of the behavior of real channels.

    ==============  =====================================================================
    ``echo``        replies ``ok`` with the payload, text or binary
    ``bare``        replies ``ok`` without a response
    ``fail``        replies ``error`` with the payload
    ``silent``      does not reply
    ``shout``       broadcasts the payload, and replies ``ok``
    ``back``        pushes the payload back, and does not reply
    ``stop``        ends with ``phx_close`` instead of a reply
    others          crash
    ==============  =====================================================================

    The response to a join is ``{"welcome": topic}``, followed by a ``hello`` event. The topic
    ``room:forbidden`` is refused, and ``room:crash`` crashes while joining.
    """

    async def on_join(self, payload: Any) -> Any:
        """See :meth:`MockPhoenixChannel.on_join`.

        Raises:
            RefuseJoin: for the ``room:forbidden`` topic.
            RuntimeError: for the ``room:crash`` topic.
        """
        if self.topic == "room:forbidden":
            raise RefuseJoin({"reason": "unauthorized"})
        if self.topic == "room:crash":
            raise RuntimeError("join crashed")
        return {"welcome": self.topic}

    async def on_joined(self) -> None:
        await self.push("hello", {"topic": self.topic})

    async def on_event(self, event: str, payload: Any) -> Any:
        results = {
            "echo": ("ok", payload),
            "bare": "ok",
            "fail": ("error", payload),
            "silent": None,
            "shout": (Broadcast("shout", payload), Answer("ok")),
            "back": Push("back", payload),
            "stop": Stop(),
        }
        return results[event] if event in results else await super().on_event(event, payload)


class _Peer(MockPeer):
    """The server's end of a connection. The server receives the messages itself."""

    connection: Connection[Any, Any]
    outgoing: OutgoingFrames

    def __init__(self, server: MockPhoenixServer, request: ConnectRequest) -> None:
        self.server, self.request = server, request
        self.received, self.sent = [], []
        offered = ",".join(request.headers.get_all("Sec-WebSocket-Protocol"))
        self.subprotocols = tuple(name.strip() for name in offered.split(",") if name)
        pairs = request.headers.pairs()
        self.request_headers = Headers(
            [one for one in pairs if not one[0].lower().startswith(OF_THE_HANDSHAKE)]
        )

    def start(self, socket: MockClient, info: ConnectionInfo) -> None:
        """Start using a connection, whose handshake has not been answered."""
        self.connection, self.outgoing = socket.connection, socket.outgoing
        self.path = f"/{info.url.split('/', 3)[3]}"
        link: Any = self.connection._writer._link
        headers = self.server._accept_headers.pairs()
        added = "".join([f"{name}: {value}\r\n" for name, value in headers])
        link._response = link._response[:-2] + f"{added}\r\n".encode("latin-1")
        link._encoder = _RecordingEncoder(self.sent)
        self.stream = link._stream

    @property
    def closed(self) -> Close | None:
        return self.connection._session.close_state.received

    async def _receive(self) -> Data:
        await self.connection.wait_closed()
        raise ConnectionClosed(None)

    async def send(self, *messages: Data) -> None:
        for message in messages:
            await self.outgoing.send_in_turn(message)

    async def ping(self) -> None:
        await self.connection.ping()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        await self.connection.aclose(code, reason)

    async def abort(self) -> None:
        self.connection.abort()
        await trio.lowlevel.checkpoint()


OF_THE_HANDSHAKE = ("connection", "host", "sec-websocket-", "upgrade")


class _RecordingEncoder(Encoder):
    """Adds the messages that a connection sends to a list."""

    def __init__(self, sent: list[Data]) -> None:
        super().__init__(mask=False, deflate=None)
        self._sent = sent

    def encode_single(self, frame: Frame) -> bytes:
        return b""  # encode_buffers encodes it

    def encode_buffers(self, frames: Sequence[Frame]) -> list[Buffer]:
        messages = [getattr(frame, "message", frame) for frame in frames]
        self._sent += [one for one in messages if isinstance(one, str | bytes)]
        return super().encode_buffers(frames)


class MockClient(ChannelsSocket):
    """A connected client: the counterpart of the socket process of a Phoenix server."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._peer: _Peer = self.user
        self.user = self
        self.server: MockPhoenixServer = self._peer.server
        self.peer: MockPeer = self._peer
        """The server's end of the connection."""
        self.params: dict[str, str] = dict(self._peer.request.params)
        """The params of the URL, without ``vsn``."""
        self.token: str | None = self._peer.request.token
        """The ``auth_token``, or None."""
        self.received: list[ClientMessage] = []
        """All received messages, oldest first, including heartbeats."""
        machine = _MockMachine(self.machine._find, self.machine._max_topics)
        machine.client = self
        self.machine: ServerMachine = machine
        self._receive_push = _pass_to_receive
        self._joining = TopicJoin("", None, None, None)  # the latest join
        self._joining.state = JoinState.ENDED
        self._waiting: deque[PhoenixMessage] = deque()

    @property
    def channels(self) -> dict[str, Any]:
        """The channels that have not ended, by topic."""
        return {
            topic: self.actors[join]._channel
            for topic, join in self.machine.joins.items()
            if join.state is JoinState.JOINED
        }

    async def send(self, frame: Data) -> None:
        """Send ``frame`` unchanged."""
        await self.peer.send(frame)

    # Hooks of the connection.

    def init_stream(self, info: ConnectionInfo) -> None:
        super().init_stream(info)
        self._peer.start(self, info)

    def handle_connect(self, info: ConnectionInfo, state: None) -> tuple[Any, None]:
        self.server.clients.append(self)
        self.server.peers.append(self.peer)
        self.server._connected.unpark_all()
        return super().handle_connect(info, state)

    def handle_receive(self, frame: Data, state: None) -> tuple[Any, None]:
        self.peer.received.append(frame)
        return super().handle_receive(frame, state)

    async def terminate(self, reason: Disconnect, state: None) -> None:
        try:
            await super().terminate(reason, state)
        finally:
            if self in self.server.clients:
                self.server.clients.remove(self)
                self.server.past_clients.append(self)

    # Messages.

    def receive(self, message: PhoenixMessage) -> None:
        self.received.append(message)
        self._waiting.append(message)
        self._handle_waiting()

    def _handle_waiting(self) -> None:
        # As in Phoenix, but unlike in the real server, a join blocks all messages.
        while self._waiting and self._joining.state is not JoinState.JOINING:
            self._handle(self._waiting.popleft())

    def _handle(self, message: PhoenixMessage) -> None:
        topic, event, join = message.topic, message.event, self.machine.joins.get(message.topic)
        if topic == PHOENIX and event == HEARTBEAT and not self.server.answers_heartbeats:
            return
        if join is not None and event != JOIN:
            if self.server.version == "1.7":
                message = message._replace(join_ref=join.join_ref)
            elif message.join_ref is None and join.join_ref is not None:
                return  # as in Phoenix 1.8.3 to 1.8.11, the strictest versions
        super().receive(message)
        if event == JOIN:
            self._joining = self.machine.joins.get(topic, self._joining)

    def join_ended(self) -> None:
        """Handle the waiting messages after the reply to the join."""

        async def handle() -> None:
            self._handle_waiting()

        if self._waiting:
            with suppress(ConnectionEnded):
                self.connection.start_soon(handle)


def _pass_to_receive(*_: object) -> None:
    return None


class _MockMachine(ServerMachine):
    client: MockClient

    def joined(self, join: TopicJoin, response: Any) -> tuple[PhoenixMessage, ...]:
        self.client.join_ended()
        return super().joined(join, response)

    def refused(self, join: TopicJoin, response: Any = JOIN_CRASHED) -> tuple[PhoenixMessage, ...]:
        self.client.join_ended()
        return super().refused(join, response)

    def crashed(self, join: TopicJoin) -> tuple[PhoenixMessage, ...]:
        messages = super().crashed(join)
        if self.client.server.version == "1.7":
            messages = tuple([message._replace(payload={}) for message in messages])
        return messages


class _MockChannels(Channels):
    _socket_class = MockClient


class MockPhoenixServer(MockServer):
    """A Phoenix endpoint for the duration of an ``async with`` block.

    ::

        async with (
            MockPhoenixServer(memory=True) as server,
            phoenix.connect(server.url, stream=server.open_stream) as socket,
        ):
            channel = await socket.join("room:1")
            assert (await channel.push("echo", {"a": 1})).response == {"a": 1}
            await server.broadcast("room:1", "shout", {"m": "hi"})

    Args:
        channels: the :class:`MockPhoenixChannel` or other :class:`trioglock.channels.Channel` for
            each topic pattern: a topic, or a prefix and a final ``*`` such as ``"room:*"``. The
            first match applies. By default, ``room:*`` is a :class:`MockTopic`.
        version: the version of Phoenix. 1.7 delivers a push with a stale or missing ``join_ref``,
            1.8 drops it silently; 1.8 sends the reason for a crash, and supports ``auth_token``.
        authorize: called with the params and the ``auth_token`` (or None) of a handshake; False
            refuses it with 403.
        max_channels: the number of channels per client; further joins are refused.
        ssl_context: the TLS context, to serve ``wss://``.
        memory: do not listen on a port; clients use ``stream=server.open_stream``.
    """

    def __init__(
        self,
        channels: Mapping[str, type[Channel[Any]]] | None = None,
        *,
        version: Literal["1.7", "1.8"] = "1.8",
        authorize: Authorize = lambda _params, _token: True,
        max_channels: int = 100,
        ssl_context: ssl.SSLContext | None = None,
        memory: bool = False,
    ) -> None:
        super().__init__(ssl_context=ssl_context, memory=memory)
        self.version: str = version
        self.clients: list[MockClient] = []
        """The connected clients, oldest first."""
        self.past_clients: list[MockClient] = []
        """The clients that have disconnected."""
        self.answers_heartbeats: bool = True
        """Set this attribute to False to simulate a dead server."""
        self._authorize = authorize
        self._connected = trio.lowlevel.ParkingLot()
        self._listener = MemoryListener()
        self._channels = _MockChannels(
            channels or {"room:*": MockTopic},
            hub=Hub(max_queue=MAX_QUEUE),
            connect=self._connect,
            max_topics=max_channels,
            message_rate=None,
            join_rate=None,
        )

    async def _start(self, stack: AsyncExitStack) -> None:
        await stack.enter_async_context(self._channels.hub)
        tcp = [] if self._memory else await open_tcp("127.0.0.1", 0)
        server = await stack.enter_async_context(
            serve(
                self._channels.socket,
                listeners=[self._listener, *tcp],
                ssl_context=self._ssl_context,
                process_request=self._reject_next,
                select_subprotocol=None if self.version == "1.8" else lambda *_: None,
                compression=None,
                max_size=self._max_message_size,
                ping_interval=None,
                write_timeout=None,
            )
        )
        stack.callback(server.abort)
        if tcp:
            scheme = "ws" if self._ssl_context is None else "wss"
            self.url = f"{scheme}://127.0.0.1:{server.port}/"
        self.url: str = f"{self.url}socket"

    async def open_stream(self) -> trio.abc.Stream:
        return await self._listener.open_stream()

    # Called by tests.

    async def client(self, number: int = 0) -> MockClient:
        """Return a connected client; wait until it has connected.

        Args:
            number: the number of the client, counted from 0 in the order in which clients connect.
        """
        while len(self.clients) <= number:
            await self._connected.park()
        return self.clients[number]

    async def broadcast(self, topic: str, event: str, payload: Any) -> None:
        """Push any event to every client that has joined the topic.

        Args:
            topic: the topic, such as ``"room:1"``.
            event: the name of the event.
            payload: a JSON value, or bytes.
        """
        index = self._channels._index
        index.deliver_local(topic, index.serializer.encode_broadcast(topic, event, payload))
        await trio.lowlevel.checkpoint()

    async def disconnect(self, code: int = 1001) -> None:
        """Disconnect all clients concurrently, like ``Endpoint.broadcast(id, "disconnect", %{})``.

        A client that does not answer the Close frame is dropped after 10 seconds.

        Args:
            code: the code of the Close frames; Phoenix 1.7 uses 1000 or 1011, 1.8 uses 1001.
        """
        await run_for_each([client.peer for client in self.clients], _Peer.close, code)

    async def kill(self) -> None:
        """Break every connection without a Close frame."""
        for client in list(self.clients):
            await client.peer.abort()

    # The real server.

    @cached_property
    def _presence(self) -> Presence:
        return Presence(self._channels)  # created on first use, because it has a task

    def _reject_next(self, _: Request) -> Response | None:
        if not self._rejections:
            return None
        rejection = self._rejections.pop(0)
        return Response(rejection.status, rejection.body, rejection.headers)

    def _connect(self, request: ConnectRequest) -> _Peer | None:
        accepted = self._authorize(dict(request.params), request.token)
        return _Peer(self, request) if accepted else None
