"""What the tests share: callbacks that record, and a client of the mock network."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any

import trio

from trioglock import Backoff, TrioWebsocketTransport
from trioglock.protocols import gossip
from trioglock.testing import MockGossipServer

WIRES = ("memory", "native", "trio-websocket")

QUICK = Backoff(initial=0.05, multiplier=1, jitter="none", max_attempts=None)


class Record(
    gossip.ChannelsCallbacks,
    gossip.PlayersCallbacks,
    gossip.TellsCallbacks,
    gossip.GamesCallbacks,
    gossip.AchievementsCallbacks,
    gossip.SystemCallbacks,
):
    """Every callback leaves its name and arguments here, in order."""

    user_agent = "Recorder 1.0"
    channels = ("gossip",)

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self._called = trio.Event()

    def note(self, *call: Any) -> None:
        self.calls.append(call)
        self._called.set()
        self._called = trio.Event()

    async def expect(self, *call: Any) -> tuple[Any, ...]:
        """Wait for a callback with these first values; what came before it is dropped."""
        while True:
            for index, done in enumerate(self.calls):
                if done[: len(call)] == call:
                    del self.calls[: index + 1]
                    return done
            await self._called.wait()

    def message_broadcast(self, message: gossip.ChannelMessage) -> Any:
        self.note("message", message)

    def player_signed_in(self, game: str, name: str) -> None:
        self.note("in", game, name)

    async def player_signed_out(self, game: str, name: str) -> None:
        self.note("out", game, name)

    def players_updated(self, game: str, players: tuple[str, ...]) -> None:
        self.note("players", game, players)

    def tell_received(self, tell: gossip.Tell) -> None:
        self.note("tell", tell)

    def game_connected(self, game: str) -> None:
        self.note("connected", game)

    def game_disconnected(self, game: str) -> None:
        self.note("gone", game)

    def game_updated(self, game: gossip.Game) -> None:
        self.note("game", game)

    def achievements_synced(self, achievements: tuple[gossip.Achievement, ...]) -> None:
        self.note("achievements", achievements)

    def authenticated(self, version: str) -> None:
        self.note("authenticated", version)

    def disconnected(self, reason: Any) -> None:
        self.note("disconnected", reason)

    def restarting(self, downtime: float) -> None:
        self.note("restarting", downtime)

    def refused(self, event: str, error: str) -> None:
        self.note("refused", event, error)

    def event_received(self, event: Any) -> None:
        self.note("event", event)


FLAGS = ("players", "tells", "games", "achievements", "system")


def join(
    server: MockGossipServer,
    record: Record | None = None,
    *,
    wire: str = "memory",
    flags: tuple[str, ...] = FLAGS,
    **options: Any,
) -> AbstractAsyncContextManager[gossip.Client]:
    """A client with all flags, over one of the WIRES."""
    core = record or Record()
    given: dict[str, Any] = {"channels": core, "client_id": "id", "client_secret": "secret"}
    given |= dict.fromkeys(flags, core)
    if wire == "memory":
        given["stream"] = server.open_stream
    elif wire == "trio-websocket":
        given["transport"] = TrioWebsocketTransport()
    return gossip.connect(server.url, **{"reconnect": QUICK, **given, **options})
