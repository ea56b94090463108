"""One client of the mock network: what the server answers to each of its events."""

from __future__ import annotations

import json
import uuid
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

import trio

from ..server import MockPeer
from .game import FLAGS, MockGossipGame, is_channel
from .rate import Rate
from .wire import Wire

if TYPE_CHECKING:
    from .server import MockGossipServer

__all__ = ["MockGossipPeer"]

BATCH = 10
"""Achievements in one answer to a sync."""

TELL_FIELDS = ["from_name", "message", "sent_at", "to_game", "to_name"]


class MockGossipPeer(Wire):
    """The server's end of one connection.

    Args:
        server: of the network.
        peer: its connection.
    """

    def __init__(self, server: MockGossipServer, peer: MockPeer) -> None:
        super().__init__(peer)
        self.game: MockGossipGame | None = None
        """What the client told of itself; None before it has authenticated."""
        self.missed: int = 0
        """Heartbeats without an answer."""
        self._server = server
        self._rate = Rate(server.rate_limit)
        self._handlers: dict[str, Callable[[dict[str, Any], MockGossipGame], Awaitable[None]]] = {
            "heartbeat": self._heartbeat,
            "channels/subscribe": self._subscribe,
            "channels/unsubscribe": self._unsubscribe,
            "channels/send": self._say,
            "players/sign-in": self._sign_in,
            "players/sign-out": self._sign_out,
            "players/status": self._players,
            "tells/send": self._tell,
            "games/status": self._games,
            "achievements/sync": self._sync,
            "achievements/create": self._create,
            "achievements/update": self._update,
            "achievements/delete": self._delete,
        }

    async def run(self) -> None:
        """Serve it until it goes."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._beat)
            while True:
                try:
                    frame = await self.peer.receive()
                except AssertionError:
                    break  # the client closed
                await self._process(frame)
            nursery.cancel_scope.cancel()

    # Receiving.

    async def _process(self, frame: str | bytes) -> None:
        try:
            event = json.loads(frame)
        except ValueError:
            event = None
        if not isinstance(event, dict):
            await self.send_message({"status": "failure", "error": "unknown"})
            return
        self._server.note(event)
        verdict = self._rate.count()
        if verdict is not None:
            await self.send_message({"status": "failure", "error": verdict})
            if verdict.endswith("goodbye"):
                await self.close(4000)
            return
        name = event.get("event")
        if self._server.is_ignored(name):
            return
        error = self._server.failure_of(name)
        if error is not None:
            await self.answer(event, error=error)
        elif self.game is None:
            await self._before_authentication(event)
        elif isinstance(name, str) and name in self._handlers:
            await self._handle(name, event, self.game)
        else:
            await self.send_message({"status": "failure", "error": "unknown"})

    async def _handle(self, name: str, event: dict[str, Any], game: MockGossipGame) -> None:
        flag = name.partition("/")[0]
        if flag in FLAGS and flag not in game.supports:
            await self.answer(event, error=f'missing support for "{flag}"')
            return
        try:
            await self._handlers[name](event, game)
        except (KeyError, TypeError, AttributeError):
            await self.answer(event, error="an error occurred, try again")

    async def _before_authentication(self, event: dict[str, Any]) -> None:
        if event.get("event") != "authenticate":
            await self.send_message({"status": "failure", "error": "unauthenticated"})
            return
        payload = event.get("payload") or {}
        supports = payload.get("supports") or []
        name = self._server.name_of(payload.get("client_id"), payload.get("client_secret"))
        error = None
        if name is None:
            error = "invalid credentials"
        elif not supports:
            error = "missing supports"
        elif "channels" not in supports:
            error = "must support channels"
        elif not set(supports) <= set(FLAGS):
            error = "includes unknown supports"
        message: dict[str, Any] = {"event": "authenticate", "status": "failure", "error": error}
        if "ref" in event:
            message["ref"] = event["ref"]
        if error is not None or name is None:
            await self.send_message(message)
            await self.close(4000)
            return
        channels = payload.get("channels") or []
        self.game = MockGossipGame(
            name=name,
            supports=supports,
            channels=[channel for channel in channels if is_channel(channel)],
            user_agent=payload.get("user_agent") or "",
        )
        del message["error"]
        welcome = {"unicode": "✔️", "version": self._server.version}
        await self.send_message({**message, "status": "success", "payload": welcome})
        for channel in channels:
            if channel not in self.game.channels:
                await self._refuse_channel({"event": "channels/subscribe"}, channel)
        await self._server.joined(self)

    # The heartbeat.

    async def _beat(self) -> None:
        if self._server.heartbeat_interval is None:
            return
        while True:
            await trio.sleep(self._server.heartbeat_interval)
            await self.beat()

    async def beat(self) -> None:
        """Ask for a sign of life; after three without an answer, hang up."""
        if self.missed >= 3:
            await self.close(4001)
            return
        self.missed += 1
        await self.send("heartbeat")

    async def _heartbeat(self, event: dict[str, Any], game: MockGossipGame) -> None:
        self.missed = 0
        game.players = [name for name in event["payload"]["players"] if name]

    # Channels.

    async def _subscribe(self, event: dict[str, Any], game: MockGossipGame) -> None:
        channel = event["payload"]["channel"]
        if not is_channel(channel):
            await self._refuse_channel(event, channel)
            return
        if channel not in game.channels:
            game.channels.append(channel)
        await self.answer(event)

    async def _refuse_channel(self, event: dict[str, Any], channel: str) -> None:
        answer: dict[str, Any] = {k: event[k] for k in ("event", "ref") if k in event}
        error = f"Could not subscribe to '{channel}'"
        await self.send_message({**answer, "status": "failure", "error": error})

    async def _unsubscribe(self, event: dict[str, Any], game: MockGossipGame) -> None:
        channel = event["payload"]["channel"]
        if channel in game.channels:
            game.channels.remove(channel)
        await self.answer(event)

    async def _say(self, event: dict[str, Any], game: MockGossipGame) -> None:
        payload = event["payload"]
        if payload["channel"] in game.channels:
            said = {"name": payload["name"], "message": payload["message"]}
            said |= {"channel": payload["channel"], "game": game.name}
            await self._server.relay("channels/broadcast", said, sender=self)
        await self.answer(event)

    # Players.

    async def _sign_in(self, event: dict[str, Any], game: MockGossipGame) -> None:
        name = event["payload"]["name"]
        if not name:
            await self.answer(event, error="Name cannot be empty")
            return
        if name not in game.players:
            game.players.append(name)
            there = {"game": game.name, "name": name}
            await self._server.relay("players/sign-in", there, sender=self)
        await self.answer(event)

    async def _sign_out(self, event: dict[str, Any], game: MockGossipGame) -> None:
        name = event["payload"]["name"]
        if name in game.players:
            game.players.remove(name)
            gone = {"game": game.name, "name": name}
            await self._server.relay("players/sign-out", gone, sender=self)
        await self.answer(event)

    async def _players(self, event: dict[str, Any], game: MockGossipGame) -> None:
        for one in await self._asked_for(event, game):
            there = {"game": one.name, "players": one.players}
            await self.answer(event, there, status=False)

    async def _asked_for(self, event: dict[str, Any], game: MockGossipGame) -> list[MockGossipGame]:
        """The games whose status is wanted; the failure has been sent if there are none such."""
        online = self._server.online()
        name = (event.get("payload") or {}).get("game")
        if "ref" not in event:
            return []
        if name is None:
            return [one for one in online if one is not game]
        found = [one for one in online if one.name == name]
        if not found:
            await self.answer(event, error="unknown game")
        return found

    # Tells and games.

    async def _tell(self, event: dict[str, Any], game: MockGossipGame) -> None:
        payload = event["payload"]
        error = self._tell_error(payload, game)
        if error is None:
            tell = {k: payload[k] for k in ("from_name", "to_name", "sent_at", "message")}
            tell["from_game"] = game.name
            await self._server.relay("tells/receive", tell, sender=self, only=payload["to_game"])
        await self.answer(event, error=error)

    def _tell_error(self, payload: dict[str, Any], game: MockGossipGame) -> str | None:
        if sorted(payload) != TELL_FIELDS or not all(isinstance(v, str) for v in payload.values()):
            return "invalid payload"
        try:
            datetime.strptime(payload["sent_at"], "%Y-%m-%dT%H:%M:%SZ")  # noqa: DTZ007
        except ValueError:
            return "invalid payload"
        to_game = payload["to_game"].lower()
        there = [one for one in self._server.online() if one.name.lower() == to_game]
        if not there:
            return "game offline"
        if "tells" not in there[0].supports:
            return "not supported"
        if not _has(game, payload["from_name"]):
            return "sending player offline"
        if not _has(there[0], payload["to_name"]):
            return "receiving player offline"
        return None

    async def _games(self, event: dict[str, Any], game: MockGossipGame) -> None:
        for one in await self._asked_for(event, game):
            await self.answer(event, one.to_payload())

    # Achievements.

    async def _sync(self, event: dict[str, Any], game: MockGossipGame) -> None:
        have = list(self._server.achievements.values())
        for start in range(0, max(len(have), 1), BATCH):
            batch = have[start : start + BATCH]
            payload = {"total": len(have), "achievements": batch}
            await self.answer(event, payload, status=False)

    async def _create(self, event: dict[str, Any], game: MockGossipGame) -> None:
        await self._store(event, str(uuid.uuid4()), dict(event["payload"]))

    async def _update(self, event: dict[str, Any], game: MockGossipGame) -> None:
        key = event["payload"]["key"]
        known = self._server.achievements.get(key)
        if known is None:
            await self.answer(event, {"errors": {"key": ["not found"]}}, error="")
            return
        await self._store(event, key, {**known, **event["payload"]})

    async def _store(self, event: dict[str, Any], key: str, achievement: dict[str, Any]) -> None:
        if not achievement.get("title"):
            await self.answer(event, {"errors": {"title": ["can't be blank"]}}, error="")
            return
        self._server.achievements[key] = {**achievement, "key": key}
        await self.answer(event, self._server.achievements[key])

    async def _delete(self, event: dict[str, Any], game: MockGossipGame) -> None:
        key = event["payload"]["key"]
        if self._server.achievements.pop(key, None) is None:
            await self.answer(event, {"errors": {"key": ["not found"]}}, error="")
        else:
            await self.answer(event, {"key": key})


def _has(game: MockGossipGame, name: str) -> bool:
    return name.lower() in map(str.lower, game.players)
