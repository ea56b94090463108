"""The callbacks: one object for each flag that a game opts into.

Every callback may be ``def`` or ``async def``, and may use the client. They run in a task of
their own, one at a time, in the order of what happened. What one raises comes out of the block.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, TypeAlias

from ...disconnect import Disconnect
from .values import Achievement, Game, Message, Tell

__all__ = ["Achievements", "Core", "Games", "Players", "System", "Tells"]

Done: TypeAlias = Awaitable[object] | object
"""Every callback may be ``def`` or ``async def``; what it returns is ignored."""


class Core:
    """The flag ``channels``, the only one that every game has."""

    user_agent: str = "trioglock"
    """The game's software and its version, such as ``"ExVenture 0.27"``."""
    channels: Sequence[str] = ()
    """Subscribed to from the beginning: 3 to 15 letters, ``_`` or ``-``."""

    def players(self) -> Sequence[str] | None:
        """The names of the players who are online; asked for at each heartbeat, so be quick.

        Plain only. Default: those whom ``sign_in()`` and ``sign_out()`` told of.
        """
        return None

    def message_broadcast(self, message: Message) -> Done:
        """Somebody said something on a channel.

        Args:
            message: where, who and what.
        """


class Players:
    """The flag ``players``: who is online elsewhere."""

    def player_signed_in(self, game: str, name: str) -> Done:
        """A player of another game has signed in.

        Args:
            game: its short name.
            name: the player's.
        """

    def player_signed_out(self, game: str, name: str) -> Done:
        """A player of another game has signed out.

        Args:
            game: its short name.
            name: the player's.
        """

    def players_updated(self, game: str, players: tuple[str, ...]) -> Done:
        """The whole list of a game's players, as the periodic status tells.

        Args:
            game: its short name.
            players: their names.
        """


class Tells:
    """The flag ``tells``: private messages between games."""

    def tell_received(self, tell: Tell) -> Done:
        """A player of another game says something to one of ours.

        Args:
            tell: from whom, to whom, and what.
        """


class Games:
    """The flag ``games``: which games there are."""

    def game_connected(self, game: str) -> Done:
        """A game has come online.

        Args:
            game: its short name.
        """

    def game_disconnected(self, game: str) -> Done:
        """A game has gone offline.

        Args:
            game: its short name.
        """

    def game_updated(self, game: Game) -> Done:
        """What a game tells of itself, as the periodic status has it.

        Args:
            game: all of it.
        """


class Achievements:
    """The flag ``achievements``: what players of our game can achieve."""

    def achievements_synced(self, achievements: tuple[Achievement, ...]) -> Done:
        """All that the network knows, after each authentication and each ``sync()``.

        Args:
            achievements: each with its key.
        """


class System:
    """No flag: what happens to the connection itself."""

    def authenticated(self, version: str) -> Done:
        """The server has let us in; it speaks ``version`` of the protocol."""

    def disconnected(self, reason: Disconnect) -> Done:
        """The link has ended, or an attempt has failed.

        Args:
            reason: a typed value, see :mod:`trioglock.disconnect`.
        """

    def restarting(self, downtime: float) -> Done:
        """The server will restart, and wants us back in ``downtime`` seconds."""

    def refused(self, event: str, error: str) -> Done:
        """The server refused something that no call waits for.

        Args:
            event: its name; "" if the server told none.
            error: the server's words.
        """

    def event_received(self, event: Mapping[str, Any]) -> Done:
        """An event that is none of the protocol's.

        Args:
            event: the decoded object.
        """
