"""The results of channel hooks, and the reasons why a channel ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ..disconnect import Disconnect, HookError
from ..errors import TrioglockError
from ..gap import Gap

__all__ = [
    "Answer",
    "Broadcast",
    "ChannelResult",
    "EndReason",
    "JoinRefused",
    "Left",
    "Push",
    "Rejoined",
    "Stop",
]


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer the push that ``handle_in`` handles. A push is answered at most once.

    Args:
        status: ``"ok"``, ``"error"``, or another string.
        response: a JSON value, or ``bytes`` for a binary reply.
    """

    status: str
    response: Any = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Push:
    """Push an event to the client of this channel.

    Args:
        event: the name of the event.
        payload: a JSON value, or ``bytes`` for a binary message.
    """

    event: str
    payload: Any


@dataclass(frozen=True, slots=True)
class Broadcast:
    """Broadcast an event to all clients that have joined the topic, in every process.

    Args:
        event: the name of the event.
        payload: a JSON value, or ``bytes`` for a binary message.
        to_self: whether the client of this channel also receives it.
        keep: if the class has a history, whether the event is kept and has an id.
    """

    event: str
    payload: Any
    to_self: bool = True
    keep: bool = True


@dataclass(frozen=True, slots=True)
class Stop:
    """End the channel. The client receives ``phx_close``, and results after this one are ignored.

    Args:
        reason: any value for ``terminate``, which receives this object.
    """

    reason: Any = None


ChannelResult: TypeAlias = (
    Answer | Push | Broadcast | Stop | tuple[Answer | Push | Broadcast | Stop, ...] | None
)
"""The result of a hook: None for nothing, one result, or a tuple of them, applied in order."""


class JoinRefused(TrioglockError):
    """Raised in ``join`` to refuse a client.

    Args:
        response: the response for the client: a JSON value, usually ``{"reason": ...}``.
    """

    def __init__(self, response: Any) -> None:
        super().__init__(response)
        self.response: Any = response


@dataclass(frozen=True, slots=True)
class Left:
    """The client has left the topic."""


@dataclass(frozen=True, slots=True)
class Rejoined:
    """The client has joined the topic again on the same connection, without leaving it first."""


EndReason: TypeAlias = Left | Rejoined | Stop | Gap | HookError | Disconnect
"""The reason that ``terminate`` receives: :class:`Left`, :class:`Rejoined`, the :class:`Stop` of a
hook, the :class:`~trioglock.Gap` for which a channel with a history makes its client join again,
:class:`~trioglock.HookError` after an exception, or why the connection ended."""
