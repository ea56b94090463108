"""``MockGossipServer``: the Gossip network in a test."""

from __future__ import annotations

import ssl
from collections import Counter
from types import TracebackType
from typing import Any

import trio

from ..server import MockPeer, MockServer
from .game import MockGossipGame
from .peer import MockGossipPeer

__all__ = ["MockGossipServer"]

NEEDS = {"players/sign-in": "players", "players/sign-out": "players", "tells/receive": "tells"}


class MockGossipServer:
    """The Gossip network for the time of an ``async with`` block, on a port or in memory.

    It answers as Grapevine does. Its clients see each other, and games that only seem to be::

        async with MockGossipServer() as server:
            server.games["ExVenture"] = MockGossipGame(name="ExVenture", players=["Eric"])
            async with gossip.connect(
                server.url, client_id="id", client_secret="secret", core=Core()
            ) as client:
                await server.broadcast("gossip", "ExVenture", "Eric", "Hello!")

    Args:
        memory: listen nowhere; clients use ``stream=server.open_stream``. No real time passes
            then, and tests run under ``MockClock``.
        heartbeat_interval: seconds; None for no heartbeats of its own.
        rate_limit: events that a client may send at once, and in a second; None for any number.
        version: of the protocol, as told to clients.
        ssl_context: serve ``wss://``.
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
        """By ``client_id``, who may come in: the secret, and the name of the game."""
        self.games: dict[str, MockGossipGame] = {}
        """Games that seem to be online, without being clients."""
        self.achievements: dict[str, dict[str, Any]] = {}
        """By key, as on the wire; of whichever client asks."""
        self.received: list[dict[str, Any]] = []
        """Every event of every client, oldest first."""
        self.peers: list[MockGossipPeer] = []
        """The clients that have authenticated and are still there."""
        self.server: MockServer = MockServer(self._serve, memory=memory, ssl_context=ssl_context)
        """What listens: ``reject()`` refuses handshakes, ``peers`` has all connections."""
        self._ignored: Counter[str] = Counter()
        self._failures: dict[str, list[str]] = {}
        self._taken: Counter[str] = Counter()
        self._arrival = trio.Event()

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
        """Where to connect to."""
        return self.server.url

    async def open_stream(self) -> trio.abc.Stream:
        """A stream to this server in memory, for ``stream=server.open_stream``."""
        return await self.server.open_stream()

    # The script: what clients did.

    async def expect(self, event: str) -> dict[str, Any]:
        """The oldest event of this name that was not asked for before; waits for it.

        Args:
            event: its name.
        """
        while True:
            of_that_name = [one for one in self.received if one.get("event") == event]
            if len(of_that_name) > self._taken[event]:
                self._taken[event] += 1
                return of_that_name[self._taken[event] - 1]
            await self._arrival.wait()

    def fail(self, event: str, error: str) -> None:
        """Answer the next event of this name with a failure.

        Args:
            event: its name.
            error: the text of the failure.
        """
        self._failures.setdefault(event, []).append(error)

    def ignore(self, event: str, times: int = 1) -> None:
        """Do nothing about the next ``times`` events of this name.

        Args:
            event: its name.
            times: how many of them.
        """
        self._ignored[event] += times

    # The script: what others do.

    async def broadcast(self, channel: str, game: str, name: str, message: str) -> None:
        """A player of another game says something on a channel.

        Args:
            channel: where.
            game: the player's.
            name: of the player.
            message: the text.
        """
        said = {"channel": channel, "game": game, "name": name, "message": message}
        await self.relay("channels/broadcast", said)

    async def sign_in(self, game: str, name: str) -> None:
        """A player of another game comes online.

        Args:
            game: the player's.
            name: of the player.
        """
        there = self.games.setdefault(game, MockGossipGame(name=game)).players
        if name not in there:
            there.append(name)
        await self.relay("players/sign-in", {"game": game, "name": name})

    async def sign_out(self, game: str, name: str) -> None:
        """A player of another game goes offline.

        Args:
            game: the player's.
            name: of the player.
        """
        there = self.games.setdefault(game, MockGossipGame(name=game)).players
        if name in there:
            there.remove(name)
        await self.relay("players/sign-out", {"game": game, "name": name})

    async def tell(
        self, from_game: str, from_name: str, to_name: str, message: str, sent_at: str
    ) -> None:
        """A player of another game says something to one of the clients' players.

        Args:
            from_game: the player's.
            from_name: of the player.
            to_name: of the client's player.
            message: the text.
            sent_at: in ISO 8601.
        """
        tell = {"from_game": from_game, "from_name": from_name, "to_name": to_name}
        await self.relay("tells/receive", {**tell, "sent_at": sent_at, "message": message})

    async def add_game(self, game: MockGossipGame) -> None:
        """A game comes online.

        Args:
            game: that is seen from now on.
        """
        self.games[game.name] = game
        await self._tell_games("games/connect", game.name)

    async def remove_game(self, name: str) -> None:
        """A game goes offline.

        Args:
            name: of the game.
        """
        del self.games[name]
        await self._tell_games("games/disconnect", name)

    async def beat(self) -> None:
        """Ask every client for a sign of life, now."""
        for peer in list(self.peers):
            await peer.beat()

    async def restart(self, downtime: float) -> None:
        """Tell every client to come back in ``downtime`` seconds, and hang up."""
        for peer in list(self.peers):
            await peer.send("restart", {"downtime": downtime})
            await peer.close(1012, "restart")

    async def send(self, event: str, payload: dict[str, Any] | None = None) -> None:
        """Send an event to every client.

        Args:
            event: its name.
            payload: None for none.
        """
        for peer in list(self.peers):
            await peer.send(event, payload)

    async def send_text(self, *texts: str) -> None:
        """Send text frames to every client, as they are.

        Args:
            texts: one for each frame.
        """
        for peer in list(self.peers):
            for text in texts:
                await peer.send_text(text)

    async def close(self, code: int = 1000, reason: str = "goodbye") -> None:
        """Close every connection.

        Args:
            code: of the Close frames.
            reason: their text.
        """
        for peer in list(self.peers):
            await peer.close(code, reason)

    async def abort(self) -> None:
        """Drop every connection without a closing handshake."""
        for peer in list(self.server.peers):
            await peer.abort()

    # For the peers.

    async def _serve(self, peer: MockPeer) -> None:
        client = MockGossipPeer(self, peer)
        try:
            await client.run()
        finally:
            if client in self.peers:
                self.peers.remove(client)
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                    await self._tell_games("games/disconnect", _name(client))

    def name_of(self, client_id: object, secret: object) -> str | None:
        """The name of the game with these credentials, or None."""
        known = self.clients.get(client_id) if isinstance(client_id, str) else None
        return known[1] if known is not None and known[0] == secret else None

    def note(self, event: dict[str, Any]) -> None:
        """A client has sent an event."""
        self.received.append(event)
        self._arrival.set()
        self._arrival = trio.Event()

    def is_ignored(self, event: object) -> bool:
        """Whether the script says to do nothing about it."""
        if not isinstance(event, str) or not self._ignored[event]:
            return False
        self._ignored[event] -= 1
        return True

    def failure_of(self, event: object) -> str | None:
        """What the script says to answer instead."""
        errors = self._failures.get(event) if isinstance(event, str) else None
        return errors.pop(0) if errors else None

    def online(self) -> list[MockGossipGame]:
        """Every game: those of the clients, and those that seem to be."""
        return [*(p.game for p in self.peers if p.game is not None), *self.games.values()]

    async def joined(self, peer: MockGossipPeer) -> None:
        """A client has authenticated."""
        self.peers.append(peer)
        await self._tell_games("games/connect", _name(peer), sender=peer)
        if self.heartbeat_interval is not None:
            await peer.beat()

    async def relay(
        self,
        event: str,
        payload: dict[str, Any],
        *,
        sender: MockGossipPeer | None = None,
        only: str | None = None,
    ) -> None:
        """Send an event to every other client that is concerned."""
        for peer in list(self.peers):
            game = peer.game
            if game is None or peer is sender or NEEDS.get(event, "channels") not in game.supports:
                continue
            if only is not None and game.name.lower() != only.lower():
                continue
            if event == "channels/broadcast" and payload["channel"] not in game.channels:
                continue
            await peer.send(event, payload)

    async def _tell_games(
        self, event: str, name: str, sender: MockGossipPeer | None = None
    ) -> None:
        for peer in list(self.peers):
            if peer is not sender and peer.game is not None and "games" in peer.game.supports:
                await peer.send(event, {"game": name})


def _name(peer: MockGossipPeer) -> str:
    return peer.game.name if peer.game is not None else ""
