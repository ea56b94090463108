"""The messages of the network as dataclasses, and the parsers of their JSON objects."""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeAlias

from ..._text import as_text, is_unicode
from ...errors import DecodeError, InvalidOption

__all__ = [
    "Achievement",
    "ChannelMessage",
    "Event",
    "Game",
    "Payload",
    "Tell",
    "check_channel",
    "check_event",
    "check_text",
    "copy_game",
    "event_name",
    "failure_reason",
    "format_time",
    "get_names",
    "get_number",
    "get_objects",
    "get_optional_text",
    "get_payload",
    "get_text",
    "get_texts",
    "parse_achievement",
    "parse_game",
]

Event: TypeAlias = Mapping[str, Any]
"""A decoded event: a JSON object."""
Payload: TypeAlias = Mapping[str, Any]
"""The payload of an event."""

_is_channel = re.compile(r"[A-Za-z_-]{3,15}").fullmatch


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelMessage:
    """A message on a channel.

    Args:
        channel: the name of the channel.
        game: the short name of the sender's game; None if the network does not name it.
        name: the player who sent it; None if the network does not name it.
        message: the text.
    """

    channel: str
    game: str | None
    name: str | None
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tell:
    """A private message from a player of another game.

    Args:
        from_game: the short name of the sender's game; None if the network does not name it.
        from_name: the player who sent it; None if the network does not name it.
        to_name: the player of this game who receives it.
        sent_at: the time in ISO 8601, as the sender's game wrote it; "" if it is missing.
        message: the text.
    """

    from_game: str | None
    from_name: str | None
    to_name: str
    sent_at: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Game:
    """A game on the network. Fields that the game does not publish are empty.

    Args:
        game: the short name, which identifies it.
        display_name: the name to show to players.
        description: a short description.
        homepage_url: its web page.
        user_agent: the name and version of its software.
        connections: the ways to play it, such as ``{"type": "telnet", "host": ..., "port": ...}``.
        supports: its flags.
        channels: the channels that it is subscribed to.
        players_online_count: the number of players who are signed in; None if unknown.
    """

    game: str
    display_name: str = ""
    description: str = ""
    homepage_url: str = ""
    user_agent: str = ""
    connections: tuple[dict[str, object], ...] = ()
    supports: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    players_online_count: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Achievement:
    """An achievement that players of this game can earn.

    Args:
        title: the name of the achievement.
        description: how to earn it.
        points: the number of points it is worth.
        display: whether it is shown before it is achieved.
        partial_progress: whether it is achieved in steps.
        total_progress: the number of steps; None without steps.
        key: the key assigned by the network; "" until it is created.
    """

    title: str
    description: str = ""
    points: int = 0
    display: bool = True
    partial_progress: bool = False
    total_progress: int | None = None
    key: str = ""


# Received events. Each function raises DecodeError if a field has the wrong type.


def event_name(event: Any) -> str:
    """Return the name of an event; "" for a failure without a name, which the server may send."""
    if not isinstance(event, dict):
        raise DecodeError(f"an event must be an object, not {event!r:.100}")
    name = event.get("event")
    if name is None and event.get("status") == "failure":
        return ""
    if not isinstance(name, str) or not name:
        raise DecodeError(f"event must be a name, not {name!r:.100}")
    return name


def failure_reason(event: Event) -> tuple[str, Mapping[str, Any]]:
    """Return the text of a failure, and the problems of each field."""
    payload = event.get("payload")
    errors = payload.get("errors") if isinstance(payload, dict) else None
    errors = errors if isinstance(errors, dict) else {}
    reason = event.get("error")
    if not isinstance(reason, str):
        reason = ", ".join(f"{name}: {what}" for name, what in errors.items()) or "no reason given"
    return reason, errors


def get_payload(event: Event) -> Payload:
    """Return the payload of an event; empty if it has none."""
    payload = event.get("payload")
    if payload is None:
        return {}
    if not isinstance(payload, dict):
        raise DecodeError(f"payload must be an object, not {payload!r:.100}")
    return payload


def get_text(payload: Payload, name: str, default: str | None = None) -> str:
    """Return a string; ``default`` if the string is missing and the default is not None."""
    value = payload.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise DecodeError(f"{name} must be a string, not {value!r:.100}")
    return value


def get_texts(event: Event, *names: str) -> dict[str, str]:
    """Return several strings of the payload of an event by name."""
    payload = get_payload(event)
    return {name: get_text(payload, name) for name in names}


def get_optional_text(payload: Payload, name: str) -> str | None:
    """Return a string; None if it is missing."""
    return None if payload.get(name) is None else get_text(payload, name)


def get_names(payload: Payload, name: str) -> tuple[str, ...]:
    """Return a list of strings; empty if it is missing."""
    value = payload.get(name)
    if value is None:
        return ()
    if not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
        raise DecodeError(f"{name} must be a list of strings, not {value!r:.100}")
    return tuple(value)


def get_objects(payload: Payload, name: str) -> list[dict[str, Any]]:
    """Return a list of objects; empty if it is missing."""
    value = payload.get(name) or []
    if not (isinstance(value, list) and all(isinstance(item, dict) for item in value)):
        raise DecodeError(f"{name} must be a list of objects, not {value!r:.100}")
    return value


def get_number(payload: Payload, name: str) -> int | float | None:
    """Return a number; None if it is missing."""
    value = payload.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DecodeError(f"{name} must be a number, not {value!r:.100}")
    return value


def parse_game(payload: Payload) -> Game:
    """Return the game that a ``games/status`` event describes."""
    # The server's implementation names the field player_online_count.
    count = get_number(payload, "players_online_count")
    if count is None:
        count = get_number(payload, "player_online_count")
    return Game(
        game=get_text(payload, "game"),
        display_name=get_text(payload, "display_name", ""),
        description=get_text(payload, "description", ""),
        homepage_url=get_text(payload, "homepage_url", ""),
        user_agent=get_text(payload, "user_agent", ""),
        connections=tuple(get_objects(payload, "connections")),
        supports=get_names(payload, "supports"),
        channels=get_names(payload, "channels"),
        players_online_count=None if count is None else int(count),
    )


def copy_game(game: Game) -> Game:
    """Return a copy whose dicts the caller may change."""
    return replace(game, connections=deepcopy(game.connections))


def parse_achievement(payload: Payload) -> Achievement:
    """Return the achievement in an answer."""
    total = get_number(payload, "total_progress")
    return Achievement(
        key=get_text(payload, "key"),
        title=get_text(payload, "title", ""),
        description=get_text(payload, "description", ""),
        points=int(get_number(payload, "points") or 0),
        display=bool(payload.get("display", True)),
        partial_progress=bool(payload.get("partial_progress", False)),
        total_progress=None if total is None else int(total),
    )


# Arguments of calls. Each function raises InvalidOption if the argument is invalid.


def check_channel(channel: object) -> str:
    """Return the name of a channel: 3 to 15 letters, ``_`` or ``-``."""
    if isinstance(channel, str) and _is_channel(channel):
        return as_text(channel)
    raise InvalidOption(f"a channel must be 3 to 15 letters, '_' or '-', not {channel!r}")


def check_text(name: str, text: object) -> str:
    """Return a non-empty string that can be sent."""
    # The value itself is not shown: client_secret is one of the arguments.
    if not isinstance(text, str) or not text:
        kind = "''" if text == "" else type(text).__name__
        raise InvalidOption(f"{name} must be a non-empty str, not {kind}")
    if not is_unicode(text):
        raise InvalidOption(f"{name} is not valid Unicode")
    return as_text(text)


def check_event(event: object) -> dict[str, Any]:
    """Return an event to send: a mapping that contains the name of the event."""
    name = event.get("event") if isinstance(event, Mapping) else None
    if not isinstance(event, Mapping) or not isinstance(name, str) or not name:
        raise InvalidOption(
            "an event must be a dict such as {'event': 'noun/verb', 'payload': {...}}, "
            f"not {event!r:.100}"
        )
    return dict(event)


def format_time(when: datetime) -> str:
    """Format a time in ISO 8601 as the network requires: UTC with a ``Z`` and no fraction."""
    if not isinstance(when, datetime) or when.tzinfo is None:
        raise InvalidOption(f"sent_at must be a datetime with a time zone, not {when!r}")
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
