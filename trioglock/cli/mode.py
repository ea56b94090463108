"""Modes: how a conversation turns lines into messages, and messages into lines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._redact import redact_text
from ..connection import Connection
from ..errors import ConnectionClosed, TrioglockError
from ..frames import Data
from .options import FAILED
from .output import describe_end, end_code

__all__ = ["Command", "InvalidLine", "Mode"]


class InvalidLine(Exception):
    """A line cannot be sent or is not a valid command; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command of the prompt, such as ``/ping``.

    Args:
        usage: the arguments, as the help shows them.
        help: a description; the command is not listed if it is empty.
        run: called with the arguments as one string; may raise :class:`InvalidLine`.
    """

    usage: str
    help: str
    run: Callable[[str], Awaitable[None]]


class Mode(ABC):
    """How lines become messages, and messages lines, on one connection.

    Args:
        connection: an open connection.
    """

    def __init__(self, connection: Connection[Any]) -> None:
        self.connection: Connection[Any] = connection
        self.failed: bool = False
        """Whether an error was printed that must change the exit code."""

    @property
    def commands(self) -> Mapping[str, Command]:
        """Additional commands of the prompt, by name."""
        return {}

    @abstractmethod
    async def send(self, line: str) -> None:
        """Send a line.

        Raises:
            InvalidLine: the line cannot be sent.
            TrioglockError: the line cannot be sent now.
        """

    @abstractmethod
    async def receive(self) -> Sequence[Data]:
        """Wait for at least one message to print.

        Raises:
            ConnectionClosed: the connection has ended.
            TrioglockError: the conversation has ended; the connection may still be open.
        """

    async def drain(self) -> None:
        """Wait until every line has been sent.

        Raises:
            TrioglockError: a line cannot be sent.
        """
        await self.connection.flush()

    def describe_end(self, error: TrioglockError) -> tuple[int, str]:
        """Return the exit code and a description for an error of :meth:`receive`."""
        if not isinstance(error, ConnectionClosed):
            return FAILED, redact_text(str(error))
        code, text = end_code(error), describe_end(error)
        dropped = self.connection.statistics().dropped
        return (FAILED, f"{text}; {dropped} messages were dropped") if dropped else (code, text)
