"""The flag ``games``: which games there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ...errors import DecodeError
from ...routing import Router
from .fields import Payload, names, number, optional_text, payload_of, text
from .state import Notify, Pending, Send, Settle, State, Transition, ask, check_flag
from .values import Game

__all__ = ["answer", "fetch", "games", "refresh"]

FLAG = "games"

games: Router = Router(FLAG)


# What the client does.


def refresh(ref: str, state: State) -> Transition:
    """Ask which games there are."""
    return (Send("games/status", ref=ref),), replace(state, games=state.games.refreshed())


def fetch(game: str, ref: str, state: State) -> Transition:
    """Ask for one game.

    Raises:
        NotSupported, Offline: nobody can be asked.
    """
    check_flag(FLAG, state)
    return ask(ref, "games/status", {"game": game}, game, state)


# What the server does.


@games.on("connect")
def connected(event: Mapping[str, Any], state: State) -> Transition:
    """A game has come online; what it tells of itself comes with the next status."""
    name = text(payload_of(event), "game")
    known = state.games.with_entry(name, state.games.known.get(name, Game(game=name)))
    return (Notify(FLAG, "game_connected", (name,)),), replace(state, games=known)


@games.on("disconnect")
def disconnected(event: Mapping[str, Any], state: State) -> Transition:
    """A game has gone offline, and its players with it."""
    name = text(payload_of(event), "game")
    left = replace(
        state, games=state.games.without(name), remote_players=state.remote_players.without(name)
    )
    return (Notify(FLAG, "game_disconnected", (name,)),), left


@games.on("status")
def status(event: Mapping[str, Any], state: State) -> Transition:
    """One of the answers to a refresh."""
    game = _read(payload_of(event))
    known = state.games.with_entry(game.game, game)
    return (Notify(FLAG, "game_updated", (game,)),), replace(state, games=known)


def answer(ref: str, pending: Pending, event: Mapping[str, Any], state: State) -> Transition:
    """The answer of one game that was asked for."""
    effects, state = status(event, state)
    return (*effects, Settle(ref, _read(payload_of(event)))), state


def _read(payload: Payload) -> Game:
    # The server's own code calls it player_online_count.
    count = number(payload, "players_online_count")
    if count is None:
        count = number(payload, "player_online_count")
    connections = payload.get("connections") or []
    if not (isinstance(connections, list) and all(isinstance(one, dict) for one in connections)):
        raise DecodeError(f"connections is a list of objects, not {connections!r:.100}")
    return Game(
        game=text(payload, "game"),
        display_name=optional_text(payload, "display_name"),
        description=optional_text(payload, "description"),
        homepage_url=optional_text(payload, "homepage_url"),
        user_agent=optional_text(payload, "user_agent"),
        connections=tuple(connections),
        supports=names(payload, "supports"),
        channels=names(payload, "channels"),
        players_online_count=None if count is None else int(count),
    )
