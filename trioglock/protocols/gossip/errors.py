"""Errors of the Gossip client.

::

    TrioglockError
    └── GossipError
        ├── AuthenticationFailed     the server refused the credentials or the flags
        ├── Offline                  not connected, or not authenticated yet
        ├── NotSubscribed            your code: subscribe to the channel first
        ├── NotSupported             your code: pass the callbacks of the flag to connect()
        └── RequestRefused           the server answered with a failure; see ``reason``

A request without an answer raises :class:`trioglock.RequestTimeout`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..._redact import redact_line
from ...errors import RequestFailed, TrioglockError

__all__ = [
    "AuthenticationFailed",
    "GossipError",
    "NotSubscribed",
    "NotSupported",
    "Offline",
    "RequestRefused",
]


class GossipError(TrioglockError):
    """Base class of the errors of this package."""


class AuthenticationFailed(GossipError):
    """The server refused the credentials or the flags. The client does not reconnect."""


class Offline(GossipError):
    """The client is not connected, or not authenticated yet.

    Also raised by a request whose link is lost before the answer arrives. In that case the server
    may have executed the request.
    """


class NotSubscribed(GossipError):
    """A message for a channel without a subscription. Call ``subscribe()`` first."""


class NotSupported(GossipError):
    """A call for a flag that the game does not support. Pass its callbacks to ``connect()``."""


class RequestRefused(GossipError, RequestFailed):
    """The server answered a request with a failure.

    Args:
        event: the event that was sent, such as ``"tells/send"``.
        reason: the server's text, such as ``"game offline"``.
        errors: for achievements, the problems of each field.
        reply: the whole reply.
    """

    def __init__(
        self, event: str, reason: str, errors: Mapping[str, Any] | None = None, reply: Any = None
    ) -> None:
        super().__init__(event, reply, reason)
        self.event = event
        self.reason = reason
        self.errors: Mapping[str, Any] = errors or {}

    def __str__(self) -> str:
        return redact_line(f"{self.event}: {self.reason}")
