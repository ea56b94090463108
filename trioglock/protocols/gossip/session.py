"""The session: the state of one client, who waits for what, and the way out to the link."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from typing import Any

import trio

from ...connection import Connection, Status
from ...errors import BadHookResult, ConnectionClosed
from ...routing import Requests
from . import machine
from .callbacks import Core
from .errors import Offline
from .notifications import Notifications
from .state import Heartbeat, Notify, Refresh, Send, Settle, State, Transition
from .values import Phase

__all__ = ["GossipSession", "new_ref"]

LOST = "the link was lost before it took the message"


def new_ref() -> str:
    """A fresh ``ref``."""
    return str(uuid.uuid4())


class GossipSession:
    """Carries out what the state machine asks for.

    Nothing but :meth:`perform` changes the state, and it never waits: hooks of the connection and
    calls of the program come one after the other.

    Args:
        state: the first one.
        core: asked for the players who are online.
        notifications: go to the callbacks.
    """

    def __init__(self, state: State, core: Core, notifications: Notifications) -> None:
        self.state: State = state
        self.requests: Requests = Requests()
        self.notifications: Notifications = notifications
        self._core = core
        self._connection: Connection[None] | None = None
        self._sends: set[trio.CancelScope] = set()
        self._changed = trio.Event()

    def perform(self, transition: Transition) -> list[dict[str, Any]]:
        """Take over a new state and do what came with it; the messages that are to be sent."""
        before = self.state.phase
        effects, self.state = transition
        messages: list[dict[str, Any]] = []
        for effect in effects:
            match effect:
                case Send():
                    messages.append(effect.to_message())
                case Heartbeat():
                    messages.append({"event": "heartbeat", "payload": {"players": self.players()}})
                case Refresh():
                    refresh = machine.refresh(new_ref, self.state, first=True)
                    messages.extend(self.perform(refresh))
                case Notify():
                    self.notifications.put(effect)
                case Settle():
                    self.requests.settle(effect.ref, effect.value, effect.error)
        if self.state.phase is not before:
            self._phase_changed()
        return messages

    def players(self) -> list[str]:
        """Our players who are online.

        Raises:
            BadHookResult: the callback did not give a list of names.
        """
        there = self._core.players()
        if there is None:
            return list(self.state.players)
        is_list = isinstance(there, Iterable) and not isinstance(there, str)
        if not is_list or not all(isinstance(name, str) for name in there):
            raise BadHookResult(
                f"{type(self._core).__name__}.players must return a list of names, not {there!r}"
            )
        return list(there)

    def _phase_changed(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
        if self.state.phase is Phase.OFFLINE:
            for scope in self._sends:
                scope.cancel()
            if self._connection is not None:
                # The next link must hear nothing before "authenticate".
                self._connection.discard_unsent()

    async def wait_until(self, condition: Callable[[State], bool]) -> None:
        """Wait for a change of the phase; returns at once if the condition holds."""
        while not condition(self.state):
            await self._changed.wait()

    # The link.

    @property
    def connection(self) -> Connection[None] | None:
        """The connection, once there is one; it stays the same over all links."""
        return self._connection

    def attach(self, connection: Connection[None]) -> None:
        """There is a connection now."""
        self._connection = connection

    async def send(self, messages: list[dict[str, Any]]) -> None:
        """Send messages over the present link, or not at all.

        Raises:
            Offline: it has ended.
        """
        if not messages:
            await trio.lowlevel.checkpoint()
            return
        connection = self.check_link()
        with trio.CancelScope() as scope:
            self._sends.add(scope)
            try:
                for message in messages:
                    await connection.send(message)
            except ConnectionClosed as closed:
                raise Offline(LOST) from closed
            finally:
                self._sends.discard(scope)
        if scope.cancelled_caught:
            raise Offline(LOST)

    def check_link(self) -> Connection[None]:
        """The connection, if its link is open.

        Raises:
            Offline: it is not, or there was none yet.
        """
        if self._connection is None or self._connection.status is not Status.OPEN:
            raise Offline(LOST)
        return self._connection
