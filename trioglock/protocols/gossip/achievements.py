"""The flag ``achievements``: what players of our game can achieve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from ...errors import DecodeError
from .fields import Payload, number, optional_text, payload_of, text
from .state import NOTHING, Notify, Pending, Settle, State, Transition, ask, check_flag
from .values import Achievement

__all__ = ["answer", "answer_deleted", "answer_sync", "create", "delete", "sync", "update"]

FLAG = "achievements"

MAX_ACHIEVEMENTS = 10_000


def sync(ref: str, state: State) -> Transition:
    """Ask for all of them.

    Raises:
        NotSupported, Offline: nobody can be asked.
    """
    check_flag(FLAG, state)
    return ask(ref, "achievements/sync", None, "", state)


def create(achievement: Achievement, ref: str, state: State) -> Transition:
    """Add one; the network gives it its key.

    Raises:
        NotSupported, Offline: nobody can be asked.
    """
    check_flag(FLAG, state)
    payload = asdict(achievement)
    del payload["key"]
    return ask(ref, "achievements/create", payload, achievement.title, state)


def update(achievement: Achievement, ref: str, state: State) -> Transition:
    """Change the one with the same key.

    Raises:
        NotSupported, Offline: nobody can be asked.
    """
    check_flag(FLAG, state)
    return ask(ref, "achievements/update", asdict(achievement), achievement.key, state)


def delete(key: str, ref: str, state: State) -> Transition:
    """Remove one.

    Raises:
        NotSupported, Offline: nobody can be asked.
    """
    check_flag(FLAG, state)
    return ask(ref, "achievements/delete", {"key": key}, key, state)


def answer(ref: str, pending: Pending, event: Mapping[str, Any], state: State) -> Transition:
    """It was created or changed; this is what it is now."""
    return (Settle(ref, _read(payload_of(event))),), state


def answer_deleted(
    ref: str,
    pending: Pending,
    event: Mapping[str, Any],
    state: State,
) -> Transition:
    """It was removed."""
    return (Settle(ref),), state


def answer_sync(ref: str, pending: Pending, event: Mapping[str, Any], state: State) -> Transition:
    """One batch; ``total`` tells whether it is the last."""
    payload = payload_of(event)
    batch = payload.get("achievements")
    if not (isinstance(batch, list) and all(isinstance(one, dict) for one in batch)):
        raise DecodeError(f"achievements is a list of objects, not {batch!r:.100}")
    have = (*pending.achievements, *map(_read, batch))
    total = number(payload, "total")
    if batch and total is not None and len(have) < min(total, MAX_ACHIEVEMENTS):
        waiting = {**state.pending, ref: replace(pending, achievements=have)}
        return NOTHING, replace(state, pending=waiting)
    return (Notify(FLAG, "achievements_synced", (have,)), Settle(ref, have)), state


def _read(payload: Payload) -> Achievement:
    points, total = number(payload, "points"), number(payload, "total_progress")
    return Achievement(
        key=text(payload, "key"),
        title=optional_text(payload, "title"),
        description=optional_text(payload, "description"),
        points=int(points or 0),
        display=bool(payload.get("display", True)),
        partial_progress=bool(payload.get("partial_progress", False)),
        total_progress=None if total is None else int(total),
    )
