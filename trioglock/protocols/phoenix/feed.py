"""What arrives for one channel: its queue, its presence, and how it stands."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import trio

from ...errors import InvalidOption
from ...options import check_whole
from .errors import ChannelClosed, ChannelOverflow
from .message import Message
from .presence import Presence

__all__ = ["Feed", "Overflow", "Payload", "QueueOptions"]

Payload: TypeAlias = Any
"""What JSON can say, or bytes-like for a binary message."""

Overflow: TypeAlias = Literal["close", "drop_oldest", "drop_newest"]
"""What a full queue does; all channels share one connection, so none may hold it back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueOptions:
    """How much of a channel may wait to be taken; see :meth:`PhoenixSocket.join`."""

    max_queue: int | None = 10_000
    overflow: Overflow = "close"

    def __post_init__(self) -> None:
        check_whole("max_queue", self.max_queue, least=1)
        if self.overflow not in ("close", "drop_oldest", "drop_newest"):
            raise InvalidOption(
                f"overflow is 'close', 'drop_oldest' or 'drop_newest', not {self.overflow!r}"
            )


class Feed:
    """Filled by the wire, emptied by the program.

    Args:
        topic: for errors.
        payload: of every join, or a function that gives it.
        options: of the queue.
        presence: gets the messages that are its own.
    """

    def __init__(
        self,
        topic: str,
        payload: Payload | Callable[[], Payload | Awaitable[Payload]],
        options: QueueOptions,
        presence: Presence | None,
    ) -> None:
        self.items: deque[tuple[str, Any]] = deque()
        self.response: Any = None
        self.joins: int = 0
        self.dropped: int = 0
        self.ended: bool = False
        self.cause: Exception | None = None
        self.last_error: Exception | None = None
        """Why it is not joined for the time being."""
        self._topic = topic
        self._payload = payload
        self._options = options
        self._presence = presence
        self._decided = trio.Event()
        self._readers = trio.lowlevel.ParkingLot()

    # The program's side.

    async def wait_decided(self) -> Any:
        """Wait for the answer to the first join; raises if it was not let in."""
        await self._decided.wait()
        if not self.joins:
            raise self.cause or ChannelClosed(f"{self._topic!r} was left, or closed, before")
        return self.response

    async def wait(self) -> bool:
        """Wait until there is something to take, or False for the end."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self.items:
            if self.ended:
                return False
            await self._readers.park()
        return True

    # The wire's side: see Member.

    def ask_payload(self) -> Any:
        """The payload of the next join, or an awaitable of it."""
        return self._payload() if callable(self._payload) else self._payload

    def on_joined(self, response: Any) -> None:
        """The server has let it in."""
        self.response, self.last_error = response, None
        self.joins += 1
        self._decided.set()

    def on_interrupted(self, cause: Exception) -> None:
        """It is not joined for the time being."""
        self.last_error = cause

    def on_ended(self, cause: Exception | None) -> None:
        """Nothing more will come."""
        self.ended, self.cause = True, cause
        self._decided.set()
        self._readers.unpark_all()

    def on_message(self, message: Message, join_ref: str | None) -> Exception | None:
        """Queue a message; an error if there is no room and that is the end."""
        event, payload = message.event, message.payload
        if self._presence is not None and self._presence.receive(event, payload, join_ref):
            return None
        items = self.items
        limit = self._options.max_queue
        if limit is not None and len(items) >= limit:
            self.dropped += 1
            match self._options.overflow:
                case "close":
                    text = f"{limit} messages wait for {self._topic!r} to be read: it was left"
                    return ChannelOverflow(text)
                case "drop_newest":
                    return None
                case "drop_oldest":
                    items.popleft()
        items.append((event, payload))
        if self._readers:
            self._readers.unpark()
        return None
