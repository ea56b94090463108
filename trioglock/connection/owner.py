"""The owner: what a link's tasks know of the session that they work for."""

from __future__ import annotations

from typing import Protocol

from ..disconnect import HeartbeatTimeout
from ..frames import Close, Violation

__all__ = ["Owner"]


class Owner(Protocol):
    """Told what happens to a link, and decides what follows."""

    @property
    def is_open(self) -> bool:
        """Whether nobody has begun to close this link."""

    @property
    def has_peer_closed(self) -> bool:
        """Whether the peer's Close frame has come."""

    def closed_by_peer(self, frame: Close) -> None:
        """The peer has sent its Close frame."""

    def violated(self, violation: Violation) -> None:
        """The peer broke the protocol."""

    def crash(self, error: BaseException) -> None:
        """A function of the user's raised."""

    def write_broke(self) -> bool:
        """The stream takes nothing more; whether another link is to be expected."""

    def expired(self, timeout: HeartbeatTimeout) -> None:
        """The peer must be taken for dead."""
