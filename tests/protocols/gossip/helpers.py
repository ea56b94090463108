"""Callbacks that record their calls, and clients of the mock network."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any

import trio

from trioglock import Backoff
from trioglock.protocols import gossip
from trioglock.testing import MockGossipServer as Server

__all__ = ["FLAGS", "SHORT_BACKOFF", "Recorder", "Server", "open_client"]

SHORT_BACKOFF = Backoff(initial=0.05, multiplier=1, jitter="none", max_attempts=None)

FLAGS = ("players", "tells", "games", "achievements", "system")


class Recorder(
    gossip.ChannelsCallbacks,
    gossip.PlayersCallbacks,
    gossip.TellsCallbacks,
    gossip.GamesCallbacks,
    gossip.AchievementsCallbacks,
    gossip.SystemCallbacks,
):
    """Records the name and arguments of each call, in order."""

    user_agent = "Recorder 1.0"
    channels = ("gossip",)

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self._called = trio.Event()

    def record(self, *call: Any) -> None:
        self.calls.append(call)
        self._called.set()
        self._called = trio.Event()

    async def expect(self, *call: Any) -> tuple[Any, ...]:
        """Wait for a call that begins with these values; drop it and the calls before it."""
        while True:
            for index, recorded in enumerate(self.calls):
                if recorded[: len(call)] == call:
                    del self.calls[: index + 1]
                    return recorded
            await self._called.wait()

    def message_broadcast(self, message: gossip.ChannelMessage) -> Any:
        self.record("message", message)

    def player_signed_in(self, game: str, name: str) -> None:
        self.record("signed in", game, name)

    async def player_signed_out(self, game: str, name: str) -> None:
        self.record("signed out", game, name)

    def players_updated(self, game: str, players: tuple[str, ...]) -> None:
        self.record("players", game, players)

    def tell_received(self, tell: gossip.Tell) -> None:
        self.record("tell", tell)

    def game_connected(self, game: str) -> None:
        self.record("game connected", game)

    def game_disconnected(self, game: str) -> None:
        self.record("game disconnected", game)

    def game_updated(self, game: gossip.Game) -> None:
        self.record("game", game)

    def achievements_synced(self, achievements: tuple[gossip.Achievement, ...]) -> None:
        self.record("achievements", achievements)

    def authenticated(self, version: str) -> None:
        self.record("authenticated", version)

    def disconnected(self, reason: Any) -> None:
        self.record("disconnected", reason)

    def restarting(self, downtime: float) -> None:
        self.record("restarting", downtime)

    def refused(self, event: str, error: str) -> None:
        self.record("refused", event, error)

    def event_received(self, event: Any) -> None:
        self.record("event", event)


def open_client(
    server: Server,
    recorder: Recorder | None = None,
    *,
    flags: tuple[str, ...] = FLAGS,
    **options: Any,
) -> AbstractAsyncContextManager[gossip.Client]:
    """Connect a client in memory, by default with all flags."""
    callbacks = recorder or Recorder()
    given: dict[str, Any] = {
        "client_id": "id",
        "client_secret": "secret",
        "reconnect": SHORT_BACKOFF,
        "stream": server.open_stream,
        "channels": callbacks,
        **dict.fromkeys(flags, callbacks),
    }
    return gossip.connect(server.url, **{**given, **options})
