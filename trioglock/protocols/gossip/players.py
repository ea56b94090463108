"""The flag ``players``: who is online, here and elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ...routing import Router
from .fields import names, payload_of, text
from .roster import MAX_ENTRIES
from .state import (
    NOTHING,
    Effect,
    Notify,
    Pending,
    Send,
    Settle,
    State,
    Transition,
    ask,
    check_flag,
)
from .values import Phase

__all__ = ["answer", "fetch", "players", "refresh", "sign_in", "sign_out"]

FLAG = "players"

players: Router = Router(FLAG)


# What the client does.


def sign_in(name: str, state: State) -> Transition:
    """A player of ours has come online; the network is told, now or by the next heartbeat."""
    if name in state.players:
        return NOTHING, state
    return _told("players/sign-in", name, replace(state, players=(*state.players, name)))


def sign_out(name: str, state: State) -> Transition:
    """A player of ours has gone offline."""
    if name not in state.players:
        return NOTHING, state
    left = tuple(one for one in state.players if one != name)
    return _told("players/sign-out", name, replace(state, players=left))


def _told(event: str, name: str, state: State) -> Transition:
    if state.phase is not Phase.ONLINE or FLAG not in state.settings.supports:
        return NOTHING, state
    return (Send(event, {"name": name}),), state


def refresh(ref: str, state: State) -> Transition:
    """Ask who is online, everywhere."""
    state = replace(state, remote_players=state.remote_players.refreshed())
    return (Send("players/status", ref=ref),), state


def fetch(game: str, ref: str, state: State) -> Transition:
    """Ask who is online in one game.

    Raises:
        NotSupported, Offline: nobody can be asked.
    """
    check_flag(FLAG, state)
    return ask(ref, "players/status", {"game": game}, game, state)


# What the server does.


@players.on("sign-in")
def signed_in(event: Mapping[str, Any], state: State) -> Transition:
    """A player of another game has come online."""
    if _is_echo(event):
        return NOTHING, state
    payload = payload_of(event)
    game, name = text(payload, "game"), text(payload, "name")
    there = state.remote_players.known.get(game, ())
    if name not in there and len(there) < MAX_ENTRIES:
        there = (*there, name)
    known = state.remote_players.with_entry(game, there)
    return (Notify(FLAG, "player_signed_in", (game, name)),), replace(state, remote_players=known)


@players.on("sign-out")
def signed_out(event: Mapping[str, Any], state: State) -> Transition:
    """A player of another game has gone offline."""
    if _is_echo(event):
        return NOTHING, state
    payload = payload_of(event)
    game, name = text(payload, "game"), text(payload, "name")
    there = state.remote_players.known.get(game, ())
    left = tuple(one for one in there if one != name)
    known = state.remote_players.with_entry(game, left)
    return (Notify(FLAG, "player_signed_out", (game, name)),), replace(state, remote_players=known)


@players.on("status")
def status(event: Mapping[str, Any], state: State) -> Transition:
    """One of the answers to a refresh: all players of one game."""
    effects, _, state = _read(event, state)
    return effects, state


def answer(ref: str, pending: Pending, event: Mapping[str, Any], state: State) -> Transition:
    """The answer of one game that was asked for."""
    effects, there, state = _read(event, state)
    return (*effects, Settle(ref, there)), state


def _read(
    event: Mapping[str, Any], state: State
) -> tuple[tuple[Effect, ...], tuple[str, ...], State]:
    payload = payload_of(event)
    game, there = text(payload, "game"), names(payload, "players")
    known = state.remote_players.with_entry(game, there)
    effects = (Notify(FLAG, "players_updated", (game, there)),)
    return effects, there, replace(state, remote_players=known)


def _is_echo(event: Mapping[str, Any]) -> bool:
    """Whether it only confirms our own event."""
    return event.get("status") == "success" and not event.get("payload")
