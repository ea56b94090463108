"""A game on the mock network."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

__all__ = ["FLAGS", "MockGossipGame", "is_channel"]

FLAGS = ("channels", "players", "tells", "games", "achievements")

_channel = re.compile(r"[A-Za-z_-]{3,15}")


def is_channel(name: str) -> bool:
    """Whether a channel may have this name: 3 to 15 letters, ``_`` or ``-``."""
    return _channel.fullmatch(name) is not None


@dataclass(kw_only=True)
class MockGossipGame:
    """A game that is, or seems to be, online.

    Args:
        name: its short name.
        players: who are signed in.
        supports: its flags.
        channels: it listens to.
        user_agent: its software.
        details: more of what ``games/status`` tells, such as ``homepage_url``.
    """

    name: str
    players: list[str] = field(default_factory=list)
    supports: list[str] = field(default_factory=lambda: list(FLAGS))
    channels: list[str] = field(default_factory=list)
    user_agent: str = "mock"
    details: dict[str, Any] = field(default_factory=dict)

    def to_payload(self) -> dict[str, Any]:
        """What ``games/status`` tells."""
        return {
            "game": self.name,
            "display_name": self.name,
            "description": "",
            "homepage_url": "",
            "user_agent": self.user_agent,
            "connections": [],
            "supports": self.supports,
            "channels": self.channels,
            "players_online_count": len(self.players),
            **self.details,
        }
