"""The port to a broker: how messages get from one hub to all hubs of the same name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias

from ..frames import Data
from .history import History
from .queue import Event

__all__ = ["Broker", "Deliver", "Line"]

Deliver: TypeAlias = Callable[[Event], None]
"""Takes what was published, and gaps; never waits, never raises."""


class Line(ABC):
    """One hub's way to its broker, while the hub is open."""

    history: History | None = None
    """The latest messages, if the broker keeps them."""

    @abstractmethod
    async def publish(self, channel: str, data: Data) -> None:
        """Hand a message to the broker, which hands it to every hub, this one included.

        Args:
            channel: where to; "" for everyone.
            data: text or binary.

        Raises:
            BrokerUnavailable: the broker did not take it in time.
            BrokerError: the broker does not want it.
        """


class Broker(ABC):
    """Where hubs of the same name meet. A value without a task: lines do the work."""

    @abstractmethod
    def open(self, name: str, deliver: Deliver) -> AbstractAsyncContextManager[Line]:
        """Connect a hub for the time of a block.

        Args:
            name: of the hub; it hears what is published under this name, and nothing else.
            deliver: told every message and every gap, in the trio thread.

        Raises:
            BrokerUnavailable: on entering the block, the broker was not reached in time.
            BrokerError: on entering the block, it does not let us in.
        """
