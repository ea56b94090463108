"""What a connection is that somebody else has opened: one link, and never another."""

from __future__ import annotations

from typing import Any

import trio

from ..connection import Connection
from ..disconnect import Disconnect
from ..errors import UsageError
from ..hooks import Reconnect, Stop
from ..transports import Link

__all__ = ["AcceptedConnection", "SingleLink"]


class SingleLink:
    """The route of a server's session: one link, that a client has opened, and never another."""

    __slots__ = ("_link",)

    final_error: Exception | None = None

    def __init__(self, link: Link) -> None:
        self._link = link

    async def open(self, nursery: trio.Nursery) -> Link:  # noqa: ARG002 - the seam's signature
        """See :meth:`LinkSource.open`."""
        await trio.lowlevel.checkpoint()
        return self._link

    def retries(self, reason: Disconnect) -> bool:  # noqa: ARG002 - the seam's signature
        """See :meth:`LinkSource.retries`."""
        return False

    def next_delay(
        self,
        reason: Disconnect,  # noqa: ARG002 - the seam's signature
        decision: Reconnect | Stop | None,  # noqa: ARG002
        lasted: float,  # noqa: ARG002
        *,
        immediate: bool,  # noqa: ARG002
    ) -> float | None:
        """See :meth:`LinkSource.next_delay`. It is for the client to dial again."""
        return None


class AcceptedConnection(Connection[Any]):
    """The connection over it, for hooks and handlers."""

    async def reconnect(self) -> None:
        """Nothing that a server can do.

        Raises:
            UsageError: always.
        """
        raise UsageError(
            "a server cannot reconnect: close the connection, and its client may dial again"
        )
