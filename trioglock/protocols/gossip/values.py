"""What the network tells, as plain values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from ...errors import InvalidOption

__all__ = [
    "TRANSITIONS",
    "Achievement",
    "Game",
    "Message",
    "Phase",
    "Tell",
    "check_channel",
    "check_text",
]

_is_channel = re.compile(r"[A-Za-z_-]{3,15}").fullmatch


class Phase(Enum):
    """Where a client stands with the network; :data:`TRANSITIONS` is the table."""

    OFFLINE = "offline"
    """There is no link."""
    AUTHENTICATING = "authenticating"
    """There is one, and the server has not let us in yet."""
    ONLINE = "online"
    """The server knows us."""


TRANSITIONS: Mapping[Phase, Mapping[Phase, str]] = {
    Phase.OFFLINE: {Phase.AUTHENTICATING: "connected: authenticate"},
    Phase.AUTHENTICATING: {
        Phase.ONLINE: "authenticated",
        Phase.OFFLINE: "refused, or disconnected",
    },
    Phase.ONLINE: {Phase.OFFLINE: "disconnected"},
}
"""From each phase to those that may follow, and what leads there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What somebody said on a channel.

    Args:
        channel: where.
        game: from which game.
        name: the player's.
        message: the text.
    """

    channel: str
    game: str
    name: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tell:
    """What a player of another game said to one of ours.

    Args:
        from_game: the other game.
        from_name: its player.
        to_name: our player.
        sent_at: when, in ISO 8601, as the other game wrote it.
        message: the text.
    """

    from_game: str
    from_name: str
    to_name: str
    sent_at: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Game:
    """A game on the network; what it does not tell is empty.

    Args:
        game: its short name, by which it is asked for.
        display_name: for people.
        description: a few words.
        homepage_url: its web page.
        user_agent: the software it speaks with.
        connections: how to play it, such as ``{"type": "telnet", "host": ..., "port": ...}``.
        supports: the flags it opted into.
        channels: it listens to.
        players_online_count: how many players are signed in; None if unknown.
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
    """Something that players of our game can achieve.

    Args:
        title: its name.
        description: what for.
        points: its worth, as a number.
        display: whether others may see it before it is achieved.
        partial_progress: whether it is achieved in steps.
        total_progress: how many steps; None if it has none.
        key: the network's name for it; "" until it is created.
    """

    title: str
    description: str = ""
    points: int = 0
    display: bool = True
    partial_progress: bool = False
    total_progress: int | None = None
    key: str = ""


def check_channel(channel: object) -> str:
    """The name of a channel: 3 to 15 letters, ``_`` or ``-``.

    Raises:
        InvalidOption: it is none.
    """
    if isinstance(channel, str) and _is_channel(channel):
        return channel
    raise InvalidOption(f"a channel is 3 to 15 letters, '_' or '-', not {channel!r}")


def check_text(name: str, text: object) -> str:
    """A text that must not be empty.

    Raises:
        InvalidOption: it is none, or is empty.
    """
    if isinstance(text, str) and text:
        return text
    # Not what it is: one of them is a secret.
    raise InvalidOption(f"{name} is a str that is not empty, not {_kind(text)}")


def _kind(text: object) -> str:
    return "''" if text == "" else type(text).__name__
