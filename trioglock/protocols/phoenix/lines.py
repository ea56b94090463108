"""What callbacks send with: the machine on one side, a queue of effects on the other."""

from __future__ import annotations

from collections import deque
from typing import Any

import trio

from .effects import Effect, Send
from .errors import NotJoined
from .machine import Machine
from .message import JOIN, Message, check_event, check_topic
from .serializer import Serializer

__all__ = ["Lines"]


class Lines:
    """A :class:`ChannelTransport`; also remembers whom the numbers of the machine belong to.

    Args:
        machine: decides.
        serializer: says whether a payload can be sent.
        timeout: seconds for joins, pushes and leaves.
    """

    def __init__(self, machine: Machine, serializer: Serializer, timeout: float) -> None:
        self.effects: deque[Effect] = deque()
        """What is to be carried out when the callback has returned."""
        self.topics: dict[int, str] = {}
        """Of channels."""
        self.payloads: dict[int, Any] = {}
        """Of joins that have not been sent."""
        self.pushes: dict[int, tuple[str, str]] = {}
        """Topic and ref of those without an outcome."""
        self.leaves: dict[int, str] = {}
        """Topics of those without an answer."""
        self._machine = machine
        self._encode = serializer.encode
        self._timeout = timeout

    @property
    def connected(self) -> bool:
        """See :class:`ChannelTransport`."""
        return self._machine.connected

    def join(self, topic: str, payload: Any = None) -> None:
        """See :class:`ChannelTransport`."""
        check_topic(topic)
        payload = {} if payload is None else payload
        self._encode(Message("0", "0", topic, JOIN, payload))
        deadline = trio.current_time() + self._timeout
        channel, effects = self._machine.join(topic, self._timeout, deadline, offline=False)
        self.topics[channel], self.payloads[channel] = topic, payload
        self.effects.extend(effects)

    def leave(self, topic: str) -> None:
        """See :class:`ChannelTransport`."""
        deadline = trio.current_time() + self._timeout
        leave, effects = self._machine.leave(self._channel(topic), deadline)
        self.leaves[leave] = topic
        self.effects.extend(effects)

    def push(self, topic: str, event: str, payload: Any = None) -> str:
        """See :class:`ChannelTransport`."""
        check_event(event)
        payload = {} if payload is None else payload
        channel = self._channel(topic)
        self._encode(Message("0", "0", topic, event, payload))
        deadline = trio.current_time() + self._timeout
        push, effects = self._machine.push(channel, event, payload, deadline, buffered=False)
        [send] = effects
        assert isinstance(send, Send)
        assert send.message.ref is not None
        self.pushes[push] = (topic, send.message.ref)
        self.effects.append(send)
        return send.message.ref

    def _channel(self, topic: str) -> int:
        channel = self._machine.channel(topic)
        if channel is None:
            self._machine.check_connected(topic)
            raise NotJoined(f"{topic!r} is not joined")
        return channel

    def forget(self) -> None:
        """The connection is gone, and with it everything that was under way."""
        for table in (self.effects, self.topics, self.payloads, self.pushes, self.leaves):
            table.clear()
