"""The flag ``tells``: private messages between games."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ...errors import InvalidOption
from ...routing import Router
from .fields import optional_text, payload_of, text
from .state import Notify, Pending, Settle, State, Transition, ask, check_flag
from .values import Tell

__all__ = ["answer", "format_time", "send", "tells"]

FLAG = "tells"

tells: Router = Router(FLAG)


def format_time(when: datetime) -> str:
    """ISO 8601 in UTC, with Z and without a fraction, as the network wants it.

    Raises:
        InvalidOption: it has no time zone.
    """
    if not isinstance(when, datetime) or when.tzinfo is None:
        raise InvalidOption(f"sent_at is a datetime with a time zone, not {when!r}")
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def send(payload: Mapping[str, str], ref: str, state: State) -> Transition:
    """Say something to a player of another game.

    Raises:
        NotSupported, Offline: it cannot be said.
    """
    check_flag(FLAG, state)
    return ask(ref, "tells/send", payload, payload["to_game"], state)


@tells.on("receive")
def received(event: Mapping[str, Any], state: State) -> Transition:
    """A player of another game says something to one of ours."""
    payload = payload_of(event)
    tell = Tell(
        from_game=text(payload, "from_game"),
        from_name=text(payload, "from_name"),
        to_name=text(payload, "to_name"),
        sent_at=optional_text(payload, "sent_at"),
        message=text(payload, "message"),
    )
    return (Notify(FLAG, "tell_received", (tell,)),), state


def answer(ref: str, pending: Pending, event: Mapping[str, Any], state: State) -> Transition:
    """It has arrived."""
    return (Settle(ref),), state
