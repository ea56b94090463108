"""The state of a client, and what its changes ask for: values, without any I/O.

Every function of the modules for one noun (core, players, tells, games, achievements) that
changes something is ``(..., state) -> (effects, state)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, TypeAlias

from .errors import NotSupported, Offline
from .roster import Roster
from .values import TRANSITIONS, Achievement, Game, Phase

__all__ = [
    "NOTHING",
    "Effect",
    "Heartbeat",
    "Notify",
    "Pending",
    "Refresh",
    "Send",
    "Settings",
    "Settle",
    "State",
    "Transition",
    "ask",
    "check_flag",
    "check_online",
    "enter",
    "without_pending",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a client tells of itself.

    Args:
        client_id: given by the network.
        client_secret: given by the network.
        supports: the flags.
        user_agent: the game's software.
        version: of the protocol.
        reconnects: whether a lost link is replaced.
    """

    client_id: str
    client_secret: str = field(repr=False)
    supports: tuple[str, ...] = ("channels",)
    user_agent: str = "trioglock"
    version: str = "2.3.0"
    reconnects: bool = True


@dataclass(frozen=True, slots=True)
class Pending:
    """A request that waits for its answer.

    Args:
        event: that was sent.
        subject: the channel, game or key that it is about.
        achievements: the batches that have come.
    """

    event: str
    subject: str = ""
    achievements: tuple[Achievement, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Everything that a client knows.

    Args:
        settings: what it tells of itself.
        phase: where it stands.
        channels: subscribed to, now or at the next authentication.
        players: ours, signed in.
        remote_players: of other games.
        games: the other games.
        pending: requests by their ref.
        downtime: seconds to wait after the next loss, as the server asked.
        refusal: why the server does not let us in; then it is over.
        limited: the server has complained of our rate on this link.
    """

    settings: Settings
    phase: Phase = Phase.OFFLINE
    channels: tuple[str, ...] = ()
    players: tuple[str, ...] = ()
    remote_players: Roster[tuple[str, ...]] = field(default_factory=Roster)
    games: Roster[Game] = field(default_factory=Roster)
    pending: Mapping[str, Pending] = field(default_factory=lambda: MappingProxyType({}))
    downtime: float | None = None
    refusal: str | None = None
    limited: bool = False


# Effects: what a change asks for.


@dataclass(frozen=True, slots=True)
class Send:
    """Send an event."""

    event: str
    payload: Mapping[str, Any] | None = None
    ref: str | None = None

    def to_message(self) -> dict[str, Any]:
        """What goes to the codec."""
        message: dict[str, Any] = {"event": self.event}
        if self.ref is not None:
            message["ref"] = self.ref
        if self.payload is not None:
            message["payload"] = self.payload
        return message


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Answer the server's heartbeat with the players who are online now."""


@dataclass(frozen=True, slots=True)
class Refresh:
    """The server has let us in: ask for the status of all games and players."""


@dataclass(frozen=True, slots=True)
class Notify:
    """Call a callback, if there is an object for its flag."""

    flag: str
    callback: str
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Settle:
    """Give the waiting call of ``ref`` its result, or its error."""

    ref: str
    value: Any = None
    error: Exception | None = None


Effect: TypeAlias = Send | Heartbeat | Refresh | Notify | Settle
Transition: TypeAlias = tuple[tuple[Effect, ...], State]

NOTHING: tuple[Effect, ...] = ()


def enter(phase: Phase, state: State, **changes: Any) -> State:
    """Go on to another phase, or stay, with whatever else changes."""
    assert phase is state.phase or phase in TRANSITIONS[state.phase]
    return replace(state, phase=phase, **changes)


def check_online(state: State) -> None:
    """Some calls need the server now.

    Raises:
        Offline: it is not there.
    """
    if state.phase is not Phase.ONLINE:
        raise Offline(f"the client is {state.phase.value}")


def check_flag(flag: str, state: State) -> None:
    """Some calls need a flag.

    Raises:
        NotSupported: it was not opted into.
    """
    if flag not in state.settings.supports:
        raise NotSupported(f"give connect() callbacks for {flag!r} to use it")


def ask(
    ref: str, event: str, payload: Mapping[str, Any] | None, subject: str, state: State
) -> Transition:
    """Send a request whose answer is waited for.

    Raises:
        Offline: there is nobody to ask.
    """
    check_online(state)
    pending = {**state.pending, ref: Pending(event, subject)}
    return (Send(event, payload, ref),), replace(state, pending=pending)


def without_pending(ref: str, state: State) -> State:
    """The request is answered, or nobody waits for it any more."""
    pending = {other: waiting for other, waiting in state.pending.items() if other != ref}
    return replace(state, pending=pending)
