"""``MockPhoenixServer``: a Phoenix endpoint, from the handshake to the presence of its clients."""

from __future__ import annotations

import base64
import itertools
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import Any, Literal, TypeAlias
from urllib.parse import parse_qsl, urlsplit

import trio
from trio_websocket import ConnectionClosed, WebSocketRequest

from ...frames import Data
from ..server import MockPeer, MockServer
from . import format as wire
from .channel import MockPhoenixChannel, MockTopic
from .client import MockClient

__all__ = ["MockPhoenixServer"]

TOKEN = "base64url.bearer.phx."  # noqa: S105 - the name of a subprotocol

Authorize: TypeAlias = Callable[[dict[str, str], str | None], bool]
"""Gets the params and the ``auth_token``, or None, of a handshake; False refuses it."""


class MockPhoenixServer(MockServer):
    """A Phoenix endpoint for the time of an ``async with`` block.

    ::

        async with (
            MockPhoenixServer(memory=True) as server,
            phoenix.connect(server.url, stream=server.open_stream) as socket,
        ):
            channel = await socket.join("room:1")
            assert (await channel.push("echo", {"a": 1})).response == {"a": 1}
            await server.broadcast("room:1", "shout", {"m": "hi"})

    Args:
        channels: what kind of channel a topic has, by patterns such as ``"room:*"``; the first
            that fits counts. By default ``room:*`` is a :class:`MockTopic`.
        version: of Phoenix: 1.7 delivers a push with a stale or no ``join_ref``, 1.8 drops it
            silently; 1.8 tells why a channel has crashed, and knows ``auth_token``.
        authorize: called with the params and the ``auth_token``, or None, of a handshake; False
            refuses it with 403.
        max_channels: the number that one client may have; beyond it, joins are refused.
        ssl_context: serve ``wss://``.
        memory: listen nowhere; clients use ``stream=server.open_stream``.
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
        super().__init__(self._client, ssl_context=ssl_context, memory=memory)
        self.version: str = version
        self.max_channels: int = max_channels
        self.clients: list[MockClient] = []
        """Those that are connected, oldest first."""
        self.past_clients: list[MockClient] = []
        """Those that have gone."""
        self.answers_heartbeats: bool = True
        """False plays dead, as far as heartbeats go."""
        self._channels = dict(channels or {"room:*": MockTopic})
        self._authorize = authorize
        self._refs = itertools.count(1)
        self._came = trio.lowlevel.ParkingLot()

    async def __aenter__(self) -> MockPhoenixServer:
        await super().__aenter__()
        self.url: str = f"{self.url}socket"
        return self

    # The script.

    async def client(self, number: int = 0) -> MockClient:
        """One of the clients that are connected; waits for it.

        Args:
            number: counted from 0, in the order of connecting.
        """
        while len(self.clients) <= number:
            await self._came.park()
        return self.clients[number]

    async def broadcast(self, topic: str, event: str, payload: Any) -> None:
        """Push an event to every client that has joined the topic.

        Args:
            topic: such as ``"room:1"``.
            event: its name.
            payload: what JSON can say, or bytes-like.
        """
        frame = wire.broadcast(topic, event, payload)
        for client in list(self.clients):
            if topic in client.channels:
                await self._send(client, frame)

    async def disconnect(self, code: int = 1001) -> None:
        """Drop every client, as ``Endpoint.broadcast(socket_id, "disconnect", %{})`` does.

        The code depends on the server: 1000 and 1011 have been seen of 1.7, 1001 of 1.8.

        Args:
            code: of the Close frames.
        """
        for client in list(self.clients):
            await client.peer.close(code)

    async def kill(self) -> None:
        """Break every connection without a Close frame."""
        for client in list(self.clients):
            await client.peer.abort()

    async def _send(self, client: MockClient, frame: Data) -> None:
        # It may have gone meanwhile.
        with suppress(ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError):
            await client.send(frame)

    # What clients ask.

    @property
    def crash_payload(self) -> dict[str, str]:
        """Of ``phx_error``."""
        return {} if self.version == "1.7" else {"reason": "channel_crash"}

    def kind_of(self, topic: str) -> type[MockPhoenixChannel] | None:
        """What a topic is."""
        found = (kind for pattern, kind in self._channels.items() if fnmatchcase(topic, pattern))
        return next(found, None)

    def accepts(self, join_ref: str | None, current: str | None) -> bool:
        """Whether a push with ``join_ref`` reaches a channel whose join was ``current``."""
        return self.version == "1.7" or join_ref == current

    def presences(self, topic: str) -> dict[str, Any]:
        """Who is tracked on a topic."""
        found: dict[str, Any] = {}
        for client in self.clients:
            for channel in client.alive(topic):
                for key, meta in channel.tracked.items():
                    found.setdefault(key, {"metas": []})["metas"].append(meta)
        return found

    def new_ref(self) -> str:
        """A ``phx_ref`` of presence."""
        return f"F{next(self._refs)}"

    async def on_heartbeat(self, client: MockClient, ref: str | None) -> None:
        """Answer it, unless :attr:`answers_heartbeats` is False."""
        if self.answers_heartbeats:
            await client.send(wire.reply(None, ref, "phoenix", "ok", {}))

    # Connections.

    async def _answer(self, request: WebSocketRequest, stream: trio.abc.Stream) -> None:
        if not self._rejections:
            status = self._judge(request.path, request.proposed_subprotocols)
            if status:
                self.reject(status)
        offered = "phoenix" in request.proposed_subprotocols and self.version != "1.7"
        self._subprotocol = "phoenix" if offered else None
        await super()._answer(request, stream)

    def _judge(self, path: str, subprotocols: Sequence[str]) -> int:
        """The status that refuses a handshake, or 0."""
        if not urlsplit(path).path.endswith("/websocket"):
            return 404
        params = _params(path)
        # Without vsn a server speaks an older protocol; this one does not.
        if params.pop("vsn", "") != "2.0.0":
            return 403
        return 0 if self._authorize(params, _token(subprotocols)) else 403

    async def _client(self, peer: MockPeer) -> None:
        params = _params(peer.path)
        del params["vsn"]
        client = MockClient(self, peer, params, _token(peer.subprotocols))
        self.clients.append(client)
        self._came.unpark_all()
        try:
            await client.run()
        finally:
            self.clients.remove(client)
            self.past_clients.append(client)


def _params(path: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(path).query, keep_blank_values=True))


def _token(subprotocols: Sequence[str]) -> str | None:
    for name in subprotocols:
        if name.startswith(TOKEN):
            encoded = name.removeprefix(TOKEN)
            return base64.b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
    return None
