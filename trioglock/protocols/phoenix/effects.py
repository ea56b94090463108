"""What the state machine asks of whoever drives it: plain values, carried out in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from .message import Message, PushReply

__all__ = [
    "AskPayload",
    "Deliver",
    "Effect",
    "Ended",
    "Interrupted",
    "Joined",
    "Resolve",
    "Send",
]


@dataclass(frozen=True, slots=True)
class Send:
    """Send ``message``. ``push`` is the push that it is, or None for one of the protocol's own."""

    message: Message
    push: int | None = None


@dataclass(frozen=True, slots=True)
class AskPayload:
    """The payload of a join is wanted: answer with ``Machine.payload``, now or later."""

    channel: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Joined:
    """The server has let ``channel`` in; ``again`` if it had been joined before."""

    channel: int
    response: Any
    again: bool


@dataclass(frozen=True, slots=True)
class Interrupted:
    """``channel`` is not joined for the time being; it will be joined again."""

    channel: int
    cause: Exception


@dataclass(frozen=True, slots=True)
class Ended:
    """``channel`` is over: nothing more comes from it. ``cause`` is None after a ``phx_close``."""

    channel: int
    cause: Exception | None
    payload: Any = None


@dataclass(frozen=True, slots=True)
class Deliver:
    """The server has pushed or broadcast ``message`` to ``channel``."""

    channel: int
    message: Message


@dataclass(frozen=True, slots=True)
class Resolve:
    """``push`` has its outcome, the only one: a reply, or why there will be none."""

    push: int
    outcome: PushReply | Exception


Effect: TypeAlias = Send | AskPayload | Joined | Interrupted | Ended | Deliver | Resolve
"""One of these."""
