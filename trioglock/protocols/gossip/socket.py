"""The hooks: between a connection and the state machine."""

from __future__ import annotations

from typing import Any

from ...codecs import Codec
from ...connection import Connection
from ...disconnect import Disconnect
from ...hooks import ConnectionInfo, Reconnect, Reply, Stop
from ...routing import Emit, EventSocket
from . import core, machine
from .session import GossipSession
from .values import Phase

__all__ = ["GossipSocket"]


class GossipSocket(EventSocket[None]):
    """Tells the session what happens, and sends what it answers.

    Args:
        session: of the client.
        codec: for JSON.
    """

    def __init__(self, session: GossipSession, codec: Codec) -> None:
        # Answers are matched by the state machine: one request may have several.
        super().__init__(machine.ROUTER, codec=codec, key=machine.name_of, ref=lambda event: None)
        self._session = session

    def handle_connect(self, info: ConnectionInfo, state: None) -> tuple[Reply, None]:
        """Called for each link: authenticates."""
        assert isinstance(info.connection, Connection)
        self._session.attach(info.connection)
        messages = self._session.perform(core.connected(self._session.state))
        return Reply(*map(self.codec.encode, messages)), None

    def handle_send(self, message: Any, state: None) -> tuple[Any, None]:
        """Called for each event of the program's, when the send queue has room for it.

        Raises:
            Offline: at the call that sends: the link has ended meanwhile, and nothing may go over
                the next one before the server has let us in.
        """
        self._session.check_link()
        return self.codec.encode(message), None

    def handle_event(self, name: str, event: Any, state: None) -> tuple[Emit, None]:
        """Called for each event."""
        messages = self._session.perform(machine.receive(name, event, self._session.state))
        return Emit(*messages), None

    def handle_disconnect(
        self, reason: Disconnect, state: None
    ) -> tuple[Reconnect | Stop | None, None]:
        """Called when a link has ended, or an attempt has failed."""
        session = self._session
        session.perform(machine.disconnected(reason, session.state))
        decision, session.state = machine.decide(reason, session.state)
        return decision, None

    def terminate(self, reason: Disconnect, state: None) -> None:
        """Called at the end, also when nothing else was."""
        if self._session.state.phase is not Phase.OFFLINE:
            self._session.perform(machine.disconnected(reason, self._session.state))
