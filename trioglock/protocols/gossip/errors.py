"""What can go wrong on the network.

::

    TrioglockError
    └── GossipError
        ├── AuthenticationFailed     yours: the server does not know client_id and client_secret
        ├── Offline                  the network's: not connected, or not authenticated yet
        ├── NotSubscribed            yours: send only to channels that you have subscribed to
        ├── NotSupported             yours: the flag was not opted into
        └── RequestFailed            the server said no; ``error`` is what it said
            ├── SubscribeFailed      no such channel can be
            ├── UnknownGame          no such game is online
            ├── RateLimited          too many events in too short a time
            └── TellFailed           the tell did not arrive
                ├── GameOffline
                ├── SenderOffline    the sending player is not signed in
                ├── ReceiverOffline  the receiving player is not signed in
                └── TellsNotSupported    the other game takes no tells

A request without an answer raises :class:`trioglock.routing.RequestTimeout`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..._redact import redact_line
from ...errors import TrioglockError

__all__ = [
    "AuthenticationFailed",
    "GameOffline",
    "GossipError",
    "NotSubscribed",
    "NotSupported",
    "Offline",
    "RateLimited",
    "ReceiverOffline",
    "RequestFailed",
    "SenderOffline",
    "SubscribeFailed",
    "TellFailed",
    "TellsNotSupported",
    "UnknownGame",
    "failure",
]


class GossipError(TrioglockError):
    """Base of everything below."""


class AuthenticationFailed(GossipError):
    """The server refused the credentials or the flags. Yours: correct them; it is final."""


class Offline(GossipError):
    """There is no link, or the server has not let us in yet. Nothing was done; try again later.

    Raised by requests that were waiting when the link was lost as well: then nobody can tell
    whether they were done.
    """


class NotSubscribed(GossipError):
    """A message for a channel that is not subscribed to. Yours: ``await subscribe()`` first."""


class NotSupported(GossipError):
    """A call of a flag that was not opted into. Yours: give ``connect()`` its callbacks."""


class RequestFailed(GossipError):
    """The server answered a request with a failure.

    Args:
        event: of the request.
        error: what the server said.
        errors: what was wrong with each field, where it told.
    """

    def __init__(self, event: str, error: str, errors: Mapping[str, Any] | None = None) -> None:
        super().__init__(event, error, errors)
        self.event = event
        self.error = error
        self.errors: Mapping[str, Any] = errors or {}

    def __str__(self) -> str:
        return redact_line(f"{self.event}: {self.error}")


class SubscribeFailed(RequestFailed):
    """The server does not have, or does not let us into, a channel of this name."""


class UnknownGame(RequestFailed):
    """No such game is online."""


class RateLimited(RequestFailed):
    """Too many events in too short a time. Go on more slowly, or the server hangs up."""


class TellFailed(RequestFailed):
    """The tell did not arrive."""


class GameOffline(TellFailed):
    """The other game is not online."""


class SenderOffline(TellFailed):
    """Our player is not signed in, as far as the server knows."""


class ReceiverOffline(TellFailed):
    """The other game's player is not signed in."""


class TellsNotSupported(TellFailed):
    """The other game takes no tells."""


_TELLS = {
    "game offline": GameOffline,
    "sending player offline": SenderOffline,
    "receiving player offline": ReceiverOffline,
    "not supported": TellsNotSupported,
}

_OTHERS = {
    "channels/subscribe": SubscribeFailed,
    "games/status": UnknownGame,
    "players/status": UnknownGame,
    "tells/send": TellFailed,
}


def failure(event: str, error: str, errors: Mapping[str, Any] | None = None) -> RequestFailed:
    """The error of the class that fits what the server said."""
    if error.startswith("rate limit exceeded"):
        return RateLimited(event, error, errors)
    if event == "tells/send" and error in _TELLS:
        return _TELLS[error](event, error, errors)
    return _OTHERS.get(event, RequestFailed)(event, error, errors)
