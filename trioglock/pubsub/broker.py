"""The interface of brokers, which carry messages between all hubs with the same name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias

from ..frames import Data
from .history import History
from .message import Event

__all__ = ["Broker", "BrokerSession", "Deliver"]

Deliver: TypeAlias = Callable[[Event], None]
"""Receives each published message and each gap; neither blocks nor raises."""


class BrokerSession(ABC):
    """The session of one open hub with a broker."""

    history: History | None = None
    """The latest messages, if the broker keeps a history."""

    @abstractmethod
    async def publish(self, channel: str, data: Data) -> None:
        """Publish a message to every hub of the same name, including this one.

        Args:
            channel: name of the channel; ``""`` for a broadcast.
            data: text or binary.

        Raises:
            BrokerUnavailable: the broker did not accept the message in time.
            BrokerError: the broker returned an error.
        """


class Broker(ABC):
    """The configuration of a broker. It runs no tasks; its sessions do."""

    @abstractmethod
    def open(self, name: str, deliver: Deliver) -> AbstractAsyncContextManager[BrokerSession]:
        """Connect a hub for the duration of an ``async with`` block.

        Args:
            name: name of the hub. Only messages published under this name are delivered.
            deliver: called with every message and every gap, in the trio thread.

        Raises:
            BrokerUnavailable: on entry: the broker could not be reached in time.
            BrokerError: on entry: the broker returned an error, such as a wrong password.
        """
