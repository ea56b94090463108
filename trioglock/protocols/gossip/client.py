"""``Client``: the calls that a game makes to the network."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, overload

import trio

from ..._timer import PeerTimeout
from ...errors import InvalidOption, RequestTimeout
from ...options import check_seconds
from .errors import NotSubscribed, NotSupported, Offline, RequestRefused
from .hooks import GossipSocket
from .messages import (
    Achievement,
    Game,
    check_channel,
    check_event,
    check_text,
    copy_game,
    format_time,
)
from .state import ClientStatus, without_channel

__all__ = ["Client"]


class Client:
    """A game on the network; the value of ``async with gossip.connect(...) as client``.

    The client outlives its links. While the client is not online,

    * ``subscribe``, ``unsubscribe``, ``sign_in`` and ``sign_out`` return immediately and take
      effect at the next authentication;
    * ``who``, ``games``, ``channels`` and ``players`` return the last known values;
    * all other calls raise :class:`Offline` immediately.

    Every call that sends an event takes a ``timeout`` in seconds, after which it raises
    :class:`~trioglock.RequestTimeout`; with None, it waits until the link ends. Any number of tasks
    may use the client at the same time.
    """

    def __init__(self, socket: GossipSocket) -> None:
        self._socket = socket

    def __repr__(self) -> str:
        state = self._socket.state
        return f"<gossip.Client {state.settings.client_id}, {state.status.value}>"

    # Channels.

    async def subscribe(self, channel: str, *, timeout: float | None = 10) -> None:
        """Subscribe to a channel.

        Args:
            channel: the name of the channel.
            timeout: seconds to wait for the answer; None for no limit.

        Raises:
            InvalidOption: the name is not 3 to 15 letters, ``_`` or ``-``.
            RequestRefused: the server refused the channel. The client retries at the next
                authentication only if the reason is ``rate limit exceeded``.
            Offline, RequestTimeout: the client subscribes at the next authentication.
        """
        channel = check_channel(channel)
        check_seconds("timeout", timeout)
        channels = self.channels
        if channel not in channels:
            self._socket.update(channels=(*channels, channel))
        try:
            await self._request_if_online("channels/subscribe", {"channel": channel}, timeout)
        except RequestRefused as failed:
            if not failed.reason.startswith("rate limit exceeded"):
                self._forget_channel(channel)
            raise

    async def unsubscribe(self, channel: str, *, timeout: float | None = 10) -> None:
        """End the subscription to a channel.

        Args:
            channel: the name of the channel.
            timeout: seconds to wait for the answer; None for no limit.

        Raises:
            InvalidOption: the name is not 3 to 15 letters, ``_`` or ``-``.
            Offline, RequestTimeout, RequestRefused: the server did not confirm the end.
        """
        channel = check_channel(channel)
        check_seconds("timeout", timeout)
        self._forget_channel(channel)
        await self._request_if_online("channels/unsubscribe", {"channel": channel}, timeout)

    async def broadcast(
        self, channel: str, name: str, message: str, *, timeout: float | None = 10
    ) -> None:
        """Send a message to a channel. The network does not confirm it.

        Args:
            channel: the name of the channel.
            name: the player of this game who sends it.
            message: the text.
            timeout: seconds to wait for space in the send queue; None for no limit.

        Raises:
            InvalidOption: an argument is invalid.
            NotSubscribed: the client is not subscribed to the channel.
            Offline: the message was not sent.
            RequestTimeout: the send queue stayed full.
        """
        channel = check_channel(channel)
        name = check_text("name", name)
        message = check_text("message", message)
        if channel not in self.channels:
            raise NotSubscribed(f"subscribe to {channel!r} before sending to it")
        payload = {"channel": channel, "name": name, "message": message}
        await self._send("channels/send", payload, timeout)

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels subscribed to, now or at the next authentication."""
        return self._socket.state.channels

    def _forget_channel(self, channel: str) -> None:
        self._socket.state = without_channel(channel, self._socket.state)

    # Players.

    async def sign_in(self, name: str, *, timeout: float | None = 10) -> None:
        """Announce that a player of this game is online.

        With the ``players`` flag the announcement is sent immediately, otherwise with the next
        heartbeat.

        Args:
            name: the name of the player.
            timeout: seconds to wait for space in the send queue; None for no limit.

        Raises:
            InvalidOption: the name is empty or not a str.
            RequestTimeout: the send queue stayed full.
        """
        name = check_text("name", name)
        check_seconds("timeout", timeout)
        await trio.lowlevel.checkpoint_if_cancelled()
        if name not in self.players:
            self._socket.update(players=(*self.players, name))
            await self._announce("players/sign-in", name, timeout)
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def sign_out(self, name: str, *, timeout: float | None = 10) -> None:
        """Announce that a player of this game is no longer online.

        Args:
            name: the name of the player.
            timeout: seconds to wait for space in the send queue; None for no limit.

        Raises:
            InvalidOption: the name is empty or not a str.
            RequestTimeout: the send queue stayed full.
        """
        name = check_text("name", name)
        check_seconds("timeout", timeout)
        await trio.lowlevel.checkpoint_if_cancelled()
        if name in self.players:
            self._socket.update(players=tuple(other for other in self.players if other != name))
            await self._announce("players/sign-out", name, timeout)
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def _announce(self, event: str, name: str, timeout: float | None) -> None:
        if "players" in self._socket.state.settings.supports:
            with suppress(Offline):  # the next heartbeat contains the list of players
                await self._send(event, {"name": name}, timeout)

    @property
    def players(self) -> tuple[str, ...]:
        """The players of this game who are signed in."""
        return self._socket.state.players

    def who(self) -> dict[str, tuple[str, ...]]:
        """Return the players of each other game, as last known; requires the ``players`` flag.

        Games and names are sorted; games without players are omitted.
        """
        entries = self._socket.state.remote_players.entries
        return {game: tuple(sorted(entries[game])) for game in sorted(entries) if entries[game]}

    @overload
    async def fetch_players(self, *, timeout: float | None = 10) -> None: ...

    @overload
    async def fetch_players(self, game: str, *, timeout: float | None = 10) -> tuple[str, ...]: ...

    async def fetch_players(
        self, game: str | None = None, *, timeout: float | None = 10
    ) -> tuple[str, ...] | None:
        """Request the players of one game, or of all games.

        Args:
            game: the short name of the game. Without it, the players of all games are requested
                immediately, before the next ``refresh_interval``. The call then returns None,
                because the server does not mark the last answer; the players are available from
                :meth:`who` and the ``players_updated`` callback.
            timeout: seconds to wait for the answer; None for no limit.

        Raises:
            NotSupported: the ``players`` flag is not supported.
            RequestRefused: the game is not online: ``unknown game``.
            Offline, RequestTimeout: there was no answer.
        """
        if game is None:
            await self._refresh("players", timeout)
            return None
        payload = {"game": check_text("game", game)}
        players: tuple[str, ...] = await self._request("players", "status", payload, timeout)
        return players

    # Tells.

    async def tell(
        self,
        from_name: str,
        to_game: str,
        to_name: str,
        message: str,
        *,
        sent_at: datetime | None = None,
        timeout: float | None = 10,
    ) -> None:
        """Send a private message to a player of another game; return when it has been delivered.

        Args:
            from_name: the player of this game who sends it; must be signed in.
            to_game: the short name of the other game.
            to_name: the player who receives it.
            message: the text.
            sent_at: the time, with a time zone; by default now.
            timeout: seconds to wait for the answer; None for no limit.

        Raises:
            InvalidOption: an argument is invalid.
            NotSupported: the ``tells`` flag is not supported.
            RequestRefused: the message was not delivered; the reason is ``game offline``,
                ``sending player offline``, ``receiving player offline`` or ``not supported``.
            Offline, RequestTimeout: there was no answer.
        """
        payload = {
            "from_name": check_text("from_name", from_name),
            "to_game": check_text("to_game", to_game),
            "to_name": check_text("to_name", to_name),
            "sent_at": format_time(datetime.now(UTC) if sent_at is None else sent_at),
            "message": check_text("message", message),
        }
        await self._request("tells", "send", payload, timeout)

    # Games.

    def games(self) -> dict[str, Game]:
        """Return the other games by short name, as last known; requires the ``games`` flag."""
        games = self._socket.state.games.entries
        return {name: copy_game(game) for name, game in games.items()}

    def game_online(self, game: str) -> bool:
        """Return whether a game is online, as last known; requires the ``games`` flag.

        Args:
            game: the short name of the game.
        """
        return game in self._socket.state.games.entries

    async def fetch_games(self, *, timeout: float | None = 10) -> None:
        """Request the details of all games immediately, before the next ``refresh_interval``.

        The call returns None, because the server does not mark the last answer; the details are
        available from :meth:`games` and the ``game_updated`` callback.

        Args:
            timeout: seconds to wait for space in the send queue; None for no limit.

        Raises:
            NotSupported: the ``games`` flag is not supported.
            Offline: the request was not sent.
            RequestTimeout: the send queue stayed full.
        """
        await self._refresh("games", timeout)

    async def fetch_game(self, game: str, *, timeout: float | None = 10) -> Game:
        """Request the details of one game.

        Args:
            game: the short name of the game.
            timeout: seconds to wait for the answer; None for no limit.

        Raises:
            NotSupported: the ``games`` flag is not supported.
            RequestRefused: the game is not online: ``unknown game``.
            Offline, RequestTimeout: there was no answer.
        """
        payload = {"game": check_text("game", game)}
        found: Game = await self._request("games", "status", payload, timeout)
        return found

    # Achievements.

    async def sync_achievements(self, *, timeout: float | None = 10) -> tuple[Achievement, ...]:
        """Request all achievements of this game.

        Args:
            timeout: seconds to wait for the answer; None for no limit.

        Raises:
            NotSupported: the ``achievements`` flag is not supported.
            Offline, RequestTimeout, RequestRefused: there was no usable answer.
        """
        found: tuple[Achievement, ...] = await self._request("achievements", "sync", None, timeout)
        return found

    async def create_achievement(
        self, achievement: Achievement, *, timeout: float | None = 10
    ) -> Achievement:
        """Create an achievement.

        Args:
            achievement: the achievement; its key is ignored.
            timeout: seconds to wait for the answer; None for no limit.

        Returns:
            The achievement with the key that the network assigned.

        Raises:
            NotSupported: the ``achievements`` flag is not supported.
            RequestRefused: the achievement is invalid; ``errors`` has the problems of each field.
            Offline, RequestTimeout: there was no answer.
        """
        payload = _achievement_payload(achievement)
        del payload["key"]
        created: Achievement = await self._request("achievements", "create", payload, timeout)
        return created

    async def update_achievement(
        self, achievement: Achievement, *, timeout: float | None = 10
    ) -> Achievement:
        """Change the achievement with the same key.

        Args:
            achievement: the new values.
            timeout: seconds to wait for the answer; None for no limit.

        Returns:
            The achievement as the network now stores it.

        Raises:
            InvalidOption: the achievement has no key.
            NotSupported, RequestRefused, Offline, RequestTimeout: as for
                :meth:`create_achievement`.
        """
        payload = _achievement_payload(achievement)
        check_text("key", achievement.key)
        updated: Achievement = await self._request("achievements", "update", payload, timeout)
        return updated

    async def delete_achievement(self, key: str, *, timeout: float | None = 10) -> None:
        """Delete the achievement with this key.

        Args:
            key: the key of the achievement.
            timeout: seconds to wait for the answer; None for no limit.

        Raises:
            NotSupported, RequestRefused, Offline, RequestTimeout: as for
                :meth:`create_achievement`.
        """
        payload = {"key": check_text("key", key)}
        await self._request("achievements", "delete", payload, timeout)

    # Other events.

    async def send(self, event: Mapping[str, Any], *, timeout: float | None = 10) -> None:
        """Send an event for which there is no method. Sending does not change the client's state.

        An answer is handled like any other event from the server: it changes the state or calls a
        callback, for example ``event_received``, or ``refused`` for a failure.

        Args:
            event: the event, such as ``{"event": "noun/verb", "ref": ..., "payload": {...}}``.
            timeout: seconds to wait for space in the send queue; None for no limit.

        Raises:
            InvalidOption: the event is not a mapping, or has no name.
            EncodeError: the event cannot be encoded as JSON.
            Offline: the event was not sent.
            RequestTimeout: the send queue stayed full.
        """
        await self._send_event(check_event(event), timeout)

    # The client itself.

    @property
    def status(self) -> ClientStatus:
        """Whether the client is offline, authenticating or online."""
        return self._socket.state.status

    async def wait_online(self) -> None:
        """Wait until the server has accepted the credentials."""
        await trio.lowlevel.checkpoint()
        await self._socket.wait_until(lambda state: state.status is ClientStatus.ONLINE)

    async def wait_offline(self) -> None:
        """Wait until there is no link."""
        await trio.lowlevel.checkpoint()
        await self._socket.wait_until(lambda state: state.status is ClientStatus.OFFLINE)

    @property
    def invalid(self) -> int:
        """The number of malformed messages from the server. They are logged and ignored."""
        return self._socket.invalid.count

    @property
    def dropped(self) -> int:
        """The number of callback calls that were dropped because callbacks were too slow."""
        return self._socket.callbacks.dropped

    async def _send(self, event: str, payload: Mapping[str, Any], timeout: float | None) -> None:
        await self._send_event({"event": event, "payload": payload}, timeout)

    async def _refresh(self, flag: str, timeout: float | None) -> None:
        self._check_support(flag)
        await self._send_event({"event": f"{flag}/status", "ref": str(uuid.uuid4())}, timeout)

    async def _send_event(self, event: dict[str, Any], timeout: float | None) -> None:
        check_seconds("timeout", timeout)
        with PeerTimeout(timeout):
            await self._socket.send_messages([event])
            return
        assert timeout is not None
        raise RequestTimeout(event["event"], timeout)

    def _check_support(self, flag: str) -> None:
        if flag not in self._socket.state.settings.supports:
            raise NotSupported(f"the {flag!r} flag is not enabled: pass its callbacks to connect()")

    async def _request(
        self, flag: str, action: str, payload: Mapping[str, Any] | None, timeout: float | None
    ) -> Any:
        self._check_support(flag)
        return await self._socket.request_online(f"{flag}/{action}", payload, timeout=timeout)

    async def _request_if_online(
        self, event: str, payload: Mapping[str, Any], timeout: float | None
    ) -> None:
        if self._socket.is_online:
            await self._socket.request_online(event, payload, timeout=timeout)
        else:
            await trio.lowlevel.checkpoint()


def _achievement_payload(achievement: object) -> dict[str, Any]:
    if not isinstance(achievement, Achievement):
        raise InvalidOption(f"achievement must be a gossip.Achievement, not {achievement!r}")
    return asdict(achievement)
