"""``MockGossipServer``: the Gossip network (Grapevine 2.x) for tests."""

from __future__ import annotations

import json
import re
import ssl
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Any, TypeAlias

import trio
from trio_websocket import ConnectionClosed

from .server import CLOSE_TIMEOUT, MockPeer, MockServer, run_for_each

__all__ = ["MockGossipGame", "MockGossipPeer", "MockGossipServer"]

FLAGS = ("channels", "players", "tells", "games", "achievements")

EVENT_FLAGS = {
    "players/sign-in": "players",
    "players/sign-out": "players",
    "tells/receive": "tells",
    "games/connect": "games",
    "games/disconnect": "games",
}
"""The flag that a client needs to receive an event; "channels" for all others."""

BATCH = 10
"""The number of achievements in one answer."""

EXCESS = 5
"""The number of events over the rate limit before the server closes the connection."""

TELL_FIELDS = ["from_name", "message", "sent_at", "to_game", "to_name"]

_is_channel = re.compile(r"[A-Za-z_-]{3,15}").fullmatch

Event: TypeAlias = dict[str, Any]


@dataclass(kw_only=True)
class MockGossipGame:
    """A game on the mock network.

    Args:
        name: its short name.
        players: the players who are signed in.
        supports: its flags.
        channels: its subscriptions.
        user_agent: its software.
        details: further fields of ``games/status``, such as ``homepage_url``.
    """

    name: str
    players: list[str] = field(default_factory=list)
    supports: list[str] = field(default_factory=lambda: list(FLAGS))
    channels: list[str] = field(default_factory=list)
    user_agent: str = "mock"
    details: dict[str, Any] = field(default_factory=dict)

    def to_payload(self) -> dict[str, Any]:
        """Return the payload of ``games/status``."""
        return {
            "game": self.name,
            "display_name": self.name,
            "description": "",
            "homepage_url": "",
            "user_agent": self.user_agent,
            "connections": [],
            "supports": self.supports,
            "channels": self.channels,
            "players_online_count": len(self.players),
            **self.details,
        }

    def has_player(self, name: str) -> bool:
        """Return whether the player ``name`` is signed in, ignoring case."""
        return name.lower() in map(str.lower, self.players)


class MockGossipServer:
    """The Gossip network for the duration of an ``async with`` block, on a port or in memory.

    The server answers like Grapevine. Its clients see each other and the games in :attr:`games`::

        async with MockGossipServer() as server:
            server.games["ExVenture"] = MockGossipGame(name="ExVenture", players=["Eric"])
            async with gossip.connect(
                server.url, client_id="id", client_secret="secret", channels=MyGame()
            ) as client:
                await server.broadcast("gossip", "ExVenture", "Eric", "Hello!")

    Args:
        memory: do not listen on a port; clients connect with ``stream=server.open_stream``, and
            tests can use ``MockClock``.
        heartbeat_interval: seconds between heartbeats; None for no heartbeats.
        rate_limit: the number of events a client may send in a burst, and per second; None for
            no limit.
        version: the protocol version to announce.
        ssl_context: the TLS context, to serve ``wss://``.
    """

    def __init__(
        self,
        *,
        memory: bool = False,
        heartbeat_interval: float | None = 15,
        rate_limit: tuple[int, float] | None = None,
        version: str = "2.3.0",
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self.heartbeat_interval: float | None = heartbeat_interval
        self.rate_limit: tuple[int, float] | None = rate_limit
        self.version: str = version
        self.clients: dict[str, tuple[str, str]] = {"id": ("secret", "Test Game")}
        """For each accepted ``client_id``, the secret and the name of the game."""
        self.games: dict[str, MockGossipGame] = {}
        """Games that are online but are not clients."""
        self.achievements: dict[str, dict[str, Any]] = {}
        """The achievements by key, as payloads; the same for all clients."""
        self.received: list[dict[str, Any]] = []
        """The events of all clients, oldest first."""
        self.peers: list[MockGossipPeer] = []
        """The authenticated clients."""
        self.server: MockServer = MockServer(self._serve, memory=memory, ssl_context=ssl_context)
        """The WebSocket server: ``reject()`` refuses handshakes; ``peers`` lists connections."""
        self._ignored: Counter[str] = Counter()
        self._failures: dict[str, list[str]] = {}
        self._expected: Counter[str] = Counter()
        self._arrived = trio.Event()

    async def __aenter__(self) -> MockGossipServer:
        await self.server.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.server.__aexit__(kind, error, traceback)

    @property
    def url(self) -> str:
        """The URL to connect to."""
        return self.server.url

    async def open_stream(self) -> trio.abc.Stream:
        """Open an in-memory stream to this server, for ``stream=server.open_stream``."""
        return await self.server.open_stream()

    # Events from the clients.

    async def expect(self, event: str) -> dict[str, Any]:
        """Wait for the next event with this name and return it. No event is returned twice.

        Args:
            event: the name of the event.
        """
        while True:
            matching = [received for received in self.received if received.get("event") == event]
            if len(matching) > self._expected[event]:
                self._expected[event] += 1
                return matching[self._expected[event] - 1]
            await self._arrived.wait()

    def fail(self, event: str, error: str) -> None:
        """Make the next event with this name fail.

        Args:
            event: the name of the event.
            error: the text of the failure.
        """
        self._failures.setdefault(event, []).append(error)

    def ignore(self, event: str, times: int = 1) -> None:
        """Ignore the next events with this name.

        Args:
            event: the name of the event.
            times: the number of events to ignore.
        """
        self._ignored[event] += times

    # Events from other games.

    async def broadcast(self, channel: str, game: str, name: str, message: str) -> None:
        """Send a message from another game to the subscribed clients.

        Args:
            channel: the name of the channel.
            game: the name of the other game.
            name: the player who sends it.
            message: the text.
        """
        payload = {"channel": channel, "game": game, "name": name, "message": message}
        await self._relay("channels/broadcast", payload)

    async def sign_in(self, game: str, name: str) -> None:
        """Sign in a player of another game.

        Args:
            game: the name of the other game.
            name: the name of the player.
        """
        players = self.games.setdefault(game, MockGossipGame(name=game)).players
        if name not in players:
            players.append(name)
        await self._relay("players/sign-in", {"game": game, "name": name})

    async def sign_out(self, game: str, name: str) -> None:
        """Sign out a player of another game.

        Args:
            game: the name of the other game.
            name: the name of the player.
        """
        players = self.games.setdefault(game, MockGossipGame(name=game)).players
        if name in players:
            players.remove(name)
        await self._relay("players/sign-out", {"game": game, "name": name})

    async def tell(
        self, from_game: str, from_name: str, to_name: str, message: str, sent_at: str
    ) -> None:
        """Send a private message from another game to the clients.

        Args:
            from_game: the name of the other game.
            from_name: the player who sends it.
            to_name: the player who receives it.
            message: the text.
            sent_at: the time in ISO 8601 format.
        """
        payload = {"from_game": from_game, "from_name": from_name, "to_name": to_name}
        await self._relay("tells/receive", {**payload, "sent_at": sent_at, "message": message})

    async def add_game(self, game: MockGossipGame) -> None:
        """Bring a game online.

        Args:
            game: the game.
        """
        self.games[game.name] = game
        await self._relay("games/connect", {"game": game.name})

    async def remove_game(self, name: str) -> None:
        """Take a game offline.

        Args:
            name: the name of the game.
        """
        del self.games[name]
        await self._relay("games/disconnect", {"game": name})

    # The network itself.

    async def heartbeat(self) -> None:
        """Send a heartbeat to every client now."""
        for peer in list(self.peers):
            await peer.heartbeat()

    async def restart(self, downtime: float) -> None:
        """Announce a restart to all clients, and close the connections as :meth:`close` does.

        Args:
            downtime: seconds after which clients should reconnect.
        """
        await run_for_each(self.peers, MockGossipPeer.restart, downtime)

    async def send(self, event: str, payload: dict[str, Any] | None = None) -> None:
        """Send an event to every client.

        Args:
            event: the name of the event.
            payload: its payload; None for none.
        """
        for peer in list(self.peers):
            await peer.send(event, payload)

    async def send_text(self, *texts: str) -> None:
        """Send text frames to every client unchanged.

        Args:
            texts: one string for each frame.
        """
        for peer in list(self.peers):
            for text in texts:
                await peer.send_text(text)

    async def close(self, code: int = 1000, reason: str = "goodbye") -> None:
        """Close all connections concurrently.

        A client that does not answer the Close frame is dropped after 10 seconds.

        Args:
            code: the code of the Close frames.
            reason: their reason.
        """
        await run_for_each(self.peers, MockGossipPeer.close, code, reason)

    async def abort(self) -> None:
        """Drop every connection without a closing handshake."""
        for peer in list(self.server.peers):
            await peer.abort()

    def online(self) -> list[MockGossipGame]:
        """Return all games: those of the clients and those in :attr:`games`."""
        return [*(peer.game for peer in self.peers if peer.game is not None), *self.games.values()]

    async def _serve(self, peer: MockPeer) -> None:
        client = MockGossipPeer(self, peer)
        try:
            await client._run()
        finally:
            if client in self.peers:
                self.peers.remove(client)
                assert client.game is not None
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                    await self._relay("games/disconnect", {"game": client.game.name})

    def _record(self, event: Event) -> None:
        self.received.append(event)
        self._arrived.set()
        self._arrived = trio.Event()

    def _is_ignored(self, name: object) -> bool:
        if not isinstance(name, str) or not self._ignored[name]:
            return False
        self._ignored[name] -= 1
        return True

    def _next_failure(self, name: object) -> str | None:
        errors = self._failures.get(name) if isinstance(name, str) else None
        return errors.pop(0) if errors else None

    async def _add_peer(self, peer: MockGossipPeer, game: MockGossipGame) -> None:
        self.peers.append(peer)
        await self._relay("games/connect", {"game": game.name}, sender=peer)
        if self.heartbeat_interval is not None:
            await peer.heartbeat()

    async def _relay(
        self,
        event: str,
        payload: dict[str, Any],
        *,
        sender: MockGossipPeer | None = None,
        to_game: str | None = None,
    ) -> None:
        """Send an event to all other clients that support and should receive it."""
        flag = EVENT_FLAGS.get(event, "channels")
        for peer in list(self.peers):
            game = peer.game
            if game is None or peer is sender or flag not in game.supports:
                continue
            if to_game is not None and game.name.lower() != to_game.lower():
                continue
            if event == "channels/broadcast" and payload["channel"] not in game.channels:
                continue
            await peer.send(event, payload)


class MockGossipPeer:
    """The server's end of one connection.

    Args:
        server: the network.
        peer: the WebSocket connection.
    """

    def __init__(self, server: MockGossipServer, peer: MockPeer) -> None:
        self.peer: MockPeer = peer
        """The WebSocket connection: its frames, headers and the client's Close frame."""
        self.game: MockGossipGame | None = None
        """The game as the client described it; None before authentication."""
        self.missed: int = 0
        """The number of heartbeats since the last answer."""
        self._server = server
        self._level = self._level_time = 0.0
        self._excess = 0

    # Sending.

    async def send(self, event: str, payload: dict[str, Any] | None = None) -> None:
        """Send an event from the server.

        Args:
            event: the name of the event.
            payload: its payload; None for none.
        """
        message = {"event": event, "ref": str(uuid.uuid4())}
        await self.send_message(message if payload is None else {**message, "payload": payload})

    async def send_message(self, message: object) -> None:
        """Send a JSON message; do nothing if the client has disconnected.

        Args:
            message: any JSON value.
        """
        await self.send_text(json.dumps(message))

    async def send_text(self, text: str) -> None:
        """Send a text frame; do nothing if the client has disconnected.

        Args:
            text: the text of the frame.
        """
        try:
            await self.peer.send(text)
        except ConnectionClosed:
            await trio.lowlevel.checkpoint()

    async def close(self, code: int, reason: str = "goodbye") -> None:
        """Close the connection.

        Args:
            code: the code of the Close frame.
            reason: its reason.
        """
        await self.peer.close(code, reason)

    async def restart(self, downtime: float) -> None:
        """Announce a restart, and close the connection.

        Args:
            downtime: seconds after which the client should reconnect.
        """
        with trio.move_on_after(CLOSE_TIMEOUT):
            await self.send("restart", {"downtime": downtime})
        await self.close(1012, "restart")

    async def heartbeat(self) -> None:
        """Send a heartbeat; after three without an answer, close with 4001."""
        if self.missed >= 3:
            await self.close(4001)
            return
        self.missed += 1
        await self.send("heartbeat")

    async def answer(
        self,
        event: dict[str, Any],
        payload: dict[str, Any] | None = None,
        *,
        error: str | None = None,
        status: bool = True,
    ) -> None:
        """Answer an event from the client; do nothing if the event has no ``ref``.

        Args:
            event: the event from the client.
            payload: the payload of the answer.
            error: the text of a failure; "" for a failure without text, None for success.
            status: whether the answer has a status.
        """
        if "ref" not in event:
            return
        message: dict[str, Any] = {"event": event["event"], "ref": event["ref"]}
        if status:
            message["status"] = "success" if error is None else "failure"
        if error:
            message["error"] = error
        if payload is not None:
            message["payload"] = payload
        await self.send_message(message)

    async def _send_failure(self, error: str) -> None:
        await self.send_message({"status": "failure", "error": error})

    # Receiving.

    async def _run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send_heartbeats)
            while True:
                try:
                    frame = await self.peer.receive()
                except AssertionError:
                    break  # the client closed the connection
                await self._receive(frame)
            nursery.cancel_scope.cancel()

    async def _send_heartbeats(self) -> None:
        if self._server.heartbeat_interval is not None:
            while True:
                await trio.sleep(self._server.heartbeat_interval)
                await self.heartbeat()

    async def _receive(self, frame: str | bytes) -> None:
        try:
            event = json.loads(frame)
        except (ValueError, RecursionError):
            event = None
        if not isinstance(event, dict):
            await self._send_failure("unknown")
            return
        self._server._record(event)
        if self._is_over_limit():
            goodbye = ", goodbye" if self._excess > EXCESS else ""
            await self._send_failure(f"rate limit exceeded{goodbye}")
            if goodbye:
                await self.close(4000)
            return
        name = event.get("event")
        if self._server._is_ignored(name):
            return
        error = self._server._next_failure(name)
        if error is not None:
            await self.answer(event, error=error)
        else:
            try:
                await self._handle(name, event)
            except (KeyError, ValueError, TypeError, AttributeError):  # a malformed payload
                await self.answer(event, error="an error occurred, try again")

    def _is_over_limit(self) -> bool:
        """Count an event in a leaky bucket."""
        if self._server.rate_limit is None:
            return False
        burst, per_second = self._server.rate_limit
        now = trio.current_time()
        self._level = max(0.0, self._level - (now - self._level_time) * per_second)
        self._level_time = now
        if self._level + 1 <= burst:
            self._level += 1
            return False
        self._excess += 1
        return True

    async def _handle(self, name: object, event: Event) -> None:
        if self.game is None:
            await self._authenticate(event)
            return
        handler = _HANDLERS.get(name) if isinstance(name, str) else None
        if not isinstance(name, str) or handler is None:
            await self._send_failure("unknown")
            return
        flag = name.partition("/")[0]
        if flag in FLAGS and flag not in self.game.supports:
            await self.answer(event, error=f'missing support for "{flag}"')
            return
        await handler(self, event, self.game)

    async def _authenticate(self, event: Event) -> None:
        if event.get("event") != "authenticate":
            await self._send_failure("unauthenticated")
            return
        payload = event.get("payload")
        payload = payload if isinstance(payload, dict) else {}
        client_id = payload.get("client_id")
        given = payload.get("supports")
        supports: list[Any] = given if isinstance(given, list) else []
        known = self._server.clients.get(client_id) if isinstance(client_id, str) else None
        error = None
        if known is None or known[0] != payload.get("client_secret"):
            error = "invalid credentials"
        elif not supports:
            error = "missing supports"
        elif "channels" not in supports:
            error = "must support channels"
        elif not set(supports) <= set(FLAGS):
            error = "includes unknown supports"
        message: Event = {"event": "authenticate"}
        if "ref" in event:
            message["ref"] = event["ref"]
        if error is not None or known is None:
            await self.send_message({**message, "status": "failure", "error": error})
            await self.close(4000)
            return
        channels = payload.get("channels") or []
        self.game = MockGossipGame(
            name=known[1],
            supports=supports,
            channels=[channel for channel in channels if _is_channel(channel)],
            user_agent=payload.get("user_agent") or "",
        )
        details = {"unicode": "✔️", "version": self._server.version}
        await self.send_message({**message, "status": "success", "payload": details})
        for channel in channels:
            if channel not in self.game.channels:
                await self._refuse_channel({"event": "channels/subscribe"}, channel)
        await self._server._add_peer(self, self.game)

    async def _on_heartbeat(self, event: Event, game: MockGossipGame) -> None:
        self.missed = 0
        game.players = [name for name in event["payload"]["players"] if name]

    # Channels.

    async def _on_subscribe(self, event: Event, game: MockGossipGame) -> None:
        channel = event["payload"]["channel"]
        if not _is_channel(channel):
            await self._refuse_channel(event, channel)
            return
        if channel not in game.channels:
            game.channels.append(channel)
        await self.answer(event)

    async def _refuse_channel(self, event: Event, channel: str) -> None:
        message: Event = {key: event[key] for key in ("event", "ref") if key in event}
        error = f"Could not subscribe to '{channel}'"
        await self.send_message({**message, "status": "failure", "error": error})

    async def _on_unsubscribe(self, event: Event, game: MockGossipGame) -> None:
        channel = event["payload"]["channel"]
        if channel in game.channels:
            game.channels.remove(channel)
        await self.answer(event)

    async def _on_send(self, event: Event, game: MockGossipGame) -> None:
        payload = event["payload"]
        if payload["channel"] in game.channels:
            message = {key: payload[key] for key in ("channel", "name", "message")}
            message["game"] = game.name
            await self._server._relay("channels/broadcast", message, sender=self)
        await self.answer(event)

    # Players and games.

    async def _on_sign_in(self, event: Event, game: MockGossipGame) -> None:
        name = event["payload"]["name"]
        if not name:
            await self.answer(event, error="Name cannot be empty")
            return
        if name not in game.players:
            game.players.append(name)
            payload = {"game": game.name, "name": name}
            await self._server._relay("players/sign-in", payload, sender=self)
        await self.answer(event)

    async def _on_sign_out(self, event: Event, game: MockGossipGame) -> None:
        name = event["payload"]["name"]
        if name in game.players:
            game.players.remove(name)
            payload = {"game": game.name, "name": name}
            await self._server._relay("players/sign-out", payload, sender=self)
        await self.answer(event)

    async def _on_players_status(self, event: Event, game: MockGossipGame) -> None:
        for other in await self._requested_games(event, game):
            payload = {"game": other.name, "players": other.players}
            await self.answer(event, payload, status=False)

    async def _on_games_status(self, event: Event, game: MockGossipGame) -> None:
        for other in await self._requested_games(event, game):
            await self.answer(event, other.to_payload())

    async def _requested_games(self, event: Event, game: MockGossipGame) -> list[MockGossipGame]:
        """Return the games whose status is requested; send a failure if there are none."""
        online = self._server.online()
        name = (event.get("payload") or {}).get("game")
        if "ref" not in event:
            return []
        if name is None:
            return [other for other in online if other is not game]
        found = [other for other in online if other.name == name]
        if not found:
            await self.answer(event, error="unknown game")
        return found

    # Tells.

    async def _on_tell(self, event: Event, game: MockGossipGame) -> None:
        payload = event["payload"]
        error = self._tell_error(payload, game)
        if error is None:
            tell = {k: payload[k] for k in ("from_name", "to_name", "sent_at", "message")}
            tell["from_game"] = game.name
            to_game = payload["to_game"]
            await self._server._relay("tells/receive", tell, sender=self, to_game=to_game)
        await self.answer(event, error=error)

    def _tell_error(self, payload: dict[str, Any], game: MockGossipGame) -> str | None:
        if sorted(payload) != TELL_FIELDS or not all(isinstance(v, str) for v in payload.values()):
            return "invalid payload"
        try:
            datetime.strptime(payload["sent_at"], "%Y-%m-%dT%H:%M:%SZ")  # noqa: DTZ007
        except ValueError:
            return "invalid payload"
        name = payload["to_game"].lower()
        to_game = next(
            (other for other in self._server.online() if other.name.lower() == name), None
        )
        if to_game is None:
            return "game offline"
        if "tells" not in to_game.supports:
            return "not supported"
        if not game.has_player(payload["from_name"]):
            return "sending player offline"
        if not to_game.has_player(payload["to_name"]):
            return "receiving player offline"
        return None

    # Achievements.

    async def _on_sync(self, event: Event, game: MockGossipGame) -> None:
        achievements = list(self._server.achievements.values())
        for start in range(0, max(len(achievements), 1), BATCH):
            batch = achievements[start : start + BATCH]
            payload = {"total": len(achievements), "achievements": batch}
            await self.answer(event, payload, status=False)

    async def _on_create(self, event: Event, game: MockGossipGame) -> None:
        await self._store(event, str(uuid.uuid4()), dict(event["payload"]))

    async def _on_update(self, event: Event, game: MockGossipGame) -> None:
        key = event["payload"]["key"]
        known = self._server.achievements.get(key)
        if known is None:
            await self.answer(event, {"errors": {"key": ["not found"]}}, error="")
            return
        await self._store(event, key, {**known, **event["payload"]})

    async def _store(self, event: Event, key: str, achievement: dict[str, Any]) -> None:
        if not achievement.get("title"):
            await self.answer(event, {"errors": {"title": ["can't be blank"]}}, error="")
            return
        self._server.achievements[key] = {**achievement, "key": key}
        await self.answer(event, self._server.achievements[key])

    async def _on_delete(self, event: Event, game: MockGossipGame) -> None:
        key = event["payload"]["key"]
        if self._server.achievements.pop(key, None) is None:
            await self.answer(event, {"errors": {"key": ["not found"]}}, error="")
        else:
            await self.answer(event, {"key": key})


_HANDLERS: Mapping[str, Callable[[MockGossipPeer, Event, MockGossipGame], Awaitable[None]]] = {
    "heartbeat": MockGossipPeer._on_heartbeat,
    "channels/subscribe": MockGossipPeer._on_subscribe,
    "channels/unsubscribe": MockGossipPeer._on_unsubscribe,
    "channels/send": MockGossipPeer._on_send,
    "players/sign-in": MockGossipPeer._on_sign_in,
    "players/sign-out": MockGossipPeer._on_sign_out,
    "players/status": MockGossipPeer._on_players_status,
    "tells/send": MockGossipPeer._on_tell,
    "games/status": MockGossipPeer._on_games_status,
    "achievements/sync": MockGossipPeer._on_sync,
    "achievements/create": MockGossipPeer._on_create,
    "achievements/update": MockGossipPeer._on_update,
    "achievements/delete": MockGossipPeer._on_delete,
}
