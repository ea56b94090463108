"""The state of a client and the handlers of the server's events, without any I/O.

A handler is a function ``(event, state) -> (effects, state)``. Its effects are messages to send and
:class:`Notify` values, each of which calls a callback.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from types import MappingProxyType
from typing import Any, Generic, TypeAlias, TypeVar

from ...disconnect import Disconnect, HandshakeFailed, RemoteClose
from ...errors import DecodeError
from ...hooks import Reconnect, Stop
from ...routing import Router
from .messages import (
    ChannelMessage,
    Event,
    Game,
    Tell,
    copy_game,
    failure_reason,
    get_names,
    get_number,
    get_optional_text,
    get_payload,
    get_text,
    get_texts,
    parse_game,
)

__all__ = [
    "ROUTER",
    "TRANSITIONS",
    "ClientSettings",
    "ClientState",
    "ClientStatus",
    "GameCache",
    "Notify",
    "Transition",
    "authenticate",
    "decide",
    "declare",
    "disconnect",
    "refresh",
    "refuse",
    "without_channel",
]

T = TypeVar("T")

AUTHENTICATION_FAILED = 4000
"""The close code after a failed authentication, and also after the rate limit is exceeded."""

MAX_DOWNTIME = 86_400.0
"""The maximum downtime in seconds; a longer announced downtime is reduced to this value."""

MAX_ENTRIES = 10_000
"""The maximum number of games to remember, and of players for each game."""


class ClientStatus(Enum):
    """The status of a client; :data:`TRANSITIONS` lists the possible changes."""

    OFFLINE = "offline"
    """There is no link."""
    AUTHENTICATING = "authenticating"
    """There is a link, and the server has not accepted the credentials yet."""
    ONLINE = "online"
    """The server has accepted the credentials."""


TRANSITIONS: Mapping[ClientStatus, Mapping[ClientStatus, str]] = {
    ClientStatus.OFFLINE: {ClientStatus.AUTHENTICATING: "connected: authenticate"},
    ClientStatus.AUTHENTICATING: {
        ClientStatus.ONLINE: "authenticated",
        ClientStatus.OFFLINE: "refused, or disconnected",
    },
    ClientStatus.ONLINE: {ClientStatus.OFFLINE: "disconnected"},
}
"""For each status, the statuses that may follow, and the cause of each change."""


@dataclass(frozen=True, slots=True)
class GameCache(Generic[T]):
    """A value known for each of the other games, updated by events and a periodic status.

    The server answers a status request with one event for each game that is online, and does not
    mark the last one. A refresh therefore drops each entry that has not been updated since the
    previous refresh.

    Args:
        entries: the value for each game.
        updated: the number of the refresh in which each game was last updated.
        refreshes: the number of refreshes so far.
    """

    entries: Mapping[str, T] = field(default_factory=lambda: MappingProxyType({}))
    updated: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    refreshes: int = 0

    def add(self, game: str, value: T) -> GameCache[T]:
        """Add or update an entry."""
        if game not in self.entries and len(self.entries) >= MAX_ENTRIES:
            return self
        return replace(
            self,
            entries={**self.entries, game: value},
            updated={**self.updated, game: self.refreshes},
        )

    def remove(self, game: str) -> GameCache[T]:
        """Remove an entry."""
        return self._keep({name for name in self.entries if name != game})

    def refresh(self) -> GameCache[T]:
        """Start a refresh; drop the entries that have not been updated since the previous one."""
        kept = {name for name, number in self.updated.items() if number == self.refreshes}
        return replace(self._keep(kept), refreshes=self.refreshes + 1)

    def _keep(self, names: set[str]) -> GameCache[T]:
        return replace(
            self,
            entries={name: value for name, value in self.entries.items() if name in names},
            updated={name: number for name, number in self.updated.items() if name in names},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """The credentials and flags for authentication, and whether the client reconnects."""

    client_id: str
    client_secret: str = field(repr=False)
    supports: tuple[str, ...] = ("channels",)
    user_agent: str = "trioglock"
    version: str = "2.3.0"
    reconnects: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientState:
    """The state of a client.

    Args:
        settings: the settings passed to ``connect()``.
        status: the status of the client.
        channels: the channels subscribed to, now or at the next authentication.
        declared: the channels that the callbacks named at the last authentication.
        players: the players of this game who are signed in.
        remote_players: the players of the other games.
        games: the other games.
        downtime: seconds to wait after the next loss, as announced by the server.
        refusal: why the server refused the authentication, or None. If it is set, the client does
            not reconnect.
        rate_limited: whether the server has enforced its rate limit on this link.
    """

    settings: ClientSettings
    status: ClientStatus = ClientStatus.OFFLINE
    channels: tuple[str, ...] = ()
    declared: tuple[str, ...] = ()
    players: tuple[str, ...] = ()
    remote_players: GameCache[tuple[str, ...]] = field(default_factory=GameCache)
    games: GameCache[Game] = field(default_factory=GameCache)
    downtime: float | None = None
    refusal: str | None = None
    rate_limited: bool = False


@dataclass(frozen=True, slots=True)
class Notify:
    """Effect: call a callback, if the game has callbacks for the flag."""

    flag: str
    callback: str
    arguments: tuple[Any, ...] = ()


Effect: TypeAlias = Notify | dict[str, Any]
Transition: TypeAlias = tuple[tuple[Effect, ...], ClientState]


def _enter(status: ClientStatus, state: ClientState, **changes: Any) -> ClientState:
    assert status is state.status or status in TRANSITIONS[state.status]
    return replace(state, status=status, **changes)


# The link.


def declare(user_agent: str, channels: tuple[str, ...], state: ClientState) -> ClientState:
    """Apply the user agent and channels of the callbacks before an authentication.

    Changes to their list of channels are applied to the current subscriptions, so that changes made
    by ``subscribe()`` and ``unsubscribe()`` persist.
    """
    kept = [name for name in state.channels if name in channels or name not in state.declared]
    added = [name for name in channels if name not in state.declared and name not in kept]
    return replace(
        state,
        settings=replace(state.settings, user_agent=user_agent),
        channels=(*kept, *added),
        declared=channels,
    )


def authenticate(state: ClientState) -> Transition:
    """Handle a new link: send the credentials before anything else."""
    settings = state.settings
    # The secret comes last: a trace shows only the beginning of a long frame.
    payload = {
        "supports": list(settings.supports),
        "channels": list(state.channels),
        "version": settings.version,
        "user_agent": settings.user_agent,
        "client_id": settings.client_id,
        "client_secret": settings.client_secret,
    }
    state = _enter(ClientStatus.AUTHENTICATING, state, downtime=None, rate_limited=False)
    return ({"event": "authenticate", "payload": payload},), state


def disconnect(reason: Disconnect, state: ClientState) -> Transition:
    """Handle the end of a link, or a failed attempt to connect."""
    closed = isinstance(reason, RemoteClose) and reason.code == AUTHENTICATION_FAILED
    if closed and state.status is ClientStatus.AUTHENTICATING and not state.rate_limited:
        state = replace(state, refusal=state.refusal or "the server closed with 4000")
    notify = Notify("system", "disconnected", (reason,))
    return (notify,), _enter(ClientStatus.OFFLINE, state)


def decide(reason: Disconnect, state: ClientState) -> tuple[Reconnect | Stop | None, ClientState]:
    """Return whether and when to reconnect; None leaves it to the backoff policy."""
    if state.refusal is not None:
        return Stop(), state
    if isinstance(reason, HandshakeFailed) or state.downtime is None:
        return None, state
    decision = Reconnect(delay=state.downtime) if state.settings.reconnects else None
    return decision, replace(state, downtime=None)


def refresh(state: ClientState) -> Transition:
    """Request the status of all games and players."""
    messages: list[Effect] = []
    if state.status is ClientStatus.ONLINE:
        if "players" in state.settings.supports:
            messages.append({"event": "players/status", "ref": str(uuid.uuid4())})
            state = replace(state, remote_players=state.remote_players.refresh())
        if "games" in state.settings.supports:
            messages.append({"event": "games/status", "ref": str(uuid.uuid4())})
            state = replace(state, games=state.games.refresh())
    return tuple(messages), state


# Events from the server.


def refuse(name: str, event: Event, state: ClientState) -> Transition:
    """Handle a failure that matches no pending request: it is late, or names no request."""
    reason, _ = failure_reason(event)
    state = replace(state, rate_limited=state.rate_limited or "rate limit" in reason)
    authenticating = state.status is ClientStatus.AUTHENTICATING
    if name == "authenticate" and authenticating and not state.rate_limited:
        return (), replace(state, refusal=reason or "no reason given")
    if name == "channels/subscribe":
        for channel in state.channels:
            if f"'{channel}'" in reason or f'"{channel}"' in reason:
                state = without_channel(channel, state)
    return (Notify("system", "refused", (name, reason)),), state


def without_channel(channel: str, state: ClientState) -> ClientState:
    """Return the state without the subscription to ``channel``."""
    return replace(state, channels=tuple(name for name in state.channels if name != channel))


ROUTER: Router = Router()
"""The handlers of all events that the server sends on its own."""


@ROUTER.on("authenticate")
def authenticated(event: Event, state: ClientState) -> Transition:
    if state.status is not ClientStatus.AUTHENTICATING:
        return (), state
    if event.get("status") != "success":
        raise DecodeError(f"status must be success or failure, not {event.get('status')!r:.100}")
    version = get_text(get_payload(event), "version", "")
    messages, state = refresh(_enter(ClientStatus.ONLINE, state))
    return (Notify("system", "authenticated", (version,)), *messages), state


@ROUTER.on("restart")
def restart(event: Event, state: ClientState) -> Transition:
    seconds = get_number(get_payload(event), "downtime")
    if seconds is None:
        raise DecodeError("downtime is missing")
    downtime = min(max(0.0, seconds), MAX_DOWNTIME)
    return (Notify("system", "restarting", (downtime,)),), replace(state, downtime=downtime)


@ROUTER.on("channels/broadcast")
def channel_broadcast(event: Event, state: ClientState) -> Transition:
    payload = get_payload(event)
    message = ChannelMessage(
        **get_texts(event, "channel", "message"),
        game=get_optional_text(payload, "game"),
        name=get_optional_text(payload, "name"),
    )
    return (Notify("channels", "message_broadcast", (message,)),), state


@ROUTER.on("players/sign-in")
@ROUTER.on("players/sign-out")
def player_signed_in_or_out(event: Event, state: ClientState) -> Transition:
    if event.get("status") == "success" and not event.get("payload"):
        return (), state  # the server confirms this client's own announcement
    payload = get_payload(event)
    game, name = get_text(payload, "game"), get_text(payload, "name")
    players = state.remote_players.entries.get(game, ())
    if event["event"] == "players/sign-out":
        callback = "player_signed_out"
        players = tuple(other for other in players if other != name)
    else:
        callback = "player_signed_in"
        if name not in players and len(players) < MAX_ENTRIES:
            players = (*players, name)
    state = replace(state, remote_players=state.remote_players.add(game, players))
    return (Notify("players", callback, (game, name)),), state


@ROUTER.on("players/status")
def players_status(event: Event, state: ClientState) -> Transition:
    if not event.get("payload"):
        return (), state  # no game is online
    payload = get_payload(event)
    game, players = get_text(payload, "game"), get_names(payload, "players")
    state = replace(state, remote_players=state.remote_players.add(game, players))
    return (Notify("players", "players_updated", (game, players)),), state


@ROUTER.on("tells/receive")
def tell_received(event: Event, state: ClientState) -> Transition:
    payload = get_payload(event)
    tell = Tell(
        **get_texts(event, "to_name", "message"),
        from_game=get_optional_text(payload, "from_game"),
        from_name=get_optional_text(payload, "from_name"),
        sent_at=get_text(payload, "sent_at", ""),
    )
    return (Notify("tells", "tell_received", (tell,)),), state


@ROUTER.on("games/connect")
def game_connected(event: Event, state: ClientState) -> Transition:
    name = get_text(get_payload(event), "game")
    games = state.games.add(name, state.games.entries.get(name, Game(game=name)))
    return (Notify("games", "game_connected", (name,)),), replace(state, games=games)


@ROUTER.on("games/disconnect")
def game_disconnected(event: Event, state: ClientState) -> Transition:
    name = get_text(get_payload(event), "game")
    state = replace(
        state, games=state.games.remove(name), remote_players=state.remote_players.remove(name)
    )
    return (Notify("games", "game_disconnected", (name,)),), state


@ROUTER.on("games/status")
def game_status(event: Event, state: ClientState) -> Transition:
    if not event.get("payload"):
        return (), state  # no game is online
    game = parse_game(get_payload(event))
    # The callback receives its own copy, which it may change.
    state = replace(state, games=state.games.add(game.game, copy_game(game)))
    return (Notify("games", "game_updated", (game,)),), state


@ROUTER.fallback
def unknown_event(event: Event, state: ClientState) -> Transition:
    return (Notify("system", "event_received", (event,)),), state
