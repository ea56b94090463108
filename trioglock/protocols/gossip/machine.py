"""The state machine of the whole client: every event, every loss, every refresh. No I/O.

:data:`.TRANSITIONS` is the table of its phases. What holds in every state: requests are pending
only while ONLINE; each is settled exactly once, by its answer, by a failure, or by the loss of the
link; nothing but ``authenticate`` is sent before ONLINE.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

from ...disconnect import Disconnect, HandshakeFailed, RemoteClose
from ...errors import DecodeError
from ...hooks import Reconnect, Stop
from ...routing import Router
from . import achievements, core, games, players, tells
from .errors import Offline, RequestFailed, SubscribeFailed, failure
from .state import (
    NOTHING,
    Effect,
    Notify,
    Pending,
    Settle,
    State,
    Transition,
    enter,
    without_pending,
)
from .values import Phase

__all__ = ["ROUTER", "decide", "disconnected", "forget", "name_of", "receive", "refresh"]

AUTHENTICATION_FAILED = 4000
"""The close code for it; the server also hangs up with it on those who send too fast."""

Answering: TypeAlias = Callable[[str, Pending, Mapping[str, Any], State], Transition]

ANSWERS: Mapping[str, Answering] = {
    "channels/subscribe": core.answer,
    "channels/unsubscribe": core.answer,
    "players/status": players.answer,
    "tells/send": tells.answer,
    "games/status": games.answer,
    "achievements/sync": achievements.answer_sync,
    "achievements/create": achievements.answer,
    "achievements/update": achievements.answer,
    "achievements/delete": achievements.answer_deleted,
}

ROUTER: Router = Router()
for _router in (core.core, players.players, tells.tells, games.games):
    ROUTER.include(_router)


@ROUTER.fallback
def unknown(event: Mapping[str, Any], state: State) -> Transition:
    """None of the protocol's events: the game may know it."""
    return (Notify("system", "event_received", (event,)),), state


def name_of(event: Any) -> str:
    """The name of an event; "" for a failure without one, as the server sends them.

    Raises:
        DecodeError: it is no event.
    """
    if not isinstance(event, dict):
        raise DecodeError(f"an event is an object, not {event!r:.100}")
    name = event.get("event")
    if name is None and event.get("status") == "failure":
        return ""
    if not isinstance(name, str) or not name:
        raise DecodeError(f"event is the name of one, not {name!r:.100}")
    return name


def receive(name: str, event: Mapping[str, Any], state: State) -> Transition:
    """An event has come.

    Raises:
        DecodeError: it is not what the protocol promises.
    """
    ref = event.get("ref")
    pending = state.pending.get(ref) if isinstance(ref, str) else None
    if pending is not None and isinstance(ref, str) and name in ("", pending.event):
        return _answered(ref, pending, event, without_pending(ref, state))
    if event.get("status") == "failure":
        return _refused(name, event, state)
    transition: Transition = ROUTER.find(name)(event, state)
    return transition


def _answered(ref: str, pending: Pending, event: Mapping[str, Any], state: State) -> Transition:
    if event.get("status") == "failure":
        error = failure(pending.event, *_error_of(event))
        if isinstance(error, SubscribeFailed):
            state = core.refused(pending.subject, state)
        return (Settle(ref, error=error),), state
    try:
        return ANSWERS[pending.event](ref, pending, event, state)
    except DecodeError as invalid:
        malformed = RequestFailed(pending.event, f"the answer is malformed: {invalid}")
        return (Settle(ref, error=malformed),), state


def _refused(name: str, event: Mapping[str, Any], state: State) -> Transition:
    """A failure that no request waits for: it was too late, or the server does not say of what."""
    error, _ = _error_of(event)
    state = replace(state, limited=state.limited or "rate limit" in error)
    authenticating = state.phase is Phase.AUTHENTICATING
    if name == "authenticate" and authenticating and not state.limited:
        return NOTHING, replace(state, refusal=error or "no reason given")
    if name == "channels/subscribe":
        for channel in state.channels:
            if f"'{channel}'" in error or f'"{channel}"' in error:
                state = core.refused(channel, state)
    return (Notify("system", "refused", (name, error)),), state


def _error_of(event: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    payload = event.get("payload")
    errors = payload.get("errors") if isinstance(payload, dict) else None
    errors = errors if isinstance(errors, dict) else {}
    error = event.get("error")
    if not isinstance(error, str):
        error = ", ".join(f"{field}: {what}" for field, what in errors.items()) or "it failed"
    return error, errors


def disconnected(reason: Disconnect, state: State) -> Transition:
    """The link has ended, or an attempt has failed: nothing that waits will be answered."""
    lost: list[Effect] = [
        Settle(ref, error=Offline(f"the link was lost before {pending.event!r} was answered"))
        for ref, pending in state.pending.items()
    ]
    closed = isinstance(reason, RemoteClose) and reason.code == AUTHENTICATION_FAILED
    if closed and state.phase is Phase.AUTHENTICATING and not state.limited:
        state = replace(state, refusal=state.refusal or "the server closed with 4000")
    notify = Notify("system", "disconnected", (reason,))
    return (*lost, notify), enter(Phase.OFFLINE, state, pending={})


def decide(reason: Disconnect, state: State) -> tuple[Reconnect | Stop | None, State]:
    """Whether and when to connect again; None follows the policy."""
    if state.refusal is not None:
        return Stop(), state
    if isinstance(reason, HandshakeFailed) or state.downtime is None:
        return None, state
    waited = replace(state, downtime=None)
    if not state.settings.reconnects:
        return None, waited
    return Reconnect(delay=state.downtime), waited


def refresh(new_ref: Callable[[], str], state: State, *, first: bool = False) -> Transition:
    """Ask for the status of all games and players, as far as the flags go.

    Args:
        new_ref: makes a fresh ``ref``.
        state: as it is.
        first: it is the first time on this link; then the achievements are asked for as well.
    """
    asks = [(players.FLAG, players.refresh), (games.FLAG, games.refresh)]
    if first:
        asks.append((achievements.FLAG, achievements.sync))
    effects: list[Effect] = []
    if state.phase is Phase.ONLINE:
        for flag, ask in asks:
            if flag in state.settings.supports:
                more, state = ask(new_ref(), state)
                effects.extend(more)
    return tuple(effects), state


def forget(ref: str, state: State) -> Transition:
    """Nobody waits for an answer any more."""
    return NOTHING, without_pending(ref, state)
