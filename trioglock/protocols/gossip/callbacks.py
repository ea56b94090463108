"""The callbacks of a game: one class for each flag, and the task that calls them.

Every callback may be ``def`` or ``async def`` and may use the client. Callbacks run one at a time,
in the order of the events, in their own task. An exception raised by a callback is raised by the
``async with`` block.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import trio

from ..._text import as_text, is_unicode
from ...disconnect import Disconnect
from ...errors import BadHookResult, InvalidOption
from .messages import (
    Achievement,
    ChannelMessage,
    Game,
    Tell,
    check_channel,
    check_event,
    check_text,
)
from .state import Notify

__all__ = [
    "AchievementsCallbacks",
    "CallbackQueue",
    "CallbackResult",
    "ChannelsCallbacks",
    "EventReply",
    "GamesCallbacks",
    "PlayersCallbacks",
    "SystemCallbacks",
    "TellsCallbacks",
]

CallbackResult: TypeAlias = Awaitable[object] | object
"""Every callback may be ``def`` or ``async def``; its return value is ignored."""

EventReply: TypeAlias = Mapping[str, Any] | None
"""An event to send, such as ``{"event": "noun/verb", "payload": {...}}``, or None."""


class ChannelsCallbacks:
    """The ``channels`` flag, which every game has.

    The two attributes are read at each authentication; they may be properties.
    """

    user_agent: str = "trioglock"
    """The name and version of the game's software, such as ``"ExVenture 0.27"``."""
    channels: Sequence[str] = ()
    """The channels to subscribe to: 3 to 15 letters, ``_`` or ``-``. At each authentication, names
    that were added or removed since the previous authentication are added to or removed from the
    current subscriptions."""

    def players(self) -> Sequence[str] | None:
        """Called at each heartbeat from the server. It must be a fast, plain function.

        Returns:
            The names of the players who are online. Default: the players passed to ``sign_in()``.
        """
        return None

    def message_broadcast(self, message: ChannelMessage) -> CallbackResult:
        """Called for each message on a subscribed channel.

        Args:
            message: the message.
        """


class PlayersCallbacks:
    """The ``players`` flag: the players of other games."""

    def player_signed_in(self, game: str, name: str) -> CallbackResult:
        """Called when a player of another game has signed in.

        Args:
            game: the short name of the game.
            name: the name of the player.
        """

    def player_signed_out(self, game: str, name: str) -> CallbackResult:
        """Called when a player of another game has signed out.

        Args:
            game: the short name of the game.
            name: the name of the player.
        """

    def players_updated(self, game: str, players: tuple[str, ...]) -> CallbackResult:
        """Called for each game in the periodic status.

        Args:
            game: the short name of the game.
            players: the names of all its players who are online.
        """


class TellsCallbacks:
    """The ``tells`` flag: private messages between games."""

    def tell_received(self, tell: Tell) -> CallbackResult:
        """Called for each private message to a player of this game.

        Args:
            tell: the message.
        """


class GamesCallbacks:
    """The ``games`` flag: the other games."""

    def game_connected(self, game: str) -> CallbackResult:
        """Called when a game has come online.

        Args:
            game: its short name.
        """

    def game_disconnected(self, game: str) -> CallbackResult:
        """Called when a game has gone offline.

        Args:
            game: its short name.
        """

    def game_updated(self, game: Game) -> CallbackResult:
        """Called for each game in the periodic status.

        Args:
            game: the details of the game.
        """


class AchievementsCallbacks:
    """The ``achievements`` flag: the achievements of this game."""

    def achievements_synced(self, achievements: tuple[Achievement, ...]) -> CallbackResult:
        """Called after each authentication and each ``sync_achievements()``.

        Args:
            achievements: all achievements that the network knows, with their keys.
        """


class SystemCallbacks:
    """The connection itself; no flag is required."""

    def authenticated(self, version: str) -> CallbackResult:
        """Called when the server has accepted the credentials.

        Args:
            version: the protocol version of the server.
        """

    def disconnected(self, reason: Disconnect) -> CallbackResult:
        """Called when the link has ended or an attempt to connect has failed.

        Args:
            reason: a typed value, see :mod:`trioglock.disconnect`.
        """

    def restarting(self, downtime: float) -> CallbackResult:
        """Called when the server announces a restart.

        Args:
            downtime: the seconds after which the client reconnects.
        """

    def refused(self, event: str, error: str) -> CallbackResult:
        """Called for a failure that does not belong to any call.

        Args:
            event: the name of the event; "" if the server does not name it.
            error: the server's text.
        """

    def event_received(self, event: Mapping[str, Any]) -> Awaitable[EventReply] | EventReply:
        """Called for an event that the protocol does not define.

        Args:
            event: the decoded object.

        Returns:
            An event to send, or None. It is not sent while the client is offline.
        """
        return None


class CallbackQueue:
    """Calls the callbacks in a task; when its queue is full, the oldest call is dropped."""

    def __init__(self, callbacks: Mapping[str, object], limit: int) -> None:
        self.dropped: int = 0
        """The number of calls that were dropped."""
        self._callbacks = callbacks
        self._limit = limit
        self._waiting: deque[Notify] = deque()
        self._added = trio.lowlevel.ParkingLot()

    def put(self, notify: Notify) -> None:
        """Queue a call."""
        if notify.flag not in self._callbacks:
            return
        if len(self._waiting) >= self._limit:
            self._waiting.popleft()
            self.dropped += 1
        self._waiting.append(notify)
        self._added.unpark()

    async def run(self, send: Callable[[Mapping[str, Any]], Awaitable[object]]) -> None:
        """Call the callbacks one at a time; raise their exceptions.

        Args:
            send: sends the event that a callback returns.
        """
        while True:
            while not self._waiting:
                await self._added.park()
            notify = self._waiting.popleft()
            callback = getattr(self._callbacks[notify.flag], notify.callback)
            result = callback(*notify.arguments)
            if inspect.isawaitable(result):
                result = await result
            else:
                await trio.lowlevel.checkpoint()
            if notify.callback == "event_received" and result is not None:
                await send(self._check_reply(result))

    def _check_reply(self, reply: object) -> dict[str, Any]:
        try:
            return check_event(reply)
        except InvalidOption as error:
            name = type(self._callbacks["system"]).__name__
            raise BadHookResult(f"{name}.event_received: {error}") from None

    def declared(self) -> tuple[str, tuple[str, ...]]:
        """Return the user agent and the channels of the callbacks.

        Raises:
            InvalidOption: one of them is invalid.
        """
        channels = self._callbacks["channels"]
        assert isinstance(channels, ChannelsCallbacks)
        names = channels.channels
        if isinstance(names, str) or not isinstance(names, Iterable):
            raise InvalidOption(f"channels must be a list of names, not {names!r}")
        return check_text("user_agent", channels.user_agent), tuple(map(check_channel, names))

    def players_online(self) -> list[str] | None:
        """Return the result of the ``players`` callback.

        Raises:
            BadHookResult: it is neither a list of names nor None.
        """
        channels = self._callbacks["channels"]
        assert isinstance(channels, ChannelsCallbacks)
        names = channels.players()
        if names is None:
            return None
        is_list = isinstance(names, Iterable) and not isinstance(names, str)
        players: list[Any] = list(names) if is_list else [None]  # it may be a generator
        if not all(isinstance(name, str) and is_unicode(name) for name in players):
            raise BadHookResult(
                f"{type(channels).__name__}.players must return a list of names, not {names!r}"
            )
        return list(map(as_text, players))
