"""The flag ``channels``: authentication, heartbeat, restart, and what is said on channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ...errors import DecodeError
from ...routing import Router
from .errors import NotSubscribed
from .fields import number, optional_text, payload_of, text
from .state import (
    NOTHING,
    Heartbeat,
    Notify,
    Pending,
    Refresh,
    Send,
    Settle,
    State,
    Transition,
    ask,
    check_online,
    enter,
)
from .values import Message, Phase

__all__ = ["answer", "broadcast", "connected", "core", "subscribe", "unsubscribe"]

MAX_DOWNTIME = 86_400.0
"""Seconds that we let a server send us away at the most."""

core: Router = Router()


# What the client does.


def connected(state: State) -> Transition:
    """A link is up: authenticate, before anything else."""
    settings = state.settings
    # The secret is the last: a trace shows only the beginning of a long frame.
    payload = {
        "supports": list(settings.supports),
        "channels": list(state.channels),
        "version": settings.version,
        "user_agent": settings.user_agent,
        "client_id": settings.client_id,
        "client_secret": settings.client_secret,
    }
    fresh = enter(Phase.AUTHENTICATING, state, downtime=None, limited=False)
    return (Send("authenticate", payload),), fresh


def subscribe(channel: str, ref: str, state: State) -> Transition:
    """Listen to a channel: now, or from the next authentication on."""
    if channel not in state.channels:
        state = replace(state, channels=(*state.channels, channel))
    if state.phase is not Phase.ONLINE:
        return (Settle(ref),), state
    return ask(ref, "channels/subscribe", {"channel": channel}, channel, state)


def unsubscribe(channel: str, ref: str, state: State) -> Transition:
    """Listen to it no more."""
    state = _without_channel(channel, state)
    if state.phase is not Phase.ONLINE:
        return (Settle(ref),), state
    return ask(ref, "channels/unsubscribe", {"channel": channel}, channel, state)


def broadcast(channel: str, name: str, message: str, state: State) -> Transition:
    """Say something on a channel.

    Raises:
        NotSubscribed: not on one that we do not listen to.
        Offline: there is nobody to hear it.
    """
    if channel not in state.channels:
        raise NotSubscribed(f"subscribe to {channel!r} before sending to it")
    check_online(state)
    payload = {"channel": channel, "name": name, "message": message}
    return (Send("channels/send", payload),), state


# What the server does.


@core.on("authenticate")
def authenticated(event: Mapping[str, Any], state: State) -> Transition:
    """It lets us in."""
    if state.phase is not Phase.AUTHENTICATING:
        return NOTHING, state
    if event.get("status") != "success":
        raise DecodeError(f"status is 'success' or 'failure', not {event.get('status')!r:.100}")
    version = optional_text(payload_of(event), "version")
    online = enter(Phase.ONLINE, state)
    return (Notify("system", "authenticated", (version,)), Refresh()), online


@core.on("heartbeat")
def heartbeat(event: Mapping[str, Any], state: State) -> Transition:
    """It wants to know whether we live, and who is online. Three missed beats end the link."""
    return (NOTHING if state.phase is not Phase.ONLINE else (Heartbeat(),)), state


@core.on("restart")
def restart(event: Mapping[str, Any], state: State) -> Transition:
    """It will go away, and says for how long."""
    seconds = number(payload_of(event), "downtime")
    if seconds is None:
        raise DecodeError("downtime is a number of seconds; there is none")
    downtime = min(max(0.0, seconds), MAX_DOWNTIME)
    return (Notify("system", "restarting", (downtime,)),), replace(state, downtime=downtime)


@core.on("channels/broadcast")
def broadcasted(event: Mapping[str, Any], state: State) -> Transition:
    """Somebody said something."""
    payload = payload_of(event)
    message = Message(
        channel=text(payload, "channel"),
        game=text(payload, "game"),
        name=text(payload, "name"),
        message=text(payload, "message"),
    )
    return (Notify("core", "message_broadcast", (message,)),), state


def answer(ref: str, pending: Pending, event: Mapping[str, Any], state: State) -> Transition:
    """It did as we asked."""
    return (Settle(ref),), state


def refused(channel: str, state: State) -> State:
    """It did not let us into a channel: it is not asked for again."""
    return _without_channel(channel, state)


def _without_channel(channel: str, state: State) -> State:
    return replace(state, channels=tuple(one for one in state.channels if one != channel))
