"""``MockPhoenixServer``: a scriptable Phoenix endpoint for tests that behaves like real servers.

It has its own implementation of the message format, so that a mistake in the client's serializer
is not hidden by the same mistake in the server.
"""

from __future__ import annotations

import base64
import itertools
import json
import ssl
import struct
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal, TypeAlias
from urllib.parse import parse_qsl

import trio
from trio_websocket import ConnectionClosed, WebSocketRequest

from ..frames import Data
from .server import MockPeer, MockServer, run_for_each

__all__ = [
    "Authorize",
    "ClientMessage",
    "MockClient",
    "MockPhoenixChannel",
    "MockPhoenixServer",
    "MockTopic",
    "RefuseJoin",
]

TOKEN_PREFIX = "base64url.bearer.phx."  # noqa: S105 - the name of a subprotocol
UNMATCHED = {"reason": "unmatched topic"}
MAX_PENDING = 2**16

_GONE = (ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError)

Authorize: TypeAlias = Callable[[dict[str, str], str | None], bool]
"""Called with the params and the ``auth_token`` (or None) of a handshake; False refuses it."""


# Messages.


class _Malformed(Exception):
    """A frame that is not a message. It crashes the socket process of a real server."""


@dataclass(frozen=True, slots=True)
class ClientMessage:
    """A message sent by a client; ``payload`` is ``bytes`` if it was binary."""

    join_ref: str | None
    ref: str | None
    topic: str
    event: str
    payload: Any


def _decode(frame: Data) -> ClientMessage:
    try:
        if isinstance(frame, str):
            join_ref, ref, topic, event, payload = json.loads(frame)
            _check_fields(join_ref, ref, topic, event)
            return ClientMessage(join_ref, ref, topic, event, payload)
        kind, *lengths = struct.unpack_from("5B", frame)
        if kind != 0 or len(frame) < 5 + sum(lengths):
            raise _Malformed(f"not a push: {frame!r}")
        fields, rest = [], frame[5:]
        for length in lengths:
            fields.append(rest[:length].decode())
            rest = rest[length:]
        return ClientMessage(fields[0] or None, fields[1] or None, fields[2], fields[3], rest)
    except (ValueError, TypeError, RecursionError, struct.error) as error:
        raise _Malformed(f"{frame!r:.200}: {error}") from error


def _check_fields(join_ref: object, ref: object, topic: object, event: object) -> None:
    names, refs = (topic, event), (join_ref, ref)
    if not all(isinstance(name, str) for name in names):
        raise TypeError("topic and event must be strings")
    if not all(isinstance(one, str | None) for one in refs):
        raise TypeError("refs must be strings or null")


def _reply(join_ref: str | None, ref: str | None, topic: str, status: str, response: Any) -> Data:
    if isinstance(response, bytes):
        return _binary(1, (join_ref or "", ref or "", topic, status), response)
    return _text(join_ref, ref, topic, "phx_reply", {"response": response, "status": status})


def _push(
    join_ref: str | None, topic: str, event: str, payload: Any, ref: str | None = None
) -> Data:
    # Only phx_close and phx_error carry a ref.
    if isinstance(payload, bytes):
        return _binary(0, (join_ref or "", topic, event), payload)
    return _text(join_ref, ref, topic, event, payload)


def _broadcast(topic: str, event: str, payload: Any) -> Data:
    if isinstance(payload, bytes):
        return _binary(2, (topic, event), payload)
    return _text(None, None, topic, event, payload)


def _text(*parts: Any) -> str:
    return json.dumps(parts, separators=(",", ":"))


def _binary(kind: int, fields: tuple[str, ...], payload: bytes) -> bytes:
    encoded = [field.encode() for field in fields]
    return bytes([kind, *map(len, encoded)]) + b"".join(encoded) + payload


# Channels.


class RefuseJoin(Exception):
    """Raise it in ``on_join`` to refuse the join with ``response``."""

    def __init__(self, response: Any) -> None:
        super().__init__(response)
        self.response: Any = response


class MockPhoenixChannel:
    """A client's channel. Override the hooks; they may push, broadcast, stop and crash.

    The events of one channel are handled one at a time, those of different channels
    concurrently. As in Phoenix, a join blocks the client's whole connection, including heartbeats.
    """

    def __init__(self, client: MockClient, topic: str, join_ref: str | None) -> None:
        self.client: MockClient = client
        """The connection; its ``peer`` is a :class:`MockPeer`."""
        self.topic: str = topic
        self.join_ref: str | None = join_ref
        self.alive: bool = True
        """False once the channel has stopped, crashed or been left."""
        self.tracked: dict[str, dict[str, Any]] = {}
        self._events, self._pending = trio.open_memory_channel[ClientMessage](MAX_PENDING)
        self._scope = trio.CancelScope()

    # Hooks.

    async def on_join(self, payload: Any) -> Any:
        """Return the response to a join. Default: ``{}``.

        Raise :class:`RefuseJoin` to refuse it; any other exception makes the join crash.

        Args:
            payload: the payload of the join.
        """
        return {}

    async def on_joined(self) -> None:
        """Called after the response has been sent, to push the first events."""

    async def on_event(self, event: str, payload: Any) -> Any:
        """Return the reply to a push: ``(status, response)``, a bare status, or None for no reply.

        An exception crashes the channel, as an unknown event does on a real server. Default: raise
        LookupError for every event.

        Args:
            event: the name of the event.
            payload: a JSON value, or bytes.
        """
        raise LookupError(f"no function clause for {event!r}")

    # Actions.

    async def push(self, event: str, payload: Any) -> None:
        """Push an event to this client.

        Args:
            event: the name of the event.
            payload: a JSON value, or bytes.
        """
        await self.client.send(_push(self.join_ref, self.topic, event, payload))

    async def broadcast(self, event: str, payload: Any) -> None:
        """Push an event to every client on this topic, including this one.

        Args:
            event: the name of the event.
            payload: a JSON value, or bytes.
        """
        await self.client.server.broadcast(self.topic, event, payload)

    async def reply(self, ref: str | None, status: str, response: Any) -> None:
        """Send a reply manually, for example a late, duplicate or unknown one.

        Args:
            ref: the ref of the push.
            status: ``"ok"`` or ``"error"``.
            response: a JSON value, or bytes.
        """
        await self.client.send(_reply(self.join_ref, ref, self.topic, status, response))

    async def stop(self) -> None:
        """End the channel with ``phx_close``."""
        await self._end("phx_close", {})

    async def crash(self) -> None:
        """End the channel with ``phx_error``."""
        await self._end("phx_error", self.client.server.crash_payload)

    async def _end(self, event: str, payload: Any) -> None:
        if self.alive:
            ref = self.join_ref
            # close() cancels the hooks of this channel, and the caller may be one of them.
            with trio.CancelScope(shield=True):
                await self.close()
                await self.client.send(_push(ref, self.topic, event, payload, ref))

    async def track(self, key: str, *, diff_first: bool = False, **meta: Any) -> None:
        """Track the presence of this client, and send it the state.

        Args:
            key: the key of the presence.
            diff_first: whether the diff is sent before the state, as real servers may do.
            meta: the fields of this client.
        """
        if diff_first:
            await self._track(key, meta)
        await self.push("presence_state", self.client.server.presences(self.topic))
        if not diff_first:
            await self._track(key, meta)

    async def _track(self, key: str, meta: dict[str, Any]) -> None:
        meta = {"phx_ref": self.client.server.new_ref(), **meta}
        self.tracked[key] = meta
        diff = {"joins": {key: {"metas": [meta]}}, "leaves": {}}
        await self.broadcast("presence_diff", diff)

    # Called by the connection.

    async def close(self) -> None:
        """End the channel without a message."""
        if not self.alive:
            return
        self.alive = False
        self.client.forget(self)
        self._scope.cancel()
        if self.tracked:
            left = {key: {"metas": [meta]} for key, meta in self.tracked.items()}
            self.tracked = {}
            with trio.CancelScope(shield=True):
                await self.broadcast("presence_diff", {"joins": {}, "leaves": left})

    def post(self, message: ClientMessage) -> None:
        """Queue the client's ``message`` for ``on_event``."""
        self._events.send_nowait(message)

    async def run(self) -> None:
        """Handle events until the channel ends."""
        with self._scope:
            await self._call(self.on_joined)
            async for message in self._pending:
                await self._call(self._handle, message)

    async def _call(self, fn: Callable[..., Awaitable[object]], *args: Any) -> None:
        try:
            await fn(*args)
        except _GONE:
            raise
        except Exception:  # noqa: BLE001 - an exception of a hook crashes the channel
            await self.crash()

    async def _handle(self, message: ClientMessage) -> None:
        answer = await self.on_event(message.event, message.payload)
        if answer is not None:
            status, response = (answer, {}) if isinstance(answer, str) else answer
            await self.reply(message.ref, status, response)


class MockTopic(MockPhoenixChannel):
    """A channel that supports most of what real channels do.

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
            RefuseJoin: for the topic ``room:forbidden``.
            RuntimeError: for the topic ``room:crash``.
        """
        if self.topic == "room:forbidden":
            raise RefuseJoin({"reason": "unauthorized"})
        if self.topic == "room:crash":
            raise RuntimeError("join crashed")
        return {"welcome": self.topic}

    async def on_joined(self) -> None:
        await self.push("hello", {"topic": self.topic})

    async def on_event(self, event: str, payload: Any) -> Any:
        match event:
            case "echo":
                return "ok", payload
            case "bare":
                return "ok"
            case "fail":
                return "error", payload
            case "silent":
                return None
            case "shout":
                await self.broadcast("shout", payload)
                return "ok"
            case "back":
                await self.push("back", payload)
                return None
            case "stop":
                await self.stop()
                return None
            case _:
                return await super().on_event(event, payload)


# Connections.


class MockClient:
    """A connected client: the counterpart of the socket process of a Phoenix server.

    Args:
        server: the server of the connection.
        peer: the connection.
        params: the params of the URL, without ``vsn``.
        token: the ``auth_token``, or None.
    """

    def __init__(
        self, server: MockPhoenixServer, peer: MockPeer, params: dict[str, str], token: str | None
    ) -> None:
        self.server: MockPhoenixServer = server
        self.peer: MockPeer = peer
        self.params: dict[str, str] = params
        self.token: str | None = token
        self.channels: dict[str, MockPhoenixChannel] = {}
        """The channels that are alive, by topic."""
        self.received: list[ClientMessage] = []
        """All received messages, oldest first, including heartbeats."""
        self._nursery: trio.Nursery

    async def send(self, frame: Data) -> None:
        """Send ``frame`` unchanged."""
        await self.peer.send(frame)

    def forget(self, channel: MockPhoenixChannel) -> None:
        """Remove ``channel``, which has ended."""
        if self.channels.get(channel.topic) is channel:
            del self.channels[channel.topic]

    async def run(self) -> None:
        """Handle messages until the client disconnects or sends a malformed one."""
        async with trio.open_nursery() as self._nursery:
            try:
                while True:
                    message = _decode(await self.peer.receive())
                    self.received.append(message)
                    await self._handle(message)
            except _Malformed:
                await self.peer.close(1011)
            except (AssertionError, ConnectionClosed):
                pass  # the client has closed
            finally:
                self._nursery.cancel_scope.cancel()
                for channel in list(self.channels.values()):
                    await channel.close()

    async def _handle(self, message: ClientMessage) -> None:
        channel = self.channels.get(message.topic)
        match message:
            case ClientMessage(topic="phoenix", event="heartbeat"):
                await self.server.on_heartbeat(self, message.ref)
            case ClientMessage(event="phx_join"):
                await self._join(message, channel)
            case ClientMessage(event="phx_leave"):
                await self._leave(message, channel)
            case _ if channel is None:
                await self.send(_reply(None, message.ref, message.topic, "error", UNMATCHED))
            case _ if self.server.accepts(message.join_ref, channel.join_ref):
                channel.post(message)

    async def _join(self, message: ClientMessage, old: MockPhoenixChannel | None) -> None:
        topic, join_ref, ref = message.topic, message.join_ref, message.ref
        kind = self.server.kind_of(topic)
        if kind is None:
            await self.send(_reply(None, ref, topic, "error", UNMATCHED))
            return
        if old is None and len(self.channels) >= self.server.max_channels:
            too_many = {"reason": "too many channels joined"}
            await self.send(_reply(join_ref, ref, topic, "error", too_many))
            return
        channel = kind(self, topic, join_ref)
        try:
            status, response = "ok", await channel.on_join(message.payload)
        except RefuseJoin as refusal:
            status, response = "error", refusal.response
        except Exception:  # noqa: BLE001 - an exception of a hook makes the join crash
            status, response = "error", {"reason": "join crashed"}
        if old is not None:
            await old.close()
        if status == "ok":
            self.channels[topic] = channel
        await self.send(_reply(join_ref, ref, topic, status, response))
        if old is not None:
            await self.send(_push(old.join_ref, topic, "phx_close", {}, old.join_ref))
        if status == "ok":
            self._nursery.start_soon(self._run, channel)

    async def _run(self, channel: MockPhoenixChannel) -> None:
        with suppress(*_GONE):  # run() handles the end of the connection
            await channel.run()

    async def _leave(self, message: ClientMessage, channel: MockPhoenixChannel | None) -> None:
        topic, ref = message.topic, message.ref
        if channel is None or not self.server.accepts(message.join_ref, channel.join_ref):
            await self.send(_reply(message.join_ref, ref, topic, "ok", {}))
            return
        await channel.close()
        join_ref = channel.join_ref
        await self.send(_reply(join_ref, ref, topic, "ok", {}))
        await self.send(_push(join_ref, topic, "phx_close", {}, join_ref))


# The server.


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
        channels: the channel class for each topic pattern, such as ``"room:*"``; the first match
            applies. By default, ``room:*`` is a :class:`MockTopic`.
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
        channels: Mapping[str, type[MockPhoenixChannel]] | None = None,
        *,
        version: Literal["1.7", "1.8"] = "1.8",
        authorize: Authorize = lambda _params, _token: True,
        max_channels: int = 100,
        ssl_context: ssl.SSLContext | None = None,
        memory: bool = False,
    ) -> None:
        super().__init__(self._serve_client, ssl_context=ssl_context, memory=memory)
        self.version: str = version
        self.max_channels: int = max_channels
        self.clients: list[MockClient] = []
        """The connected clients, oldest first."""
        self.past_clients: list[MockClient] = []
        """The clients that have disconnected."""
        self.answers_heartbeats: bool = True
        """Set it to False to simulate a dead server."""
        self._channels = dict(channels or {"room:*": MockTopic})
        self._authorize = authorize
        self._refs = itertools.count(1)
        self._connected = trio.lowlevel.ParkingLot()

    async def __aenter__(self) -> MockPhoenixServer:
        await super().__aenter__()
        self.url: str = f"{self.url}socket"
        return self

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
        """Push an event to every client that has joined the topic.

        Args:
            topic: the topic, such as ``"room:1"``.
            event: the name of the event.
            payload: a JSON value, or bytes.
        """
        frame = _broadcast(topic, event, payload)
        for client in list(self.clients):
            if topic in client.channels:
                with suppress(*_GONE):
                    await client.send(frame)

    async def disconnect(self, code: int = 1001) -> None:
        """Disconnect all clients concurrently, like ``Endpoint.broadcast(id, "disconnect", %{})``.

        A client that does not answer the Close frame is dropped after 10 seconds.

        Args:
            code: the code of the Close frames; Phoenix 1.7 uses 1000 or 1011, 1.8 uses 1001.
        """
        await run_for_each([client.peer for client in self.clients], MockPeer.close, code)

    async def kill(self) -> None:
        """Break every connection without a Close frame."""
        for client in list(self.clients):
            await client.peer.abort()

    # Called by clients.

    @property
    def crash_payload(self) -> dict[str, str]:
        """The payload of ``phx_error``."""
        return {} if self.version == "1.7" else {"reason": "channel_crash"}

    def kind_of(self, topic: str) -> type[MockPhoenixChannel] | None:
        """Return the channel class for ``topic``, or None if there is none."""
        found = (kind for pattern, kind in self._channels.items() if fnmatchcase(topic, pattern))
        return next(found, None)

    def accepts(self, join_ref: str | None, current: str | None) -> bool:
        """Whether a push with ``join_ref`` reaches a channel whose join_ref is ``current``."""
        return self.version == "1.7" or join_ref == current

    def presences(self, topic: str) -> dict[str, Any]:
        """Return the presence state of ``topic``."""
        found: dict[str, Any] = {}
        for client in self.clients:
            channel = client.channels.get(topic)
            for key, meta in channel.tracked.items() if channel else ():
                found.setdefault(key, {"metas": []})["metas"].append(meta)
        return found

    def new_ref(self) -> str:
        """Return a new ``phx_ref`` for a presence."""
        return f"F{next(self._refs)}"

    async def on_heartbeat(self, client: MockClient, ref: str | None) -> None:
        """Answer the heartbeat ``ref`` of ``client`` if :attr:`answers_heartbeats` is True."""
        if self.answers_heartbeats:
            await client.send(_reply(None, ref, "phoenix", "ok", {}))

    # Connections.

    async def _answer(self, request: WebSocketRequest, stream: trio.abc.Stream) -> None:
        if not self._rejections:
            status = self._refusal(request.path, request.proposed_subprotocols)
            if status:
                self.reject(status)
        offered = "phoenix" in request.proposed_subprotocols and self.version != "1.7"
        self._subprotocol = "phoenix" if offered else None
        await super()._answer(request, stream)

    def _refusal(self, path: str, subprotocols: Sequence[str]) -> int:
        """Return the status that refuses a handshake, or 0."""
        if not path.partition("?")[0].endswith("/websocket"):
            return 404
        params = _params(path)
        # Without vsn, real servers use an older protocol; this server supports only 2.0.0.
        if params.pop("vsn", "") != "2.0.0":
            return 403
        return 0 if self._authorize(params, _token(subprotocols)) else 403

    async def _serve_client(self, peer: MockPeer) -> None:
        params = _params(peer.path)
        del params["vsn"]
        client = MockClient(self, peer, params, _token(peer.subprotocols))
        self.clients.append(client)
        self._connected.unpark_all()
        try:
            await client.run()
        finally:
            self.clients.remove(client)
            self.past_clients.append(client)


def _params(path: str) -> dict[str, str]:
    return dict(parse_qsl(path.partition("?")[2], keep_blank_values=True))


def _token(subprotocols: Sequence[str]) -> str | None:
    for name in subprotocols:
        if name.startswith(TOKEN_PREFIX):
            encoded = name.removeprefix(TOKEN_PREFIX)
            return base64.b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
    return None
