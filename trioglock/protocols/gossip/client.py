"""``Client``: what a game does on the network."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import trio

from ...errors import InvalidOption
from ...options import check_seconds
from ...routing import RequestTimeout
from . import achievements, core, games, machine, players, tells
from .errors import Offline
from .session import GossipSession, new_ref
from .socket import GossipSocket
from .state import State, Transition
from .values import Achievement, Game, Phase, check_channel, check_text

__all__ = ["Client"]


class Client:
    """A game on the network; what ``async with gossip.connect(...) as client`` gives.

    It outlives its links. While there is none, or the server has not let us in yet,

    * ``subscribe``, ``unsubscribe``, ``sign_in`` and ``sign_out`` are remembered, return at once,
      and take effect with the next authentication;
    * ``who``, ``games``, ``channels`` and ``players`` tell what was last known;
    * everything else raises :class:`Offline` at once.

    No call hangs: each takes at most its ``timeout`` (in seconds; None for ever, but never longer
    than the link lasts), and raises :class:`~trioglock.routing.RequestTimeout` then. All calls may
    be made by any number of tasks.
    """

    def __init__(self, session: GossipSession, socket: GossipSocket) -> None:
        self._session = session
        self._socket = socket

    def __repr__(self) -> str:
        state = self._session.state
        return f"<gossip.Client {state.settings.client_id}, {state.phase.value}>"

    # Channels.

    async def subscribe(self, channel: str, *, timeout: float | None = 10) -> None:
        """Listen to a channel.

        Args:
            channel: its name.
            timeout: seconds to wait for the answer; None for ever.

        Raises:
            InvalidOption: the name is not 3 to 15 letters, ``_`` or ``-``.
            SubscribeFailed: the server does not have it. It is not asked for again.
            Offline, RequestTimeout, RateLimited: it is, with the next authentication.
        """
        name = check_channel(channel)
        await self._request(
            "channels/subscribe", lambda ref, state: core.subscribe(name, ref, state), timeout
        )

    async def unsubscribe(self, channel: str, *, timeout: float | None = 10) -> None:
        """Listen to a channel no more.

        Args:
            channel: its name.
            timeout: seconds to wait for the answer; None for ever.

        Raises:
            InvalidOption: the name cannot be one.
            Offline, RequestTimeout, RequestFailed: the server may not know it yet.
        """
        name = check_channel(channel)
        await self._request(
            "channels/unsubscribe", lambda ref, state: core.unsubscribe(name, ref, state), timeout
        )

    async def broadcast(
        self, channel: str, name: str, message: str, *, timeout: float | None = 10
    ) -> None:
        """Say something on a channel, for a player of ours. The network does not confirm it.

        Args:
            channel: where.
            name: of our player.
            message: the text.
            timeout: seconds to wait for room in the send queue; None for ever.

        Raises:
            InvalidOption: an argument is not what it should be.
            NotSubscribed: we do not listen to that channel.
            Offline: nobody heard it.
            RequestTimeout: there was no room for the message in time.
        """
        check_channel(channel)
        check_text("name", name)
        check_text("message", message)
        await self._send(
            "channels/send",
            lambda state: core.broadcast(channel, name, message, state),
            timeout,
        )

    @property
    def channels(self) -> tuple[str, ...]:
        """Those that we listen to, now or from the next authentication on."""
        return self._session.state.channels

    # Players.

    async def sign_in(self, name: str, *, timeout: float | None = 10) -> None:
        """A player of ours has come online.

        The network is told at once with the flag ``players``, otherwise by the next heartbeat.

        Args:
            name: the player's.
            timeout: seconds to wait for room in the send queue; None for ever.

        Raises:
            InvalidOption: the name is empty or no text.
            RequestTimeout: there was no room for the message in time.
        """
        check_text("name", name)
        with suppress(Offline):  # the next heartbeat tells
            await self._send("players/sign-in", lambda state: players.sign_in(name, state), timeout)

    async def sign_out(self, name: str, *, timeout: float | None = 10) -> None:
        """A player of ours has gone offline.

        Args:
            name: the player's.
            timeout: seconds to wait for room in the send queue; None for ever.

        Raises:
            InvalidOption: the name is empty or no text.
            RequestTimeout: there was no room for the message in time.
        """
        check_text("name", name)
        with suppress(Offline):
            await self._send(
                "players/sign-out", lambda state: players.sign_out(name, state), timeout
            )

    @property
    def players(self) -> tuple[str, ...]:
        """Ours who are signed in."""
        return self._session.state.players

    def who(self) -> dict[str, tuple[str, ...]]:
        """By game, the players elsewhere, as last heard; needs the flag ``players``."""
        return dict(self._session.state.remote_players.known)

    async def fetch_players(self, game: str, *, timeout: float | None = 10) -> tuple[str, ...]:
        """Ask the network for the players of one game.

        Args:
            game: its short name.
            timeout: seconds to wait for the answer; None for ever.

        Raises:
            NotSupported: the flag ``players`` was not opted into.
            UnknownGame: no such game is online.
            Offline, RequestTimeout, RequestFailed: there was no usable answer.
        """
        check_text("game", game)
        there: tuple[str, ...] = await self._request(
            "players/status", lambda ref, state: players.fetch(game, ref, state), timeout
        )
        return there

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
        """Say something to a player of another game; returns once the network has passed it on.

        Args:
            from_name: our player, who must be signed in.
            to_game: the other game's short name.
            to_name: its player.
            message: the text.
            sent_at: when, with a time zone; by default now.
            timeout: seconds.

        Raises:
            InvalidOption: an argument is not what it should be.
            NotSupported: the flag ``tells`` was not opted into.
            GameOffline, SenderOffline, ReceiverOffline, TellsNotSupported: it did not arrive.
            Offline, RequestTimeout, RequestFailed: nobody knows.
        """
        payload = {
            "from_name": check_text("from_name", from_name),
            "to_game": check_text("to_game", to_game),
            "to_name": check_text("to_name", to_name),
            "sent_at": tells.format_time(datetime.now(UTC) if sent_at is None else sent_at),
            "message": check_text("message", message),
        }
        await self._request(
            "tells/send", lambda ref, state: tells.send(payload, ref, state), timeout
        )

    # Games.

    def games(self) -> dict[str, Game]:
        """By short name, the other games, as last heard; needs the flag ``games``."""
        return dict(self._session.state.games.known)

    async def fetch_game(self, game: str, *, timeout: float | None = 10) -> Game:
        """Ask the network for one game.

        Args:
            game: its short name.
            timeout: seconds to wait for the answer; None for ever.

        Raises:
            NotSupported: the flag ``games`` was not opted into.
            UnknownGame: no such game is online.
            Offline, RequestTimeout, RequestFailed: there was no usable answer.
        """
        check_text("game", game)
        found: Game = await self._request(
            "games/status", lambda ref, state: games.fetch(game, ref, state), timeout
        )
        return found

    # Achievements.

    async def sync_achievements(self, *, timeout: float | None = 10) -> tuple[Achievement, ...]:
        """All achievements of our game that the network knows.

        Args:
            timeout: seconds to wait for the answer; None for ever.

        Raises:
            NotSupported: the flag ``achievements`` was not opted into.
            Offline, RequestTimeout, RequestFailed: there was no usable answer.
        """
        have: tuple[Achievement, ...] = await self._request(
            "achievements/sync", achievements.sync, timeout
        )
        return have

    async def create_achievement(
        self, achievement: Achievement, *, timeout: float | None = 10
    ) -> Achievement:
        """Add an achievement.

        Args:
            achievement: without a key.
            timeout: seconds to wait for the answer; None for ever.

        Returns:
            It, with the key that the network gave it.

        Raises:
            NotSupported: the flag ``achievements`` was not opted into.
            RequestFailed: ``errors`` tells what was wrong with which field.
            Offline, RequestTimeout: there was no answer.
        """
        _check_achievement(achievement)
        created: Achievement = await self._request(
            "achievements/create",
            lambda ref, state: achievements.create(achievement, ref, state),
            timeout,
        )
        return created

    async def update_achievement(
        self, achievement: Achievement, *, timeout: float | None = 10
    ) -> Achievement:
        """Change the achievement with the same key.

        Args:
            achievement: as it shall be.
            timeout: seconds to wait for the answer; None for ever.

        Raises:
            InvalidOption: it has no key.
            NotSupported, RequestFailed, Offline, RequestTimeout: as ``create_achievement``.
        """
        _check_achievement(achievement)
        check_text("key", achievement.key)
        updated: Achievement = await self._request(
            "achievements/update",
            lambda ref, state: achievements.update(achievement, ref, state),
            timeout,
        )
        return updated

    async def delete_achievement(self, key: str, *, timeout: float | None = 10) -> None:
        """Remove the achievement with this key.

        Args:
            key: of the achievement.
            timeout: seconds to wait for the answer; None for ever.

        Raises:
            NotSupported, RequestFailed, Offline, RequestTimeout: as ``create_achievement``.
        """
        check_text("key", key)
        await self._request(
            "achievements/delete",
            lambda ref, state: achievements.delete(key, ref, state),
            timeout,
        )

    # The client itself.

    @property
    def phase(self) -> Phase:
        """Where it stands with the network."""
        return self._session.state.phase

    async def wait_online(self) -> None:
        """Wait until the server has let us in; returns at once if it has."""
        await trio.lowlevel.checkpoint()
        await self._session.wait_until(lambda state: state.phase is Phase.ONLINE)

    async def wait_offline(self) -> None:
        """Wait until the link is lost; returns at once if there is none."""
        await trio.lowlevel.checkpoint()
        await self._session.wait_until(lambda state: state.phase is Phase.OFFLINE)

    @property
    def invalid(self) -> int:
        """How many messages of the server were malformed; they are logged, and change nothing."""
        return self._socket.invalid.count

    @property
    def dropped(self) -> int:
        """How many callbacks were left out because they were too slow."""
        return self._session.notifications.dropped

    # How.

    async def _send(
        self, event: str, command: Callable[[State], Transition], timeout: float | None
    ) -> None:
        check_seconds("timeout", timeout)
        session = self._session
        with trio.move_on_after(math.inf if timeout is None else timeout):
            await session.send(session.perform(command(session.state)))
            return
        assert timeout is not None
        raise RequestTimeout(event, timeout)

    async def _request(
        self, event: str, command: Callable[[str, State], Transition], timeout: float | None
    ) -> Any:
        check_seconds("timeout", timeout)
        session, ref = self._session, new_ref()
        # The state machine tells of a lost link.
        with session.requests.open(ref, event, lambda: False) as answer:
            try:
                with trio.move_on_after(math.inf if timeout is None else timeout):
                    await session.send(session.perform(command(ref, session.state)))
                    return await answer.wait()
            finally:
                session.perform(machine.forget(ref, session.state))
        assert timeout is not None
        raise RequestTimeout(event, timeout)


def _check_achievement(achievement: object) -> None:
    if not isinstance(achievement, Achievement):
        raise InvalidOption(f"achievement is a gossip.Achievement, not {achievement!r}")
